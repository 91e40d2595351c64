"""`lavolta govern`: serve texts while the governor turns the dial and, where it may, the clock."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli import governing
from lavolta.cli.compress import check_positive
from lavolta.cli.govern_totals import Totals
from lavolta.cli.output import JsonOption, cell, plain, say, show, table
from lavolta.cli.signals import orderly_end
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.runtime.governed import Governed
    from lavolta.runtime.governor_loop import Served


def govern(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `lavolta compress` wrote.")],
    deadline_ms: governing.Deadline,
    until: governing.Until = None,
    reserve: governing.Reserve = None,
    min_score: governing.MinScore = None,
    mean_score: governing.MeanScore = None,
    margin: governing.Margin = governing.MARGIN,
    device: governing.Device = None,
    simulate: governing.Simulate = False,
    period_ms: Annotated[
        float | None,
        typer.Option("--period-ms", help="Ask for a test text every so many ms; absent: a text a line from stdin."),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many test texts.")] = 100,
    tokens: governing.Tokens = None,
    threads: governing.Threads = 1,
    cluster: governing.Clusters = None,
    keep_clock: governing.KeepClock = False,
    sysfs: governing.Sysfs = Path("/sys"),
    seed: governing.Seed = 0,
    lines: Annotated[bool, typer.Option("--lines", help="Print a JSON object for every answer as it comes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve texts under the governor: lowest energy in time, or the best score that the charge allows.

    A line of stdin is a text, or a JSON object with `text`.

    Example: `lavolta govern my.lavolta --deadline-ms 2500 --until 8h --simulate --period-ms 3000`
    """
    check_positive("--deadline-ms", deadline_ms)
    if period_ms is not None:
        check_positive("--period-ms", period_ms)
    if lines and as_json:
        raise UserInputError("--lines and --json exclude one another; give one of them.")
    from lavolta.runtime import governed

    goal = governing.goal_of(until, reserve, min_score, mean_score, margin)
    scenario, goal, length = governing.scenario_of(
        bundle,
        device,
        deadline_ms,
        period_ms,
        tokens,
        threads,
        goal,
        cluster,
        simulate,
    )
    with orderly_end(), ExitStack() as opened:
        models = governing.models_of(bundle, scenario, threads, cluster is not None, simulate, opened)
        if simulate:
            place = governed.simulated(scenario, goal, models[""], length, seed=seed)
        else:
            place = governed.here(scenario, goal, models, length, sysfs, set_clock=not keep_clock)
        vocab = next(iter(models.values())).spec.vocab
        test = [index % vocab for index in range(length)]
        totals = Totals()
        answers: list[dict[str, Any]] = []
        told = governing.Told(goal, scenario)
        try:
            for arrived_s, request in _requests(place, test, period_ms, requests):
                answer = place.governor.serve(request, arrived_s)
                totals.add(answer)
                told(answer)
                if lines:
                    print(json.dumps(plain(_facts(answer))), flush=True)
                elif as_json:
                    answers.append(_facts(answer))
                if place.over():
                    break
                place.governor.prepare()
        finally:
            place.close()
    data = {
        "bundle": bundle,
        "device": scenario.profile.name,
        "simulated": simulate,
        "deadline_ms": deadline_ms,
        "goal": goal,
        **totals.summary(),
    }
    if as_json:
        data["answers"] = answers
    if lines:
        print(json.dumps(plain({"summary": data})), flush=True)
    else:
        show(as_json, data, lambda console: _draw(console, data, totals))


def _requests(
    place: Governed, test: list[int], period_ms: float | None, count: int
) -> Iterator[tuple[float, str | list[int]]]:
    """When each request came, and what it asks."""
    if period_ms is not None:
        start_s = place.now_s()
        for index in range(count):
            arrival_s = start_s + index * period_ms / 1e3
            place.wait_until(arrival_s)
            yield arrival_s, test
        return
    empty = True
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserInputError(
                f"line {number} of stdin is not UTF-8 text at byte {error.start}; convert it to UTF-8."
            ) from error
        if text.strip():
            empty = False
            yield place.now_s(), _text_of(text, number)
    if empty:
        raise UserInputError("there is no text; pipe in a text a line, or give --period-ms for a test load.")


def _text_of(line: str, number: int) -> str:
    if not line.lstrip().startswith("{"):
        return line
    try:
        text = json.loads(line)["text"]
    except (json.JSONDecodeError, KeyError, RecursionError) as error:
        raise UserInputError(f"line {number} of stdin is no JSON object with `text` ({error}); correct it.") from error
    if not isinstance(text, str):
        raise UserInputError(f"the `text` of line {number} of stdin is no string; correct it.")
    return text


def _facts(answer: Served) -> dict[str, Any]:
    return {**answer.facts(), "output": answer.output}


def _draw(console: Console, data: dict[str, Any], totals: Totals) -> None:
    rows = []
    for (level, cluster), group in totals.groups.items():
        low, high, count = group.low_mhz, group.high_mhz, group.answers
        rows.append(
            [
                level,
                cluster,
                f"{low:g}" if low == high else f"{low:g} to {high:g}",
                cell(count),
                cell(group.raised),
                cell(group.late),
                cell(group.run_ms / count, 1),
                cell(group.p99_ms / count, 1),
                cell(group.energy_mj / count, 1),
            ]
        )
    heads = ["level", "cluster", "MHz", "answers", "raised", "late", "mean ms", "predicted p99 ms", "predicted mJ"]
    where = "simulated" if data["simulated"] else "governed"
    table(console, f"{data['device']}, {where}: due after {data['deadline_ms']:g} ms", heads, rows, text_columns=3)
    if rows:
        left = data["charge_share"]
        charge = "" if left is None else f", {100 * left:.1f} % of the charge left"
        say(console, f"Clock: {data['degree']}. Mean score {data['mean_score']:.3f}{charge}.")
