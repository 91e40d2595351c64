"""The battery benchmark's part of README.md, from its stored result."""

from __future__ import annotations

import statistics
from typing import Any

ODROID = "odroid-xu3-a7"
PERIODIC = "periodic"
TARGETS = (
    ("misses_ours", "avoidable deadlines missed by ours, 20 % timing noise", "0", lambda value: value == 0),
    ("odroid_xu3_improvement", "Odroid-XU3, the demo's levels, against no reconfiguration", "4", lambda v: v >= 4),
    (
        "median_soc_vs_best_non_reconfiguring",
        "median phone chip, against the best policy that keeps its level, on its best cluster in hindsight",
        "1.25",
        lambda value: value >= 1.25,
    ),
    (
        "median_soc_vs_best_non_reconfiguring_on_the_default_cluster",
        "the same with everybody, ours too, on the default cluster",
        "1.25",
        lambda value: value >= 1.25,
    ),
    ("oracle_gap", "median gap to the oracle, in answers", "0.05", lambda value: value <= 0.05),
    ("oracle_gap_worst", "its worst case", "0.05", lambda value: value <= 0.05),
    (
        "oracle_gap_without_foresight_worst",
        "worst gap to the bound that knows arrivals and charge, but not how long a run takes",
        "0.05",
        lambda value: value <= 0.05,
    ),
    (
        "oracle_gap_without_foresight_with_free_changes_worst_periodic",
        "the same for periodic requests, where changes of clock and cluster cost nothing",
        "0.05",
        lambda value: value <= 0.05,
    ),
    ("mission_oracle_gap", "median gap to the oracle, in mean score of a wanted lifetime", "0.05", lambda v: v <= 0.05),
)


def readme_part(result: dict[str, Any]) -> str:
    """Targets, the Odroid-XU3, the phone chips."""
    return "\n\n".join(
        (
            _targets(result),
            _models(result),
            _policies(result),
            _chips(result),
            _parts(result),
            _same_score(result),
            _missions(result),
        )
    )


def _targets(result: dict[str, Any]) -> str:
    lines = ["| key | what | value | target | |", "|---|---|---|---|---|"]
    for key, what, target, met in TARGETS:
        if key not in result:
            # An older result.
            continue
        value = result[key]
        lines.append(f"| `{key}` | {what} | {value:g} | {target} | {'met' if met(value) else 'missed'} |")
    return "\n".join(lines)


def _models(result: dict[str, Any]) -> str:
    columns = (
        ("odroid_xu3_improvement_by_model", "deadline just held"),
        ("odroid_xu3_improvement_over_dense_int8_by_model", "the same, over dense int8"),
        ("odroid_xu3_improvement_dynamic_power_by_model", "deadline just held, without idle power"),
        ("odroid_xu3_improvement_with_room_for_noise_by_model", "deadline with room for noise"),
    )
    lines = [
        f"Odroid-XU3: answers per charge, ours over no reconfiguration. Baseline: {result['baseline']}. "
        f"Second baseline: {result['baseline_int8']}. Power: {result['accounting']}.",
        "",
        "| model | " + " | ".join(words for _, words in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for model in result["odroid_xu3_improvement_by_model"]:
        lines.append(f"| {model} | " + " | ".join(f"{result[key][model]:.2f}" for key, _ in columns) + " |")
    return "\n".join(lines)


def _policies(result: dict[str, Any]) -> str:
    lines = [
        "Odroid-XU3, the demo's levels, periodic with room for noise, seed 0: answers of a full charge.",
        "",
        "| policy | answers | late, of those simulated | mean score |",
        "|---|---|---|---|",
    ]
    case = result["by_device"][ODROID]["demo"][PERIODIC]
    for name, (answers, misses, score) in case["inferences_misses_score"].items():
        lines.append(f"| {name} | {answers:,} | {misses} | {score:.3f} |")
    return "\n".join(lines)


def _chips(result: dict[str, Any]) -> str:
    chips = {name: models for name, models in result["by_device"].items() if not name.startswith("odroid")}
    kinds = [kind for kind in result["by_device"][ODROID]["demo"] if kind in next(iter(chips.values()))["demo"]]
    lines = [
        f"{len(chips)} phone chips, the demo's levels: lowest / median / highest ratio of answers in time, ours over",
        "",
        "| traffic | no reconfiguration | best that keeps its level | the same, all on the default cluster | "
        "best clock, cluster and level in hindsight | oracle gap |",
        "|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        cells = [
            _spread([models["demo"][kind][key] for models in chips.values()])
            for key in (
                "vs_no_reconfiguration",
                "vs_best_non_reconfiguring",
                "vs_best_non_reconfiguring_on_the_default_cluster",
                "vs_best_fixed_choice_in_hindsight",
                "oracle_gap",
            )
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    most = result["median_soc_oracle_vs_best_non_reconfiguring"]
    lines += ["", f"The oracle has {most:.2f} times the answers of the best that keeps its level, periodic, median."]
    return "\n".join(lines)


def _parts(result: dict[str, Any]) -> str:
    """What the choice of the cluster and the raised clock each bring."""
    columns = (
        ("over ours on the default cluster", "vs_ours_on_the_default_cluster"),
        ("over ours on the best single cluster", "vs_ours_on_the_best_single_cluster"),
        ("over ours without raising", "vs_ours_without_raising"),
        ("oracle gap", "oracle_gap"),
        ("oracle gap without raising", "oracle_gap_without_raising"),
    )
    lines = [
        "What the choice of a cluster and a run raised midway bring, phone chips, periodic: lowest / median / "
        "highest ratio of answers in time, ours over ours with less to choose from.",
        "",
        "| model | " + " | ".join(words for words, _ in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    chips = [models for name, models in result["by_device"].items() if not name.startswith("odroid")]
    for model in chips[0]:
        cells = [_spread([models[model][PERIODIC][key] for models in chips]) for _, key in columns]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _same_score(result: dict[str, Any]) -> str:
    ratios = {name: found for name, found in result["same_score"].items() if not name.startswith("odroid")}
    levels = list(next(iter(ratios.values())))
    lines = [
        "At the mean score of one level kept under its best stock governor, periodic: lowest / median / highest ratio.",
        "",
        "| level kept | " + " | ".join(levels) + " |",
        "|---" * (1 + len(levels)) + "|",
        "| ours over it | "
        + " | ".join(_spread([found[level] for found in ratios.values()]) for level in levels)
        + " |",
    ]
    return "\n".join(lines)


def _missions(result: dict[str, Any]) -> str:
    missions = list(result["missions"].values())
    fixed = [m["mean_score_best_level_with_schedutil"] for m in missions]
    known = [score for score in fixed if score is not None]
    lasted = sum(mission["lasted"] for mission in missions)
    return (
        f"A wanted lifetime, halfway (geometric) between what the dense model and the sparsest level give: {lasted} of "
        f"{len(missions)} charges last. Median mean score: ours {_median(missions, 'mean_score'):.3f}, oracle "
        f"{_median(missions, 'mean_score_oracle'):.3f}, best single level that lasts under schedutil without a miss "
        f"{statistics.median(known):.3f} (on {len(fixed) - len(known)} devices there is none)."
    )


def _median(records: list[dict[str, Any]], key: str) -> float:
    return statistics.median(record[key] for record in records)


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "nobody kept every deadline"
    return f"{min(known):.2f} / {statistics.median(known):.2f} / {max(known):.2f}"
