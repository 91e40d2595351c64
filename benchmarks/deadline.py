"""How many answers arrive in time beside other work, with a deadline that the engine keeps and at a fixed level.

The deadline is what the densest level needs here, alone, and half as much again. Other processes then compute on the
same cores in bursts. Runs within the deadline, runs at the densest level and runs at the sparsest one take turns; the
last are the most that any choice of levels could keep.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lavolta.bench.burner import burners
from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.spread import spread
from lavolta.bench.synthetic import random_weights, shape_spec, write_random_bundle
from lavolta.cli.progress import open_progress
from lavolta.runtime.engine import Model, open_bundle

SPARSITIES = (0.0, 0.5, 0.75, 0.9)
PRECISION = "int8"
ROOM = 1.5
"""Deadline over the median time of the densest level alone."""
LOADS = {"alone": (0.0, 0.0), "bursts": (20.0, 40.0), "always": (20.0, 0.0)}
"""Mean milliseconds of other work on every core, and of the pauses between."""
HEADLINE = "bursts"
FULL, QUICK = 400, 60


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All loads, one after another; the keys of the result are those of the bursts."""
    check_threads(args.threads)
    repetitions = QUICK if args.quick else FULL
    spec, progress = shape_spec(args.shape, max(512, args.tokens)), open_progress()
    cores = sorted(os.sched_getaffinity(0))[-args.threads :]
    ids = np.random.default_rng(args.seed).integers(0, spec.vocab, args.tokens)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.lavolta"
        progress.say("make a random model")
        weights = random_weights(spec, args.seed)
        write_random_bundle(
            path, spec, SPARSITIES, weights=weights, cell_rows=args.cell_rows, precision=PRECISION, seed=args.seed
        )
        with open_bundle(path, threads=args.threads, cores=cores) as model:
            progress.say("calibrate")
            model.calibrate([max(1, args.tokens // 2), args.tokens])
            alone_ms = [_timed(model, ids) for _ in range(15)]
            deadline_ms = args.deadline_ms or ROOM * statistics.median(alone_ms)
            loads = {}
            for load, (busy_ms, idle_ms) in LOADS.items():
                progress.say(f"other work: {load}")
                with burners(cores, busy_ms, idle_ms, args.seed):
                    loads[load] = _compare(model, ids, deadline_ms, repetitions)
            plan = model.plan
    assert plan is not None
    return {
        **head("deadline", args),
        "precision": PRECISION,
        "sparsities": SPARSITIES,
        "isa": plan["isa"],
        "cores": cores,
        "repetitions": repetitions,
        "deadline_ms": deadline_ms,
        "margin": plan["margin"],
        "densest_alone": asdict(spread(alone_ms)),
        "met_share_with": loads[HEADLINE]["with"]["met_share"],
        "met_share_without": loads[HEADLINE]["densest"]["met_share"],
        "loads": loads,
    }


def _timed(model: Model, ids: Any) -> float:
    start_ns = time.monotonic_ns()
    model.run([ids])
    return (time.monotonic_ns() - start_ns) / 1e6


def _compare(model: Model, ids: Any, deadline_ms: float, repetitions: int) -> dict[str, Any]:
    """Who keeps the deadline how often: with it, at the densest and at the sparsest level, in turn."""
    sparsest = len(model.levels) - 1
    times_ms: dict[str, list[float]] = {"with": [], "densest": [], "sparsest": []}
    dropped = []
    for _ in range(repetitions):
        run = model.run_within([ids], deadline_ms)
        times_ms["with"].append(run.elapsed_ms)
        dropped.append(float(np.mean([SPARSITIES[level] for level in run.levels[0]])))
        times_ms["densest"].append(_timed(model, ids))
        model.switch(sparsest)
        times_ms["sparsest"].append(_timed(model, ids))
        model.switch(0)
    found: dict[str, Any] = {
        who: {"met_share": sum(ms <= deadline_ms for ms in samples) / repetitions, **asdict(spread(samples))}
        for who, samples in times_ms.items()
    }
    found["with"]["mean_sparsity"] = statistics.fmean(dropped)
    return found


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = []
    for load, found in result["loads"].items():
        busy_ms, idle_ms = LOADS[load]
        other = f"{load}: {busy_ms:g} ms, pauses {idle_ms:g} ms" if busy_ms else load
        shares = [f"{100 * found[who]['met_share']:.1f} %" for who in ("with", "densest", "sparsest")]
        medians = [number(found[who]["median_ms"]) for who in ("with", "densest", "sparsest")]
        rows.append([other, *shares, *medians, f"{100 * found['with']['mean_sparsity']:.0f} %"])
    heads = ["other work", "met with", "densest level", "sparsest level"]
    heads += ["median ms with", "densest", "sparsest", "mean sparsity with"]
    words = f"Deadline {result['deadline_ms']:.2f} ms, {result['precision']}, levels " + ", ".join(
        f"{100 * s:g} %" for s in result["sparsities"]
    )
    return f"{words}.\n\n{markdown(heads, rows)}"


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--deadline-ms", type=float, help="instead of what the densest level needs, and half as much")
    args = parser.parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
