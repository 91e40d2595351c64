"""Make `summary.json` and the tables of `README.md` from the result files.

`python experiments/spd/summarize.py` writes them; `--check` only tells whether they are fresh.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats
from tables import render

from lavolta.report.generated import summary_command

TASKS = ("rte", "mrpc", "stsb")
HEADLINE, HALF = 0.9, 0.5
COMBINATION = "aebert"
"""Methods whose ratios were searched begin so."""
SAME_MASKS = (("sparsegpt+spd", "sparsegpt"), ("gradual-sparsegpt+spd", "gradual-sparsegpt"))
"""Pairs that prune alike and differ in what is trained, and from what: SPD's training first."""

Result = dict[str, Any]


def read_results(folder: Path) -> list[Result]:
    """All result files of a folder, in the order of their names; none where there is no folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def summarize(results: Sequence[Result]) -> dict[str, Any]:
    """The answers of the issue's questions, and one row for each task, method, sparsity and length of training."""
    pairs = _pairs(results, "spd", "gmp-kd")
    gains, gaps = _gains(pairs.values()), _gap_reductions(pairs.values())
    combined = combinations(results)
    by_task = {}
    for task in TASKS:
        found = [pair for (pair_task, _), pair in pairs.items() if pair_task == task]
        if found or _scores(results, task, "spd") or _scores(results, task, "gmp-kd"):
            by_task[task] = {
                "spd": _mean([spd["score"] for spd, _ in found]),
                "gmp_kd": _mean([gmp["score"] for _, gmp in found]),
                "gain": _mean(_gains(found)),
                "pairs": len(found),
            }
    return {
        "sparsity": HEADLINE,
        "gain_over_gmp_kd_at_90": _mean(gains),
        "interval": interval(gains),
        "pairs": len(pairs),
        "dense_models": _dense_models(pairs.values()),
        "gap_reduction": _mean(gaps),
        "gap_reduction_interval": interval(gaps),
        "combination_at_90": _mean([found["ahead"] for found in combined.values()]),
        "combinations_at_90": combined,
        "combinations_at_50": losses_at_half(results),
        "by_task": by_task,
        "gain_over_gmp_kd_layers_at_90": _mean(_gains(_pairs(results, "spd", "gmp-kd-layers").values())),
        "claims": {
            "pruning on labels (`gmp`) raises the train-dev gap of the dense model": _gap_raised(results, "gmp"),
            "pruning with the teacher's outputs (`gmp-kd`) raises it": _gap_raised(results, "gmp-kd"),
            "SPD raises it": _gap_raised(results, "spd"),
            "SPD's gap is smaller than that of `gmp-kd`": _claim(
                list(pairs.values()), lambda spd, gmp: end_gap(gmp) - end_gap(spd)
            ),
        },
        "same_masks": [_same_masks(results, ours, theirs) for ours, theirs in SAME_MASKS],
        "rows": _rows(results),
    }


