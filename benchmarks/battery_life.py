"""Answers per battery charge and missed deadlines of every policy, on the Odroid-XU3 and every shipped phone chip.

``--json -`` prints one JSON object as the last line, ``--json FILE`` writes it; ``--quick`` takes one seed and small
charges; with ``--journal FILE`` a run that was ended goes on. docs/design/energy-and-battery.md defines every word;
`benchmarks/README.md` has the results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from battery_cases import BASELINE, DYNAMIC, NOISE, OURS, PAPER, TRAFFIC, Case, one_cluster, policies
from battery_journal import Kept
from battery_models import DENSE, subjects
from battery_tables import readme_part
from lavolta import devices
from lavolta.devices import Accounting
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_policy import GovernorPolicy
from lavolta.runtime.oracle import best_mean_score, most_inferences
from lavolta.runtime.policies import ModesPolicy, no_reconfiguration
from lavolta.runtime.simulation import SimulationResult, simulate
from lavolta.runtime.stock_policies import STOCK, Schedutil
from lavolta.runtime.unforeseen import most_inferences_unforeseen

ODROID = "odroid-xu3-a7"
BASELINE_WORDS = (
    "no reconfiguration: the dense fp32 model (cells of 16 rows, the fastest) on one thread at the highest clock (1400 "
    "MHz on the Odroid-XU3) for the whole charge, a request every deadline; the deadline is what this run needs by "
    "prediction (odroid_xu3_improvement), or what the slowest such run needs under the noise (everywhere else)"
)
INT8_BASELINE_WORDS = (
    "no reconfiguration with int8: the dense model with int8 weights (cells of 16 rows) in the place of the dense fp32 "
    "one, at the same clock and with the same requests and deadlines"
)


def run_case(
    device: str, subject_name: str, kind: str, seed: int, requests: int, accounting: Accounting
) -> dict[str, Any]:
    """All policies and the oracle on one case."""
    subject = subjects()[subject_name]
    case = Case(devices.load(device), subject, kind, seed, requests, accounting)
    oracle = most_inferences(case.scenario, case.noise, case.arrivals)
    known = oracle.inferences - oracle.misses
    # The oracle is a bound for everybody, and the tighter one where a plan may move between clusters for nothing.
    unforeseen = min(known, most_inferences_unforeseen(case.scenario, case.noise, case.arrivals).inferences)
    results = {name: case.run(make()) for name, make in policies(case, seed).items()}
    fixed = _best_in_hindsight(case, oracle.misses)
    ours, base = results[OURS], results[BASELINE]
    # Only who misses no more than has to be missed competes; changing the level is what `rt3` and ours do.
    fair = {name: r.on_time for name, r in results.items() if r.deadline_misses <= oracle.misses}
    keeping = {name: n for name, n in fair.items() if name not in (OURS, "rt3", "rt3+margin")}
    best = max(keeping, key=lambda name: keeping[name]) if keeping else None
    dense_best = max((n for name, n in keeping.items() if name == BASELINE or f":{DENSE}" in name), default=None)
    others = [n for name, n in fair.items() if name != OURS]
    home = case.scenario.used_cluster.name
    at_home = [n for name, n in keeping.items() if " on " not in name or name.endswith(f" on {home}")]
    alone = {name: r.on_time for name, r in one_cluster(case).items() if r.deadline_misses <= oracle.misses}
    as_int8 = replace(case.scenario, levels=(subject.dense_int8,))
    dense_int8 = case.run(no_reconfiguration(as_int8), scenario=as_int8)
    unraised = case.run(GovernorPolicy(case.scenario, Goal(margin=NOISE), raises=False))
    stress = case.run(GovernorPolicy(case.scenario, Goal(margin=NOISE)), stress=True)
    return {
        "policies": {
            name: [round(r.inferences * case.full_share), r.deadline_misses, round(r.mean_score or 0.0, 4)]
            for name, r in results.items()
        },
        "requests_simulated": ours.inferences,
        "misses_ours": ours.deadline_misses,
        "misses_unavoidable": oracle.misses,
        "misses_ours_lognormal_share": round(stress.deadline_misses / stress.inferences, 5),
        # All answers of the baseline count, the late ones too: its misses are no gain of ours.
        "vs_no_reconfiguration": _ratio(ours.on_time, base.inferences),
        "vs_no_reconfiguration_int8": _ratio(ours.on_time, dense_int8.inferences),
        "vs_dense_best_clock": _ratio(ours.on_time, dense_best),
        "vs_best_non_reconfiguring": _ratio(ours.on_time, keeping[best] if best else None),
        "best_non_reconfiguring": best,
        "vs_best_non_reconfiguring_on_the_default_cluster": (
            _ratio(alone[home], max(at_home, default=None)) if home in alone else None
        ),
        "oracle_vs_best_non_reconfiguring": _ratio(known, keeping[best] if best else None),
        "vs_best_of_the_others": _ratio(ours.on_time, max(others, default=None)),
        "vs_best_fixed_choice_in_hindsight": _ratio(ours.on_time, fixed.on_time if fixed else None),
        "vs_ours_on_the_default_cluster": _ratio(ours.on_time, alone.get(home)),
        "vs_ours_on_the_best_single_cluster": _ratio(ours.on_time, max(alone.values(), default=None)),
        "vs_ours_without_raising": _ratio(ours.on_time, unraised.on_time),
        "oracle_gap": round(1 - ours.on_time / known, 4),
        "oracle_gap_without_raising": round(1 - unraised.on_time / known, 4),
        "oracle_gap_of_foresight": round(1 - unforeseen / known, 4),
        "oracle_gap_without_foresight_with_free_changes": _gap_with_free_changes(case),
        "oracle_gap_without_foresight": round(1 - ours.on_time / unforeseen, 4),
    }


def _ratio(ours: int, other: int | None) -> float | None:
    return round(ours / other, 4) if other else None


def _gap_with_free_changes(case: Case) -> float:
    """The gap to the bound without foresight on a device whose changes of clock, level and cluster cost nothing."""
    profile = case.scenario.profile
    costs = dict.fromkeys(
        (f"{what}_{unit}" for what in ("frequency", "level", "cluster") for unit in ("us", "uj")), 0.0
    )
    free = replace(
        case.scenario, profile=profile.model_copy(update={"switching": profile.switching.model_copy(update=costs)})
    )
    oracle = most_inferences(free, case.noise, case.arrivals)
    unforeseen = most_inferences_unforeseen(free, case.noise, case.arrivals).inferences
    ours = case.run(GovernorPolicy(free, Goal(margin=NOISE)), scenario=free)
    return round(1 - ours.on_time / min(oracle.inferences - oracle.misses, unforeseen), 4)


def _best_in_hindsight(case: Case, misses: int) -> SimulationResult | None:
    """The one clock and level that, kept for the whole charge, gives most answers: known only afterwards."""
    options = sorted(
        (o for o in case.scenario.options.values() if o.choice.level == case.subject.sparsest),
        key=case.scenario.period_fj,
    )
    for option in options:
        choice = option.choice
        words = f"{choice.freq_mhz:g} MHz on {choice.cluster} and level {choice.level}, chosen in hindsight"
        result = case.run(ModesPolicy("hindsight", words, (option.choice,)))
        if result.deadline_misses <= misses:
            return result
    return None


def run_mission(device: str, subject_name: str, seed: int, requests: int) -> dict[str, Any]:
    """A charge that has to last a wanted time, halfway (geometric) between what the densest and the sparsest give."""
    subject = subjects()[subject_name]
    case = Case(devices.load(device), subject, "periodic", seed, requests, Accounting.CPU)
    scenario = case.scenario
    shortest = case.run(no_reconfiguration(scenario, DENSE)).time_h
    longest = case.run(GovernorPolicy(scenario, Goal(margin=NOISE))).time_h
    until_h = (shortest * longest) ** 0.5
    ours = case.run(GovernorPolicy(scenario, Goal(margin=NOISE, until_h=until_h)))
    bound = best_mean_score(scenario, until_h, case.noise)
    lasting = [
        case.run(Schedutil(scenario, level.name, cluster=cluster))
        for level, cluster in itertools.product(subject.levels, scenario.clusters)
    ]
    scores = [r.mean_score or 0.0 for r in lasting if r.time_h >= until_h and not r.deadline_misses]
    before = sum(arrival < until_h * 3.6e6 for arrival in traffic.periodic(scenario.period_ms, ours.inferences))
    # Only answers before the wanted end count; afterwards the plan is free to spend what is left.
    inside = simulate(
        scenario,
        GovernorPolicy(scenario, Goal(margin=NOISE, until_h=until_h)),
        arrivals_ms=traffic.periodic(scenario.period_ms, before),
        slowdowns=case.noise,
    )
    worst = min(level.score for level in subject.levels)
    return {
        "until_h": round(until_h, 5),
        "lasted": ours.time_h >= until_h,
        "misses_ours": ours.deadline_misses,
        "mean_score": round(inside.mean_score or 0.0, 5),
        "mean_score_best_level_with_schedutil": round(max(scores), 5) if scores else None,
        "mean_score_oracle": round(bound, 5),
        "oracle_gap": round(1 - (inside.mean_score or 0.0) / bound, 4),
        # The same of what lies above the sparsest level, which everybody reaches.
        "oracle_gap_above_sparsest": round((bound - (inside.mean_score or 0.0)) / (bound - worst), 4),
    }


def run_same_score(device: str, subject_name: str, seed: int, requests: int) -> dict[str, float | None]:
    """Per level: answers in time, ours with at least its score on average, over its best stock governor's."""
    subject = subjects()[subject_name]
    case = Case(devices.load(device), subject, "periodic", seed, requests, Accounting.CPU)
    found: dict[str, float | None] = {}
    for level in subject.levels:
        stock = [
            case.run(kind(case.scenario, level.name, cluster=cluster))
            for kind, cluster in itertools.product(STOCK, case.scenario.clusters)
        ]
        best = max((r.on_time for r in stock if not r.deadline_misses), default=None)
        ours = case.run(GovernorPolicy(case.scenario, Goal(margin=NOISE, mean_score=level.score)))
        if ours.deadline_misses or (ours.mean_score or 0.0) < level.score - 1e-9:
            raise RuntimeError(f"ours missed a deadline or the score of {level.name} on {device}")
        found[level.name] = _ratio(ours.on_time, best)
    return found


