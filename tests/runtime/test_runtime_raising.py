"""A clock that is raised in mid-run: in time however the delays fall, cheaper on average, and booked as it was."""

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices import Accounting, Work
from lavolta.devices.cell import load_cell
from lavolta.devices.sources import Degree, SimulatedDevice
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal, Governor
from lavolta.runtime.governor_engine import EngineRunner
from lavolta.runtime.governor_loop import LiveGovernor
from lavolta.runtime.governor_memory import WINDOW
from lavolta.runtime.governor_policy import GovernorPolicy
from lavolta.runtime.governor_simulated import SimulatedRunner
from lavolta.runtime.policy import State
from lavolta.runtime.raising import latest_raise_ns, raised_options, slowdown_of
from lavolta.runtime.scenario import Choice, LevelWork, Option, Scenario
from lavolta.runtime.simulation import simulate

BASE = devices.load("odroid-xu3-a7")
CLUSTER = BASE.cluster().name
MS = 1_000_000


def level(name: str, kept_macs: float, score: float) -> LevelWork:
    return LevelWork(name, Work(8, 16, kept_macs, 0.0, 0.0, 0.0), score)


# M1 takes 59.5 ms at 1400 MHz and 69.4 at 1200: with 20 % of room 1400 MHz alone fits 75 ms.
LEVELS = (level("M1", 50e6, 0.9), level("M2", 35e6, 0.88), level("M4", 14e6, 0.7))


def scenario(capacity_mwh: float = 0.3, deadline_ms: float = 75.0, **more: object) -> Scenario:
    battery = BASE.battery.model_copy(update={"capacity_mah": None, "capacity_mwh": capacity_mwh})
    profile = BASE.model_copy(update={"battery": battery})
    return Scenario(profile, LEVELS, deadline_ms, deadline_ms, **more)


@settings(max_examples=200)
@given(
    low_ns=st.integers(2, 10**9),
    share=st.floats(0.05, 0.99),
    change_ns=st.integers(0, 10**6),
    room=st.floats(0.1, 1.2),
    delays=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12),
)
def test_in_time_wherever_the_delays_are(
    low_ns: int, share: float, change_ns: int, room: float, delays: list[float]
) -> None:
    high_ns = min(low_ns - 1, max(1, int(low_ns * share)))
    room_ns = int(low_ns * room)
    after_ns = latest_raise_ns(low_ns, high_ns, change_ns, room_ns)
    if after_ns <= 0:
        assert high_ns + change_ns >= room_ns - 16 - low_ns / (low_ns - high_ns)
        return
    # Pieces of equal work, each with its own share of the longest time that it may take.
    time_ns, raised = 0.0, False
    for delay in delays:
        left = 1.0
        if not raised:
            whole = delay * low_ns / len(delays)
            spent = min(whole, after_ns - time_ns)
            time_ns += spent
            left = 0.0 if spent >= whole else 1.0 - spent / whole
            if left:
                raised, time_ns = True, time_ns + change_ns
        time_ns += left * delay * high_ns / len(delays)
    # A few units in the last place of sums of doubles.
    assert time_ns <= room_ns + 1e-6
    worst = after_ns + change_ns + (1 - after_ns / low_ns) * high_ns
    assert worst <= room_ns


@settings(max_examples=100)
@given(slowdown=st.floats(0.3, 3.0), share=st.floats(0.05, 0.95))
def test_the_slowdown_of_a_raised_run_is_found_again(slowdown: float, share: float) -> None:
    low = Option(Choice(400.0, 1, "M1", CLUSTER), 80 * MS, 1, 1, 0.9)
    high = Option(Choice(800.0, 1, "M1", CLUSTER), 41 * MS, 1, 1, 0.9)
    raised_ns = round(share * slowdown * low.latency_ns)
    rest_ns = round((1 - share) * slowdown * high.latency_ns)
    run_ns = raised_ns + 140_000 + rest_ns
    assert slowdown_of(run_ns, low, high, raised_ns, 140_000) == pytest.approx(slowdown, rel=1e-6)


