"""Requests of the governor: their deadlines, those that wait, a level that an operator set."""

from typing import Any

import numpy as np
import pytest
from live_devices import CLUSTER, LEVELS, PERIOD_S, governed, profile, scenario

from lavolta.devices.cell import load_cell
from lavolta.devices.sources import SimulatedDevice
from lavolta.errors import InfeasibleError, UserInputError
from lavolta.runtime.governor import Goal, Reason
from lavolta.runtime.governor_loop import Answer, LiveGovernor
from lavolta.runtime.governor_memory import TRUSTED
from lavolta.runtime.governor_menu import Menu
from lavolta.runtime.governor_simulated import SimulatedRunner
from lavolta.runtime.raising import raised_options
from lavolta.runtime.scenario import Scenario


@pytest.mark.parametrize("pinned", [False, True])
def test_what_was_learned_is_planned_before_the_next_request(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []

    class Counted(Menu):
        def __init__(self, *args: Any) -> None:
            plans.append(args)
            super().__init__(*args)

    monkeypatch.setattr("lavolta.runtime.governor.Menu", Counted)
    slow = np.random.default_rng(0).lognormal(0.3, 0.2, 200)

    def answers(prepare: bool) -> list[tuple[str, float]]:
        governor, runner = governed(SimulatedDevice(profile(), load_cell()), Goal(margin=0.2), slow)
        governor.prepare()
        if pinned:
            governor.pin("M3")
        found, in_requests = [], 0
        for index in range(100):
            runner.wait_until(index * PERIOD_S)
            before = len(plans)
            served = governor.serve(index, index * PERIOD_S)
            found.append((served.level, served.freq_mhz))
            in_requests += index > 0 and len(plans) > before
            if prepare:
                governor.prepare()
        assert (in_requests == 0) == prepare
        return found

    assert answers(prepare=True) == answers(prepare=False)


def test_runs_with_a_raise_are_planned_before_the_request_that_waited_a_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned = []

    def counted(*args: Any) -> Any:
        planned.append(args)
        return raised_options(*args)

    monkeypatch.setattr("lavolta.runtime.governor_menu.raised_options", counted)
    device = SimulatedDevice(profile(), load_cell(), start_s=100.0)
    governor, runner = governed(device, Goal(margin=0.2))
    governor.serve("x")
    for _ in range(2 * TRUSTED):
        governor.prepare()
        before = len(planned)
        # A thirty-second part of 80 ms is 2.5 ms.
        assert governor.serve("x", runner.now_s() - 0.001).in_time
        assert len(planned) == before


def test_a_request_that_waited_and_those_behind_it() -> None:
    device = SimulatedDevice(profile(), load_cell(), start_s=100.0)
    governor, runner = governed(device, Goal())
    late = governor.serve("x", arrived_s=runner.now_s() - 0.06, behind_s=[runner.now_s() - 0.05])
    assert (late.level, late.freq_mhz, late.in_time) == ("M4", 1400.0, True)
    assert late.response_ms == pytest.approx(60 + 16.67, abs=0.01)
    hopeless = governor.serve("x", arrived_s=runner.now_s() - 10.0)
    assert (hopeless.reason, hopeless.in_time) == (Reason.LATE.value, False)
    # A clock that went back is no negative wait.
    assert governor.serve("x", arrived_s=runner.now_s() + 5.0).response_ms >= 0


def test_a_run_that_was_cut_short_does_not_teach_speed() -> None:
    device = SimulatedDevice(profile(), load_cell())
    inner = SimulatedRunner(device, LEVELS)

    def cut(*_: object) -> Answer:
        # Half of its layers ran sparser: quicker than the level is.
        device.advance(0.001, 50.0)
        return Answer(None, kept_level=False)

    governor = LiveGovernor(scenario(device), Goal(margin=0.2), cut, device, device, inner.now_s)
    for _ in range(2 * TRUSTED):
        assert not governor.serve("x").kept_level
    assert governor.memory.factor_milli(CLUSTER, "M4", 0.2) >= 1200


def test_deadlines_that_a_pinned_level_cannot_keep_teach_nothing() -> None:
    device = SimulatedDevice(profile(), load_cell())
    inner = SimulatedRunner(device, LEVELS)

    def cut(request: object, level: str, within_ms: float, /) -> Answer:
        before_s = device.time_s
        answer = inner(request, level, within_ms)
        took_ms = 1e3 * (device.time_s - before_s)
        return answer if took_ms <= within_ms else Answer(answer.output, kept_level=False)

    governor = LiveGovernor(scenario(device), Goal(margin=0.2), cut, device, device, inner.now_s)
    governor.pin("M1")
    for _ in range(150):
        # M1 takes 59.5 ms at the highest clock.
        assert not governor.serve("x", deadline_ms=20.0).kept_level
    assert governor.memory.requests == 150
    governor.pin(None)
    device.plug(True)
    assert governor.serve("x").level == "M1"


def test_a_deadline_that_nothing_keeps_is_refused_at_the_start() -> None:
    device = SimulatedDevice(profile(), load_cell())
    tight = Scenario(device.profile, LEVELS, 5.0, 5.0)
    runner = SimulatedRunner(device, LEVELS)
    with pytest.raises(InfeasibleError, match="no level meets 5 ms"):
        LiveGovernor(tight, Goal(), runner, device, device, runner.now_s)


def test_a_request_with_a_deadline_of_its_own() -> None:
    device = SimulatedDevice(profile(), load_cell())
    governor, _ = governed(device, Goal())
    usual, short = governor.serve("x"), governor.serve("x", deadline_ms=20.0)
    # M4 takes 58.3 ms at 400 MHz and 19.4 at 1200.
    assert (usual.level, usual.freq_mhz, usual.deadline_ms) == ("M4", 400.0, 80.0)
    assert (short.level, short.freq_mhz, short.deadline_ms) == ("M4", 1200.0, 20.0)
    assert short.in_time
    hopeless = governor.serve("x", deadline_ms=10.0)
    assert (hopeless.reason, hopeless.in_time) == (Reason.LATE.value, False)


def test_a_longer_deadline_gives_time_to_wait() -> None:
    device = SimulatedDevice(profile(), load_cell(), start_s=100.0)
    governor, runner = governed(device, Goal())
    waited_s = 0.1
    patient = governor.serve("x", runner.now_s() - waited_s, deadline_ms=200.0)
    assert (patient.freq_mhz, patient.reason, patient.in_time) == (400.0, Reason.CHEAPEST.value, True)
    assert governor.serve("x", runner.now_s() - waited_s).reason == Reason.LATE.value


def test_the_runner_is_told_what_is_left_of_the_request_s_own_deadline() -> None:
    device = SimulatedDevice(profile(), load_cell(), start_s=100.0)
    told: list[float] = []

    def run(_request: object, _level: str, within_ms: float, /) -> Answer:
        told.append(within_ms)
        return Answer(None)

    governor = LiveGovernor(scenario(device), Goal(), run, device, device, lambda: device.time_s)
    governor.serve("x", device.time_s - 0.03, deadline_ms=50.0)
    assert told == [pytest.approx(20.0)]


def test_a_pinned_level_runs_at_the_clock_that_costs_least() -> None:
    device = SimulatedDevice(profile(), load_cell())
    governor, _ = governed(device, Goal(mean_score=0.8))
    assert governor.pinned is None
    credit = governor.memory.credit
    governor.pin("M3")
    served = governor.serve("x")
    # 77.8 ms at 600 MHz.
    assert (served.level, served.freq_mhz, served.reason) == ("M3", 600.0, Reason.PINNED.value)
    assert governor.pinned == "M3"
    # What the operator chose is not charged to the mean score.
    assert governor.memory.credit == credit
    assert governor.memory.requests == 1
    governor.pin(None)
    assert governor.serve("x").reason == Reason.MEAN.value


def test_a_level_that_is_not_there_or_too_slow_is_not_pinned() -> None:
    device = SimulatedDevice(profile(), load_cell())
    tight = Scenario(device.profile, LEVELS, 40.0, 40.0, gap_ms=0.0)
    runner = SimulatedRunner(device, LEVELS)
    governor = LiveGovernor(tight, Goal(), runner, device, device, runner.now_s)
    with pytest.raises(UserInputError, match="there is no level 'M9'; the bundle has M1, M2, M3, M4"):
        governor.pin("M9")
    with pytest.raises(InfeasibleError, match="no level meets 40 ms"):
        governor.pin("M1")
    assert governor.pinned is None
    assert governor.serve("x").level == "M4"