def _mean(cases: list[dict[str, Any]], key: str) -> float | None:
    values = [case[key] for case in cases if case[key] is not None]
    return round(statistics.fmean(values), 4) if values else None


def _combine(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Seeds of one case: means of ratios, sums of misses, the spread of the main ratio."""
    ratios = [key for key in cases[0] if key.startswith(("vs_", "oracle_")) or key == "misses_ours_lognormal_share"]
    combined: dict[str, Any] = {key: _mean(cases, key) for key in ratios}
    first = [case["vs_no_reconfiguration"] for case in cases if case["vs_no_reconfiguration"] is not None]
    combined["spread"] = round(max(first) - min(first), 4) if first else None
    for key in ("misses_ours", "misses_unavoidable", "requests_simulated"):
        combined[key] = sum(case[key] for case in cases)
    combined["best_non_reconfiguring"] = cases[0]["best_non_reconfiguring"]
    combined["inferences_misses_score"] = cases[0]["policies"]
    return combined


def requests_of(device: str, quick: bool) -> int:
    """Dense runs that a charge is large enough for."""
    if quick:
        return 60
    return 150 if device.startswith("odroid") else 100


def jobs(names: list[str], quick: bool) -> list[tuple[str, str, str, int, int, Accounting]]:
    """Every case. On the Odroid all models and three seeds; on a phone chip one seed, the demo alone in all traffic."""
    found = []
    for device in names:
        thorough = device.startswith("odroid")
        requests = requests_of(device, quick)
        models = list(subjects()) if thorough else ["demo", "demo-fp32", "stsb", "wikitext2"]
        for model in models:
            for kind in (*TRAFFIC, PAPER) if thorough else TRAFFIC:
                if not thorough and model != "demo" and kind != "periodic":
                    continue
                if quick and model != "demo" and kind not in ("periodic", PAPER):
                    continue
                for seed in range(3 if thorough and not quick else 1):
                    found.append((device, model, kind, seed, requests, Accounting.CPU))
            if thorough:
                found.append((device, model, DYNAMIC, 0, requests, Accounting.CPU))
        found.append((device, "demo", "periodic", 0, requests, Accounting.BOARD))
    return found


def summarize(by_device: dict[str, Any], missions: dict[str, Any]) -> dict[str, Any]:
    """The keys that are quoted."""
    chips = [name for name in by_device if not name.startswith("odroid")]
    odroid = by_device[ODROID]

    def median(key: str, kind: str = "periodic", model: str = "demo") -> float | None:
        values = [by_device[name][model][kind][key] for name in chips]
        known = [value for value in values if value is not None]
        return round(statistics.median(known), 4) if known else None

    every = [case for models in by_device.values() for kinds in models.values() for case in kinds.values()]
    gaps = [case["oracle_gap"] for case in every]
    return {
        "odroid_xu3_improvement": odroid["demo"][PAPER]["vs_no_reconfiguration"],
        "odroid_xu3_improvement_by_model": {
            model: kinds[PAPER]["vs_no_reconfiguration"] for model, kinds in odroid.items()
        },
        "odroid_xu3_improvement_dynamic_power_by_model": {
            model: kinds[DYNAMIC]["vs_no_reconfiguration"] for model, kinds in odroid.items()
        },
        "odroid_xu3_improvement_with_room_for_noise_by_model": {
            model: kinds["periodic"]["vs_no_reconfiguration"] for model, kinds in odroid.items()
        },
        "odroid_xu3_improvement_over_dense_int8_by_model": {
            model: kinds[PAPER]["vs_no_reconfiguration_int8"] for model, kinds in odroid.items()
        },
        "median_soc_vs_best_non_reconfiguring": median("vs_best_non_reconfiguring"),
        "median_soc_oracle_vs_best_non_reconfiguring": median("oracle_vs_best_non_reconfiguring"),
        "median_soc_vs_best_non_reconfiguring_by_traffic": {
            kind: median("vs_best_non_reconfiguring", kind) for kind in TRAFFIC
        },
        "median_soc_vs_dense_best_clock": median("vs_dense_best_clock"),
        "median_soc_vs_best_fixed_choice_in_hindsight_by_traffic": {
            kind: median("vs_best_fixed_choice_in_hindsight", kind) for kind in TRAFFIC
        },
        "median_soc_vs_best_non_reconfiguring_whole_board": median(
            "vs_best_non_reconfiguring", "periodic, whole board"
        ),
        "misses_ours": sum(case["misses_ours"] for case in every) + sum(m["misses_ours"] for m in missions.values()),
        "misses_unavoidable": sum(case["misses_unavoidable"] for case in every),
        "requests_simulated": sum(case["requests_simulated"] for case in every),
        "oracle_gap": round(statistics.median(gaps), 4),
        "oracle_gap_worst": max(gaps),
        "oracle_gaps_above_5_percent": sum(gap > 0.05 for gap in gaps),
        "oracle_gaps": len(gaps),
        "oracle_gap_without_foresight": round(statistics.median(c["oracle_gap_without_foresight"] for c in every), 4),
        "oracle_gap_without_foresight_worst": max(c["oracle_gap_without_foresight"] for c in every),
        "oracle_gap_without_foresight_with_free_changes_worst_periodic": max(
            case["oracle_gap_without_foresight_with_free_changes"]
            for models in by_device.values()
            for kinds in models.values()
            for kind, case in kinds.items()
            if "periodic" in kind
        ),
        "oracle_gaps_without_foresight_above_5_percent": sum(c["oracle_gap_without_foresight"] > 0.05 for c in every),
        "oracle_gap_worst_without_raising": max(case["oracle_gap_without_raising"] for case in every),
        "median_soc_vs_best_non_reconfiguring_on_the_default_cluster": median(
            "vs_best_non_reconfiguring_on_the_default_cluster"
        ),
        "median_soc_vs_ours_on_the_default_cluster": median("vs_ours_on_the_default_cluster"),
        "median_soc_vs_ours_on_the_best_single_cluster": median("vs_ours_on_the_best_single_cluster"),
        "mission_oracle_gap": round(statistics.median(m["oracle_gap"] for m in missions.values()), 4),
        "mission_oracle_gap_above_sparsest": round(
            statistics.median(m["oracle_gap_above_sparsest"] for m in missions.values()), 4
        ),
        "missions_lasted": sum(m["lasted"] for m in missions.values()) == len(missions),
    }


def table(result: dict[str, Any]) -> str:
    """The part of README.md."""
    return readme_part(result)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="FILE, or - for the last line of the output")
    parser.add_argument("--quick", action="store_true", help="one seed, small charges")
    parser.add_argument("--devices", nargs="+", help="names of profiles; absent: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--journal", type=Path, help="FILE that keeps results, for a run that goes on")
    args = parser.parse_args(arguments)
    names = [name for name in args.devices or devices.names() if name == ODROID or not name.startswith("odroid")]
    if ODROID not in names:
        names.append(ODROID)
    work = jobs(names, args.quick)
    kept = Kept(args.journal)
    with ProcessPoolExecutor(args.jobs) as pool:
        cases = kept.map(pool, run_case, *zip(*work, strict=True))
        sizes = [requests_of(name, args.quick) for name in names]
        each = (names, ["demo"] * len(names), [0] * len(names), sizes)
        found = kept.map(pool, run_mission, *each)
        equal = kept.map(pool, run_same_score, *each)
    grouped: dict[str, Any] = {}
    for (device, model, kind, _, _, accounting), case in zip(work, cases, strict=True):
        key = kind if accounting is Accounting.CPU else f"{kind}, whole board"
        grouped.setdefault(device, {}).setdefault(model, {}).setdefault(key, []).append(case)
    by_device = {
        device: {model: {kind: _combine(runs) for kind, runs in kinds.items()} for model, kinds in models.items()}
        for device, models in grouped.items()
    }
    missions = dict(zip(names, found, strict=True))
    result = {
        **summarize(by_device, missions),
        "baseline": BASELINE_WORDS,
        "baseline_int8": INT8_BASELINE_WORDS,
        "accounting": f"{Accounting.CPU.words}; idle and waiting time included",
        "conditions": f"simulated; run times uniform within {100 * NOISE:g} % of the prediction; "
        f"{len(names)} devices, {'one seed' if args.quick else 'three seeds on the Odroid-XU3'}",
        "noise": f"run times uniform within {100 * NOISE:g} % of the prediction, the same for every policy",
        "quick": args.quick,
        "models": {name: {"source": s.source, "score": s.score} for name, s in subjects().items()},
        "missions": missions,
        "same_score": dict(zip(names, equal, strict=True)),
        "by_device": by_device,
    }
    for key, value in result.items():
        if isinstance(value, (int, float)):
            print(f"{key}: {value}")
    text = json.dumps(result)
    if args.json == "-":
        print(text)
    elif args.json:
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
