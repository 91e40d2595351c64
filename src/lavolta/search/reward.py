"""Rewards of a child: what the search maximizes. Latency is judged first; a child that misses it has no scores.

Labels in square brackets say how far each form is known from the papers; [proposed] is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lavolta.errors import UserInputError
from lavolta.search.spaces import Facts


class Reward(Protocol):
    """A reward is a frozen dataclass, so that a study can tell whether it was continued with another one."""

    def violated(self, facts: Facts) -> float:
        """Reward of a child that misses the deadline; it is neither trained nor evaluated."""

    def satisfied(self, facts: Facts, scores: Sequence[float]) -> float:
        """Reward of a child that meets the deadline, from the score of each level."""


@dataclass(frozen=True)
class Rt3Reward:
    """RT3's reward, in two cases on whether *all* levels meet the deadline.

    [unverified: low on exact form, medium on the ingredients]

    * violated: `R = -1 + R_runs`
    * satisfied: `R = (A_w - A_m) / (A_o - A_m) + R_runs - pen`

    `A_w` is the weighted sum of the levels' scores and `R_runs` the number of inferences per charge, normalized
    [unverified: low on exact form]: here `(runs - runs_low) / (runs_high - runs_low)`, limited to 0 to 1 [proposed].
    `pen` is there "when the accuracy order contradicts the sparsity order" [unverified: low on exact form]:
    here `penalty` times the share of level pairs of unequal sparsity whose sparser level scores higher [proposed].

    Args:
        original_score: `A_o`, of the original or backbone model.
        smallest_score: `A_m`, the smallest acceptable score, below `A_o`.
        weights: one per level, summing to 1; empty means equal [proposed]. Their use is [unverified: medium].
        runs_low: inferences per charge that give `R_runs` 0.
        runs_high: inferences per charge that give `R_runs` 1.
        penalty: the largest `pen`, 0 or more [proposed].

    Raises:
        UserInputError: for a value outside its range.
    """

    original_score: float
    smallest_score: float
    weights: tuple[float, ...] = ()
    runs_low: float = 0.0
    runs_high: float = 1.0
    penalty: float = 0.5

    def __post_init__(self) -> None:
        if not self.smallest_score < self.original_score < math.inf:
            raise UserInputError(
                f"smallest_score {self.smallest_score} must lie below original_score {self.original_score}; lower it."
            )
        if not self.runs_low < self.runs_high < math.inf:
            raise UserInputError(f"runs_low {self.runs_low} must lie below runs_high {self.runs_high}.")
        if not 0.0 <= self.penalty < math.inf:
            raise UserInputError(f"penalty is {self.penalty}; it must be 0 or more.")
        _check_weights(self.weights)

    def violated(self, facts: Facts) -> float:
        """In -1 to 0."""
        return -1.0 + self.normalized_runs(facts.runs)

    def satisfied(self, facts: Facts, scores: Sequence[float]) -> float:
        """At least `R_runs - penalty` where the weighted score is acceptable; unbounded below where it is not."""
        score = (weighted_score(scores, self.weights) - self.smallest_score) / (
            self.original_score - self.smallest_score
        )
        return score + self.normalized_runs(facts.runs) - self.penalty * disorder(facts.sparsity, scores)

    def normalized_runs(self, runs: float) -> float:
        """`R_runs`, 0 to 1."""
        return min(max((runs - self.runs_low) / (self.runs_high - self.runs_low), 0.0), 1.0)


@dataclass(frozen=True)
class HotNasReward:
    """HotNAS's reward, a usable fallback: `R = a * R_acc + (1 - a) * R_lat`.

    [related code by the same authors (hotNAS)]

    * `R_acc`: -1 below the lower target, +1 above the upper one, linear in between; a child that misses the latency
      is not trained and gets accuracy 0.
    * `R_lat`: +1 below the lower latency limit, linear from +1 to -1 up to the upper limit (the deadline); above it the
      published form is `limit - latency` in ms, unbounded, and -1 for what cannot run at all.

    The published form ranks a near miss (about 0) above a child that just meets the deadline (-1). By default a miss
    gives `-1 - min((latency - limit) / limit, 1)` instead, so that latency never rises in reward [proposed].
    With several levels, latency is that of the slowest and accuracy the weighted score [proposed].

    Args:
        low_score: lower accuracy target, at least 0.
        high_score: upper accuracy target.
        low_latency_ms: lower latency limit, below the deadline.
        accuracy_share: `a`, 0 to 1 (0.7 as published).
        weights: one per level, summing to 1; empty means equal.
        published_miss: use the published form of `R_lat` above the limit.

    Raises:
        UserInputError: for a value outside its range, or a deadline at or below `low_latency_ms`.
    """

    low_score: float
    high_score: float
    low_latency_ms: float
    accuracy_share: float = 0.7
    weights: tuple[float, ...] = ()
    published_miss: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.low_score < self.high_score < math.inf:
            raise UserInputError(
                f"low_score {self.low_score} must be at least 0 and lie below high_score {self.high_score}."
            )
        if not 0.0 <= self.accuracy_share <= 1.0:
            raise UserInputError(f"accuracy_share is {self.accuracy_share}; it must be in 0 to 1.")
        if not 0.0 <= self.low_latency_ms < math.inf:
            raise UserInputError(f"low_latency_ms is {self.low_latency_ms}; it must be 0 or more.")
        _check_weights(self.weights)

    def violated(self, facts: Facts) -> float:
        """In -2 to -1 times the shares; with `published_miss` unbounded below."""
        return self._mix(self._accuracy(0.0), self._latency(facts))

    def satisfied(self, facts: Facts, scores: Sequence[float]) -> float:
        """In -1 to 1."""
        return self._mix(self._accuracy(weighted_score(scores, self.weights)), self._latency(facts))

    def _mix(self, accuracy: float, latency: float) -> float:
        return self.accuracy_share * accuracy + (1.0 - self.accuracy_share) * latency

    def _accuracy(self, score: float) -> float:
        return min(max(2.0 * (score - self.low_score) / (self.high_score - self.low_score) - 1.0, -1.0), 1.0)

    def _latency(self, facts: Facts) -> float:
        limit = facts.deadline_ms
        if limit <= self.low_latency_ms:
            raise UserInputError(f"low_latency_ms {self.low_latency_ms} must lie below the deadline of {limit:g} ms.")
        latency = max(facts.latency_ms)
        if latency <= limit:
            return 1.0 - 2.0 * max(latency - self.low_latency_ms, 0.0) / (limit - self.low_latency_ms)
        if self.published_miss:
            return limit - latency if math.isfinite(latency) else -1.0
        return -1.0 - min((latency - limit) / limit, 1.0)


@dataclass(frozen=True)
class ScoreReward:
    """The score itself, for spaces whose children all meet the budget and have one level."""

    def violated(self, facts: Facts) -> float:
        raise UserInputError(f"a child costs {max(facts.latency_ms):g}, above its budget of {facts.deadline_ms:g}.")

    def satisfied(self, facts: Facts, scores: Sequence[float]) -> float:
        del facts
        return float(scores[0])


def weighted_score(scores: Sequence[float], weights: Sequence[float] = ()) -> float:
    """`A_w`: the weighted sum of the levels' scores; no weights means equal ones.

    Raises:
        UserInputError: for another number of weights than levels.
    """
    if not weights:
        return math.fsum(scores) / len(scores)
    if len(weights) != len(scores):
        raise UserInputError(f"{len(weights)} reward weights do not fit {len(scores)} levels; give one per level.")
    return math.fsum(weight * score for weight, score in zip(weights, scores, strict=True))


def disorder(sparsity: Sequence[float], scores: Sequence[float]) -> float:
    """Share, 0 to 1, of the level pairs of unequal sparsity in which the sparser level scores higher."""
    pairs = inverted = 0
    for i in range(len(sparsity)):
        for j in range(len(sparsity)):
            if sparsity[i] < sparsity[j]:
                pairs += 1
                inverted += scores[i] < scores[j]
    return inverted / pairs if pairs else 0.0


def _check_weights(weights: Sequence[float]) -> None:
    if any(not weight >= 0 for weight in weights) or (weights and abs(math.fsum(weights) - 1.0) > 1e-9):
        raise UserInputError(f"the reward weights {list(weights)} must be 0 or more and sum to 1.")
