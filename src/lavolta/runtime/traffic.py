"""When requests arrive, and how far runs differ from their prediction: drawn once, so policies face the same chance.

Times are in ms from the start. A source waits at least ``gap_ms`` between two requests (a client that asks again after
its answer, a sensor with a sampling time), except for `periodic`, whose gap is its period.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lavolta.errors import UserInputError

DAY_MS = 24 * 3.6e6
DAY_SHARES = (1, 1, 1, 1, 1, 2, 6, 12, 14, 12, 10, 10, 14, 12, 10, 10, 11, 14, 16, 18, 16, 12, 6, 2)
"""How many requests each hour of a day brings, relative to the others: quiet at night, three peaks. Made up."""


def periodic(period_ms: float, count: int) -> list[float]:
    """One request every period."""
    return [index * period_ms for index in range(count)]


def poisson(period_ms: float, gap_ms: float, count: int, rng: np.random.Generator) -> list[float]:
    """Independent requests: exponential times between them, after the gap; ``period_ms`` is their mean."""
    _check(period_ms, gap_ms)
    steps = gap_ms + rng.exponential(period_ms - gap_ms, count)
    return [0.0, *np.cumsum(steps[:-1]).tolist()] if count else []


def bursty(
    period_ms: float, gap_ms: float, count: int, rng: np.random.Generator, mean_burst: float = 8.0
) -> list[float]:
    """Bursts of requests one gap apart, and quiet between them so that the mean time is ``period_ms``.

    Args:
        mean_burst: mean number of requests of a burst (geometric).
    """
    _check(period_ms, gap_ms)
    if not (math.isfinite(mean_burst) and mean_burst >= 1):
        raise UserInputError(f"mean_burst is {mean_burst}; a burst has at least one request.")
    ends = rng.random(count) < 1 / mean_burst
    # A burst of n requests has n - 1 gaps inside; what its n periods have left is the quiet after it.
    quiet = gap_ms + rng.exponential(mean_burst * (period_ms - gap_ms), count)
    steps = np.where(ends, quiet, gap_ms)
    return [0.0, *np.cumsum(steps[:-1]).tolist()] if count else []


def day(period_ms: float, gap_ms: float, days: int, rng: np.random.Generator, day_ms: float = DAY_MS) -> list[float]:
    """Days whose hours are busy as in `DAY_SHARES`, with ``period_ms`` the mean over a day; Poisson within an hour.

    The gap comes on top, so busy hours bring a little less than their share.

    Args:
        day_ms: length of a day; a shorter one keeps the shape and needs fewer requests.
    """
    _check(period_ms, gap_ms)
    times: list[float] = []
    now = 0.0
    busiest = max(DAY_SHARES) / _MEAN_SHARE / period_ms
    while True:
        # Thinning (Lewis and Shedler, 1979): draw at the busiest rate, keep with the share of the present hour.
        now += rng.exponential(1 / busiest)
        if now >= days * day_ms:
            return times
        if rng.random() * max(DAY_SHARES) < _share_at(now, day_ms):
            times.append(now)
            now += gap_ms


def day_demand(period_ms: float, day_ms: float = DAY_MS) -> Callable[[int, int], float]:
    """Expected requests of `day` between two times in ns: what a governor may know of a usual day."""

    def total(time_ns: int) -> float:
        days, rest = divmod(24 * time_ns / 1e6 / day_ms, 24)
        hour = int(rest)
        shares = sum(DAY_SHARES[:hour]) + DAY_SHARES[hour % 24] * (rest - hour)
        return (days + shares / sum(DAY_SHARES)) * day_ms / period_ms

    return lambda start_ns, end_ns: total(end_ns) - total(start_ns)


def uniform_noise(noise: float, count: int, rng: np.random.Generator) -> list[float]:
    """Run times over prediction, uniform in ``1 - noise`` to ``1 + noise``: bounded, so a margin can cover it."""
    if not 0.0 <= noise < 1.0:
        raise UserInputError(f"a noise of {noise} is outside 0 <= noise < 1.")
    return [float(factor) for factor in 1.0 + noise * rng.uniform(-1.0, 1.0, count)]


def lognormal_noise(noise: float, count: int, rng: np.random.Generator) -> list[float]:
    """Run times over prediction, log-normal with median 1 and this relative spread: no margin covers all of it."""
    if not (math.isfinite(noise) and noise >= 0.0):
        raise UserInputError(f"a noise of {noise} is not possible; give 0 or more.")
    return [float(factor) for factor in np.exp(math.log1p(noise) * rng.standard_normal(count))]


_MEAN_SHARE = sum(DAY_SHARES) / 24


def _share_at(time_ms: float, day_ms: float) -> int:
    return DAY_SHARES[int(24 * time_ms / day_ms) % 24]


def _check(period_ms: float, gap_ms: float) -> None:
    if not (math.isfinite(period_ms) and 0.0 <= gap_ms < period_ms):
        raise UserInputError(f"a gap of {gap_ms} ms does not fit a mean of {period_ms} ms; give 0 to below the mean.")
