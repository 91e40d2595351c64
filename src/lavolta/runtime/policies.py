"""Who turns the dial: the three policies of RT3's motivation, and ours, behind one small protocol.

E1, E2 and E3 are the rows of RT3's motivation table (papers sheet of RT3, 2.2, unverified: medium): no reconfiguration,
hardware only, hardware and software. Results carry `words`, because an improvement means nothing without its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lavolta.errors import UserInputError
from lavolta.runtime.scenario import Choice, LevelWork, Option, Scenario

PAPER_MODES = (1.0, 5 / 7, 4 / 7)
"""RT3's run-time levels l6, l4, l3 (1400, 1000, 800 MHz) as shares of the highest frequency."""


@dataclass(frozen=True)
class State:
    """What a policy knows when a request starts. Whole units, so that a plan neither drifts nor flips by rounding.

    Args:
        charge_fj, capacity_fj: what is left, and what a full battery holds.
        time_ns: since the start.
        waited_ns: how long this request has waited already.
        current: the choice in force; none before the first request.
    """

    charge_fj: int
    capacity_fj: int
    time_ns: int
    waited_ns: int = 0
    current: Choice | None = None

    @property
    def charge(self) -> float:
        """Share of the capacity that is left, 0 to 1."""
        return self.charge_fj / self.capacity_fj

    @property
    def time_h(self) -> float:
        return self.time_ns / 3.6e12


class Policy(Protocol):
    """Chooses for every request.

    Attributes:
        name: short and stable.
        words: what it does, with its thresholds, in one sentence.
        breaks_ns: a promise that lets a simulation look for the next change instead of asking at every request: while
            one choice is repeated at a constant rhythm, the policy changes its mind at most once between two of these
            times before the change is acted on. None promises nothing.
    """

    @property
    def name(self) -> str: ...

    @property
    def words(self) -> str: ...

    @property
    def breaks_ns(self) -> tuple[int, ...] | None: ...

    def choose(self, state: State) -> Choice:
        """How the request that starts now runs."""
        ...


@dataclass(frozen=True)
class ModesPolicy:
    """One fixed choice per mode; modes divide the charge in equal shares, the first while it is full."""

    name: str
    words: str
    modes: tuple[Choice, ...]
    breaks_ns: tuple[int, ...] | None = ()

    def choose(self, state: State) -> Choice:
        count = len(self.modes)
        for index, mode in enumerate(self.modes[:-1]):
            if state.charge_fj * count > state.capacity_fj * (count - 1 - index):
                return mode
        return self.modes[-1]


def no_reconfiguration(scenario: Scenario, level: str | None = None) -> ModesPolicy:
    """E1: the highest frequency and one level for the whole charge.

    Args:
        level: the densest level that meets the deadline there, where not named (the densest of all where none does).
    """
    top = scenario.used_cluster.max_mhz
    chosen = _fixed_level(scenario, level)
    words = f"no reconfiguration (E1): {top:g} MHz and level {chosen.name} for the whole charge"
    return ModesPolicy("no-reconfiguration", words, (_choice(scenario, top, chosen),))


def hardware_only(scenario: Scenario, level: str | None = None) -> ModesPolicy:
    """E2: the frequency falls with the charge in the paper's modes, the level stays; so deadlines are missed.

    Args:
        level: that of `no_reconfiguration` where not named.
    """
    chosen = _fixed_level(scenario, level)
    modes = tuple(_choice(scenario, freq, chosen) for freq in mode_frequencies(scenario))
    words = f"hardware only (E2): level {chosen.name} throughout, {_mode_words(modes)}"
    return ModesPolicy("hardware-only", words, modes)