def test_one_run_by_hand() -> None:
    given_scenario = scenario()
    # 20 % more than predicted: 83.3 ms at 1200 MHz, 71.4 at 1400. Of 75 ms 0.24 are kept for a change before the run
    # and 0.14 for the one in it: (75 - 0.24 - 0.14 - 71.4) / (1 - 71.4 / 83.3) = 22.3 ms after the begin.
    low, high = (given_scenario.option(Choice(mhz, 1, "M1", CLUSTER)) for mhz in (1200.0, 1400.0))

    def p99_ns(option: Option) -> int:
        return round(1.2 * option.latency_ns)

    def room_ns(_option: Option) -> int:
        return given_scenario.limit_ns - given_scenario.full_switch_ns

    found = {r.option.choice.freq_mhz: r for r in raised_options(given_scenario, [low, high], p99_ns, room_ns, 0.2)}
    raised = found[1200.0]
    assert raised.option.choice.raise_mhz == 1400.0
    expected_ms = (75 - 0.24 - 0.14 - 1.2 * high.latency_ns / MS) / (1 - high.latency_ns / low.latency_ns)
    assert raised.option.choice.raise_after_ns / MS == pytest.approx(expected_ms, abs=1e-4)
    # Every usual run takes longer than that: always 22.3 ms at the low clock, the rest at the high one, and back.
    after = raised.option.choice.raise_after_ns
    runs = [
        (low.cell_uw - 30_000) * after
        + (high.cell_uw - 30_000) * (1 - after / (slowdown * low.latency_ns)) * slowdown * high.latency_ns
        + 2 * given_scenario.switch_fj(low.choice, high.choice)
        for slowdown in (0.8, 0.9, 1.0, 1.1, 1.2)
    ]
    assert raised.above_fj == pytest.approx(sum(runs) / 5, rel=1e-9)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    deadline_ms=st.floats(30.0, 90.0),
    goal=st.sampled_from([Goal(margin=0.2), Goal(margin=0.2, mean_score=0.8), Goal(margin=0.2, until_h=0.003)]),
    kind=st.sampled_from(["periodic", "poisson"]),
)
def test_never_late_and_never_worse_than_without(seed: int, deadline_ms: float, goal: Goal, kind: str) -> None:
    rng = np.random.default_rng(seed)
    noise = traffic.uniform_noise(0.2, 499, rng)
    given_scenario, arrivals = scenario(deadline_ms=deadline_ms), None
    if kind == "poisson":
        given_scenario = replace(given_scenario, period_ms=2 * deadline_ms, gap_ms=21.0)
        arrivals = traffic.poisson(2 * deadline_ms, 21.0, 2000, rng)
    results = [
        simulate(
            given_scenario, GovernorPolicy(given_scenario, goal, raises=raises), slowdowns=noise, arrivals_ms=arrivals
        )
        for raises in (False, True)
    ]
    assert [result.deadline_misses for result in results] == [0, 0]
    plain, raising = results
    parts = raising.energy
    whole = sum(parts.by_level_mwh.values()) + parts.idle_mwh + parts.switching_mwh + parts.battery_loss_mwh
    assert whole == pytest.approx(parts.total_mwh, rel=1e-9)
    assert sum(parts.by_frequency_mwh.values()) == pytest.approx(sum(parts.by_level_mwh.values()), rel=1e-9)
    if goal == Goal(margin=0.2):
        # The mean of a few hundred runs: energies are predicted for five slowdowns.
        assert raising.inferences >= plain.inferences * 0.99


def test_it_pays_where_clocks_are_far_apart() -> None:
    given_scenario = scenario(deadline_ms=75.0)
    dense = replace(given_scenario, levels=LEVELS[:1])
    noise = traffic.uniform_noise(0.2, 499, np.random.default_rng(0))
    plain, raising = (
        simulate(dense, GovernorPolicy(dense, Goal(margin=0.2), raises=raises), slowdowns=noise)
        for raises in (False, True)
    )
    assert plain.frequency_switches == 0
    assert raising.frequency_switches > raising.inferences
    assert raising.deadline_misses == 0
    assert raising.inferences > plain.inferences * 1.02


def test_a_wrong_predictor_is_learned_from_raised_runs() -> None:
    """Runs that take 1.1 times the prediction: inside the margin, and found again behind every raise."""
    dense = replace(scenario(1.0), levels=LEVELS[:1])
    policy = GovernorPolicy(dense, Goal(margin=0.2))
    result = simulate(dense, policy, slowdowns=[1.1])
    assert result.deadline_misses == 0
    assert set(policy._memory.overall.ratios_milli[-WINDOW:]) <= {1100, 1101}


