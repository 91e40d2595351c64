"""The governor on a device: before every request it looks at the device, decides, sets clock and level, and learns.

It works in three degrees (`lavolta.devices.sources.Degree`). Where it may set the clock it does. Where it only sees the
clock that the system chooses, it predicts for the clock of the last run, because a governor of the system raises the
clock only once a run has begun. Where it sees none, it predicts for the highest clock and leaves the rest to the
measured times. What a source does not know, the governor does without; nothing that a device does loses a request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from lavolta.devices.charge import to_fj, to_ns
from lavolta.devices.sources import Degree, FrequencyControl, Reading, Source
from lavolta.errors import UserInputError
from lavolta.runtime.governor import Decision, Goal, Governor, Reason
from lavolta.runtime.governor_memory import Memory
from lavolta.runtime.policy import Outcome, State
from lavolta.runtime.scenario import Choice, Scenario

ENERGY_WINDOW = 0.005
"""Share of the capacity that must be predicted as spent before it is compared with the battery's own count."""
CLOCK_GRID_MHZ = 10.0
"""Clocks of the system that differ by less are taken as one."""


@dataclass(frozen=True)
class Answer:
    """What a runner gives.

    Attributes:
        output: the model's.
        kept_level: false where layers ran sparser than was asked, to be in time.
    """

    output: Any
    kept_level: bool = True


class Runner(Protocol):
    """Runs one request at a level."""

    def __call__(self, request: Any, level: str, within_ms: float, /) -> Answer:
        """Run a request.

        Args:
            within_ms: what is left of the deadline; a runner that can run sparser in the middle keeps it.
        """
        ...


