"""What turning the dial costs: time, memory written, and memory held for many levels instead of one."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lavolta.bench import resident
from lavolta.bench.synthetic import random_ids
from lavolta.errors import EngineError
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.engine import Model

PAIRS = 24


def switch_times_us(model: Model, tokens: int, switches: int, seed: int = 0) -> dict[str, float]:
    """Microseconds of random switches, one by one, and what the first run after a switch takes.

    Returns:
        ``p50_us``, ``p99_us``, ``max_us``, and ``first_run_over_next``: median time of a run right after a switch from
        another level that has just run, over the median of the run that follows it at the same level.
    """
    chance = np.random.default_rng(seed)
    levels = chance.integers(0, len(model.levels), switches).tolist()
    taken = np.fromiter((model.switch(level) for level in levels), dtype=np.int64, count=switches) / 1e3
    ids = [random_ids(model.spec, tokens, seed)]
    ratios = []
    for level in chance.permutation(np.arange(24) % len(model.levels)).tolist():
        model.switch((level + 1) % len(model.levels))
        model.run(ids)
        model.switch(level)
        first, following = _run_ms(model, ids), _run_ms(model, ids)
        ratios.append(first / following)
    p50, p99 = np.percentile(taken, [50, 99])
    return {
        "p50_us": float(p50),
        "p99_us": float(p99),
        "max_us": float(taken.max()),
        "first_run_over_next": statistics.median(ratios),
    }


def residence(bundle: Path, tokens: int, pairs: int = PAIRS) -> dict[str, Any]:
    """Memory of a process that holds a bundle and has run all its levels; see `lavolta.bench.resident`.

    Args:
        pairs: switches whose written memory is looked at.

    Returns:
        ``bundle_bytes``, ``process_bytes`` (resident, interpreter included), ``model_bytes`` (what opening and running
        added), ``moved_bytes`` (worst of all switches, whole pages), and what the method is judged by.

    Raises:
        EngineError: the process failed, or the system does not tell a process's memory.
    """
    library = importlib.util.find_spec("lavolta._native")
    origin = library.origin if library is not None else None
    if origin is None:
        raise EngineError("the native engine is not built here; run `make setup`.")
    vocab = BundleFile.open(bundle).spec.vocab
    command = [sys.executable, "-I", resident.__file__, origin, str(bundle), str(tokens), str(vocab), str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise EngineError(f"the memory of {bundle} was not measured: {words[-1] if words else done.returncode}.")
    seen: dict[str, Any] = json.loads(done.stdout)
    return {
        "levels": seen["levels"],
        "bundle_bytes": bundle.stat().st_size,
        "process_bytes": seen["after_bytes"],
        "interpreter_bytes": seen["before_bytes"],
        "model_bytes": seen["after_bytes"] - seen["before_bytes"],
        "moved_bytes": max(seen["moved_bytes"], default=0),
        "switches_watched": len(seen["moved_bytes"]),
        "weights_writable": seen["mapped_writable"],
        "method": {
            "page_bytes": seen["page_bytes"],
            "planted_bytes": seen["planted_bytes"],
            "planted_seen_bytes": seen["planted_seen_bytes"],
        },
    }


def _run_ms(model: Model, ids: list[Any]) -> float:
    start = time.perf_counter()
    model.run(ids)
    return 1e3 * (time.perf_counter() - start)
