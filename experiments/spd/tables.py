"""The parts of `README.md` that hold numbers, made from `summary.json`; a test compares."""

from __future__ import annotations

from typing import Any

TITLES = {
    "rte": "RTE, accuracy (%), development split",
    "mrpc": "MRPC, F1 x 100, development split",
    "stsb": "STS-B, Spearman x 100, development split",
}
TARGET = 1.0


def render(summary: dict[str, Any]) -> str:
    """The part of the README that holds numbers."""
    parts = ["## Answers", _answers(summary)]
    for task, title in TITLES.items():
        rows = [row for row in summary["rows"] if row["task"] == task]
        if rows:
            parts += [f"## {title}", _table(rows), _curves(rows)]
    if summary.get("grid"):
        parts += ["## Learning rates", _grid(summary["grid"])]
    return "\n\n".join(parts)


def _answers(summary: dict[str, Any]) -> str:
    gain, found = summary["gain_over_gmp_kd_at_90"], summary["interval"]
    if gain is None:
        first = "* SPD against `gmp-kd` at 90 %: not run yet."
    else:
        tasks = ", ".join(task for task, row in summary["by_task"].items() if row["pairs"])
        met = found is not None and gain >= TARGET and found[0] > 0
        first = (
            f"* SPD against `gmp-kd` at 90 % of the encoder's weights, same steps: {gain:+.2f} points over "
            f"{_pairs(summary)}, {tasks} ({_interval(found)}; target {TARGET:+.1f} with an interval "
            f"above zero: {'met' if met else 'missed'})."
        )
    lines = [first]
    for task, found in summary["combinations_at_90"].items():
        best = "the best row" if found["ahead"] > 0 else "not the best row"
        lines.append(
            f"* Searched ratios at 90 %, {task}: `{found['method']}` is {best}, {found['ahead']:+.2f} points to "
            f"`{found['other']}` ({_seeds(found['seeds'])})."
        )
    for task, found in summary["combinations_at_50"].items():
        met = found["loss_points"] <= 0.0
        lines.append(
            f"* Searched ratios at 50 %, {task}: `{found['method']}` scores {-found['loss_points']:+.2f} points "
            f"against the dense model ({_seeds(found['seeds'])}; {_interval(found['interval'], -1)}; target: no loss, "
            f"{'met' if met else 'missed'})."
        )
    for claim, answer in summary["claims"].items():
        if answer["points"] is None:
            lines.append(f"* {claim}: not run yet.")
            continue
        lines.append(f"* {claim}: {_verdict(answer)}.")
        lines += [f"  * {task}: {_verdict(found)}." for task, found in answer["by_task"].items()]
    for twins in summary["same_masks"]:
        gain, gap = twins["gain"], twins["gap_reduction"]
        if gain["points"] is not None:
            lines.append(
                f"* Pruned alike, `{twins['spd']}` against `{twins['twin']}`: score {gain['points']:+.2f} points "
                f"({_interval(gain['interval'])}), train-dev gap {-gap['points']:+.2f} points "
                f"({_interval(gap['interval'], -1)}), over {_pairs(gain)}."
            )
    return "\n".join(lines)


def _verdict(answer: dict[str, Any]) -> str:
    return (
        f"{answer['verdict']} ({answer['points']:+.2f} points over {_pairs(answer)}, {_interval(answer['interval'])})"
    )


def _interval(found: list[float] | None, sign: int = 1) -> str:
    """In words; with a sign of -1, of the opposite of what was measured."""
    if found is None:
        return "too few for an interval"
    low, high = sorted(sign * end for end in found)
    return f"95 % interval {low:+.2f} to {high:+.2f}"


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| method | steps x rows | seeds | zeros in the encoder | in the model | score | loss | train-dev gap |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seeds = ", ".join(str(seed) for seed in row["seeds"])
        name = row["method"] + (" (teacher at chance)" if row["teacher_at_chance"] else "")
        lines.append(
            f"| {name} | {_length(row) or '-'} | {seeds} | {100 * row['encoder_sparsity']:.0f} % | "
            f"{100 * row['model_sparsity']:.0f} % | {row['score']:.2f} | {row['loss_points']:.2f} | "
            f"{row['end_gap']:.2f} |"
        )
    return "\n".join(lines)


def _grid(points: list[dict[str, Any]]) -> str:
    lines = [
        "| task | method | sparsity | steps x rows | peak learning rate | held-out | score | train-dev gap |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {point['task']} | {point['method']} | {point['sparsity']:g} | {_length(point)} | {point['lr']:g} | "
        f"{point['held_out']:.2f} | {point['score']:.2f} | {point['end_gap']:.2f} |"
        for point in points
    ]
    return "\n".join(lines)


def _curves(rows: list[dict[str, Any]]) -> str:
    """Train, held-out and development score at each look, of the first seed."""
    lines = ["Along the training, first seed, `step: train / held-out / dev`:", ""]
    for row in rows:
        looks = "; ".join(
            f"{point['step']}: {point['train']:.1f} / {point['held_out']:.1f} / {point['dev']:.1f}"
            for point in row["curve"]
        )
        length = f", {_length(row)}" if row["steps"] else ""
        lines.append(f"* `{row['method']}` at {100 * row['encoder_sparsity']:.0f} %{length}: {looks}")
    return "\n".join(lines)


def _pairs(found: dict[str, Any]) -> str:
    """How many differences there are, and of how many dense models, since seeds that share one vary less."""
    count, models = found["pairs"], found["dense_models"]
    return f"{count} pair{'s' * (count != 1)} of {models or 'no'} dense model{'s' * (models != 1)}"


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"


def _length(row: dict[str, Any]) -> str:
    """Steps and rows of a step; nothing for the dense model."""
    return f"{row['steps']} x {row['batch_size']}" if row["steps"] else ""