def test_who_waited_is_raised_within_what_is_left_and_who_cannot_set_the_clock_is_not() -> None:
    governor = Governor(replace(scenario(deadline_ms=90.0), levels=LEVELS[:1]), Goal(margin=0.2), raises=True)
    state, deadline_ns = State(1, 1, 0), governor.scenario.deadline_ns
    alone = governor.decide(state)
    assert alone.option.choice.raise_mhz > alone.option.choice.freq_mhz
    assert alone.p99_ns <= deadline_ns
    for waited_ns in range(1, 14 * MS, MS // 2):
        late = governor.decide(replace(state, waited_ns=waited_ns))
        assert late.p99_ns <= deadline_ns - waited_ns
        assert late.option.choice.freq_mhz >= alone.option.choice.freq_mhz
    waited = governor.decide(replace(state, waited_ns=MS)).option.choice
    assert 0 < waited.raise_after_ns < alone.option.choice.raise_after_ns
    # Nobody behind can be served in time.
    assert governor.decide(replace(state, behind_ns=(0,))).option.choice.raise_mhz == 0.0
    assert governor.decide(replace(state, clock_mhz={CLUSTER: 1400.0})).option.choice.raise_mhz == 0.0
    assert Governor(governor.scenario, Goal(margin=0.2)).decide(state).option.choice.raise_mhz == 0.0


def live(degree: Degree = Degree.SETS, refused: bool = False) -> tuple[LiveGovernor, SimulatedDevice, list[float]]:
    """A device, its governor, and the clocks that were asked for."""
    given_scenario = replace(scenario(1000.0, 80.0), levels=LEVELS[:1], accounting=Accounting.BOARD, gap_ms=0.0)
    device = SimulatedDevice(given_scenario.profile, load_cell(), degree=degree)
    noise = traffic.uniform_noise(0.2, 199, np.random.default_rng(0))
    runner, asked, set_mhz = SimulatedRunner(device, given_scenario.levels, slowdowns=noise), [], device.set_mhz

    def set_and_note(cluster: str, freq_mhz: float) -> bool:
        asked.append(freq_mhz)
        return set_mhz(cluster, freq_mhz) and not (refused and len(asked) > 1)

    device.set_mhz = set_and_note  # type: ignore[method-assign]
    return LiveGovernor(given_scenario, Goal(margin=0.2), runner, device, device, runner.now_s), device, asked


def test_a_live_run_is_raised_and_teaches_what_it_would_have_taken() -> None:
    governor, device, asked = live()
    served = []
    for index in range(60):
        wait_s = 0.08 * index - device.time_s
        device.advance(max(0.0, wait_s), 30.0)
        served.append(governor.serve(index, 0.08 * index))
    assert all(answer.in_time for answer in served)
    raised = [answer for answer in served if answer.raised_mhz is not None]
    assert {(answer.freq_mhz, answer.raised_mhz) for answer in raised} == {(asked[0], asked[1])}
    assert len(raised) > 30
    # Whole thousandths, rounded up; the change of clock that is assumed takes no time in this device.
    ratios = governor.memory.overall.ratios_milli
    assert min(ratios) >= 790
    assert max(ratios) <= 1201
    assert np.mean(ratios) == pytest.approx(1000, abs=40)


def test_without_permission_no_run_begins_below_the_clock_that_fits() -> None:
    governor, _, asked = live(Degree.FOLLOWS)
    served = [governor.serve(index) for index in range(3)]
    assert asked == []
    assert {answer.raised_mhz for answer in served} == {None}


def test_a_refusal_in_mid_run_loses_nothing() -> None:
    governor, _, _ = live(refused=True)
    answer = governor.serve("x")
    assert (answer.raised_mhz, answer.index) == (None, 0)
    assert governor.memory.requests == 1


class Engine:
    """A model that waits for a signal in the middle of its run."""

    level, plan = 0, True

    def __init__(self, waits: Callable[[], object]) -> None:
        self.waits, self.within_ms, self.clock = waits, math.nan, None

    def switch(self, level: str) -> None:
        self.asked = level

    def run_within(self, rows: list[Any], within_ms: float, *, clock: Any = None) -> Any:
        self.within_ms, self.clock = within_ms, clock
        self.waits()
        return SimpleNamespace(output=rows, levels=np.zeros((1, 2)))


def test_the_engine_runs_on_while_its_clock_is_raised() -> None:
    begun = threading.Event()
    engine = Engine(lambda: begun.wait(30))
    answer = EngineRunner(engine, 4).run_raised([1, 2], "L0", 100.0, 1.0, 2.0, begun.set)
    assert begun.is_set()
    assert answer.kept_level
    # To the engine the 99 ms after the raise are twice as long.
    assert engine.within_ms == pytest.approx(1.0 + 2.0 * 99.0)
    early = engine.clock()
    assert engine.clock() >= early


def test_a_run_that_ends_before_the_moment_is_left_alone() -> None:
    called = threading.Event()
    engine = Engine(lambda: None)
    EngineRunner(engine, 4).run_raised([1], "L0", 1e6, 1e6, 2.0, called.set)
    assert not called.is_set()


def test_an_error_in_mid_run_reaches_the_caller() -> None:
    def broken() -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        EngineRunner(Engine(broken), 4).run_raised([1], "L0", 1e6, 1e6, 2.0, lambda: None)
