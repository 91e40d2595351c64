"""Search spaces as data: what may be chosen at each step, what a choice means, and which choices meet the deadline.

A child is a tuple of actions, one integer per step. Two spaces exist: one pattern set per frequency level (RT3 as
published), and one cut per layer group and level (ranked levels). Both hold only what meets the deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from lavolta.errors import InfeasibleError, UserInputError

Actions = tuple[int, ...]
ChoiceT_co = TypeVar("ChoiceT_co", covariant=True)


@dataclass(frozen=True)
class Step:
    """One decision of a child: its name, which is also the Optuna parameter, and its choices (a count, at least 1)."""

    name: str
    choices: int


@dataclass(frozen=True)
class Facts:
    """What is known of a child before anything is trained; levels in the order of the space.

    Args:
        latency_ms: predicted latency of each level at its frequency.
        sparsity: weight sparsity of each level, 0 to 1.
        deadline_ms: the limit that every level must meet.
        runs: inferences per charge (a count), 0 where nobody predicts them.
    """

    latency_ms: tuple[float, ...]
    sparsity: tuple[float, ...]
    deadline_ms: float
    runs: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether all levels meet the deadline."""
        return all(latency <= self.deadline_ms for latency in self.latency_ms)


class SearchSpace(Protocol[ChoiceT_co]):
    """What samplers and studies need of a space; `decode` gives what the caller's evaluation receives."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The decisions, in the order in which the controller takes them."""

    def settle(self, actions: Sequence[int]) -> Actions:
        """The child that these actions stand for; two action tuples that settle equally are one child."""

    def decode(self, actions: Sequence[int]) -> ChoiceT_co:
        """The settled child in the terms of the caller."""

    def facts(self, actions: Sequence[int]) -> Facts:
        """Latency and sparsity of the settled child."""

    def describe(self) -> dict[str, Any]:
        """The whole space as JSON data: equal spaces describe equally."""


@dataclass(frozen=True)
class Candidate:
    """One pattern set that a level may take: `alternative` numbers the sets of equal sparsity.

    `latency_ms` is the prediction at the frequency of the level that lists it.
    """

    sparsity: float
    alternative: int
    latency_ms: float