def rt3(scenario: Scenario) -> ModesPolicy:
    """E3: the frequency falls with the charge in the paper's modes, and each mode has the densest level that meets the
    deadline there. A mode that no level can meet uses the lowest frequency above it at which one does.

    Raises:
        InfeasibleError: no level meets the deadline at any frequency.
    """
    fitting = [
        option
        for option in scenario.fitting() or scenario.fitting(with_switch=False)
        if option.choice.threads == scenario.threads[0]
    ]
    if not fitting:
        raise scenario.refuse()
    order = {level.name: level.work.kept_macs for level in scenario.levels}
    modes = []
    for freq in mode_frequencies(scenario):
        usable = [option for option in fitting if option.choice.freq_mhz >= freq] or [
            max(fitting, key=lambda option: option.choice.freq_mhz)
        ]
        clock = min(option.choice.freq_mhz for option in usable)
        modes.append(
            max(
                (option.choice for option in usable if option.choice.freq_mhz == clock),
                key=lambda choice: order[choice.level],
            )
        )
    words = f"hardware and software (E3, RT3): {_mode_words(tuple(modes))}"
    return ModesPolicy("rt3", words, tuple(modes))


class LavoltaPolicy:
    """Ours: among the choices that keep the deadline, the cheapest, or the most accurate one that the charge can carry.

    With neither ``until_h`` nor ``reserve``: the lowest energy per period, idle time included. With ``until_h``: the
    most accurate choice whose consumption, repeated until then, leaves ``reserve``; the cheapest where none does. With
    ``reserve`` alone: the most accurate choice until that share is left, then the cheapest. The plan covers the
    remaining charge and is renewed at every request; less charge never leads to a hungrier choice.

    Args:
        margin: share by which a run may take longer than predicted.
        min_score: levels below this score are not used.
        until_h: how long the charge has to last, from the start.
        reserve: share of the capacity to keep.

    Raises:
        InfeasibleError: no allowed level keeps the deadline.
        UserInputError: a value outside its range.
    """

    name = "lavolta"

    def __init__(
        self,
        scenario: Scenario,
        margin: float = 0.0,
        min_score: float | None = None,
        until_h: float | None = None,
        reserve: float | None = None,
    ) -> None:
        if not (math.isfinite(margin) and margin >= 0):
            raise UserInputError(f"a margin of {margin} is not possible; give 0 or more (0.1 allows runs 10 % longer).")
        if until_h is not None and not (math.isfinite(until_h) and until_h > 0):
            raise UserInputError(f"until_h is {until_h}; give a positive number of hours.")
        if reserve is not None and not 0.0 <= reserve < 1.0:
            raise UserInputError(f"a reserve of {reserve} is outside 0 <= reserve < 1.")
        self._scenario = scenario
        self._margin = margin
        self._until_ns = None if until_h is None else round(until_h * 3.6e12)
        self._reserve = reserve
        # At the wanted hour every choice that leaves the reserve becomes affordable: a second reason to change.
        self.breaks_ns: tuple[int, ...] | None = () if self._until_ns is None else (self._until_ns,)
        roomy, tight = (
            [o for o in scenario.fitting(margin, with_switch) if min_score is None or o.score >= min_score]
            for with_switch in (True, False)
        )
        if not tight:
            raise scenario.refuse(_refusal(margin, min_score))
        # Where no choice leaves room for a switch before the run, stay with one choice.
        self._frontier = _frontier(scenario, roomy) if roomy else _frontier(scenario, tight)[:1]
        self._usable = roomy or self._frontier
        self._fastest = min(self._usable, key=lambda o: (o.latency_ns, o.cell_uw)).choice
        self.words = self._describe(min_score, until_h)

    def choose(self, state: State) -> Choice:
        in_time = self._frontier
        if state.waited_ns > 0:
            # A request that has waited needs a faster choice than the rhythm asks for.
            in_time = _frontier(self._scenario, [o for o in self._usable if self._keeps_deadline(o, state)])
        if not in_time:
            return self._fastest
        affordable = [option for option in in_time if self._affordable(option, state)]
        return (affordable[-1] if affordable else in_time[0]).choice

    def _keeps_deadline(self, option: Option, state: State) -> bool:
        switch_ns = self._scenario.switch_ns(state.current, option.choice)
        run_ns = math.ceil(option.latency_ns * (1 + self._margin))
        return state.waited_ns + switch_ns + run_ns <= self._scenario.deadline_ns

    def _affordable(self, option: Option, state: State) -> bool:
        if self._until_ns is None and self._reserve is None:
            return False
        above_fj = state.charge_fj - round((self._reserve or 0.0) * state.capacity_fj)
        if self._until_ns is None:
            return above_fj > 0
        # Both sides are scaled by the period: along a repeated choice the difference is then exactly constant.
        remaining_ns = max(0, self._until_ns - state.time_ns)
        after_switch_fj = above_fj - self._scenario.switch_fj(state.current, option.choice)
        return after_switch_fj * self._scenario.period_ns >= self._scenario.period_fj(option) * remaining_ns

    def _describe(self, min_score: float | None, until_h: float | None) -> str:
        goal = "the lowest energy per period, idle included"
        keep = f"{100 * self._reserve:g} %" if self._reserve else ""
        if until_h is not None:
            left = f" with {keep} left" if keep else ""
            goal = f"the most accurate choice with which the charge lasts {until_h:g} h{left}, else the cheapest"
        elif self._reserve is not None:
            goal = f"the most accurate choice until {keep or '0 %'} is left, then the cheapest"
        floor = "" if min_score is None else f", score at least {min_score:g}"
        return (
            f"ours: among frequency and level pairs whose predicted latency plus {100 * self._margin:g} % "
            f"meets the deadline{floor}: {goal}"
        )


