"""Medians with their spread, and ratios of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Milliseconds of one thing that was measured many times.

    Args:
        mad_ms: median absolute deviation from the median.
        repetitions: how many times it was measured.
    """

    median_ms: float
    mad_ms: float
    quartile_1_ms: float
    quartile_3_ms: float
    min_ms: float
    repetitions: int


def spread(samples_ms: Sequence[float]) -> Spread:
    """Summary of at least one sample."""
    median = statistics.median(samples_ms)
    if len(samples_ms) > 1:
        first, _, third = statistics.quantiles(samples_ms, n=4, method="inclusive")
    else:
        first = third = median
    deviation = statistics.median(abs(sample - median) for sample in samples_ms)
    return Spread(median, deviation, first, third, min(samples_ms), len(samples_ms))


def speedup(ours: Spread | None, theirs: Spread | None) -> float | None:
    """How many times faster ours is by the medians; `None` where one of them is missing."""
    return None if ours is None or theirs is None else theirs.median_ms / ours.median_ms
