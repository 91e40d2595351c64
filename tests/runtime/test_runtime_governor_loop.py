"""The governor on simulated devices: three degrees, plug and unplug, heat, lies, and no lost request."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from live_devices import CLUSTER, LEVELS, SLOW, governed, profile, scenario, serve

from lavolta.devices import Accounting
from lavolta.devices.cell import load_cell
from lavolta.devices.sources import Degree, NoFrequencyControl, Reading, SimulatedDevice, Source
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal, Reason
from lavolta.runtime.governor_loop import LiveGovernor
from lavolta.runtime.governor_memory import TRUSTED
from lavolta.runtime.governor_simulated import SimulatedRunner
from lavolta.runtime.scenario import Scenario


def test_it_sets_the_clock_and_keeps_every_deadline() -> None:
    device = SimulatedDevice(profile(), load_cell())
    noise = traffic.uniform_noise(0.2, 200, np.random.default_rng(0))
    served = serve(device, Goal(margin=0.2), 200, noise)
    assert all(s.in_time for s in served)
    # M4 at 400 MHz takes up to 70 ms.
    assert {(s.level, s.freq_mhz, s.degree) for s in served} == {("M4", 400.0, "sets")}
    assert {s.reason for s in served} == {Reason.CHEAPEST.value}
    # Closing gives the clock back: this simulated system then runs at its highest.
    assert device.clock_mhz(CLUSTER) == 1400.0
    assert served[0].facts()["run_ms"] == pytest.approx(58.345 * noise[0])
    assert "output" not in served[0].facts()


def test_it_follows_a_clock_that_the_system_chose() -> None:
    device = SimulatedDevice(profile(), load_cell(), degree=Degree.FOLLOWS)
    device.follow(CLUSTER, 1000.0)
    goal = Goal(margin=0.1, reserve=0.0)
    served = serve(device, goal, 20)
    assert {(s.level, s.freq_mhz) for s in served} == {("M2", 1000.0)}
    assert all(s.in_time for s in served)
    device.follow(CLUSTER, 600.0)
    served = serve(device, goal, 20)
    assert {s.level for s in served} == {"M4"}


def test_a_flickering_clock_is_one_clock() -> None:
    class Flickering:
        looks = 0

        def read(self) -> Reading:
            self.looks += 1
            return Reading(time_s=float(self.looks), freq_mhz={CLUSTER: 1000.0 + self.looks % 7})

    device = SimulatedDevice(profile(), load_cell(), degree=Degree.FOLLOWS)
    device.follow(CLUSTER, 1000.0)
    runner = SimulatedRunner(device, LEVELS)
    governor = LiveGovernor(scenario(device), Goal(), runner, Flickering(), device, runner.now_s)
    assert {governor.serve("x").freq_mhz for _ in range(10)} == {1000.0}


def test_without_any_clock_the_measured_times_teach_it() -> None:
    device = SimulatedDevice(profile(), load_cell(), degree=Degree.NONE)
    device.follow(CLUSTER, 800.0)
    served = serve(device, Goal(margin=0.1, reserve=0.0), 4 * TRUSTED)
    # Predicted for 1400 MHz, M1 takes 1.75 times as long: late until that is believed, then a sparser level.
    assert not served[0].in_time
    late = [s.index for s in served if not s.in_time]
    assert max(late) <= TRUSTED + 2
    assert {s.level for s in served[2 * TRUSTED :]} == {"M3"}
    assert {s.degree for s in served} == {"none"}


def test_plug_and_unplug_change_the_level_between_requests() -> None:
    device = SimulatedDevice(profile(), load_cell())
    governor, runner = governed(device, Goal(margin=0.1))
    levels = []
    for plugged in (False, True, True, False):
        device.plug(plugged)
        served = governor.serve("x")
        levels.append((served.level, served.reason))
        runner.wait_until(runner.now_s() + 0.1)
    assert levels == [
        ("M4", Reason.CHEAPEST.value),
        ("M1", Reason.MAINS.value),
        ("M1", Reason.MAINS.value),
        ("M4", Reason.CHEAPEST.value),
    ]


def slowly(
    device: SimulatedDevice,
    goal: Goal,
    board_mw: float,
    count: int,
    slowdowns: Sequence[float],
    source: Source | None = None,
) -> LiveGovernor:
    """A request of a slow model every 8 s, all in time, by a governor that believes in a board of this power."""
    believed = profile(device.profile.battery.energy_mwh, board_mw)
    slow = Scenario(believed, SLOW, 8000.0, 8000.0, accounting=Accounting.BOARD, gap_ms=0.0)
    runner = SimulatedRunner(device, SLOW, slowdowns=slowdowns)
    governor = LiveGovernor(slow, goal, runner, source or device, device, runner.now_s)
    for index in range(count):
        runner.wait_until(8.0 * index)
        assert governor.serve(index, 8.0 * index).in_time
    return governor


@pytest.mark.parametrize("board_mw", [20.0, 30.0])
def test_a_wanted_lifetime_on_a_real_discharge_curve(board_mw: float) -> None:
    """The cell sags, heats itself and is cut off, and the profile may be wrong: the charge lasts all the same."""
    # 140 mWh: at 74 mW with the cheapest level nearly 2 h, at 130 mW with the best about 1 h.
    device = SimulatedDevice(profile(140.0, board_mw), load_cell())
    noise = traffic.uniform_noise(0.2, 997, np.random.default_rng(1))
    goal = Goal(until_h=1.5, reserve=0.05, margin=0.2)
    governor = slowly(device, goal, 20.0, round(1.5 * 3600 / 8), noise)
    assert not device.empty
    assert device.read().charge_share == pytest.approx(0.05, abs=0.03)
    assert governor.memory.levels.keys() >= {(CLUSTER, "M3"), (CLUSTER, "M4")}


def test_heat_lowers_the_clock_and_the_level_follows() -> None:
    class Hot:
        def __init__(self, device: SimulatedDevice) -> None:
            self.device = device

        def read(self) -> Reading:
            reading = self.device.read()
            return Reading(time_s=reading.time_s, charge_share=0.9, temperature_c=88.0)

    device = SimulatedDevice(profile(), load_cell())
    runner = SimulatedRunner(device, LEVELS)
    governor = LiveGovernor(scenario(device), Goal(reserve=0.0), runner, Hot(device), device, runner.now_s)
    # Just below half way from 80 to 95 degrees: the third of six steps.
    served = governor.serve("x")
    # M2 takes 72.9 of 80 ms there; M1 does not fit. Time is left to begin at the step below.
    assert (served.level, served.freq_mhz, served.raised_mhz) == ("M2", 600.0, 800.0)


def test_an_answer_that_heat_makes_late_says_so() -> None:
    class Hot:
        def read(self) -> Reading:
            return Reading(0.0, temperature_c=100.0)

    device = SimulatedDevice(profile(), load_cell())
    runner = SimulatedRunner(device, LEVELS)
    governor = LiveGovernor(scenario(device), Goal(min_score=0.8), runner, Hot(), device, runner.now_s)
    hot = governor.serve("x")
    # M3 takes 117 ms at 400 MHz, the only clock that is left.
    assert (hot.freq_mhz, hot.in_time, hot.reason) == (400.0, False, Reason.LIMITED.value)
    # This one would be late at any clock.
    assert governor.serve("x", deadline_ms=10.0).reason == Reason.LATE.value


class Refusing:
    """A control that loses its permission at the third request."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.device, self.asked, self.released = device, 0, False

    @property
    def degree(self) -> Degree:
        return Degree.SETS if self.asked < 3 else Degree.FOLLOWS

    @property
    def why(self) -> str:
        return ""

    @property
    def clusters(self) -> dict[str, tuple[float, ...]]:
        return dict(self.device.clusters)

    def set_mhz(self, cluster: str, freq_mhz: float) -> bool:
        self.asked += 1
        return self.asked < 3 and self.device.set_mhz(cluster, freq_mhz)

    def release(self) -> None:
        self.released = True


