"""What the governor may choose from: the options that are in time, and which of them are worth their energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lavolta.runtime.raising import raised_options
from lavolta.runtime.scenario import Choice, Option, Scenario


class Menu:
    """The options that meet the deadline under one set of corrections.

    Args:
        current: the choice in force: at its level and cluster a change of clock is all that a run may have to wait for.
        margin: with it, options whose clock is raised in mid-run are added to the plan.
        moves: whether they may go on on another cluster.

    Attributes:
        above_fj: energy of a run above idle.
        usable: those that fit deadline and rhythm, with room for a switch before the run; without raises.
        hull: the upper convex hull of score over energy, cheapest first; ``slopes[i]`` leads from ``i`` to ``i + 1``.
        in_time: false where nothing meets the deadline; then `usable` is the fastest option alone.
    """

    def __init__(
        self,
        scenario: Scenario,
        options: Sequence[Option],
        p99_ns: Callable[[Option], int],
        current: Choice | None = None,
        margin: float | None = None,
        moves: bool = False,
    ) -> None:
        self._scenario, self._options, self._p99_of = scenario, options, p99_ns
        self._current, self._margin, self._moves = current, margin, moves
        self._raised: dict[int, list[Option]] = {}
        self.p99_ns = {option.choice: p99_ns(option) for option in options}
        tight = [o for o in options if self.p99_ns[o.choice] <= scenario.limit_ns]
        roomy = [o for o in tight if self.p99_ns[o.choice] <= scenario.limit_ns - self._change_ns(o)]
        self.in_time = bool(tight)
        self.fastest = min(roomy or tight or options, key=lambda o: (self.p99_ns[o.choice], o.cell_uw, o.choice))
        idle_uw = scenario.idle_uw[1]
        self.energy_fj = {o.choice: scenario.period_fj(o) for o in options}
        self.above_fj = {o.choice: (o.cell_uw - idle_uw) * o.latency_ns for o in options}
        # Where no choice leaves room for a switch before the run, stay with one choice.
        self.usable = roomy or [self._cheapest(tight) if tight else self.fastest]
        planned = self.raised(scenario.limit_ns) if roomy else []
        self.hull, self.slopes = self.hull_of([*self.usable, *planned])

    def raised(self, limit_ns: int) -> list[Option]:
        """Options whose clock is raised in mid-run, that are in time with a change before the run.

        Args:
            limit_ns: how long that takes at most.
        """
        if self._margin is None:
            return []
        if limit_ns not in self._raised:

            def room_ns(option: Option) -> int:
                return limit_ns - self._change_ns(option)

            found = []
            for raised in raised_options(
                self._scenario, self._options, self._p99_of, room_ns, self._margin, self._moves
            ):
                choice = raised.option.choice
                self.p99_ns[choice] = room_ns(raised.option)
                self.above_fj[choice] = raised.above_fj
                self.energy_fj[choice] = raised.above_fj + self._scenario.idle_uw[1] * self._scenario.period_ns
                found.append(raised.option)
            self._raised[limit_ns] = found
        return self._raised[limit_ns]

    def _change_ns(self, option: Option) -> int:
        """Time that is kept for a change before the run."""
        near = self._current is not None and option.choice.kind == self._current.kind
        return self._scenario.clock_switch_ns if near else self._scenario.full_switch_ns

    def hull_of(self, options: Sequence[Option]) -> tuple[list[Option], list[float]]:
        """The convex hull of some options, and its slopes, which fall strictly."""
        ordered = sorted(options, key=lambda o: (self.energy_fj[o.choice], -o.score, o.choice))
        hull: list[Option] = []
        slopes: list[float] = []
        for option in ordered:
            if hull and option.score <= hull[-1].score:
                continue
            while slopes and self._slope(hull[-1], option) >= slopes[-1]:
                hull.pop()
                slopes.pop()
            if hull:
                slopes.append(self._slope(hull[-1], option))
            hull.append(option)
        return hull, slopes

    def _slope(self, low: Option, high: Option) -> float:
        return (high.score - low.score) / (self.energy_fj[high.choice] - self.energy_fj[low.choice])

    def _cheapest(self, options: Sequence[Option]) -> Option:
        return min(options, key=lambda o: (self.energy_fj[o.choice], -o.score, o.choice))
