"""The parts of `README.md` that hold numbers, made from `summary.json`; a test compares."""

from __future__ import annotations

from typing import Any

MODELS = {
    "wikitext2": "WikiText-2, next-word accuracy (%)",
    "stsb": "STS-B, Spearman x 100, development split",
    "rte": "RTE, accuracy (%), development split",
    "mrpc": "MRPC, F1 x 100, development split",
}
TARGETS = {"wikitext2": 0.5, "stsb": 1.0, "rte": 1.0}
ORDER = (
    "dense",
    "bp-only",
    "rbp-rpp",
    "rbp-pp",
    "bp-rpp",
    "rt3",
    "rt3-distilled",
    "ranked",
    "ranked-searched",
    "ranked-1",
    "ranked-upstream",
    "upper-bound",
    "upper-bound-searched",
)


def render(summary: dict[str, Any]) -> str:
    """The part of the README that holds numbers."""
    parts = ["## Answers", *_answers(summary)]
    for model, title in MODELS.items():
        rows = [row for row in summary["rows"] if row["model"] == model]
        if rows:
            parts += [f"## {title}", _table(sorted(rows, key=_order))]
    parts += ["## Battery", f"Baseline: {summary['baseline']}.", _battery(summary)]
    return "\n\n".join(parts)


def _answers(summary: dict[str, Any]) -> list[str]:
    found = []
    for model, target in TARGETS.items():
        answer = summary.get(model)
        if answer is None:
            found.append(f"* **{model}**: not run yet.")
            continue
        met = "met" if answer["loss_points"] <= target else "missed"
        seeds = answer["loss_points_by_seed"]
        spread = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds, {min(seeds):.2f} to {max(seeds):.2f}"
        words = (
            f"* **{model}**: dense {answer['dense_score']:.2f}; the sparsest level "
            f"({_percent(answer['worst_level_sparsity'])}) scores {answer['worst_level_score']:.2f} after "
            f"{answer['steps']} steps, a loss of {answer['loss_points']:.2f} points ({spread}; target {target}: {met})."
        )
        compared = [
            f"{what} {answer[key]:.2f}"
            for key, what in (
                ("equal_steps_searched_loss_points", "ours loses"),
                ("equal_steps_loss_points", "ours with all layers cut alike loses"),
                ("independent_sets_loss_points", "RT3 as reconstructed loses"),
                ("independent_sets_distilled_loss_points", "its masks, distilled, lose"),
                ("upper_bound_loss_points", "the sparsest level trained alone loses"),
            )
            if answer[key] is not None
        ]
        if compared:
            words += f" At equal sparsity and {answer['equal_steps']} steps {', '.join(compared)}."
        words += (
            f" Inferences per charge: {answer['battery_improvement']:.2f} times the baseline with idle power, "
            f"{answer['battery_improvement_dynamic_power']:.2f} times with dynamic power alone"
        )
        int8 = answer["battery_improvement_int8"]
        words += "." if int8 is None else f", {int8:.2f} times with idle power where the levels are stored in int8."
        found.append(words)
    return ["\n".join(found)]


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| row | steps | learning rate | seeds | cell rows | sparsity | score | loss (points) | score in int8 | "
        "predicted ms | predicted mJ |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        levels = row["levels"]
        if not levels:
            lines.append(f"| {row['row']} | - | - | {_seeds(row)} | - | 0 | {row['dense_score']:.2f} | 0 | - | - | - |")
            continue

        def joined(key: str, digits: int, levels: list[dict[str, Any]] = levels) -> str:
            return " / ".join(f"{level[key]:.{digits}f}" for level in levels)

        int8 = joined("int8_score", 2) if "int8_score" in levels[0] else "-"
        sparsity = " / ".join(_percent(level["sparsity"]) for level in levels)
        lines.append(
            f"| {row['row']} | {_steps(row)} | {row['lr']:g} | {_seeds(row)} | {row['cell_rows']} | {sparsity} | "
            f"{joined('score', 2)} | {joined('loss_points', 2)} | {int8} | "
            f"{joined('device_latency_ms', 0)} | {joined('device_energy_mj', 0)} |"
        )
    return "\n".join(lines)


def _battery(summary: dict[str, Any]) -> str:
    lines = [
        "| model, row | no reconfiguration | hardware only (misses) | RT3's modes (misses) | lavolta (misses) | "
        "dynamic power alone: RT3's modes, lavolta | lavolta in int8 (misses) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in summary["rows"]:
        battery = row.get("battery")
        if battery is None or row["kind"] not in ("rt3", "ranked", "ranked-searched", "ranked-1"):
            continue
        gain, misses, bare = battery["improvement"], battery["deadline_misses"], battery["dynamic_power_improvement"]
        cells = [f"{gain[name]:.2f} ({misses[name]})" for name in ("hardware-only", "rt3", "lavolta")]
        lines.append(
            f"| {row['model']}, {row['row']} | {gain['no-reconfiguration']:.2f} | {' | '.join(cells)} | "
            f"{bare['rt3']:.2f}, {bare['lavolta']:.2f} | {_int8(row)} |"
        )
    return "\n".join(lines)


def _int8(row: dict[str, Any]) -> str:
    battery = row.get("battery_int8")
    if battery is None:
        return "-"
    return f"{battery['improvement']['lavolta']:.2f} ({battery['deadline_misses']['lavolta']})"


def _order(row: dict[str, Any]) -> tuple[int, int, int]:
    """Place of a row in its table; its longer trainings, and those on more text, follow the usual one."""
    return ORDER.index(row["kind"]), int(row["upstream_steps"] + row["steps"]), int(row["extra_pairs"])


def _steps(row: dict[str, Any]) -> str:
    """Steps of the row; before the plus sign those before the task, which all tasks and seeds share."""
    before = row["upstream_steps"]
    return f"{before} + {row['steps']}" if before else str(row["steps"])


def _seeds(row: dict[str, Any]) -> str:
    return ", ".join(str(seed) for seed in row["seeds"])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
