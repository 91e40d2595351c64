"""The decision of the governor: state and memory in, (frequency, threads, level, cluster) out; nothing else is read.

Among the choices whose predicted 99th percentile meets the deadline it takes the one that maximizes
``score - price * energy``. The price of energy is what the goal and the remaining charge make of it: without a goal
it is infinite (the cheapest choice), on mains power zero (the best one), and with a wanted lifetime the slope of the
frontier of score against energy at what the remaining charge allows per request - the Lagrange multiplier of "most
score for this charge". It is computed anew at every request, so it follows what really happened.

docs/design/energy-and-battery.md has the reasoning and the properties that tests hold.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from lavolta.devices.profile import Cluster
from lavolta.errors import UserInputError
from lavolta.runtime.governor_memory import ONE_MILLI, Memory
from lavolta.runtime.governor_menu import Menu
from lavolta.runtime.policy import Outcome, State
from lavolta.runtime.scenario import Option, Scenario

HYSTERESIS_MILLI = 10
"""A denser choice than the present one must be affordable with 1 % to spare; so a plan does not flutter."""
BLOCK = 32
"""Requests for which the better level is kept before saving begins again, while a mean score is kept."""
QUEUE_STEPS = 32
"""Amounts of time left, in a deadline, for which runs with a raise are planned."""
MOST_MENUS = 256
"""Menus that are kept for when the same corrections and limits come again."""
Demand = Callable[[int, int], float]
"""Expected number of requests between two times in ns."""


@dataclass(frozen=True)
class Goal:
    """What is wanted beside the deadline. Without any of it: the lowest energy.

    Args:
        until_h: how long the charge has to last, from the start; the best score that allows it.
        reserve: share of the capacity to keep; alone: the best score until then, then the lowest energy.
        min_score: levels below this score are not used.
        mean_score: the lowest energy whose mean score over all answers is at least this.
        margin: share by which a run may take longer than predicted.
        warn_c, max_c: between these temperatures the highest power of a core falls from that of the hungriest step to
            that of the thriftiest, over all clusters: moving to a hungrier cluster cools nothing.

    Raises:
        UserInputError: a value outside its range, or goals that exclude each other.
    """

    until_h: float | None = None
    reserve: float | None = None
    min_score: float | None = None
    mean_score: float | None = None
    margin: float = 0.0
    warn_c: float = 80.0
    max_c: float = 95.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise UserInputError(
                f"a margin of {self.margin} is not possible; give 0 or more (0.1 allows runs 10 % longer)."
            )
        if self.until_h is not None and not (math.isfinite(self.until_h) and self.until_h > 0):
            raise UserInputError(f"until_h is {self.until_h}; give a positive number of hours.")
        if self.reserve is not None and not 0.0 <= self.reserve < 1.0:
            raise UserInputError(f"a reserve of {self.reserve} is outside 0 <= reserve < 1.")
        if self.mean_score is not None and (self.until_h is not None or self.reserve is not None):
            raise UserInputError("mean_score excludes until_h and reserve: it saves what they spend; give one of them.")
        if not self.warn_c < self.max_c:
            raise UserInputError(f"warn_c of {self.warn_c} is not below max_c of {self.max_c}; raise max_c.")

    @property
    def until_ns(self) -> int | None:
        return None if self.until_h is None else round(self.until_h * 3.6e12)

    def heat_limits_mhz(self, temperature_c: float | None, clusters: Sequence[Cluster]) -> dict[str, float]:
        """The highest clock of each cluster that a temperature allows, 0 for none at all; empty below ``warn_c``."""
        if temperature_c is None or temperature_c <= self.warn_c:
            return {}
        coolness = max(0.0, (self.max_c - temperature_c) / (self.max_c - self.warn_c))
        powers = sorted(cluster.active_mw(step.freq_mhz) for cluster in clusters for step in cluster.steps)
        most = powers[math.floor(coolness * (len(powers) - 1))]
        return {
            cluster.name: max((s.freq_mhz for s in cluster.steps if cluster.active_mw(s.freq_mhz) <= most), default=0.0)
            for cluster in clusters
        }


class Reason(str, Enum):
    """Why a choice was made."""

    CHEAPEST = "lowest energy"
    SHORT = "lowest energy, and the charge still ends too early"
    UNKNOWN = "lowest energy: the charge is not known"
    PLAN = "best score that the charge allows"
    MEAN = "lowest energy for the wanted mean score"
    MAINS = "best score, on mains power"
    LATE = "fastest: nothing meets the deadline"
    LIMITED = "fastest that heat or the system allows: nothing meets the deadline"
    PINNED = "level set by the operator"


@dataclass(frozen=True)
class Decision:
    """A choice, why, and what it rests on.

    Attributes:
        p99_ns: predicted 99th percentile of the run.
        price: of energy, in score per fJ; infinite where only energy counts.
        short_h: where the charge cannot last as long as wanted, how much earlier it ends; else none.
    """

    option: Option
    reason: Reason
    p99_ns: int
    price: float
    short_h: float | None = None

    @property
    def late(self) -> bool:
        """Whether the answer is expected to be late."""
        return self.reason in (Reason.LATE, Reason.LIMITED)


class Governor:
    """Decides for one scenario and goal.

    Args:
        demand: expected requests between two times. Where not given: one every period, or for irregular arrivals as
            many as have come so far.
        raises: whether the clock of a run can be raised before its end.
        moves: whether the rest of a run can be moved to another cluster, too.

    Raises:
        InfeasibleError: no allowed level keeps the deadline.
        UserInputError: a value outside its range.
    """

    def __init__(
        self,
        scenario: Scenario,
        goal: Goal | None = None,
        demand: Demand | None = None,
        raises: bool = False,
        moves: bool = False,
    ) -> None:
        self.scenario, self.goal, self.demand = scenario, goal or Goal(), demand
        self._raises, self._moves = raises, raises and moves
        self._step_ns = max(1, scenario.deadline_ns // QUEUE_STEPS)
        self._menus: dict[tuple[object, ...], Menu] = {}
        floor = self.goal.min_score
        self._places = [
            (cluster.name, level.name)
            for cluster in scenario.used_clusters
            for level in scenario.levels
            if floor is None or level.score >= floor
        ]
        levels = {level for _, level in self._places}
        allowed = any(choice.level in levels for choice in scenario.options)
        if not allowed or not self._menu(State(0, 1, 0), Memory()).in_time:
            raise scenario.refuse(_refusal(self.goal))

    def decide(self, state: State, memory: Memory | None = None) -> Decision:
        """How the request that starts now runs."""
        memory = memory or Memory()
        menu = self._menu(state, memory)
        price, reason = self._price(menu, state, memory)
        short_h = self._short_h(menu, state, memory) if reason is Reason.SHORT else None
        queued = state.waited_ns > 0 or state.behind_ns
        option = (
            self._in_queue(menu, state, price, memory)
            if queued
            else self._steady(menu, menu.hull, menu.slopes, state, price, memory)
        )
        if option is None or not menu.in_time:
            option, reason = menu.fastest, Reason.LIMITED if self._limited(state, memory) else Reason.LATE
        return Decision(option, reason, menu.p99_ns[option.choice], price, short_h)

    def plan_ahead(self, state: State, memory: Memory) -> None:
        """Make the plans that a decision in this state needs, so that the decision itself takes little time: for a
        request that is taken up at once, and for one that waited less than a step of a deadline.
        """
        self._menu(state, memory).raised((QUEUE_STEPS - 1) * self._step_ns)

    def stay(self) -> None:
        """From now on the rest of a run cannot be moved to another cluster."""
        self._moves = False
        self._menus.clear()

    def learn(self, memory: Memory, outcome: Outcome) -> Memory:
        """What is known after a run."""
        target = self.goal.mean_score
        if target is None:
            return memory.learn(outcome)
        menu = self._menu(State(0, 1, 0), memory)
        low, high = self._neighbors(menu, target)
        return memory.learn(outcome, target, max(0.0, target - low.score), BLOCK * max(0.0, high.score - target))

    def _menu(self, state: State, memory: Memory) -> Menu:
        margin = self.goal.margin
        factors = {place: memory.factor_milli(*place, margin) for place in self._places}
        near = None if state.current is None else state.current.kind
        key = (tuple(state.clock_mhz.items()), tuple(state.limit_mhz.items()), near, *factors.values())
        menu = self._menus.get(key)
        if menu is None:

            def p99_ns(option: Option) -> int:
                factor = factors[option.choice.cluster, option.choice.level]
                return -(-option.latency_ns * factor // ONE_MILLI)

            # A clock that the system chooses cannot be raised.
            raised = margin if self._raises and not state.clock_mhz else None
            menu = Menu(self.scenario, self._allowed(state), p99_ns, state.current, raised, self._moves)
            if len(self._menus) >= MOST_MENUS:
                self._menus.clear()
            self._menus[key] = menu
        return menu

    def _allowed(self, state: State) -> list[Option]:
        """The options of the allowed levels at the clocks that there are."""
        # Where the battery cannot supply any option at a clock, what it can supply is all that can be planned.
        here = self.scenario.at_clocks(state.clock_mhz) if state.clock_mhz else {}
        levels = {level for _, level in self._places}
        options = [o for o in (here or self.scenario.options).values() if o.choice.level in levels]
        below = [o for o in options if o.choice.freq_mhz <= state.limit_mhz.get(o.choice.cluster, math.inf)]
        if below:
            return below
        least = min(options, key=lambda o: (o.load_uw, o.choice)).choice
        return [o for o in options if (o.choice.cluster, o.choice.freq_mhz) == (least.cluster, least.freq_mhz)]

    def _limited(self, state: State, memory: Memory) -> bool:
        """Whether only the limits of the clocks make a request late."""
        limits = state.limit_mhz
        if not any(choice.freq_mhz > limits.get(choice.cluster, math.inf) for choice in self.scenario.options):
            return False
        free = replace(state, limit_mhz={})
        menu = self._menu(free, memory)
        return menu.in_time and self._in_queue(menu, free, math.inf, memory) is not None

    def _price(self, menu: Menu, state: State, memory: Memory) -> tuple[float, Reason]:
        goal = self.goal
        if state.on_ac:
            return 0.0, Reason.MAINS
        if goal.mean_score is not None:
            low, high = self._neighbors(menu, goal.mean_score)
            wanted = high if memory.generous or memory.credit + low.score < goal.mean_score else low
            return _price_of(menu, menu.hull.index(wanted)), Reason.MEAN
        if goal.until_ns is None and goal.reserve is None:
            return math.inf, Reason.CHEAPEST
        if not state.charge_known:
            return math.inf, Reason.UNKNOWN
        index = self._affordable(menu, state, memory, 0)
        if index >= 0:
            return _price_of(menu, index), Reason.PLAN
        return math.inf, Reason.CHEAPEST if goal.until_ns is None else Reason.SHORT

    def _steady(
        self, menu: Menu, hull: Sequence[Option], slopes: Sequence[float], state: State, price: float, memory: Memory
    ) -> Option:
        """The choice of a request that did not wait, with hysteresis.

        Args:
            hull, slopes: of what is in time for it.
        """
        index = _pick(slopes, price)
        if not 0.0 < price < math.inf or self.goal.until_ns is None or state.current is None:
            return hull[index]
        # Scores rise along the hull, so a level is on it once; its clock may have been raised meanwhile.
        present = next((i for i, o in enumerate(hull) if o.choice.level == state.current.level), None)
        sure = _pick(slopes, _price_of(menu, max(0, self._affordable(menu, state, memory, HYSTERESIS_MILLI))))
        return hull[sure if present is None else min(index, max(present, sure))]

    def _in_queue(self, menu: Menu, state: State, price: float, memory: Memory) -> Option | None:
        """The choice of a request that has waited, or has others behind it; none where it comes too late anyway."""
        deadline_ns, switch_ns = self.scenario.deadline_ns, self.scenario.full_switch_ns
        quickest_ns = menu.p99_ns[menu.fastest.choice] + switch_ns
        room_ns = deadline_ns - state.waited_ns
        for place, waited_ns in enumerate(state.behind_ns, 1):
            room_ns = min(room_ns, deadline_ns - waited_ns - place * quickest_ns)
        in_time = [
            o
            for o in menu.usable
            if menu.p99_ns[o.choice] + self.scenario.switch_ns(state.current, o.choice) <= room_ns
        ]
        if not in_time:
            return None
        # Steps of what is left, so that plans are found again.
        hull, slopes = menu.hull_of([*in_time, *menu.raised(room_ns // self._step_ns * self._step_ns)])
        if state.behind_ns or state.waited_ns >= self._step_ns:
            return hull[_pick(slopes, price)]
        # On a real clock every request has waited a little when it is taken up.
        return self._steady(menu, hull, slopes, state, price, memory)

    def _affordable(self, menu: Menu, state: State, memory: Memory, spare_milli: int) -> int:
        """The last hull option that the charge can carry to the end, with something to spare; -1 where none can."""
        until_ns = self.goal.until_ns
        if until_ns is None:
            return len(menu.hull) - 1 if self._above_reserve_fj(state) > 0 else -1
        remaining_ns = max(0, until_ns - state.time_ns)
        ratio_milli = math.ceil(ONE_MILLI * memory.energy) + spare_milli
        for index in range(len(menu.hull) - 1, -1, -1):
            option = menu.hull[index]
            needed = ratio_milli * self._needed(menu, option, state, memory, remaining_ns)
            if self._spendable_fj(menu, option, state) * ONE_MILLI * self.scenario.period_ns >= needed:
                return index
        return -1

    def _above_reserve_fj(self, state: State) -> int:
        return state.charge_fj - round((self.goal.reserve or 0.0) * state.capacity_fj)

    def _spendable_fj(self, menu: Menu, option: Option, state: State) -> int:
        """What the charge has for requests with one option."""
        # The last runs cannot be made up for by later ones: two of them may take their whole margin.
        run_fj = menu.above_fj[option.choice] + self.scenario.idle_uw[1] * option.latency_ns
        kept_fj = self.scenario.switch_fj(state.current, option.choice) + math.ceil(2 * self.goal.margin * run_fj)
        return self._above_reserve_fj(state) - kept_fj

    def _short_h(self, menu: Menu, state: State, memory: Memory) -> float:
        """How long before the wanted end the charge is spent, down to the reserve, with the cheapest option."""
        cheapest, remaining_ns = menu.hull[0], max(0, (self.goal.until_ns or 0) - state.time_ns)
        needed_fj = memory.energy * self._needed(menu, cheapest, state, memory, remaining_ns) / self.scenario.period_ns
        share = self._spendable_fj(menu, cheapest, state) / needed_fj if needed_fj > 0 else 0.0
        return (1.0 - min(1.0, max(0.0, share))) * remaining_ns / 3.6e12

    def _needed(self, menu: Menu, option: Option, state: State, memory: Memory, remaining_ns: int) -> int:
        """Energy until the end with one option, times the period: along a repeated choice it falls by whole numbers."""
        period_ns = self.scenario.period_ns
        if self.demand is not None:
            requests = max(0.0, self.demand(state.time_ns, state.time_ns + remaining_ns))
        elif self.scenario.gap_ms is not None:
            requests = remaining_ns / memory.period_ns(period_ns)
        else:
            return menu.energy_fj[option.choice] * remaining_ns
        run_fj = menu.above_fj[option.choice]
        return (self.scenario.idle_uw[1] * remaining_ns + math.ceil(run_fj * requests)) * period_ns

    def _neighbors(self, menu: Menu, score: float) -> tuple[Option, Option]:
        """The hull options below and above a score (twice the same where it is met or out of reach)."""
        place = bisect.bisect_left([option.score for option in menu.hull], score)
        high = menu.hull[min(place, len(menu.hull) - 1)]
        return (high if high.score <= score or place == 0 else menu.hull[place - 1]), high


def _pick(slopes: Sequence[float], price: float) -> int:
    """The hull option that maximizes ``score - price * energy``; the cheaper one of equals."""
    return sum(slope > price for slope in slopes)


def _price_of(menu: Menu, index: int) -> float:
    """The price at which `_pick` takes a hull option."""
    return menu.slopes[index] if index < len(menu.slopes) else 0.0


def _refusal(goal: Goal) -> str:
    reasons = []
    if goal.margin:
        reasons.append(f"with a margin of {100 * goal.margin:g} %")
    if goal.min_score is not None:
        reasons.append(f"with a score of at least {goal.min_score:g}")
    return f" {' and '.join(reasons)}; lower them or allow a longer deadline" if reasons else ""
