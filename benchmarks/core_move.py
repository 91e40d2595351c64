"""Running on other cores: what a run costs right after a move, one that is moved midway, and a pool that is made anew.

A model is opened once on each of two cores, as the governor does for each cluster, and settings take turns in every
round. On a computer whose cores are alike, a move costs what its caches have to fetch again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.synthetic import random_weights, shape_spec, write_random_bundle
from lavolta.cli.progress import open_progress
from lavolta.errors import UserInputError
from lavolta.runtime.engine import open_bundle
from lavolta.runtime.governor_engine import EngineRunner, Tokenized

ROUNDS = {True: 5, False: 60}
SPARSITY = 0.9
SETTINGS = {
    "free": "wherever the system likes",
    "stays": "on the core of the run before",
    "moves": "on the other core than the run before, each core with a model of its own",
    "midway": "moved to the other core after half of its time",
    "opened": "on the other core, the one model opened anew for it: opening included",
}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The median time of a run in each setting, and that over a run that stays.

    Raises:
        UserInputError: this process may use one core alone, or more than one thread was asked for.
    """
    check_threads(args.threads)
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise UserInputError("this process may use one core alone; a move needs two.")
    if args.threads != 1:
        raise UserInputError(f"threads is {args.threads}; runs of a single thread are moved midway, so give 1.")
    cores = {"first": allowed[:1], "other": allowed[-1:]}
    spec = shape_spec(args.shape, max(512, args.tokens))
    request = Tokenized((np.arange(args.tokens) % spec.vocab).tolist())
    times_ms: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lavolta"
        weights = random_weights(spec, args.seed)
        write_random_bundle(path, spec, [SPARSITY], weights=weights, cell_rows=args.cell_rows, seed=args.seed)
        with (
            open_bundle(path) as free,
            open_bundle(path, cores=cores["first"]) as first,
            open_bundle(path, cores=cores["other"]) as other,
        ):
            level = free.levels[0]
            loose = EngineRunner(free, args.tokens)
            runner = EngineRunner({"first": first, "other": other}, args.tokens, cores)
            progress = open_progress()
            progress.say("run, and move")
            for _ in range(ROUNDS[args.quick]):
                times_ms["free"].append(_timed(lambda: loose(request, level, float("inf"))))
                runner.move("first")
                runner(request, level, float("inf"))
                times_ms["stays"].append(_timed(lambda: runner(request, level, float("inf"))))
                runner.move("other")
                times_ms["moves"].append(_timed(lambda: runner(request, level, float("inf"))))
                runner.move("first")
                runner(request, level, float("inf"))
                half_ms = times_ms["stays"][-1] / 2

                def midway(after_ms: float = half_ms) -> None:
                    runner.run_raised(request, level, float("inf"), after_ms, 1.0, lambda: runner.move_run("other"))

                times_ms["midway"].append(_timed(midway))

                def opened() -> None:
                    with open_bundle(path, cores=cores["other"]) as again:
                        again.run([request.token_ids])

                times_ms["opened"].append(_timed(opened))
    medians = {name: median(values) for name, values in times_ms.items()}
    return {
        **head("core_move", args),
        "repetitions": ROUNDS[args.quick],
        "cores": cores,
        "median_ms": medians,
        "over_stays": {name: value / medians["stays"] for name, value in medians.items()},
        "quarter_ms": {name: float(np.quantile(values, 0.25)) for name, values in times_ms.items()},
    }


def _timed(act: Callable[[], object]) -> float:
    start_ns = time.perf_counter_ns()
    act()
    return (time.perf_counter_ns() - start_ns) / 1e6


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = [
        [
            words,
            number(result["median_ms"][name], 2),
            number(result["quarter_ms"][name], 2),
            number(result["over_stays"][name], 3),
        ]
        for name, words in SETTINGS.items()
    ]
    return markdown(["a run", "median ms", "first quartile ms", "over one that stays"], rows)


def main() -> None:
    args = options(__doc__ or "", tokens=32).parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
