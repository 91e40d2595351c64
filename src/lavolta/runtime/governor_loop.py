"""The governor on a device: before every request it looks at the device, decides, sets clock and level, and learns.

It works in three degrees (`lavolta.devices.sources.Degree`). Where it may set the clock it does. Where it only sees the
clock that the system chooses, it predicts for the clock of the last run, because a governor of the system raises the
clock only once a run has begun. Where it sees none, it predicts for the highest clock and leaves the rest to the
measured times. What a source does not know, the governor does without; nothing that a device does loses a request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lavolta.devices.charge import to_fj, to_ns
from lavolta.devices.sources import Degree, FrequencyControl, Reading, Source
from lavolta.errors import UserInputError
from lavolta.runtime.governor import Decision, Goal, Governor, Reason
from lavolta.runtime.governor_clock import GovernedClock
from lavolta.runtime.governor_energy import EnergyWindow
from lavolta.runtime.governor_memory import Memory
from lavolta.runtime.policy import Outcome, State
from lavolta.runtime.raising import slowdown_of
from lavolta.runtime.runners import Answer as Answer
from lavolta.runtime.runners import Mover, Raiser, RunMover, Runner
from lavolta.runtime.scenario import Choice, Option, Scenario

CLOCK_GRID_MHZ = 10.0
"""Clocks of the system that differ by less are taken as one."""


@dataclass(frozen=True)
class Served:
    """One answered request, and why it ran as it did.

    Attributes:
        freq_mhz: the clock that was set, or predicted for; the run began with it.
        raised_mhz: the clock that the run was raised to before its end; none where it was not.
        moved_to: the cluster that it was moved to then; none where it was not.
        deadline_ms: how long this request was allowed to take.
        response_ms: from the arrival to the answer; ``run_ms`` is the run alone.
        predicted_ms: what the profile says of the run; ``p99_ms`` is what the governor expects at most, with its margin
            and what it has learned.
        energy_mj: predicted of the run, idle time before and after it left out.
        charge_share, temperature_c, on_ac: as the source saw them before the run; none where unknown.
        reason: why this choice.
        short_h: where the charge cannot last as long as wanted, how much earlier it ends; else none.
        degree: how far the clock was controlled.
    """

    index: int
    level: str
    threads: int
    cluster: str
    freq_mhz: float
    raised_mhz: float | None
    moved_to: str | None
    deadline_ms: float
    response_ms: float
    run_ms: float
    predicted_ms: float
    p99_ms: float
    energy_mj: float
    in_time: bool
    kept_level: bool
    score: float
    reason: str
    short_h: float | None
    degree: str
    charge_share: float | None
    temperature_c: float | None
    on_ac: bool | None
    output: Any

    def facts(self) -> dict[str, Any]:
        """Everything but the output, as plain data."""
        data = asdict(replace(self, output=None))
        del data["output"]
        return data


class LiveGovernor:
    """Serves requests one after another on a device.

    Args:
        scenario: device, levels and deadline; its battery is used where the source knows no capacity. Give ``gap_ms``
            where the rhythm of requests is not known: it is learned.
        runner: runs a request; a `Mover` where the scenario has several clusters. With a `Raiser` the clock of a run is
            raised before its end where that saves energy; with a `RunMover` it may go on on another cluster, too.
        source, control: the device.
        now_s: the clock of arrivals and runs, in seconds.
        busy: asked for the clock right after a run, where ``source`` answers with an earlier look (`Background`).

    Attributes:
        clock: how far the clock is controlled, and why not more.

    Raises:
        InfeasibleError: no level keeps the deadline.
        UserInputError: several clusters, and a runner that stays on one.
    """

    def __init__(
        self,
        scenario: Scenario,
        goal: Goal,
        runner: Runner,
        source: Source,
        control: FrequencyControl,
        now_s: Callable[[], float],
        busy: Source | None = None,
    ) -> None:
        self.scenario, self.goal = scenario, goal
        self.memory = Memory()
        if len(scenario.used_clusters) > 1 and not isinstance(runner, Mover):
            raise UserInputError("the runner stays on one cluster; name one for the scenario.")
        self._raises = isinstance(runner, Raiser)
        self._run_mover = runner if isinstance(runner, RunMover) and runner.moves_runs else None
        self._governor = self._governor_of(scenario, goal)
        self._pinned: tuple[str, Governor] | None = None
        self._runner, self._source, self._now_s = runner, source, now_s
        self.clock = GovernedClock(control)
        self._busy = source if busy is None else busy
        self._served = 0
        self._current: Choice | None = None
        self._state_seen: State | None = None
        self._start_s: float | None = None
        self._busy_mhz: dict[str, float] = {}
        self._raised_s: float | None = None
        self._move_refused = False
        self._window = EnergyWindow()
        self._last_s: float | None = None

    @property
    def pinned(self) -> str | None:
        """The level that an operator set; none while the governor chooses."""
        pinned = self._pinned
        return None if pinned is None else pinned[0]

    def pin(self, level: str | None) -> None:
        """Run every later request at one level, at the clock that costs least; None lets the governor choose again.

        May be called from any thread: a request that has begun is not changed.

        Raises:
            UserInputError: there is no such level.
            InfeasibleError: it never keeps the deadline.
        """
        if level is None:
            self._pinned = None
            return
        chosen = tuple(known for known in self.scenario.levels if known.name == level)
        if not chosen:
            names = ", ".join(known.name for known in self.scenario.levels)
            raise UserInputError(f"there is no level '{level}'; the bundle has {names}.")
        goal = replace(self.goal, until_h=None, reserve=None, min_score=None, mean_score=None)
        self._pinned = level, self._governor_of(replace(self.scenario, levels=chosen), goal)

    def _stay(self) -> None:
        """A move in mid-run was refused: no more of them are planned."""
        self._run_mover, self._move_refused = None, False
        self._governor.stay()
        pinned = self._pinned
        if pinned is not None:
            pinned[1].stay()

    def _present(self, pinned: tuple[str, Governor] | None) -> Governor:
        return self._governor if pinned is None else pinned[1]

    def _governor_of(self, scenario: Scenario, goal: Goal) -> Governor:
        return Governor(scenario, goal, raises=self._raises, moves=self._run_mover is not None)

    def serve(
        self,
        request: Any,
        arrived_s: float | None = None,
        behind_s: Sequence[float] = (),
        deadline_ms: float | None = None,
    ) -> Served:
        """Answer one request.

        Args:
            arrived_s: when it came, on the clock of ``now_s``; now where not given.
            behind_s: when those behind it came, oldest first. One with a deadline of its own counts as having come
                earlier by as much as its deadline is shorter than the scenario's, or later.
            deadline_ms: how long this request may take; the scenario's deadline where not given. A longer one gives
                it time to wait, but no slower choice.
        """
        reading = self._source.read()
        start_s = self._now_s()
        arrived_s = start_s if arrived_s is None else min(arrived_s, start_s)
        allowed_ms = self.scenario.deadline_ms if deadline_ms is None else deadline_ms
        counted_s = arrived_s + (allowed_ms - self.scenario.deadline_ms) / 1e3
        if self._start_s is None and "time_s" not in reading.missing:
            self._start_s = reading.time_s
        pinned = self._pinned
        governor = self._present(pinned)
        decision, state = self._decide(governor, reading, start_s, counted_s, behind_s)
        self._state_seen = state
        option, choice = decision.option, decision.option.choice
        degree = self.clock.degree
        within_ms = allowed_ms - 1e3 * (self._now_s() - arrived_s)
        run_start_s = self._now_s()
        answer = self._run(request, choice, within_ms)
        end_s = self._now_s()
        run_ns = max(1, round(1e9 * (end_s - run_start_s)))
        response_ns = max(0, round(1e9 * (end_s - arrived_s)))
        alone_ns, run_fj = self._as_begun(option, run_start_s, run_ns)
        # A run that was cut short says only that the level would have taken longer; one that nobody expected to end in
        # the time it was given, not even that.
        seen_ns = alone_ns if answer.kept_level else max(alone_ns, decision.p99_ns)
        hopeless = decision.late and 1e6 * within_ms < decision.p99_ns
        share = self._energy_share(reading, state, run_start_s, end_s, run_fj)
        deadline_ns = to_ns(allowed_ms)
        timed = answer.kept_level or not hopeless
        outcome = Outcome(option, state.time_ns, seen_ns, response_ns, deadline_ns, share, timed)
        self.memory = governor.learn(self.memory, outcome)
        if self._move_refused:
            self._stay()
        raised = self._raised_s is not None
        self._current = choice.raised if raised else choice.plain
        if degree is Degree.FOLLOWS:
            self._busy_mhz.update(self._known({choice.cluster: self._busy.read().freq_mhz.get(choice.cluster)}))
        self._served += 1
        return Served(
            index=self._served - 1,
            level=choice.level,
            threads=choice.threads,
            cluster=choice.cluster,
            freq_mhz=choice.freq_mhz,
            raised_mhz=choice.raise_mhz if raised else None,
            moved_to=(choice.raise_cluster or None) if raised else None,
            deadline_ms=allowed_ms,
            response_ms=response_ns / 1e6,
            run_ms=run_ns / 1e6,
            predicted_ms=option.latency_ns / 1e6,
            p99_ms=decision.p99_ns / 1e6,
            energy_mj=option.load_uw * option.latency_ns / 1e12,
            in_time=response_ns <= deadline_ns,
            kept_level=answer.kept_level,
            score=option.score,
            reason=(decision.reason if pinned is None else Reason.PINNED).value,
            short_h=decision.short_h if pinned is None else None,
            degree=degree.value,
            charge_share=reading.charge_share,
            temperature_c=reading.temperature_c,
            on_ac=reading.on_ac,
            output=answer.output,
        )

    def prepare(self) -> None:
        """Plan for the next request with what the last one taught; call it when an answer is out.

        A new plan takes milliseconds where a decision takes a small part of one. Without this call the next request
        waits for it.
        """
        if self._state_seen is not None:
            self._present(self._pinned).plan_ahead(replace(self._state_seen, current=self._current), self.memory)

    def close(self) -> None:
        """Give the clock back to the system."""
        self.clock.release()

    def _decide(
        self, governor: Governor, reading: Reading, now_s: float, arrived_s: float, behind_s: Sequence[float]
    ) -> tuple[Decision, State]:
        """Decide and set the clock; a refused clock lowers the degree, and the decision is made again."""
        while True:
            state = self._state(reading, now_s, arrived_s, behind_s)
            decision = governor.decide(state, self.memory)
            if self.clock.degree is not Degree.SETS:
                return decision, state
            choice = decision.option.choice
            if self.clock.set(choice.cluster, choice.freq_mhz):
                left = None if self._current is None else self._current.cluster
                if left is not None and left != choice.cluster:
                    self.clock.park(left)
                return decision, state

    def _run(self, request: Any, choice: Choice, within_ms: float) -> Answer:
        self._raised_s = None
        if isinstance(self._runner, Mover):
            self._runner.move(choice.cluster)
        if not choice.raise_mhz or not isinstance(self._runner, Raiser):
            return self._runner(request, choice.level, within_ms)

        def then() -> None:
            moment_s, after = self._now_s(), choice.raised
            if not self.clock.set(after.cluster, after.freq_mhz):
                return
            if after.cluster != choice.cluster and not (self._run_mover and self._run_mover.move_run(after.cluster)):
                self.clock.park(after.cluster)
                self._move_refused = True
                return
            self._raised_s = moment_s

        slow, quick = (self.scenario.option(c).latency_ns for c in (choice, choice.raised))
        after_ms = choice.raise_after_ns / 1e6
        return self._runner.run_raised(request, choice.level, within_ms, after_ms, slow / quick, then)

    def _as_begun(self, option: Option, start_s: float, run_ns: int) -> tuple[int, int]:
        """How long the run would have taken at the clock it began with, and its predicted energy in that time."""
        if self._raised_s is None:
            return run_ns, option.cell_uw * run_ns
        high = self.scenario.option(option.choice.raised)
        first_ns = min(run_ns, max(0, round(1e9 * (self._raised_s - start_s))))
        change_ns = min(run_ns - first_ns, self.scenario.switch_ns(option.choice, high.choice))
        slowdown = slowdown_of(run_ns, option, self._corrected(high, option), first_ns, change_ns)
        return max(1, round(slowdown * option.latency_ns)), option.cell_uw * first_ns + high.cell_uw * (
            run_ns - first_ns
        )

    def _corrected(self, high: Option, low: Option) -> Option:
        """What an option would take if the predictor were as far off for it as for another: clusters differ in that."""
        of_high, of_low = (
            self.memory.factor_milli(option.choice.cluster, option.choice.level, self.goal.margin)
            for option in (high, low)
        )
        return replace(high, latency_ns=max(1, high.latency_ns * of_high // of_low))

    def _state(self, reading: Reading, now_s: float, arrived_s: float, behind_s: Sequence[float]) -> State:
        capacity_mwh = reading.capacity_mwh or self.scenario.profile.battery.energy_mwh
        charge_mwh = reading.charge_mwh
        if charge_mwh is None and reading.charge_share is not None:
            charge_mwh = reading.charge_share * capacity_mwh
        limits = self.goal.heat_limits_mhz(reading.temperature_c, self.scenario.used_clusters)
        for name, limit_mhz in reading.freq_limit_mhz.items():
            limits[name] = min(limit_mhz, limits.get(name, math.inf))
        start_s = reading.time_s if self._start_s is None else self._start_s
        return State(
            charge_fj=to_fj(charge_mwh or 0.0),
            capacity_fj=max(1, to_fj(capacity_mwh)),
            time_ns=max(0, round(1e9 * (reading.time_s - start_s))),
            waited_ns=max(0, round(1e9 * (now_s - arrived_s))),
            current=self._current,
            behind_ns=tuple(max(0, round(1e9 * (now_s - other_s))) for other_s in behind_s),
            charge_known=charge_mwh is not None,
            on_ac=reading.on_ac is True,
            limit_mhz=limits,
            clock_mhz=self._clocks_mhz(reading),
        )

    def _clocks_mhz(self, reading: Reading) -> dict[str, float]:
        """The clocks to predict for; none where they can be chosen."""
        degree = self.clock.degree
        if degree is Degree.SETS:
            return {}
        clocks = {cluster.name: cluster.max_mhz for cluster in self.scenario.used_clusters}
        if degree is Degree.FOLLOWS:
            for name, seen in {**self._known(reading.freq_mhz), **self._busy_mhz}.items():
                if name in clocks:
                    # A clock that flickers is one clock: rounded to the slow side.
                    clocks[name] = math.floor(seen / CLOCK_GRID_MHZ) * CLOCK_GRID_MHZ or seen
        return clocks

    @staticmethod
    def _known(clocks_mhz: Mapping[str, float | None]) -> dict[str, float]:
        return {name: mhz for name, mhz in clocks_mhz.items() if mhz}

    def _energy_share(self, reading: Reading, state: State, start_s: float, end_s: float, run_fj: int) -> float | None:
        """Measured over predicted energy, once a window ends; none before, on mains, or without a battery."""
        if state.on_ac or not state.charge_known or reading.slept_s > 0:
            self._window.forget()
            self._last_s = None
            return None
        if self._last_s is not None:
            self._window.spend(self.scenario.idle_uw[1] * max(0, round(1e9 * (start_s - self._last_s))))
        share = self._window.look(state.charge_fj, state.capacity_fj, reading.charge_mwh is not None)
        self._window.spend(run_fj)
        self._last_s = end_s
        return share