def test_a_permission_that_goes_away_lowers_the_degree_and_loses_nothing() -> None:
    device = SimulatedDevice(profile(), load_cell())
    runner, control = SimulatedRunner(device, LEVELS), Refusing(device)
    governor = LiveGovernor(scenario(device), Goal(), runner, device, control, runner.now_s)
    served = []
    for _ in range(5):
        served.append(governor.serve("x"))
        runner.wait_until(runner.now_s() + 0.1)
    assert [s.degree for s in served] == ["sets", "sets", "follows", "follows", "follows"]
    assert all(s.in_time for s in served)
    governor.close()
    assert control.released


def test_a_clock_of_another_cluster_only_is_not_taken_as_set() -> None:
    class Elsewhere(Refusing):
        """Sets the clock of a cluster that nothing runs on."""

        @property
        def degree(self) -> Degree:
            return Degree.SETS

        @property
        def clusters(self) -> dict[str, tuple[float, ...]]:
            return {"policy0": (400.0, 1400.0)}

        def set_mhz(self, cluster: str, freq_mhz: float) -> bool:
            return freq_mhz in self.clusters.get(cluster, ())

    device = SimulatedDevice(profile(), load_cell())
    runner, control = SimulatedRunner(device, LEVELS), Elsewhere(device)
    governor = LiveGovernor(scenario(device), Goal(), runner, device, control, runner.now_s)
    assert governor.clock.degree is Degree.SETS
    # 1400 MHz, at which the device really runs.
    served = governor.serve("x")
    assert (served.degree, served.freq_mhz, served.in_time) == ("follows", 1400.0, True)
    assert served.run_ms == pytest.approx(served.predicted_ms)
    assert control.released
    assert governor.clock.why == f"the system did not take 400 MHz as the clock of cluster {CLUSTER}."


