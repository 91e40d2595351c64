"""`lavolta simulate`: what one battery charge of a device gives under each policy."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import check_positive
from lavolta.cli.output import JsonOption, cell, say, show, table

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.runtime.bundle import BundleFile
    from lavolta.runtime.scenario import LevelWork

BASELINE, OURS = "no-reconfiguration", "lavolta"
USUAL_TOKENS = 128


class Power(str, Enum):
    """Whose power the battery pays for."""

    CPU = "cpu-only"
    BOARD = "whole-board"


def simulate(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `lavolta compress` wrote.")],
    deadline_ms: Annotated[float, typer.Option("--deadline-ms", help="Longest allowed time of one answer, in ms.")],
    device: Annotated[
        str | None, typer.Option("--device", help="A device name or a .toml profile; absent: that of the bundle.")
    ] = None,
    period_ms: Annotated[
        float | None, typer.Option("--period-ms", help="A request arrives every so many ms; the deadline when absent.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", help="no-reconfiguration, hardware-only, rt3 or lavolta; repeat it. Absent: all of them."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=1, help="Tokens of one request; absent: as the bundle was made for."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of the device; absent: as the bundle was made for.")
    ] = None,
    power: Annotated[Power, typer.Option("--power", help="Whose power the battery pays for.")] = Power.CPU,
    as_json: JsonOption = False,
) -> None:
    """Simulate one battery charge of a device under several policies.

    Example: `lavolta simulate my.lavolta --device odroid-xu3-a7 --deadline-ms 200 --policy rt3 --policy lavolta`
    """
    check_positive("--deadline-ms", deadline_ms)
    if period_ms is not None:
        check_positive("--period-ms", period_ms)
    from lavolta.devices import DEFAULT, Accounting, load
    from lavolta.runtime.bundle import BundleFile
    from lavolta.runtime.policies import POLICIES, make_policy
    from lavolta.runtime.scenario import Scenario
    from lavolta.runtime.simulation import compare, improvement

    opened = BundleFile.open(bundle)
    made_for = opened.manifest["device"]
    profile = load(device or str(made_for.get("name", DEFAULT)))
    scenario = Scenario(
        profile,
        _levels(opened, tokens or _count(made_for.get("tokens"), min(USUAL_TOKENS, opened.spec.max_tokens))),
        deadline_ms=deadline_ms,
        period_ms=deadline_ms if period_ms is None else period_ms,
        threads=(threads or _count(made_for.get("threads"), 1),),
        accounting=Accounting(power.value),
    )
    results = compare(scenario, [make_policy(name, scenario) for name in dict.fromkeys(policy or POLICIES)])
    gain = improvement(results[OURS], results[BASELINE]) if {OURS, BASELINE} <= results.keys() else None
    data = {
        "bundle": bundle,
        "device": profile.name,
        "deadline_ms": scenario.deadline_ms,
        "period_ms": scenario.period_ms,
        "power": scenario.accounting.words,
        "improvement": gain,
        "baseline": results[BASELINE].baseline if BASELINE in results else None,
        "policies": {name: result.as_dict() for name, result in results.items()},
    }
    show(as_json, data, lambda console: _draw(console, data))


def _count(value: object, usual: int) -> int:
    """A count that a manifest may hold."""
    return value if isinstance(value, int) and value > 0 else usual


def _levels(bundle: BundleFile, tokens: int) -> tuple[LevelWork, ...]:
    """The levels of a bundle with the work of one request."""
    from lavolta.runtime.packed_tensors import int8_linears
    from lavolta.runtime.scenario import LevelWork
    from lavolta.runtime.work import work_of

    int8 = int8_linears(bundle.manifest)
    return tuple(
        LevelWork(
            level["name"],
            work_of(bundle.spec, level["kept_cells"], bundle.cell_rows, tokens, int8),
            score=_score(level),
        )
        for level in bundle.levels
    )


def _score(level: dict[str, Any]) -> float:
    """How good a level is; without a measurement, denser counts as better."""
    for key in ("fidelity", "score"):
        if isinstance(level.get(key), (int, float)):
            return float(level[key])
    return 1.0 - float(level["sparsity"])


def _draw(console: Console, data: dict[str, Any]) -> None:
    rows = [
        [
            name,
            cell(result["inferences"]),
            cell(result["deadline_misses"]),
            cell(result["time_h"], 1),
            cell(result["mean_score"], 3),
            cell(result["level_switches"]),
        ]
        for name, result in data["policies"].items()
    ]
    rhythm = f"a request every {data['period_ms']:g} ms, due after {data['deadline_ms']:g} ms"
    title = f"One charge of {data['device']}: {rhythm}"
    heads = ["policy", "answers", "deadlines missed", "hours", "mean score", "level switches"]
    table(console, title, heads, rows)
    say(console, f"Power: {data['power']}.")
    for result in data["policies"].values():
        say(console, f"{result['baseline']}.")
    if data["improvement"] is not None:
        say(console, f"Answers in time per charge, {OURS} against {BASELINE}: {data['improvement']:.2f} times as many.")
