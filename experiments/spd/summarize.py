"""Make `summary.json` and the tables of `README.md` from the result files.

`python experiments/spd/summarize.py` writes them; `--check` only tells whether they are fresh.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats
from tables import render

from lavolta.report.generated import summary_command

TASKS = ("rte", "mrpc", "stsb")
HEADLINE = 0.9
COMBINATION = "aebert+spd"
Result = dict[str, Any]


def read_results(folder: Path) -> list[Result]:
    """All result files, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def summarize(results: Sequence[Result]) -> dict[str, Any]:
    """The answers of the issue's questions, and one row for each task, method and sparsity."""
    gains = _pairs(results, "spd", "gmp-kd", lambda result: float(result["score"]))
    gaps = _pairs(results, "gmp-kd", "spd", end_gap)
    by_task = {}
    for task in TASKS:
        ours, theirs = (_scores(results, task, method) for method in ("spd", "gmp-kd"))
        found = [gain for (pair_task, _), gain in gains.items() if pair_task == task]
        if ours or theirs:
            by_task[task] = {"spd": _mean(ours), "gmp_kd": _mean(theirs), "gain": _mean(found), "pairs": len(found)}
    return {
        "sparsity": HEADLINE,
        "gain_over_gmp_kd_at_90": _mean(list(gains.values())),
        "interval": interval(list(gains.values())),
        "pairs": len(gains),
        "gap_reduction": _mean(list(gaps.values())),
        "gap_reduction_interval": interval(list(gaps.values())),
        "combination_at_90": combination(results),
        "by_task": by_task,
        "gain_over_gmp_kd_layers_at_90": _mean(
            list(_pairs(results, "spd", "gmp-kd-layers", lambda result: float(result["score"])).values())
        ),
        "claims": {
            "pruning raises the train-dev gap": verdict(
                [
                    end_gap(result) - end_gap(dense)
                    for result in results
                    if (result["method"], _sparsity(result)) == ("gmp", HEADLINE)
                    for dense in results
                    if dense["method"] == "dense" and _teacher(dense) == _teacher(result)
                ]
            ),
            "SPD's gap is smaller than that of gmp-kd": verdict(list(gaps.values())),
        },
        "rows": _rows(results),
    }


def combination(results: Sequence[Result]) -> float | None:
    """Points by which searched ratios with SPD are ahead of the best other row of the same task, mean over tasks."""
    ahead = []
    for task in TASKS:
        mine = _scores(results, task, COMBINATION)
        others = {r["method"] for r in results if r["task"] == task} - {COMBINATION, "dense"}
        means = [statistics.fmean(scores) for m in others if (scores := _scores(results, task, m))]
        if mine and means:
            ahead.append(statistics.fmean(mine) - max(means))
    return _mean(ahead)


def end_gap(result: Result) -> float:
    """Training score minus development score at the end of a training, in points, on equally many rows."""
    last = result["curve"][-1]
    return float(last["train"]) - float(last["dev"])


def verdict(differences: Sequence[float]) -> dict[str, Any]:
    """Confirmed where the interval of the mean lies above zero, contradicted where it lies below, else undecided."""
    found = interval(differences)
    words = "undecided"
    if found is not None and found[0] > 0:
        words = "confirmed"
    if found is not None and found[1] < 0:
        words = "contradicted"
    return {"verdict": words, "points": _mean(differences), "interval": found, "pairs": len(differences)}


def interval(values: Sequence[float]) -> list[float] | None:
    """95 % interval of the mean by Student's t over pairs of task and seed; none for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    middle = statistics.fmean(values)
    return [round(middle - half, 3), round(middle + half, 3)]


def _pairs(
    results: Sequence[Result], first: str, second: str, value: Callable[[Result], float]
) -> dict[tuple[str, int], float]:
    """First minus second where both were run on the same task with the same seed, teacher and steps."""
    found = {}
    for a in results:
        for b in results:
            alike = _key(a) == _key(b) and _teacher(a) == _teacher(b) and a.get("steps") == b.get("steps")
            if alike and _sparsity(a) == _sparsity(b) == HEADLINE and (a["method"], b["method"]) == (first, second):
                found[_key(a)] = value(a) - value(b)
    return found


def _key(result: Result) -> tuple[str, int]:
    return result["task"], result["options"]["seed"]


def _teacher(result: Result) -> tuple[str, int]:
    """A dense model and the rows held out for it: one for each task and seed of its own."""
    return result["task"], result["teacher_seed"]


def _sparsity(result: Result) -> float:
    return float(result["options"]["sparsity"])


def _scores(results: Sequence[Result], task: str, method: str) -> list[float]:
    return [r["score"] for r in results if (r["task"], r["method"], _sparsity(r)) == (task, method, HEADLINE)]


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 3) if values else None


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    keys = sorted({(r["task"], _sparsity(r), r["method"]) for r in results})
    rows = []
    for task, sparsity, method in keys:
        runs = [r for r in results if (r["task"], _sparsity(r), r["method"]) == (task, sparsity, method)]
        first = runs[0]
        scores = [r["score"] for r in runs]
        rows.append(
            {
                "task": task,
                "method": method,
                "metric": first["metric"],
                "seeds": [r["options"]["seed"] for r in runs],
                "steps": first.get("steps"),
                "encoder_sparsity": round(first.get("encoder_sparsity", 0.0), 4),
                "model_sparsity": round(first.get("model_sparsity", 0.0), 4),
                "score": _mean(scores),
                "score_spread": round(max(scores) - min(scores), 3),
                "dense_score": _mean([r["dense_score"] for r in runs]),
                "loss_points": _mean([r["dense_score"] - r["score"] for r in runs]),
                "end_gap": _mean([end_gap(r) for r in runs]),
                "teacher_at_chance": sum(r["teacher_doubt"] is not None for r in runs),
                "curve": [
                    {key: round(record[key], 2) for key in ("step", "train", "held_out", "dev")}
                    for record in first["curve"]
                ],
            }
        )
    return rows


def make(results: Path) -> tuple[dict[str, Any], str]:
    """The summary of a folder of results, and what the README says of it."""
    summary = summarize(read_results(results))
    return summary, render(summary)


if __name__ == "__main__":
    raise SystemExit(summary_command(Path(__file__), __doc__, make))
