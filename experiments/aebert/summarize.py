"""Make `summary.json` and the tables of `README.md` from `results/`; `--check` only says whether they are fresh."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lavolta.models.metrics import spearman
from lavolta.report.generated import summary_command

CHOSEN = "chosen-"
DEFAULT_PROXY = "kl"
SHOWN = ("kl", "hidden", "loss", "ladder", "reconstruction")
LEAST_CANDIDATES = 10
"""Fewer do not make a rank correlation."""
NORMAL_95 = 1.96
OTHERS = {
    "gain_over_uniform": "uniform",
    "gain_over_global_magnitude": "one magnitude threshold for all layers",
    "gain_over_random": "the mean of random candidates",
}
SLICES = Path(__file__).parent / "slices"
SPD = Path(__file__).parents[1] / "spd" / "summary.json"


def load(folder: Path) -> list[dict[str, Any]]:
    """The results in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def summarize(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The answers; what is not measured is null."""
    by_task = {}
    for task in sorted({result["task"] for result in results}):
        rows = [result for result in results if result["task"] == task and result["row"] != "dense"]
        asked = sorted({proxy for row in rows for proxy in row["proxies"]})
        by_task[task] = {
            "dense_score": _mean(r["dense_score"] for r in results if r["task"] == task),
            "metric": next(r["metric"] for r in results if r["task"] == task),
            "candidates": len(rows),
            "proxy_spearman": {proxy: correlation(rows, proxy) for proxy in asked},
            "gain_over_uniform": gains(rows, "uniform"),
            "gain_over_global_magnitude": gains(rows, "global-magnitude"),
            "gain_over_random": gains(rows, "random-"),
            "search_cost_share": search_cost_share(rows),
        }
    chosen = [gain for task in by_task.values() for gain in task["gain_over_uniform"].get(DEFAULT_PROXY, [])]
    found = [task["proxy_spearman"].get(DEFAULT_PROXY) for task in by_task.values()]
    measured = [entry["spearman"] for entry in found if entry is not None]
    shares = [task["search_cost_share"] for task in by_task.values() if task["search_cost_share"] is not None]
    return {
        "gain_over_uniform": _mean(chosen),
        "interval": interval(chosen),
        "proxy_spearman": _mean(measured),
        "search_cost_share": _mean(shares),
        "combination_at_90": combination(),
        "slices": slices(),
        "by_task": by_task,
    }


def correlation(rows: list[dict[str, Any]], proxy: str) -> dict[str, Any] | None:
    """Spearman of a proxy with the fine-tuned score over candidates of one ratio, seed and length, by Fisher's z.

    The interval is Fisher's, with the variance 1.06 / (n - 3) of a rank correlation (Fieller et al. 1957).
    """
    groups: dict[tuple[float, int, int], list[dict[str, Any]]] = {}
    # A candidate that a proxy chose is none of its test.
    for row in (row for row in rows if not row["row"].startswith(CHOSEN) and proxy in row["proxies"]):
        groups.setdefault(_setting(row), []).append(row)
    large = [group for group in groups.values() if len(group) >= LEAST_CANDIDATES]
    if not large:
        return None
    weights, total = [], []
    for group in large:
        values = [np.array([row["proxies"][proxy] for row in group]), np.array([row["score"] for row in group])]
        limited = min(max(spearman(*values), -0.999), 0.999)
        weights.append((len(group) - 3) / 1.06)
        total.append(math.atanh(limited))
    z = sum(w * t for w, t in zip(weights, total, strict=True)) / sum(weights)
    half = NORMAL_95 / math.sqrt(sum(weights))
    return {
        "spearman": _round(math.tanh(z)),
        "interval": [_round(math.tanh(z - half)), _round(math.tanh(z + half))],
        "candidates": [len(group) for group in large],
    }


def gains(rows: list[dict[str, Any]], other: str) -> dict[str, list[float]]:
    """Points by which the choice of each proxy beats another row of equal ratio, seed and steps; of several lengths
    the longest that both have, so that a seed counts once."""
    found: dict[tuple[str, float, int], tuple[int, float]] = {}
    for row in rows:
        if not row["row"].startswith(CHOSEN):
            continue
        equal = [r["score"] for r in rows if r["row"].startswith(other) and _setting(r) == _setting(row)]
        key = row["row"].removeprefix(CHOSEN), row["ratio"], row["seed"]
        if equal and row["steps"] >= found.get(key, (0, 0.0))[0]:
            found[key] = row["steps"], row["score"] - statistics.fmean(equal)
    by_proxy: dict[str, list[float]] = {}
    for (proxy, _, _), (_, gain) in found.items():
        by_proxy.setdefault(proxy, []).append(_round(gain))
    return by_proxy


def search_cost_share(rows: list[dict[str, Any]]) -> float | None:
    """Seconds of a search by the default proxy over those of the fine-tuning that follows, of the longest ones; of
    several the largest, since other work beside a row may have slowed either part."""
    searched = [r for r in rows if r["row"] == f"{CHOSEN}{DEFAULT_PROXY}" and r["fine_tuning_seconds"]]
    steps = max((r["steps"] for r in searched), default=0)
    shares = [r["search"]["seconds"] / r["fine_tuning_seconds"] for r in searched if r["steps"] == steps]
    return _round(max(shares)) if shares else None


def _setting(row: dict[str, Any]) -> tuple[float, int, int]:
    return row["ratio"], row["seed"], row["steps"]


def interval(values: list[float]) -> list[float] | None:
    """The 95 % interval of a mean by Student's t; `None` for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.fmean(values)
    return [_round(middle - half), _round(middle + half)]


def combination() -> Any:
    """What the SPD experiments say of searched ratios at 90 %, where they have it."""
    if not SPD.is_file():
        return None
    return json.loads(SPD.read_text(encoding="utf-8")).get("combination_at_90")


def slices() -> list[dict[str, Any]]:
    """How a proxy's rank correlation depends on the rows it looks at, by task, proxy and seed."""
    return load(SLICES) if SLICES.is_dir() else []


def render(summary: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """The part of the README that holds numbers."""
    parts = ["## Answers", _answers(summary)]
    if summary["slices"]:
        parts += ["## How many rows a proxy needs", "\n\n".join(_slices(found) for found in summary["slices"])]
    for task, found in summary["by_task"].items():
        parts += [f"## {task}, {found['metric']} x 100, dense {found['dense_score']:.2f}", _table(task, results)]
    return "\n\n".join(parts)


def _answers(summary: dict[str, Any]) -> str:
    lines = [
        f"* Choice against uniform, same ratio, same fine-tuning: {_points(summary['gain_over_uniform'])} "
        f"(95 % interval {_pair(summary['interval'])}; target: +1.5).",
        f"* Rank correlation of the proxy `{DEFAULT_PROXY}` with the fine-tuned score: "
        f"{_number(summary['proxy_spearman'])} (target: 0.7).",
        f"* Seconds of a search among 100 candidates, as a share of the longest fine-tuning of the rows below: "
        f"{_number(summary['search_cost_share'])} (target: 0.1).",
        "* The best method with searched ratios at 90 % (`experiments/spd`), to the best one without, mean over tasks: "
        f"{_points(summary['combination_at_90'])}.",
    ]
    for task, found in summary["by_task"].items():
        for field, other in OTHERS.items():
            for proxy, points in found[field].items():
                each = ", ".join(f"{gain:+.2f}" for gain in points)
                lines.append(f"* {task}, chosen by `{proxy}` against {other}, each ratio and seed: {each}.")
        for proxy, entry in found["proxy_spearman"].items():
            if entry is not None:
                lines.append(
                    f"* {task}, `{proxy}`: Spearman {entry['spearman']:.2f} ({_pair(entry['interval'])}), "
                    f"{sum(entry['candidates'])} candidates."
                )
    return "\n".join(lines)


def _slices(found: dict[str, Any]) -> str:
    lines = [
        f"{found['task']}, seed {found['seed']}, {found['candidates']} candidates, up to three slices a size:",
        "",
        f"| rows | Spearman of `{found['proxy']}` with the fine-tuned score, mean (each) |",
        "|---|---|",
    ]
    for size in found["slices"]:
        each = ", ".join(f"{rank:.2f}" for rank in size["spearman"])
        mean = statistics.fmean(size["spearman"])
        lines.append(f"| {size['rows']} | {mean:.2f} ({each}) |")
    return "\n".join(lines)


def _table(task: str, results: list[dict[str, Any]]) -> str:
    lines = [
        f"| row | ratio | whole model | seed | steps | before | fine-tuned | {' | '.join(SHOWN)} |",
        "|---|---|---|---|---|---|---|" + "---|" * len(SHOWN),
    ]
    for row in results:
        if row["task"] == task and row["row"] != "dense":
            scores = " | ".join(f"{row['proxies'][p]:.4f}" if p in row["proxies"] else "-" for p in SHOWN)
            lines.append(
                f"| {row['row']} | {row['encoder_sparsity']:.2f} | {row['whole_sparsity']:.2f} | {row['seed']} | "
                f"{row['steps']} | {row['score_before']:.2f} | {row['score']:.2f} | {scores} |"
            )
    return "\n".join(lines)


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return _round(statistics.fmean(listed)) if listed else None


def _round(value: float, digits: int = 3) -> float:
    return round(float(value), digits)


def _number(value: float | None) -> str:
    return "not measured yet" if value is None else f"{value:.2f}"


def _points(value: float | None) -> str:
    return "not measured yet" if value is None else f"{value:+.2f} points"


def _pair(values: list[float] | None) -> str:
    return "unknown" if values is None else f"{values[0]:.2f} to {values[1]:.2f}"


def make(folder: Path) -> tuple[dict[str, Any], str]:
    """The summary of a folder of results, and what the README says of it."""
    results = load(folder)
    summary = summarize(results)
    return summary, render(summary, results)


if __name__ == "__main__":
    raise SystemExit(summary_command(Path(__file__), __doc__, make))
