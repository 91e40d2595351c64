"""What a bundle does on this computer: fidelity, latency of every level side by side, and the time of a switch."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lavolta import _native
from lavolta.errors import UserInputError
from lavolta.runtime.engine import Model, instruction_sets

SWITCHES = 20_000


@dataclass(frozen=True)
class SwitchTimes:
    """Microseconds of one switch of the level, over many random switches.

    Args:
        bytes_moved: growth of the process's memory over all switches, per switch, whole bytes.
    """

    us_p50: float
    us_p99: float
    bytes_moved: int


def level_latencies_ms(
    model: Model, tokens: int, rounds: int = 15, on_round: Callable[[], None] = lambda: None
) -> list[float]:
    """Median milliseconds of one sequence of ``tokens`` at every level, the levels taking turns in every round."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, model.spec.vocab, tokens)]
    times: list[list[float]] = [[] for _ in model.levels]
    for level in range(len(model.levels)):
        model.switch(level)
        model.run(ids)
    for _ in range(rounds):
        for level in range(len(model.levels)):
            model.switch(level)
            start = time.perf_counter_ns()
            model.run(ids)
            times[level].append((time.perf_counter_ns() - start) / 1e6)
        on_round()
    return [statistics.median(values) for values in times]


def switch_times(model: Model, switches: int = SWITCHES) -> SwitchTimes:
    """Time random switches one by one, and watch the memory that the process maps while it does."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, len(model.levels), switches).tolist()
    for level in levels[:100]:
        model.switch(level)
    before = _resident_bytes()
    nanoseconds = np.fromiter((model.switch(level) for level in levels), dtype=np.int64, count=switches)
    grown = max(0, _resident_bytes() - before)
    p50, p99 = np.percentile(nanoseconds, [50, 99]) / 1e3
    return SwitchTimes(float(p50), float(p99), grown // switches)


def peak_gflops(isa: str | None = None) -> float:
    """The most fp32 operations that one thread of this machine does in a nanosecond, measured in 30 ms.

    A multiply-add is two operations. The fastest of many rounds of a tenth of a millisecond counts, with nothing but
    registers: what the share of a kernel refers to.

    Args:
        isa: the instruction set whose registers are used, one of `instruction_sets()`; None is the best.

    Raises:
        UserInputError: this CPU has no such instruction set.
    """
    if isa is not None and isa not in instruction_sets():
        raise UserInputError(f"this CPU has no '{isa}'; choose one of {', '.join(instruction_sets())}.")
    return float(_native.peak(isa or instruction_sets()[-1]))


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of matching rows, ``(rows,)``; 0 where one of them is all zeros."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: NDArray[np.float32] = (left * right).sum(axis=1) / np.maximum(norms, 1e-12)
    return found


def overlaps(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Overlap of the distributions that matching rows of logits stand for, ``(rows,)``.

    The sum of the smaller of the two probabilities: 1 for equal ones, 0 for those that share nothing, and the largest
    probability with which draws from the two can be made to agree.
    """
    shared: NDArray[np.float32] = np.minimum(_softmax(left), _softmax(right)).sum(axis=1)
    return shared


def cpu_name() -> str:
    """The processor as Linux names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