def _frontier(scenario: Scenario, options: list[Option]) -> list[Option]:
    """Options by rising energy per period; each is more accurate than all cheaper ones."""
    ordered = sorted(options, key=lambda o: (scenario.period_fj(o), -o.score, o.choice.freq_mhz, o.choice.threads))
    frontier: list[Option] = []
    for option in ordered:
        if not frontier or option.score > frontier[-1].score:
            frontier.append(option)
    return frontier


def mode_frequencies(scenario: Scenario) -> list[float]:
    """The paper's three modes on this device: the steps closest to 1, 5/7, 4/7 of the highest, each once, falling."""
    steps = [step.freq_mhz for step in scenario.used_cluster.steps]
    modes = [min(steps, key=lambda step: abs(step - share * steps[-1])) for share in PAPER_MODES]
    return sorted(set(modes), reverse=True)


def _fixed_level(scenario: Scenario, name: str | None) -> LevelWork:
    densest_first = sorted(scenario.levels, key=lambda level: -level.work.kept_macs)
    if name is None:
        top = scenario.used_cluster.max_mhz
        meeting = [
            level
            for level in densest_first
            if scenario.option(_choice(scenario, top, level)).latency_ns <= scenario.limit_ns
        ]
        return (meeting or densest_first)[0]
    for level in densest_first:
        if level.name == name:
            return level
    raise UserInputError(f"unknown level {name!r}; the levels are {', '.join(level.name for level in densest_first)}.")


def _choice(scenario: Scenario, freq_mhz: float, level: LevelWork) -> Choice:
    return Choice(freq_mhz, scenario.threads[0], level.name)


def _mode_words(modes: tuple[Choice, ...]) -> str:
    count = len(modes)
    parts = []
    for index, mode in enumerate(modes):
        floor = 100 * (count - 1 - index) / count
        parts.append(f"{mode.freq_mhz:g} MHz with level {mode.level} above {floor:.0f} % of the charge")
    return "; ".join(parts)


def _refusal(margin: float, min_score: float | None) -> str:
    reasons = []
    if margin:
        reasons.append(f"with a margin of {100 * margin:g} %")
    if min_score is not None:
        reasons.append(f"with a score of at least {min_score:g}")
    return f" {' and '.join(reasons)}; lower them or allow a longer deadline" if reasons else ""


POLICIES: dict[str, Callable[[Scenario], Policy]] = {
    "no-reconfiguration": no_reconfiguration,
    "hardware-only": hardware_only,
    "rt3": rt3,
    "lavolta": LavoltaPolicy,
}
"""Name to policy with its defaults; the order is that of reports."""


def make_policy(name: str, scenario: Scenario) -> Policy:
    """A policy by name, with its defaults."""
    if name not in POLICIES:
        raise UserInputError(f"unknown policy {name!r}; choose one of {', '.join(POLICIES)}.")
    return POLICIES[name](scenario)