def test_a_source_that_knows_nothing_still_serves() -> None:
    class Blind:
        time_s = 0.0

        def read(self) -> Reading:
            self.time_s += 1.0
            return Reading(time_s=self.time_s)

    device = SimulatedDevice(profile(), load_cell())
    runner = SimulatedRunner(device, LEVELS)
    governor = LiveGovernor(scenario(device), Goal(until_h=1.0), runner, Blind(), NoFrequencyControl(), runner.now_s)
    served = [governor.serve("x") for _ in range(3)]
    assert {(s.level, s.charge_share, s.reason) for s in served} == {("M4", None, Reason.UNKNOWN.value)}


def test_energy_that_is_more_than_predicted_is_learned() -> None:
    # The board draws 80 mW where the profile says 20: with 30 mW idle and about 24 mW of runs, 134 for 74.
    device = SimulatedDevice(profile(400.0, board_mw=80.0), load_cell())
    governor = slowly(device, Goal(until_h=10.0), 20.0, 300, [1.0])
    assert governor.memory.energy == pytest.approx(134 / 74, rel=0.1)


@pytest.mark.parametrize(("board_mw", "factor"), [(20.0, 1.0), (80.0, 134 / 74)])
def test_a_gauge_of_whole_percents_teaches_the_same(board_mw: float, factor: float) -> None:
    class Percents:
        """Only `capacity` of the battery, as many phones have it."""

        def read(self) -> Reading:
            reading = device.read()
            share = (reading.charge_mwh or 0.0) / device.capacity_mwh
            return Reading(reading.time_s, charge_share=math.floor(100 * share) / 100, on_ac=False)

    device = SimulatedDevice(profile(200.0, board_mw=board_mw), load_cell())
    governor = slowly(device, Goal(until_h=10.0), 20.0, 500, [1.0], Percents())
    # Not all of the way in the windows of this charge.
    assert governor.memory.energy == pytest.approx(factor, rel=0.2)
    assert (governor.memory.energy == pytest.approx(1.0, abs=0.1)) == (factor == 1.0)


def test_a_voltage_that_wavers_teaches_nothing_wrong() -> None:
    class Wavering:
        """Charge times the present voltage: 2 % more or less from look to look."""

        looks = 0

        def read(self) -> Reading:
            self.looks += 1
            reading = device.read()
            return replace(reading, charge_mwh=(reading.charge_mwh or 0.0) * (1.0, 1.02, 0.98)[self.looks % 3])

    device = SimulatedDevice(profile(200.0), load_cell())
    governor = slowly(device, Goal(until_h=10.0), 20.0, 500, [1.0], Wavering())
    assert governor.memory.energy == pytest.approx(1.0, abs=0.1)


def test_the_busy_clock_is_asked_for_after_the_run() -> None:
    class Busy:
        def read(self) -> Reading:
            return Reading(0.0, freq_mhz={CLUSTER: 1000.0})

    device = SimulatedDevice(profile(), load_cell(), degree=Degree.FOLLOWS)
    device.follow(CLUSTER, 600.0)
    runner = SimulatedRunner(device, LEVELS)
    governor = LiveGovernor(scenario(device), Goal(), runner, device, device, runner.now_s, Busy())
    assert [governor.serve("x").freq_mhz for _ in range(3)] == [600.0, 1000.0, 1000.0]


def test_the_plan_begins_when_the_device_first_tells_the_time() -> None:
    class Slow:
        looks = 0

        def read(self) -> Reading:
            self.looks += 1
            if self.looks == 1:
                return Reading(0.0, missing={"time_s": "the device has not answered yet."})
            return Reading(time_s=1e6, charge_mwh=1000.0, capacity_mwh=1000.0)

    device = SimulatedDevice(profile(), load_cell())
    runner = SimulatedRunner(device, LEVELS)
    goal = Goal(until_h=1e6)
    governor = LiveGovernor(scenario(device), goal, runner, Slow(), device, runner.now_s)
    assert governor.serve("x").reason == Reason.UNKNOWN.value
    # Counted from zero, the wanted time would be over and the best level affordable.
    assert governor.serve("x").level == "M4"
