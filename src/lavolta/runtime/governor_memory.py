"""What a governor learns while it runs: how far the predictor is off, bounded and robust against outliers.

Everything is frozen: learning gives a new memory, so that a decision is a function of its arguments alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from lavolta.runtime.policy import Outcome

WINDOW = 128
"""Runs that a correction remembers."""
TRUSTED = 16
"""Runs after which a correction is believed."""
LOWEST_MILLI, HIGHEST_MILLI = 250, 8000
"""A predictor may be wrong by a factor of four to the slow side and eight to the fast side; more is cut off."""
DEAD_BAND_ONE_RUN_MILLI = 800
"""A median that may be chance is no reason to correct the prediction: margins stay what they were set to. The band is
four standard deviations of the median of so many runs under uniform noise of 20 %: this, over the root of their number.
"""
UNTESTED = 1024
"""Requests after which a correction that no run has tested is not believed to be slower than all runs of late.

What once was slow may never be chosen again, so no run of its own would show that it is quick now. Where it is slow
still, two answers that may be late show it again: with five such levels, the one in a hundred that a 99th percentile
leaves.
"""
EXPECTED_REQUESTS = 8
"""Requests that the expected rhythm weighs against the measured one."""
ENERGY_STEP = 1 / 16
"""Share of the way to a new measurement of energy that the estimate goes."""
ONE_MILLI = 1000


@dataclass(frozen=True)
class Correction:
    """Measured over predicted time of the last `WINDOW` runs, in thousandths, oldest first.

    Attributes:
        tested: requests that had been served before the last run of its own.
    """

    ratios_milli: tuple[int, ...] = ()
    tested: int = 0

    def seen(self, predicted_ns: int, run_ns: int, served: int) -> Correction:
        """With one run more, after so many requests."""
        ratio = -(-run_ns * ONE_MILLI // max(1, predicted_ns))
        ratio = min(HIGHEST_MILLI, max(LOWEST_MILLI, ratio))
        return Correction((*self.ratios_milli, ratio)[-WINDOW:], served)

    def believed(self, served: int, present: Correction) -> Correction:
        """What is left of it after so many requests: untested for long, it is as predicted, or as slow as all others.

        Args:
            present: of all runs of late.
        """
        if served - self.tested < UNTESTED or self.factor_milli(0.0) <= max(ONE_MILLI, present.factor_milli(0.0)):
            return self
        # Not forgotten: a new correction is believed after `TRUSTED` runs, a full window shows two slow ones at once.
        # Nor quicker than predicted: that others are, on another cluster perhaps, is no promise.
        return replace(self, ratios_milli=tuple(max(ONE_MILLI, ratio) for ratio in present.ratios_milli))

    def factor_milli(self, margin: float) -> int:
        """What to multiply a prediction with to get its 99th percentile, in thousandths.

        The larger of ``median * (1 + margin)`` and the measured 99th percentile, so in a full window one outlier
        moves nothing. Before `TRUSTED` runs: ``1 + margin``.
        """
        wanted = math.ceil(ONE_MILLI * (1 + margin))
        if len(self.ratios_milli) < TRUSTED:
            return wanted
        median, tail = self._quantiles
        if abs(median - ONE_MILLI) > DEAD_BAND_ONE_RUN_MILLI / math.sqrt(len(self.ratios_milli)):
            wanted = math.ceil(median * (1 + margin))
        return max(wanted, tail)

    @cached_property
    def _quantiles(self) -> tuple[int, int]:
        ordered = sorted(self.ratios_milli)
        return ordered[len(ordered) // 2], ordered[math.ceil(0.99 * len(ordered)) - 1]


@dataclass(frozen=True)
class Memory:
    """All that a governor has learned.

    Attributes:
        overall: correction of the time of every run.
        clusters: the same of each cluster's runs.
        levels: the same for each cluster and level. The most particular one that is trusted is used; what no run has
            tested for long is not believed to be slower than the rest.
        energy: measured over predicted energy; bounded by a quarter and four.
        requests, first_ns, last_ns: how many were served, and when the first and the last was taken up.
        credit: sum of ``score - wanted mean score`` over the served requests.
        generous: while a wanted mean score is kept, whether the next answers are the better of the two levels.
    """

    overall: Correction = Correction()
    clusters: Mapping[str, Correction] = field(default_factory=dict)
    levels: Mapping[tuple[str, str], Correction] = field(default_factory=dict)
    energy: float = 1.0
    requests: int = 0
    first_ns: int = 0
    last_ns: int = 0
    credit: float = 0.0
    generous: bool = True

    def factor_milli(self, cluster: str, level: str, margin: float) -> int:
        """Factor for the time of a level on a cluster: its own correction where trusted, else that of more runs."""
        for known in (self.levels.get((cluster, level)), self.clusters.get(cluster)):
            if known is not None and len(known.ratios_milli) >= TRUSTED:
                return known.factor_milli(margin)
        return self.overall.factor_milli(margin)

    def period_ns(self, expected_ns: int) -> float:
        """Mean time between requests: the expected one, corrected by what came."""
        steps = max(0, self.requests - 1)
        return (EXPECTED_REQUESTS * expected_ns + self.last_ns - self.first_ns) / (EXPECTED_REQUESTS + steps)

    def learn(self, outcome: Outcome, mean_score: float | None = None, poor: float = 0.0, rich: float = 0.0) -> Memory:
        """With one outcome more.

        Args:
            mean_score: the mean score to keep, where one is wanted.
            poor, rich: credit below which the better level is taken, and at which saving begins again.
        """
        choice, predicted_ns = outcome.option.choice, outcome.option.latency_ns
        place = choice.cluster, choice.level
        overall, served = self.overall, self.requests
        own, near = self.levels.get(place, Correction()), self.clusters.get(choice.cluster, Correction())
        if outcome.timed:
            overall, own, near = (known.seen(predicted_ns, outcome.run_ns, served) for known in (overall, own, near))
        clusters = {name: known.believed(served, overall) for name, known in self.clusters.items()}
        levels = {name: known.believed(served, overall) for name, known in self.levels.items()}
        energy = self.energy
        share = outcome.energy_share
        if share is not None and math.isfinite(share):
            energy += ENERGY_STEP * (min(4.0, max(0.25, share)) - energy)
        credit, generous = self.credit, self.generous
        if mean_score is not None:
            credit += outcome.option.score - mean_score
            generous = credit < rich if generous else credit < poor
        return replace(
            self,
            overall=overall,
            clusters={**clusters, choice.cluster: near},
            levels={**levels, place: own},
            energy=energy,
            requests=served + 1,
            first_ns=self.first_ns if self.requests else outcome.start_ns,
            last_ns=outcome.start_ns,
            credit=credit,
            generous=generous,
        )