@dataclass(frozen=True)
class PatternSetSpace:
    """RT3's space: step `i` picks one candidate pattern set for frequency level `i`.

    Args:
        freqs_mhz: frequency of each level, highest first.
        deadline_ms: every candidate meets it at its level's frequency.
        candidates: per level, by sparsity and then by alternative.
    """

    freqs_mhz: tuple[float, ...]
    deadline_ms: float
    candidates: tuple[tuple[Candidate, ...], ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(Step(f"level{i}", len(options)) for i, options in enumerate(self.candidates))

    def settle(self, actions: Sequence[int]) -> Actions:
        return check_actions(self.steps, actions)

    def decode(self, actions: Sequence[int]) -> tuple[Candidate, ...]:
        """The candidate of each level."""
        return tuple(options[a] for options, a in zip(self.candidates, self.settle(actions), strict=True))

    def facts(self, actions: Sequence[int]) -> Facts:
        chosen = self.decode(actions)
        return Facts(tuple(c.latency_ms for c in chosen), tuple(c.sparsity for c in chosen), self.deadline_ms)

    def describe(self) -> dict[str, Any]:
        return {"kind": "pattern-sets", **asdict(self)}


def pattern_set_space(
    latency_ms: Callable[[float, float], float],
    freqs_mhz: Sequence[float],
    deadline_ms: float,
    sparsities: Sequence[float],
    theta: int = 4,
    alternatives: int = 2,
) -> PatternSetSpace:
    """Generate RT3's space (papers: RT3 section on search-space generation [unverified: medium]).

    For each level the predictor finds the smallest sparsity of the grid that meets the deadline; `theta` sparsities
    at or above it that meet it as well are kept. What misses the deadline is never in the space.

    Args:
        latency_ms: predictor, `(sparsity, freq_mhz)` to milliseconds.
        freqs_mhz: frequency of each level, highest first.
        sparsities: the grid, each in 0 <= sparsity < 1.
        theta: sparsities kept per level (a count) [proposed: 3 to 5].
        alternatives: pattern sets of each sparsity (a count) [proposed].

    Raises:
        InfeasibleError: for a frequency at which no sparsity meets the deadline; it names the closest.
        UserInputError: for an empty or wrong grid, deadline, frequency or prediction.
    """
    freqs, grid = _checked_freqs(freqs_mhz), _checked_grid(sparsities)
    _check_positive("deadline_ms", deadline_ms)
    _check_count("theta", theta)
    _check_count("alternatives", alternatives)
    levels = []
    for freq in freqs:
        predicted = [
            (sparsity, _checked_latency(latency_ms(sparsity, freq), f"sparsity {sparsity:g}", freq))
            for sparsity in grid
        ]
        fitting = [(sparsity, latency) for sparsity, latency in predicted if latency <= deadline_ms][:theta]
        if not fitting:
            sparsity, closest_ms = min(predicted, key=lambda pair: pair[1])
            raise _infeasible(deadline_ms, freq, f"a sparsity of {100 * sparsity:g} %", closest_ms)
        levels.append(tuple(Candidate(s, alt, latency) for s, latency in fitting for alt in range(alternatives)))
    return PatternSetSpace(freqs, float(deadline_ms), tuple(levels))


@dataclass(frozen=True)
class CutOption:
    """One cut that a layer group may take at a level: its weight sparsity and its predicted cost at that frequency."""

    sparsity: float
    cost_ms: float


@dataclass(frozen=True)
class CutSpace:
    """Ranked levels: for each level and layer group one cut, under a hard latency budget per level.

    The actions of a level are preferences, index 0 densest. Where they cost more than the deadline, all groups of
    that level move together to sparser options, by the smallest shift that fits (`settle`), so that every child meets
    the deadline and no group pays for its place in the order.

    Args:
        freqs_mhz: frequency of each level, highest first.
        groups: name and number of weights of each layer group.
        rest_ms: per level, the cost of what is never cut.
        options: `[level][group]`, densest first, costs strictly falling.
    """

    freqs_mhz: tuple[float, ...]
    deadline_ms: float
    groups: tuple[tuple[str, int], ...]
    rest_ms: tuple[float, ...]
    options: tuple[tuple[tuple[CutOption, ...], ...], ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(
            Step(f"level{i}.{name}", len(options))
            for i, level in enumerate(self.options)
            for (name, _), options in zip(self.groups, level, strict=True)
        )

    def settle(self, actions: Sequence[int]) -> Actions:
        checked = check_actions(self.steps, actions)
        settled: list[int] = []
        for i, level in enumerate(self.options):
            wanted = checked[i * len(self.groups) : (i + 1) * len(self.groups)]
            shift = 0
            while True:
                shifted = [min(a + shift, len(options) - 1) for a, options in zip(wanted, level, strict=True)]
                # The sparsest options fit by construction, so the shift ends.
                if self._latency_ms(i, shifted) <= self.deadline_ms:
                    break
                shift += 1
            settled.extend(shifted)
        return tuple(settled)

    def decode(self, actions: Sequence[int]) -> tuple[dict[str, float], ...]:
        """Per level, the sparsity of each layer group."""
        return tuple(
            {name: option.sparsity for (name, _), option in zip(self.groups, self._chosen(i, level), strict=True)}
            for i, level in enumerate(self._by_level(self.settle(actions)))
        )

    def facts(self, actions: Sequence[int]) -> Facts:
        by_level = self._by_level(self.settle(actions))
        weights = sum(count for _, count in self.groups)
        sparsity = tuple(
            sum(o.sparsity * count for o, (_, count) in zip(self._chosen(i, level), self.groups, strict=True)) / weights
            for i, level in enumerate(by_level)
        )
        return Facts(tuple(self._latency_ms(i, level) for i, level in enumerate(by_level)), sparsity, self.deadline_ms)

    def describe(self) -> dict[str, Any]:
        return {"kind": "cuts", **asdict(self)}

    def _by_level(self, actions: Actions) -> list[Actions]:
        width = len(self.groups)
        return [actions[i * width : (i + 1) * width] for i in range(len(self.options))]

    def _chosen(self, level: int, actions: Sequence[int]) -> list[CutOption]:
        return [options[a] for options, a in zip(self.options[level], actions, strict=True)]

    def _latency_ms(self, level: int, actions: Sequence[int]) -> float:
        return self.rest_ms[level] + math.fsum(option.cost_ms for option in self._chosen(level, actions))


def cut_space(
    group_ms: Callable[[str, float, float], float],
    rest_ms: Callable[[float], float],
    groups: Mapping[str, int],
    freqs_mhz: Sequence[float],
    deadline_ms: float,
    sparsities: Sequence[float],
) -> CutSpace:
    """Generate the space of per-group cuts.

    A sparser cut that is not cheaper than a denser one is never in the space.

    Args:
        group_ms: predictor, `(group, sparsity, freq_mhz)` to milliseconds.
        rest_ms: predictor of what is never cut, `freq_mhz` to milliseconds (0 or more).
        groups: layer group to its number of weights.
        freqs_mhz: frequency of each level, highest first.
        sparsities: the grid, each in 0 <= sparsity < 1.

    Raises:
        InfeasibleError: for a frequency at which even the cheapest cuts miss the deadline; it names the latency needed.
        UserInputError: for an empty or wrong grid, group, deadline, frequency or prediction.
    """
    freqs, grid = _checked_freqs(freqs_mhz), _checked_grid(sparsities)
    _check_positive("deadline_ms", deadline_ms)
    if not groups:
        raise UserInputError("there is no layer group to cut; give at least one.")
    for name, weights in groups.items():
        _check_count(f"the number of weights of group {name!r}", weights)
    rest = tuple(float(rest_ms(freq)) for freq in freqs)
    levels = []
    for freq, rest_at_freq in zip(freqs, rest, strict=True):
        if not (math.isfinite(rest_at_freq) and rest_at_freq >= 0):
            raise UserInputError(f"the predictor gives {rest_at_freq} ms for the rest at {freq:g} MHz; expected >= 0.")
        level = []
        for name in groups:
            kept: list[CutOption] = []
            for sparsity in grid:
                cost = _checked_latency(group_ms(name, sparsity, freq), f"{name} at sparsity {sparsity:g}", freq)
                if not kept or cost < kept[-1].cost_ms:
                    kept.append(CutOption(sparsity, cost))
            level.append(tuple(kept))
        cheapest_ms = rest_at_freq + math.fsum(options[-1].cost_ms for options in level)
        if cheapest_ms > deadline_ms:
            raise _infeasible(deadline_ms, freq, "the sparsest cut of every group", cheapest_ms)
        levels.append(tuple(level))
    return CutSpace(freqs, float(deadline_ms), tuple(groups.items()), rest, tuple(levels))


def check_actions(steps: Sequence[Step], actions: Sequence[int]) -> Actions:
    """The actions as a tuple, after a check of their number and ranges.

    Raises:
        UserInputError: for a missing, surplus or out-of-range action.
    """
    if len(actions) != len(steps):
        raise UserInputError(f"a child of this space has {len(steps)} actions, not {len(actions)}.")
    for step, action in zip(steps, actions, strict=True):
        if not 0 <= action < step.choices:
            raise UserInputError(f"action {action} of step {step.name!r} is outside 0 to {step.choices - 1}.")
    return tuple(int(action) for action in actions)


def _infeasible(deadline_ms: float, freq_mhz: float, closest: str, closest_ms: float) -> InfeasibleError:
    return InfeasibleError(
        f"nothing meets {deadline_ms:g} ms at {freq_mhz:g} MHz: the closest is {closest} with {closest_ms:.4g} ms; "
        f"allow a deadline of that much, offer higher sparsities, or leave this frequency out."
    )


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UserInputError(f"{name} is {value}; it must be a positive number.")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise UserInputError(f"{name} is {value}; it must be at least 1.")


def _checked_freqs(freqs_mhz: Sequence[float]) -> tuple[float, ...]:
    if not freqs_mhz:
        raise UserInputError("there is no frequency level; give at least one.")
    for freq in freqs_mhz:
        _check_positive("a frequency in MHz", freq)
    if any(low >= high for high, low in pairwise(freqs_mhz)):
        raise UserInputError(
            f"the frequencies {list(freqs_mhz)} must fall from level to level; give the highest first."
        )
    return tuple(float(freq) for freq in freqs_mhz)


def _checked_grid(sparsities: Sequence[float]) -> list[float]:
    if not sparsities:
        raise UserInputError("the grid of sparsities is empty; give at least one.")
    for sparsity in sparsities:
        if not 0.0 <= sparsity < 1.0:
            raise UserInputError(f"a sparsity of {sparsity} is outside 0 <= sparsity < 1.")
    return sorted({float(sparsity) for sparsity in sparsities})


def _checked_latency(latency_ms: float, what: str, freq_mhz: float) -> float:
    if not (math.isfinite(latency_ms) and latency_ms >= 0):
        raise UserInputError(
            f"the predictor gives {latency_ms} ms for {what} at {freq_mhz:g} MHz; repair the predictor."
        )
    return float(latency_ms)