def combinations(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """By task, the best method with searched ratios, and its points ahead of the best method without, on the same seeds
    and after as long a training, the longest that there is."""
    found = {}
    for task in TASKS:
        mine = [r for r in results if r["task"] == task and r["method"].startswith(COMBINATION)]
        for length in sorted({_length(r) for r in mine if _sparsity(r) == HEADLINE}, reverse=True):
            scores = _by_method(results, task, length)
            best = max(
                (m for m in scores if m.startswith(COMBINATION)), key=lambda m: statistics.fmean(scores[m].values())
            )
            seeds = scores[best].keys()
            others = {
                method: statistics.fmean(by_seed[seed] for seed in seeds)
                for method, by_seed in scores.items()
                if not method.startswith(COMBINATION) and seeds <= by_seed.keys()
            }
            if others:
                other = max(others, key=lambda method: others[method])
                mean = statistics.fmean(scores[best].values())
                ahead = round(mean - others[other], 3)
                found[task] = {"method": best, "other": other, "ahead": ahead, "seeds": sorted(seeds)}
                break
    return found


def losses_at_half(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """By task, what the best method with searched ratios loses against the dense model where half of the weights go,
    after the longest training that there is."""
    found = {}
    for task in TASKS:
        mine = [
            r for r in results if r["task"] == task and r["method"].startswith(COMBINATION) and _sparsity(r) == HALF
        ]
        longest = [r for r in mine if _length(r) == max(map(_length, mine))]
        losses: dict[str, dict[int, float]] = {}
        for r in longest:
            losses.setdefault(r["method"], {})[r["options"]["seed"]] = r["dense_score"] - r["score"]
        if losses:
            best = min(losses, key=lambda method: statistics.fmean(losses[method].values()))
            points = list(losses[best].values())
            found[task] = {
                "method": best,
                "loss_points": _mean(points),
                "interval": interval(points),
                "seeds": sorted(losses[best]),
            }
    return found


def _by_method(results: Sequence[Result], task: str, length: tuple[int, int]) -> dict[str, dict[int, float]]:
    """Scores at the headline's sparsity by method and seed."""
    found: dict[str, dict[int, float]] = {}
    for r in results:
        if (r["task"], _sparsity(r), _length(r)) == (task, HEADLINE, length) and r["method"] != "dense":
            found.setdefault(r["method"], {})[r["options"]["seed"]] = r["score"]
    return found


def end_gap(result: Result) -> float:
    """Training score minus development score at the end of a training, in points, on equally many rows."""
    last = result["curve"][-1]
    return float(last["train"]) - float(last["dev"])


def verdict(differences: Sequence[float], dense_models: int) -> dict[str, Any]:
    """Confirmed where the interval of the mean lies above zero, contradicted where it lies below, else undecided."""
    found = interval(differences)
    words = "undecided"
    if found is not None and found[0] > 0:
        words = "confirmed"
    if found is not None and found[1] < 0:
        words = "contradicted"
    return {"verdict": words, "points": _mean(differences), "interval": found} | {
        "pairs": len(differences),
        "dense_models": dense_models,
    }


def interval(values: Sequence[float]) -> list[float] | None:
    """95 % interval of the mean by Student's t over pairs of task and seed; none for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    middle = statistics.fmean(values)
    return [round(middle - half, 3), round(middle + half, 3)]


def _same_masks(results: Sequence[Result], ours: str, theirs: str) -> dict[str, Any]:
    """SPD's training against that of gmp-kd where both prune in the same way."""
    pairs = _pairs(results, ours, theirs).values()
    models = _dense_models(pairs)
    return {
        "spd": ours,
        "twin": theirs,
        "gain": verdict(_gains(pairs), models),
        "gap_reduction": verdict(_gap_reductions(pairs), models),
    }


def _pairs(results: Sequence[Result], first: str, second: str) -> dict[tuple[str, int], tuple[Result, Result]]:
    """Both results where both methods were run on the same task with the same seed, teacher and length; of several
    lengths the longest, so that a seed counts once."""
    found: dict[tuple[str, int], tuple[Result, Result]] = {}
    for a in results:
        for b in results:
            alike = _key(a) == _key(b) and _teacher(a) == _teacher(b) and _length(a) == _length(b)
            if alike and _sparsity(a) == _sparsity(b) == HEADLINE and (a["method"], b["method"]) == (first, second):
                before = found.get(_key(a))
                if before is None or _length(before[0]) < _length(a):
                    found[_key(a)] = a, b
    return found


def _gap_raised(results: Sequence[Result], method: str) -> dict[str, Any]:
    """Train-dev gap of a method at the headline's sparsity minus that of the dense model that it began from."""
    pairs = [
        (result, dense)
        for result in _longest(results, method).values()
        for dense in results
        if dense["method"] == "dense" and _teacher(dense) == _teacher(result)
    ]
    return _claim(pairs, lambda result, dense: end_gap(result) - end_gap(dense))


def _claim(pairs: Sequence[tuple[Result, Result]], difference: Callable[[Result, Result], float]) -> dict[str, Any]:
    """The verdict over all pairs, and over those of each task where there are several: a task that a model has lost
    altogether has another gap than one that it has learned by heart."""

    def over(some: Sequence[tuple[Result, Result]]) -> dict[str, Any]:
        return verdict([difference(*pair) for pair in some], _dense_models(some))

    tasks = [task for task in TASKS if any(first["task"] == task for first, _ in pairs)]
    by_task = {task: over([pair for pair in pairs if pair[0]["task"] == task]) for task in tasks}
    return over(pairs) | {"by_task": by_task if len(by_task) > 1 else {}}


def _longest(results: Sequence[Result], method: str) -> dict[tuple[str, int], Result]:
    """By task and seed, the result of a method after its longest training."""
    return {
        _key(result): result
        for result in sorted(results, key=_length)
        if (result["method"], _sparsity(result)) == (method, HEADLINE)
    }


def _dense_models(pairs: Iterable[tuple[Result, Result]]) -> int:
    """How many dense models the first halves of pairs were made from."""
    return len({_teacher(first) for first, _ in pairs})


def _gains(pairs: Iterable[tuple[Result, Result]]) -> list[float]:
    return [float(first["score"]) - float(second["score"]) for first, second in pairs]


def _gap_reductions(pairs: Iterable[tuple[Result, Result]]) -> list[float]:
    return [end_gap(second) - end_gap(first) for first, second in pairs]


def _key(result: Result) -> tuple[str, int]:
    return result["task"], result["options"]["seed"]


def _length(result: Result) -> tuple[int, int]:
    """Rows that the training under a method saw, and in how many steps; 0 for the dense model."""
    steps = int(result.get("steps") or 0)
    return steps * _batch(result), steps


def _batch(result: Result) -> int:
    """Rows of a step."""
    return int(result["options"].get("batch_size", 0))


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
    def key(result: Result) -> tuple[str, float, tuple[int, int], str]:
        return result["task"], _sparsity(result), _length(result), result["method"]

    rows = []
    for row in sorted({key(r) for r in results}):
        runs = sorted((r for r in results if key(r) == row), key=lambda r: int(r["options"]["seed"]))
        task, _, _, method = row
        first = runs[0]
        scores = [r["score"] for r in runs]
        rows.append(
            {
                "task": task,
                "method": method,
                "metric": first["metric"],
                "seeds": [r["options"]["seed"] for r in runs],
                "steps": first.get("steps"),
                "batch_size": _batch(first) if first.get("steps") else None,
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


def grid(points: Sequence[Result], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Scores by learning rate: the points, and the rows of the same setting at the method's own rate."""

    def setting(result: Result) -> tuple[Any, ...]:
        return *_key(result), result["method"], _sparsity(result), _length(result)

    known = {setting(point) for point in points}
    return [
        {
            "task": result["task"],
            "method": result["method"],
            "steps": result["steps"],
            "batch_size": _batch(result),
            "sparsity": _sparsity(result),
            "lr": result["lr"],
            "held_out": round(result["held_out_score"], 2),
            "score": round(result["score"], 2),
            "end_gap": round(end_gap(result), 2),
        }
        for result in sorted([*points, *results], key=lambda r: (*setting(r), r.get("lr", 0.0)))
        if setting(result) in known
    ]


def make(results: Path) -> tuple[dict[str, Any], str]:
    """The summary of a folder of results, with the grid beside it, and what the README says of it."""
    rows = read_results(results)
    summary = {**summarize(rows), "grid": grid(read_results(results.parent / "grid"), rows)}
    return summary, render(summary)


if __name__ == "__main__":
    raise SystemExit(summary_command(Path(__file__), __doc__, make))