@dataclass(frozen=True)
class Served:
    """One answered request, and why it ran as it did.

    Attributes:
        freq_mhz: the clock that was set, or predicted for.
        deadline_ms: how long this request was allowed to take.
        response_ms: from the arrival to the answer; ``run_ms`` is the run alone.
        predicted_ms: what the profile says of the run; ``p99_ms`` is what the governor expects at most, with its margin
            and what it has learned.
        energy_mj: predicted of the run, idle time before and after it left out.
        charge_share, temperature_c, on_ac: as the source saw them before the run; none where unknown.
        reason: why this choice.
        degree: how far the clock was controlled.
    """

    index: int
    level: str
    threads: int
    freq_mhz: float
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
        runner: runs a request.
        source, control: the device.
        now_s: the clock of arrivals and runs, in seconds.
        busy: asked for the clock right after a run, where ``source`` answers with an earlier look (`Background`).

    Raises:
        InfeasibleError: no level keeps the deadline.
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
        self._governor = Governor(scenario, goal)
        self._pinned: tuple[str, Governor] | None = None
        self._runner, self._source, self._control, self._now_s = runner, source, control, now_s
        self._busy = source if busy is None else busy
        self._cluster = scenario.used_cluster.name
        self._served = 0
        self._current: Choice | None = None
        self._start_s: float | None = None
        self._busy_mhz: float | None = None
        # Predicted energy since the battery was last looked at, and what it held then.
        self._predicted_fj = 0
        self._anchor_fj: int | None = None
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
        self._pinned = level, Governor(replace(self.scenario, levels=chosen), goal)

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
        governor = self._governor if pinned is None else pinned[1]
        decision, state = self._decide(governor, reading, start_s, counted_s, behind_s)
        option, choice = decision.option, decision.option.choice
        degree = self._control.degree
        within_ms = allowed_ms - 1e3 * (self._now_s() - arrived_s)
        run_start_s = self._now_s()
        answer = self._runner(request, choice.level, within_ms)
        end_s = self._now_s()
        run_ns = max(1, round(1e9 * (end_s - run_start_s)))
        response_ns = max(0, round(1e9 * (end_s - arrived_s)))
        # A run that was cut short says only that the level would have taken longer.
        seen_ns = run_ns if answer.kept_level else max(run_ns, decision.p99_ns)
        share = self._energy_share(reading, state, run_start_s, end_s, option.cell_uw, seen_ns)
        deadline_ns = to_ns(allowed_ms)
        outcome = Outcome(option, state.time_ns, seen_ns, response_ns, deadline_ns, share)
        self.memory = governor.learn(self.memory, outcome)
        self._current = choice
        if degree is Degree.FOLLOWS:
            self._busy_mhz = self._busy.read().freq_mhz.get(self._cluster, self._busy_mhz)
        self._served += 1
        return Served(
            index=self._served - 1,
            level=choice.level,
            threads=choice.threads,
            freq_mhz=choice.freq_mhz,
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
            degree=degree.value,
            charge_share=reading.charge_share,
            temperature_c=reading.temperature_c,
            on_ac=reading.on_ac,
            output=answer.output,
        )

    def close(self) -> None:
        """Give the clock back to the system."""
        self._control.release()

    def _decide(
        self, governor: Governor, reading: Reading, now_s: float, arrived_s: float, behind_s: Sequence[float]
    ) -> tuple[Decision, State]:
        """Decide and set the clock; a refused clock lowers the degree, and the decision is made again."""
        while True:
            state = self._state(reading, now_s, arrived_s, behind_s)
            decision = governor.decide(state, self.memory)
            if self._control.degree is not Degree.SETS:
                return decision, state
            steps = self._control.clusters.get(self._cluster, ())
            wanted = decision.option.choice.freq_mhz
            # The profile's steps and the system's may differ a little: never slower than was decided.
            step = next((mhz for mhz in steps if mhz >= wanted - 0.5), steps[-1] if steps else wanted)
            if self._control.set_mhz(self._cluster, step) or self._control.degree is Degree.SETS:
                return decision, state

    def _state(self, reading: Reading, now_s: float, arrived_s: float, behind_s: Sequence[float]) -> State:
        capacity_mwh = reading.capacity_mwh or self.scenario.profile.battery.energy_mwh
        charge_mwh = reading.charge_mwh
        if charge_mwh is None and reading.charge_share is not None:
            charge_mwh = reading.charge_share * capacity_mwh
        steps = [step.freq_mhz for step in self.scenario.used_cluster.steps]
        limits = [self.goal.heat_limit_mhz(reading.temperature_c, steps), reading.freq_limit_mhz.get(self._cluster)]
        known = [limit for limit in limits if limit is not None]
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
            limit_mhz=min(known) if known else None,
            clock_mhz=self._clock_mhz(reading, steps[-1]),
        )

    def _clock_mhz(self, reading: Reading, top_mhz: float) -> float | None:
        """The clock to predict for; none where it can be chosen."""
        degree = self._control.degree
        if degree is Degree.SETS:
            return None
        seen = reading.freq_mhz.get(self._cluster) if self._busy_mhz is None else self._busy_mhz
        if degree is not Degree.FOLLOWS or not seen:
            return top_mhz
        # A clock that flickers is one clock: rounded to the slow side.
        return math.floor(seen / CLOCK_GRID_MHZ) * CLOCK_GRID_MHZ or seen

    def _energy_share(
        self, reading: Reading, state: State, start_s: float, end_s: float, cell_uw: int, run_ns: int
    ) -> float | None:
        """Measured over predicted energy, once enough was predicted; none before, on mains, or without a battery."""
        if state.on_ac or not state.charge_known or reading.slept_s > 0:
            self._anchor_fj, self._last_s = None, None
            return None
        share = None
        if self._anchor_fj is not None and self._last_s is not None:
            self._predicted_fj += self.scenario.idle_uw[1] * max(0, round(1e9 * (start_s - self._last_s)))
            if self._predicted_fj >= ENERGY_WINDOW * state.capacity_fj:
                share = (self._anchor_fj - state.charge_fj) / self._predicted_fj
                self._anchor_fj = None
        if self._anchor_fj is None:
            self._anchor_fj, self._predicted_fj = state.charge_fj, 0
        self._predicted_fj += cell_uw * run_ns
        self._last_s = end_s
        return share if share is None or (math.isfinite(share) and share > 0) else None
