"""How sparsity, learning rate and the share of grafted layers change with the step of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from lavolta.errors import UserInputError


@dataclass(frozen=True)
class CubicSparsity:
    """Sparsity that rises fast, then slowly: Zhu and Gupta 2017 (arXiv 1710.01878).

    Args:
        steps: of the pruning phase; the last event comes after that many steps and reaches the whole target.
        events: times at which cells are dropped, evenly spaced.
        begin: share of the target's way that the first step jumps, 0 to below 1; 0 begins dense.
    """

    steps: int
    events: int = 12
    begin: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.events < 1 or not 0.0 <= self.begin < 1.0:
            raise UserInputError(
                f"pruning over {self.steps} steps in {self.events} events from {self.begin:g} of the target is not "
                "possible; give steps >= 0, events >= 1 and 0 <= begin < 1."
            )

    def share(self, step: int) -> float:
        """Share of the target sparsity that holds before ``step``, 0 to 1; a step function of the events."""
        if step >= self.steps:
            return 1.0
        done = max((k for k in range(self.events + 1) if self.event_step(k) <= step), default=0)
        return self.begin + (1.0 - self.begin) * (1.0 - (1.0 - done / self.events) ** 3)

    def event_step(self, event: int) -> int:
        """The step before which event ``1 ... events`` happens; event 0 is the beginning."""
        return round(event * self.steps / self.events)


@dataclass(frozen=True)
class RestartedDecay:
    """A learning rate that falls linearly from its peak to zero in every phase, and restarts at the peak.

    Args:
        peak: learning rate.
        ends: the step at which each phase ends, rising; the last one is the length of the run.
    """

    peak: float
    ends: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.ends or any(b <= a for a, b in pairwise((0, *self.ends))) or not 0.0 < self.peak < float("inf"):
            raise UserInputError(
                f"a learning rate of {self.peak:g} over phases that end at {list(self.ends)} is not possible; give a "
                "positive rate and rising ends."
            )

    def at(self, step: int) -> float:
        """The rate of a step, 0-based."""
        begin = 0
        for end in self.ends:
            if step < end:
                return self.peak * (end - step) / (end - begin)
            begin = end
        return 0.0


class Replacing(Protocol):
    """How likely a student layer stands in for its original."""

    def at(self, step: int) -> float:
        """Probability before a step, 0 to 1."""


@dataclass(frozen=True)
class ConstantReplacing:
    """One probability for the whole run."""

    probability: float

    def __post_init__(self) -> None:
        _check_probability(self.probability)

    def at(self, step: int) -> float:
        del step
        return self.probability


@dataclass(frozen=True)
class MixedReplacing:
    """SPD's three phases: constant while pruning, then linear to 1, then 1.

    Args:
        probability: of the first phase.
        hold: steps of the first phase.
        rise: steps in which the probability rises to 1.

    Raises:
        UserInputError: a probability that is not in 0 to 1, or one below 1 that never rises: layers that are not
            always in the path would be the whole model at the end without having learned to work together.
    """

    probability: float
    hold: int
    rise: int

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        if self.hold < 0 or (self.rise < 1 and self.probability < 1.0):
            raise UserInputError(
                f"a replacing probability of {self.probability:g} that never rises to 1 trains layers for a model that "
                "is never run; give the rise at least one step."
            )

    def at(self, step: int) -> float:
        if step < self.hold or self.probability == 1.0:
            return self.probability
        left = max(0, self.hold + self.rise - step)
        # Written from the end, 1 is reached exactly; rounding must not fall below the beginning.
        return max(self.probability, 1.0 - (1.0 - self.probability) * left / self.rise)


def phase_steps(steps: int, shares: Sequence[float]) -> tuple[int, ...]:
    """The step at which each phase ends, from the phases' shares of a run; the last phase has at least one step.

    Raises:
        UserInputError: no step, or shares that do not add up to 1.
    """
    if steps < 1 or min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-9:
        raise UserInputError(f"{steps} steps in phases of {list(shares)} do not fit; give steps, and shares of sum 1.")
    ends, total = [], 0.0
    for share in shares[:-1]:
        total += share
        ends.append(min(steps - 1, round(total * steps)))
    return (*ends, steps)


def _check_probability(probability: float) -> None:
    if not 0.0 <= probability <= 1.0:
        raise UserInputError(f"a replacing probability of {probability} is outside 0 to 1.")
