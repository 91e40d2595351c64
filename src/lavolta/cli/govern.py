"""`lavolta govern`: serve texts while the governor turns the dial and, where it may, the clock."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import check_positive
from lavolta.cli.output import JsonOption, cell, plain, say, show, table
from lavolta.cli.simulate import USUAL_TOKENS, count_of, levels_of
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.devices import DeviceProfile
    from lavolta.runtime.engine import Model
    from lavolta.runtime.governor_loop import LiveGovernor, Served
    from lavolta.runtime.scenario import Scenario

_HOURS = {"h": 1.0, "m": 1 / 60, "min": 1 / 60, "s": 1 / 3600}
_NOISE = 0.2
HEAT_BAND_C = 15.0
"""How far below the limit of a profile the clock begins to fall."""


def govern(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `lavolta compress` wrote.")],
    deadline_ms: Annotated[float, typer.Option("--deadline-ms", help="Longest allowed time of one answer, in ms.")],
    until: Annotated[
        str | None, typer.Option("--until", help="How long the charge has to last, such as 8h or 90min; best score.")
    ] = None,
    reserve: Annotated[
        str | None, typer.Option("--reserve", help="Share of the charge to keep, such as 10%; best score until then.")
    ] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Use no level below this score.")] = None,
    mean_score: Annotated[
        float | None, typer.Option("--mean-score", help="Lowest energy with at least this score on average.")
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, help="Share by which a run may take longer than predicted.")
    ] = _NOISE,
    device: Annotated[
        str | None, typer.Option("--device", help="A device name or a .toml profile; absent: that of the bundle.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="A device in numbers: its time and battery, this computer's answers.")
    ] = False,
    period_ms: Annotated[
        float | None,
        typer.Option("--period-ms", help="Ask for a test text every so many ms; absent: a text a line from stdin."),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many test texts.")] = 100,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Tokens of one request; absent: as the bundle was made for.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of the engine.")] = 1,
    cluster: Annotated[
        list[str] | None,
        typer.Option("--cluster", help="A cluster of the device that may be used; repeat it. Absent: all of them."),
    ] = None,
    keep_clock: Annotated[bool, typer.Option("--keep-clock", help="Leave the clock to the system.")] = False,
    sysfs: Annotated[Path, typer.Option("--sysfs", help="Where the system shows its devices.")] = Path("/sys"),
    seed: Annotated[int, typer.Option("--seed", help="Of the simulated device's timing noise.")] = 0,
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
    from lavolta.devices import DEFAULT, Accounting, load
    from lavolta.runtime.engine import open_bundle
    from lavolta.runtime.governor import Goal
    from lavolta.runtime.scenario import Scenario

    goal = Goal(_hours(until), _share(reserve), min_score, mean_score, margin)
    with ExitStack() as opened_models:
        from lavolta.runtime.bundle import BundleFile

        opened = BundleFile.open(bundle)
        made_for = opened.manifest["device"]
        profile = load(device or str(made_for.get("name", DEFAULT)))
        if profile.thermal is not None:
            limit_c = profile.thermal.limit_c
            goal = replace(goal, warn_c=limit_c - HEAT_BAND_C, max_c=limit_c)
        length = tokens or count_of(made_for.get("tokens"), min(USUAL_TOKENS, opened.spec.max_tokens))
        names = _clusters(profile, cluster, simulate)
        scenario = Scenario(
            profile,
            levels_of(opened, length),
            deadline_ms,
            period_ms or deadline_ms,
            (min(threads, profile.cluster(names[0]).cores),),
            clusters=names,
            accounting=Accounting.BOARD,
            # The rhythm of texts on stdin is not known: it is learned.
            gap_ms=0.0 if period_ms is None else None,
        )

        def open_model(cores: Sequence[int] | None = None) -> Model:
            return opened_models.enter_context(open_bundle(bundle, threads=threads, cores=cores))

        if simulate:
            place = _simulated(scenario, goal, open_model(), length, seed)
        else:
            place = _here(
                scenario, goal, _models(scenario, cluster is not None, open_model), length, sysfs, not keep_clock
            )
        test = [index % opened.spec.vocab for index in range(length)]
        served = []
        try:
            for arrived_s, request in _requests(place, test, period_ms, requests):
                answer = place.governor.serve(request, arrived_s)
                served.append(answer)
                if lines:
                    print(json.dumps(plain({**answer.facts(), "output": answer.output})), flush=True)
                if place.over():
                    break
        finally:
            place.governor.close()
    data = {
        "bundle": bundle,
        "device": profile.name,
        "simulated": simulate,
        "deadline_ms": deadline_ms,
        "goal": goal,
        **_summary(served),
    }
    if as_json:
        data["answers"] = [{**answer.facts(), "output": answer.output} for answer in served]
    if lines:
        print(json.dumps(plain({"summary": data})), flush=True)
    else:
        show(as_json, data, lambda console: _draw(console, data, served))


@dataclass
class _Place:
    """Where requests are served: a real device or a simulated one."""

    governor: LiveGovernor
    now_s: Callable[[], float]
    wait_until: Callable[[float], None]
    over: Callable[[], bool]


def _simulated(scenario: Scenario, goal: Any, model: Any, tokens: int, seed: int) -> _Place:
    import numpy as np

    from lavolta.devices.cell import load_cell
    from lavolta.devices.sources import SimulatedDevice
    from lavolta.runtime.governor_engine import EngineRunner
    from lavolta.runtime.governor_loop import LiveGovernor
    from lavolta.runtime.governor_simulated import SimulatedRunner
    from lavolta.runtime.traffic import uniform_noise

    engine = EngineRunner(model, tokens)
    noise = uniform_noise(_NOISE, 997, np.random.default_rng(seed))
    device = SimulatedDevice(scenario.profile, load_cell())
    runner = SimulatedRunner(
        device,
        scenario.levels,
        scenario.threads[0],
        noise,
        # The answer is this computer's; how long it takes here does not matter to the device.
        compute=lambda request, level: engine(request, level, float("inf")).output,
    )
    governor = LiveGovernor(scenario, goal, runner, device, device, runner.now_s)
    return _Place(governor, runner.now_s, runner.wait_until, lambda: device.empty)


def _clusters(profile: DeviceProfile, wanted: list[str] | None, simulate: bool) -> tuple[str, ...]:
    """The clusters to choose among: those that were asked for, else all whose cores are known to be here."""
    if wanted:
        return tuple(wanted)
    names = profile.cluster_names
    here = os.sched_getaffinity(0)
    cpus = [profile.cluster(name).cpus for name in names]
    if simulate or all(known is not None and here.issuperset(known) for known in cpus):
        return names
    return names[:1]


def _models(scenario: Scenario, named: bool, open_model: Callable[[Sequence[int] | None], Model]) -> dict[str, Model]:
    """The model on the cores of each cluster; wherever the engine likes where there is only one and none was named."""
    clusters = scenario.used_clusters
    for cluster in clusters:
        if cluster.cpus is None and (named or len(clusters) > 1):
            raise UserInputError(
                f"the profile does not say which CPUs cluster {cluster.name} has; add `cpus` to it, or name no cluster."
            )
    pinned = named or len(clusters) > 1
    return {cluster.name: open_model(cluster.cpus if pinned else None) for cluster in clusters}


def _here(scenario: Scenario, goal: Any, models: dict[str, Model], tokens: int, sysfs: Path, set_clock: bool) -> _Place:
    from lavolta.devices import read_identity, require_same_cpu
    from lavolta.devices.sources import Checked, LinuxFrequencyControl, LinuxSource, cluster_cpus
    from lavolta.runtime.engine import instruction_sets
    from lavolta.runtime.governor_engine import EngineRunner
    from lavolta.runtime.governor_loop import LiveGovernor

    if scenario.profile.cpu is not None:
        # Profiles that were never measured anywhere are starting points: corrections are learned.
        require_same_cpu(scenario.profile, read_identity(instruction_sets()))
    clusters = cluster_cpus(scenario.profile)
    source = Checked(LinuxSource(sysfs, clusters=clusters))
    control = LinuxFrequencyControl(sysfs, clusters, allowed=set_clock)
    governor = LiveGovernor(scenario, goal, EngineRunner(models, tokens), source, control, time.monotonic)

    def wait_until(time_s: float) -> None:
        time.sleep(max(0.0, time_s - time.monotonic()))

    return _Place(governor, time.monotonic, wait_until, lambda: False)


def _requests(
    place: _Place, test: list[int], period_ms: float | None, count: int
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
    for number, line in enumerate(sys.stdin, 1):
        text = line.rstrip("\n")
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


def _hours(words: str | None) -> float | None:
    if words is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(h|min|m|s)\s*", words)
    if found is None:
        raise UserInputError(f"--until {words} is no time; write it as 8h, 90min or 45s.")
    return float(found[1]) * _HOURS[found[2]]


def _share(words: str | None) -> float | None:
    if words is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", words)
    if found is None:
        raise UserInputError(f"--reserve {words} is no share; write it as 10% or 0.1.")
    return float(found[1]) / (100 if found[2] else 1)


def _summary(served: list[Served]) -> dict[str, Any]:
    if not served:
        return {"requests": 0}
    last = served[-1]
    levels: dict[str, int] = {}
    for answer in served:
        levels[answer.level] = levels.get(answer.level, 0) + 1
    return {
        "requests": len(served),
        "misses": sum(not answer.in_time for answer in served),
        "cut_short": sum(not answer.kept_level for answer in served),
        "mean_score": fmean(answer.score for answer in served),
        "mean_run_ms": fmean(answer.run_ms for answer in served),
        "worst_response_ms": max(answer.response_ms for answer in served),
        "predicted_mj_per_answer": fmean(answer.energy_mj for answer in served),
        "levels": levels,
        "degree": last.degree,
        "charge_share": last.charge_share,
    }


def _draw(console: Console, data: dict[str, Any], served: list[Served]) -> None:
    rows = []
    for level, cluster in dict.fromkeys((answer.level, answer.cluster) for answer in served):
        these = [answer for answer in served if (answer.level, answer.cluster) == (level, cluster)]
        clocks = sorted({answer.freq_mhz for answer in these})
        span = f"{clocks[0]:g}" if len(clocks) == 1 else f"{clocks[0]:g} to {clocks[-1]:g}"
        rows.append(
            [
                level,
                cluster,
                span,
                cell(len(these)),
                cell(sum(answer.raised_mhz is not None for answer in these)),
                cell(sum(not answer.in_time for answer in these)),
                cell(fmean(answer.run_ms for answer in these), 1),
                cell(fmean(answer.p99_ms for answer in these), 1),
                cell(fmean(answer.energy_mj for answer in these), 1),
            ]
        )
    heads = ["level", "cluster", "MHz", "answers", "raised", "late", "mean ms", "predicted p99 ms", "predicted mJ"]
    where = "simulated" if data["simulated"] else "governed"
    table(console, f"{data['device']}, {where}: due after {data['deadline_ms']:g} ms", heads, rows, text_columns=3)
    if served:
        left = data["charge_share"]
        charge = "" if left is None else f", {100 * left:.1f} % of the charge left"
        say(console, f"Clock: {data['degree']}. Mean score {data['mean_score']:.3f}{charge}.")
