"""A whole charge, request by request: how many inferences, how many in time, and where the energy went.

All quantities are whole nanoseconds, microwatts and femtojoules. While a policy repeats a choice, stretches of equal
requests are taken at once; the result is exactly that of taking them one by one.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lavolta.devices.charge import Charge, to_mwh
from lavolta.errors import UserInputError
from lavolta.runtime.policies import POLICIES
from lavolta.runtime.policy import Learner, Outcome, OwnClock, Policy, State
from lavolta.runtime.scenario import Choice, Option, Scenario
from lavolta.runtime.simulation_result import EnergyUse as EnergyUse
from lavolta.runtime.simulation_result import SimulationResult as SimulationResult

CURVE_POINTS = 200
MOST_BEHIND = 16
"""Waiting requests that a policy is told of."""
_NS_PER_H = 3.6e12


def simulate(
    scenario: Scenario,
    policy: Policy,
    *,
    charge: float = 1.0,
    arrivals_ms: Sequence[float] | None = None,
    rng: np.random.Generator | None = None,
    noise: float = 0.0,
    slowdowns: Sequence[float] | None = None,
    batch: bool = True,
) -> SimulationResult:
    """Run one charge from its first request to its end.

    Requests queue: each starts when it has arrived and the one before it has finished. A response later than the
    deadline is a miss, and still counts as an inference.

    Args:
        charge: share of the capacity at the start, 0 to 1.
        arrivals_ms: arrival times, rising; one request every period, without end, where not given.
        rng, noise: each run takes ``1 + noise * u`` times the prediction, ``u`` uniform in -1 to 1.
        slowdowns: instead of them, what to multiply the prediction of each request with; it starts again at its end.
            So policies can be compared under the very same noise.
        batch: false takes every request one by one (slow; for checking).

    Raises:
        UserInputError: a value outside its range.
        InfeasibleError: the policy chose what the battery cannot supply.
    """
    if not 0.0 <= noise < 1.0:
        raise UserInputError(f"a noise of {noise} is outside 0 <= noise < 1.")
    if noise and rng is None:
        raise UserInputError("noise needs a random generator; pass rng=numpy.random.default_rng(seed).")
    if slowdowns is not None and not (len(slowdowns) and np.isfinite(slowdowns).all() and np.min(slowdowns) > 0):
        raise UserInputError("slowdowns must be positive numbers, at least one; 1.0 is a run that takes as predicted.")
    arrivals = None if arrivals_ms is None else _times_ns(arrivals_ms)
    if arrivals is not None and (np.diff(arrivals, prepend=0) < 0).any():
        raise UserInputError("arrivals_ms must rise from 0 or later; sort them.")
    run = _Run(scenario, policy, Charge(scenario.profile.battery, charge))
    exact = batch and not noise and slowdowns is None and policy.breaks_ns is not None
    request = 0
    while arrivals is None or request < len(arrivals):
        arrival = request * scenario.period_ns if arrivals is None else arrivals[request]
        if not run.idle_until(arrival):
            break
        behind = () if exact and arrivals is None else run.behind(arrivals, request)
        option, switched = run.choose(arrival, behind)
        if arrivals is None and exact and not switched:
            taken = run.stretch(option, arrival)
            request += taken
            if taken:
                continue
        slowdown = 1.0
        if slowdowns is not None:
            slowdown = slowdowns[request % len(slowdowns)]
        elif noise and rng is not None:
            slowdown = 1.0 + noise * rng.uniform(-1.0, 1.0)
        if not (run.switch(option.choice) and run.infer(option, arrival, slowdown)):
            break
        request += 1
    return run.result("charge" if arrivals is None or request < len(arrivals) else "arrivals")


def compare(scenario: Scenario, policies: Sequence[Policy] | None = None) -> dict[str, SimulationResult]:
    """Simulate several policies on full charges; those of `POLICIES` with their defaults where none are given."""
    chosen = [make(scenario) for make in POLICIES.values()] if policies is None else policies
    return {policy.name: simulate(scenario, policy) for policy in chosen}


def improvement(result: SimulationResult, baseline: SimulationResult) -> float | None:
    """Inferences on time per charge, relative to a baseline; none where the baseline has none."""
    return result.on_time / baseline.on_time if baseline.on_time else None


@dataclass
class _Run:
    """The books of one simulation."""

    scenario: Scenario
    policy: Policy
    charge: Charge
    time_ns: int = 0
    current: Choice | None = None
    run_fj: dict[Choice, int] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)
    level_ns: dict[str, int] = field(default_factory=dict)
    idle_fj: int = 0
    switching_fj: int = 0
    on_time: int = 0
    unfinished: int = 0
    worst_ns: int = 0
    frequency_switches: int = 0
    level_switches: int = 0
    cluster_switches: int = 0
    curve: list[tuple[int, int]] = field(default_factory=list)
    next_point: int = 1
    same_level: dict[tuple[str, str, int], dict[float, Option]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = self.policy if isinstance(self.policy, OwnClock) else None
        self.learner = self.policy if isinstance(self.policy, Learner) else None
        for stateful in (self.clock, self.learner):
            if stateful is not None:
                stateful.restart()
        self.curve.append((0, self.charge.initial_fj))

    def idle_until(self, arrival: int) -> bool:
        """Wait for the next request; false when the charge ends before it."""
        if self.time_ns >= arrival:
            return self.charge.remaining_fj > 0
        lasted, drawn = self._draw(self.scenario.idle_uw, arrival - self.time_ns)
        self.idle_fj += drawn
        return lasted and self.charge.remaining_fj > 0

    def behind(self, arrivals: Sequence[int] | None, request: int) -> tuple[int, ...]:
        """How long each of the next requests has waited by now, those that have arrived."""
        if arrivals is None:
            period = self.scenario.period_ns
            return tuple(range(self.time_ns - (request + 1) * period, -1, -period)[:MOST_BEHIND])
        end = bisect.bisect_right(arrivals, self.time_ns, lo=request + 1)
        return tuple(self.time_ns - arrival for arrival in arrivals[request + 1 : min(end, request + 1 + MOST_BEHIND)])

    def choose(self, arrival: int, behind: tuple[int, ...] = ()) -> tuple[Option, bool]:
        """The policy's option for the request that starts now, and whether it is a change."""
        self._mark_curve()
        state = self._state(self.charge.remaining_fj, self.time_ns, self.time_ns - arrival, behind)
        choice = self.policy.choose(state)
        if self.current is None:
            self.current = choice.plain
        return self.scenario.option(choice), choice != self.current

    def switch(self, choice: Choice) -> bool:
        """Change frequency, level and cluster; false when the charge ends in it."""
        choice = choice.plain
        if self.current is None or choice == self.current:
            return True
        before, self.current = self.current, choice
        moved = before.cluster != choice.cluster
        self.cluster_switches += moved
        self.frequency_switches += moved or before.freq_mhz != choice.freq_mhz
        self.level_switches += before.level != choice.level
        load_before = self.charge.load_fj
        held = self.charge.draw_energy(self.scenario.switch_fj(before, choice))
        lasted, _ = self._draw(self.scenario.idle_uw, self.scenario.switch_ns(before, choice))
        self.switching_fj += self.charge.load_fj - load_before
        return held and lasted

    def infer(self, option: Option, arrival: int, slowdown: float = 1.0) -> bool:
        """Run one inference, ``slowdown`` times as long as predicted; false when the charge ends in it."""
        start = self.time_ns
        alone_ns = _slowed(option.latency_ns, slowdown)
        if self.clock is not None:
            finished = self._run_own_clock(self.clock, option, slowdown)
        elif option.choice.raise_mhz:
            finished = self._run_raised(option, alone_ns)
        else:
            finished = self._run(option, alone_ns)
        if not finished:
            self.unfinished = 1
            return False
        response = self.time_ns - arrival
        self._count(option, 1, int(response <= self.scenario.deadline_ns), response)
        if self.learner is not None:
            # What a raised run would have taken at the clock it began with follows from what it took.
            run_ns = alone_ns if option.choice.raise_mhz else self.time_ns - start
            self.learner.observe(Outcome(option, start, run_ns, response, self.scenario.deadline_ns))
        return True

    def _run(self, option: Option, time_ns: int) -> bool:
        lasted, drawn = self._draw((option.load_uw, option.cell_uw), time_ns)
        choice = option.choice.plain
        self.run_fj[choice] = self.run_fj.get(choice, 0) + drawn
        return lasted

    def _run_raised(self, option: Option, alone_ns: int) -> bool:
        """A run that would take ``alone_ns`` at its first clock, and is raised to the second in time."""
        first_ns = min(alone_ns, option.choice.raise_after_ns)
        if not self._run(option, first_ns):
            return False
        if first_ns == alone_ns:
            return True
        high = self.scenario.option(option.choice.raised)
        rest_ns = -(-(alone_ns - first_ns) * high.latency_ns // option.latency_ns)
        return self.switch(high.choice) and self._run(high, rest_ns)

    def _run_own_clock(self, clock: OwnClock, option: Option, slowdown: float) -> bool:
        """A run during which the policy's clock moves."""
        kind = option.choice.kind
        same = self.same_level.get(kind)
        if same is None:
            same = {o.choice.freq_mhz: o for o in self.scenario.options.values() if o.choice.kind == kind}
            self.same_level[kind] = same
        times = {freq_mhz: _slowed(o.latency_ns, slowdown) for freq_mhz, o in same.items()}
        for freq_mhz, time_ns in clock.run(self.time_ns, times):
            if not (self.switch(same[freq_mhz].choice) and self._run(same[freq_mhz], time_ns)):
                return False
        return True

    def stretch(self, option: Option, arrival: int) -> int:
        """Take as many equal requests as the charge and the policy allow; returns how many (0: take one by itself)."""
        period, run_ns = self.scenario.period_ns, option.latency_ns
        waited = self.time_ns - arrival
        drift = run_ns - period
        if waited == 0 and drift <= 0:
            drift, gap = 0, period - run_ns
        elif waited + drift >= 0:
            gap = 0
        else:
            return 0
        idle_load, idle_cell = self.scenario.idle_uw
        step_fj = option.cell_uw * run_ns + idle_cell * gap
        most = self.charge.remaining_fj // step_fj
        if drift < 0:
            most = min(most, waited // -drift)
        for moment in self.policy.breaks_ns or ():
            if moment > self.time_ns:
                most = min(most, -(-(moment - self.time_ns) // (run_ns + gap)))
        taken = self._until_change(option.choice, most, step_fj, run_ns + gap, waited, drift)
        if taken == 0:
            return 0
        self._mark_curve_ahead(taken, step_fj, run_ns + gap)
        self.charge.draw(option.load_uw, option.cell_uw, taken * run_ns)
        self.charge.draw(idle_load, idle_cell, taken * gap)
        self.run_fj[option.choice] = self.run_fj.get(option.choice, 0) + taken * option.load_uw * run_ns
        self.idle_fj += taken * idle_load * gap
        self._advance(taken * (run_ns + gap))
        first, last = waited + run_ns, waited + run_ns + (taken - 1) * drift
        self._count(option, taken, _in_time(first, drift, taken, self.scenario.deadline_ns), max(first, last))
        return taken

    def result(self, ended: str) -> SimulationResult:
        """Close the books."""
        self.curve.append((self.time_ns, self.charge.remaining_fj))
        scenario, inferences = self.scenario, sum(self.count.values())
        scores = {level.name: level.score for level in scenario.levels}
        by_level: dict[str, int] = {}
        by_frequency: dict[str, int] = {}
        one_cluster = len(scenario.used_clusters) == 1
        for choice, energy in sorted(self.run_fj.items(), reverse=True):
            by_level[choice.level] = by_level.get(choice.level, 0) + energy
            key = f"{choice.freq_mhz:g}" if one_cluster else f"{choice.cluster} {choice.freq_mhz:g}"
            by_frequency[key] = by_frequency.get(key, 0) + energy
        capacity = self.charge.capacity_fj
        return SimulationResult(
            policy=self.policy.name,
            baseline=self.policy.words,
            device=scenario.profile.name,
            accounting=scenario.accounting.words,
            deadline_ms=scenario.deadline_ms,
            period_ms=scenario.period_ms,
            capacity_mwh=to_mwh(capacity),
            remaining_mwh=to_mwh(self.charge.remaining_fj),
            inferences=inferences,
            on_time=self.on_time,
            deadline_misses=inferences - self.on_time,
            unfinished=self.unfinished,
            ended=ended,
            time_h=self.time_ns / _NS_PER_H,
            energy=EnergyUse(
                total_mwh=to_mwh(self.charge.initial_fj - self.charge.remaining_fj),
                by_level_mwh={name: to_mwh(energy) for name, energy in by_level.items()},
                by_frequency_mwh={name: to_mwh(energy) for name, energy in by_frequency.items()},
                idle_mwh=to_mwh(self.idle_fj),
                switching_mwh=to_mwh(self.switching_fj),
                battery_loss_mwh=to_mwh(self.charge.loss_fj),
            ),
            inferences_by_level=dict(self.count),
            time_by_level_h={name: time / _NS_PER_H for name, time in self.level_ns.items()},
            mean_score=sum(scores[name] * n for name, n in self.count.items()) / inferences if inferences else None,
            worst_response_ms=self.worst_ns / 1e6,
            frequency_switches=self.frequency_switches,
            level_switches=self.level_switches,
            cluster_switches=self.cluster_switches,
            curve=[(time / _NS_PER_H, energy / capacity) for time, energy in self.curve],
        )

    def _state(self, charge_fj: int, time_ns: int, waited_ns: int, behind: tuple[int, ...] = ()) -> State:
        return State(charge_fj, self.charge.capacity_fj, time_ns, waited_ns, self.current, behind)

    def _until_change(self, choice: Choice, most: int, step_fj: int, step_ns: int, waited: int, drift: int) -> int:
        """How many requests from now on the policy answers with ``choice``, at most ``most``."""

        def same(k: int) -> bool:
            state = self._state(self.charge.remaining_fj - k * step_fj, self.time_ns + k * step_ns, waited + k * drift)
            return self.policy.choose(state) == choice

        # The first request is known to agree; a steady policy changes at most once, so bisection finds the place.
        if most == 0 or same(most - 1):
            return most
        low, high = 0, most - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if same(middle) else (low, middle)
        return high

    def _draw(self, power_uw: tuple[int, int], time_ns: int) -> tuple[bool, int]:
        before = self.charge.load_fj
        lasted = self.charge.draw(*power_uw, time_ns)
        self._advance(lasted)
        return lasted == time_ns, self.charge.load_fj - before

    def _advance(self, time_ns: int) -> None:
        self.time_ns += time_ns
        if self.current is not None:
            level = self.current.level
            self.level_ns[level] = self.level_ns.get(level, 0) + time_ns

    def _count(self, option: Option, runs: int, in_time: int, worst_ns: int) -> None:
        level = option.choice.level
        self.count[level] = self.count.get(level, 0) + runs
        self.on_time += in_time
        self.worst_ns = max(self.worst_ns, worst_ns)

    def _mark_curve(self) -> None:
        """Note the first request at or below each of `CURVE_POINTS` equal steps of the charge."""
        spent = self.charge.initial_fj - self.charge.remaining_fj
        reached = spent * CURVE_POINTS // self.charge.initial_fj
        if reached >= self.next_point:
            self.curve.append((self.time_ns, self.charge.remaining_fj))
            self.next_point = reached + 1

    def _mark_curve_ahead(self, taken: int, step_fj: int, step_ns: int) -> None:
        """The same for the requests of a stretch that has not been booked yet."""
        initial, start = self.charge.initial_fj, self.charge.remaining_fj
        while True:
            target_fj = initial - -(-self.next_point * initial // CURVE_POINTS)
            k = max(0, -(-(start - target_fj) // step_fj))
            if k >= taken:
                return
            left_fj = start - k * step_fj
            self.curve.append((self.time_ns + k * step_ns, left_fj))
            self.next_point = (initial - left_fj) * CURVE_POINTS // initial + 1


def _times_ns(times_ms: Sequence[float]) -> list[int]:
    """`to_ns` of many times at once."""
    times: list[int] = np.rint(np.asarray(times_ms, dtype=np.float64) * 1e6).astype(np.int64).tolist()
    return times


def _slowed(latency_ns: int, slowdown: float) -> int:
    return max(1, round(latency_ns * slowdown))


def _in_time(first_ns: int, drift_ns: int, count: int, deadline_ns: int) -> int:
    """How many of ``count`` responses ``first + k * drift`` are at most the deadline."""
    if drift_ns == 0:
        return count if first_ns <= deadline_ns else 0
    if drift_ns > 0:
        return min(count, max(0, (deadline_ns - first_ns) // drift_ns + 1))
    late = max(0, -(-(first_ns - deadline_ns) // -drift_ns))
    return count - min(count, late)
