"""`lavolta simulate`: what one battery charge of a device gives under each policy."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import check_positive
from lavolta.cli.output import JsonOption, cell, say, show, table
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.runtime.bundle import BundleFile
    from lavolta.runtime.scenario import LevelWork, Scenario

BASELINE, OURS = "no-reconfiguration", "lavolta"
USUAL_TOKENS = 128
DAY_DEADLINES, DAY_SHORTEST_MS = 20.0, 10_000.0
"""Mean time between the requests of a day where none is given: so many deadlines, but at least this."""


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
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster",
            help="A cluster that ours may use; repeat it. The others take the first. Absent: all, default first.",
        ),
    ] = None,
    power: Annotated[Power, typer.Option("--power", help="Whose power the battery pays for.")] = Power.CPU,
    day: Annotated[
        bool, typer.Option("--day", help="A usual day of irregular requests, from --charge, with stock Linux beside.")
    ] = False,
    charge: Annotated[float, typer.Option("--charge", help="Share of a full battery at the start, 0 to 1.")] = 1.0,
    noise: Annotated[
        float, typer.Option("--noise", help="Run times of a day differ by up to this share from their prediction.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Of a day's requests and run times.")] = 0,
    report: Annotated[Path | None, typer.Option("--report", help="Write the comparison as a page, too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate one battery charge, or a day, of a device under several policies.

    Example: `lavolta simulate my.lavolta --device odroid-xu3-a7 --deadline-ms 700 --policy rt3 --policy lavolta`
    """
    check_positive("--deadline-ms", deadline_ms)
    if period_ms is not None:
        check_positive("--period-ms", period_ms)
    from lavolta.devices import DEFAULT, Accounting, load
    from lavolta.runtime.bundle import BundleFile
    from lavolta.runtime.policies import POLICIES, make_policy
    from lavolta.runtime.scenario import Scenario
    from lavolta.runtime.simulation import improvement
    from lavolta.runtime.simulation import simulate as simulate_policy

    if day and policy:
        raise UserInputError("--day compares all policies; leave --policy away.")
    opened = BundleFile.open(bundle)
    made_for = opened.manifest["device"]
    profile = load(device or str(made_for.get("name", DEFAULT)))
    scenario = Scenario(
        profile,
        levels_of(opened, tokens or count_of(made_for.get("tokens"), min(USUAL_TOKENS, opened.spec.max_tokens))),
        deadline_ms=deadline_ms,
        period_ms=period_ms or (max(DAY_DEADLINES * deadline_ms, DAY_SHORTEST_MS) if day else deadline_ms),
        threads=(threads or count_of(made_for.get("threads"), 1),),
        clusters=tuple(cluster or profile.cluster_names),
        accounting=Accounting(power.value),
    )
    if day:
        from lavolta.runtime.day import simulate_day, usual_day

        results = simulate_day(usual_day(scenario, noise, seed), noise, charge, seed)
    else:
        chosen = [make_policy(name, scenario) for name in dict.fromkeys(policy or POLICIES)]
        results = {each.name: simulate_policy(scenario, each, charge=charge) for each in chosen}
    gain = improvement(results[OURS], results[BASELINE]) if {OURS, BASELINE} <= results.keys() else None
    data = {
        "bundle": bundle,
        "device": profile.name,
        "clusters": [used.name for used in scenario.used_clusters],
        "deadline_ms": scenario.deadline_ms,
        "period_ms": scenario.period_ms,
        "power": scenario.accounting.words,
        "improvement": gain,
        "baseline": results[BASELINE].baseline if BASELINE in results else None,
        "policies": {name: result.as_dict() for name, result in results.items()},
    }
    if day:
        data.update({"day": True, "charge": charge, "noise": noise, "seed": seed})
    if report is not None:
        from lavolta.report import write_report

        write_report(_page(opened, scenario, data), report)
        data["report"] = report
    show(as_json, data, lambda console: _draw(console, data))


def count_of(value: object, usual: int) -> int:
    """A count that a manifest may hold."""
    return value if isinstance(value, int) and value > 0 else usual


def levels_of(bundle: BundleFile, tokens: int) -> tuple[LevelWork, ...]:
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


def _page(bundle: BundleFile, scenario: Scenario, data: dict[str, Any]) -> dict[str, Any]:
    """The comparison in the form of `docs/reference/result.md`."""
    from lavolta.devices import energy_mj, latency_ms

    cluster, threads = scenario.used_cluster, scenario.threads[0]
    top = cluster.max_mhz
    levels = []
    for level, work in zip(bundle.levels, scenario.levels, strict=True):
        time_ms = latency_ms(scenario.profile, work.work, top, threads, cluster=cluster.name)
        fidelity = level.get("fidelity")
        known = {} if fidelity is None else {"fidelity": fidelity}
        costs = {
            "freq_mhz": top,
            "device_latency_ms": time_ms,
            "device_energy_mj": energy_mj(scenario.profile, top, time_ms, threads, scenario.accounting, cluster.name),
        }
        levels.append({"name": level["name"], "sparsity": level["sparsity"], **costs, **known})
    faithful = all("fidelity" in level for level in levels)
    page = {
        "format": 1,
        "levels": levels,
        "model": {"name": bundle.spec.name},
        "device": {"name": scenario.profile.name, "title": scenario.profile.title, "power": data["power"]},
        "deadline_ms": scenario.deadline_ms,
        "period_ms": scenario.period_ms,
        "policies": {
            name: {
                "title": result["baseline"],
                "inferences": result["inferences"],
                "misses": result["deadline_misses"],
                "time_h": result["time_h"],
                "curve": result["curve"],
                "energy_by_level_mj": {k: v * 3600.0 for k, v in result["energy"]["by_level_mwh"].items()},
                "time_by_level_h": result["time_by_level_h"],
                "mean_fidelity": result["mean_score"] if faithful else None,
            }
            for name, result in data["policies"].items()
        },
        "our_policy": OURS if OURS in data["policies"] else "",
        "baseline_policy": BASELINE if BASELINE in data["policies"] else "",
        "improvement": data["improvement"],
        "baseline": data["baseline"],
    }
    if data.get("day"):
        page["span"] = f"a day from {100 * data['charge']:g} % of a charge"
        page["assumptions"] = [
            {"text": "the hours of the day and their requests are made up: quiet nights, three peaks"},
            {"text": f"run times differ by up to {100 * data['noise']:g} % from their prediction, uniformly"},
        ]
    return page


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
    if data.get("day"):
        rhythm = f"a request every {data['period_ms']:g} ms on average, due after {data['deadline_ms']:g} ms"
    title = f"One {'day' if data.get('day') else 'charge'} of {data['device']}: {rhythm}"
    heads = ["policy", "answers", "deadlines missed", "hours", "mean score", "level switches"]
    table(console, title, heads, rows)
    say(console, f"Power: {data['power']}.")
    if len(data["clusters"]) > 1:
        first, *others = data["clusters"]
        say(
            console,
            f"Ours chooses among the clusters {first}, {', '.join(others)}; the other policies stay on {first}.",
        )
    for result in data["policies"].values():
        say(console, f"{result['baseline']}.")
    if data["improvement"] is not None:
        per = "that day" if data.get("day") else "per charge"
        say(console, f"Answers in time {per}, {OURS} against {BASELINE}: {data['improvement']:.2f} times as many.")
