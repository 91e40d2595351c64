"""The governor on a folder that looks like sysfs: what it reads, what it writes, and what happens when files go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from fake_sysfs import Sysfs
from lavolta import devices
from lavolta.devices import Accounting, Work
from lavolta.devices.sources import Checked, LinuxFrequencyControl, LinuxSource, cluster_cpus
from lavolta.runtime.governor import Goal, Reason
from lavolta.runtime.governor_loop import Answer, LiveGovernor
from lavolta.runtime.scenario import LevelWork, Scenario

if TYPE_CHECKING:
    from .conftest import ManualClock

PROFILE = devices.load("odroid-xu3-a7")
# At 1400 MHz: 59.5 and 16.7 ms.
LEVELS = tuple(
    LevelWork(name, Work(8, 16, macs, 0.0, 0.0, 0.0), score)
    for name, macs, score in (("M1", 50e6, 0.9), ("M4", 14e6, 0.7))
)
POLICY = "devices/system/cpu/cpufreq/policy0"


@pytest.fixture
def system(sysfs: Sysfs) -> Sysfs:
    sysfs.policy(0, "0 1 2 3")
    sysfs.battery()
    sysfs.charger(0)
    sysfs.zone(0, "cpu-thermal", 45_000)
    return sysfs


def governed(system: Sysfs, clock: ManualClock, goal: Goal) -> tuple[LiveGovernor, LinuxFrequencyControl]:
    """A governor whose runs take as long as the clock in sysfs says."""
    clusters = cluster_cpus(PROFILE)
    control = LinuxFrequencyControl(system.root, clusters)
    source = Checked(LinuxSource(system.root, clock.clocks, clusters, control.drawn))

    def run(_request: object, level: str, _within_ms: float, /) -> Answer:
        word = (system.root / POLICY / "scaling_setspeed").read_text().strip()
        khz = int(word if word.isdigit() else (system.root / POLICY / "scaling_max_freq").read_text())
        macs = next(known.work.kept_macs for known in LEVELS if known.name == level)
        clock.tick(1.667 * macs / khz / 1e3)
        return Answer(level)

    scenario = Scenario(PROFILE, LEVELS, 80.0, 80.0, accounting=Accounting.BOARD, gap_ms=0.0)
    return LiveGovernor(scenario, goal, run, source, control, lambda: clock.running_s), control


def read(system: Sysfs, name: str) -> str:
    return (system.root / POLICY / name).read_text().strip()


def test_the_clock_is_set_and_given_back(system: Sysfs, clock: ManualClock) -> None:
    governor, _ = governed(system, clock, Goal(margin=0.2))
    served = governor.serve("x")
    # 58.3 ms at 400 MHz.
    assert (served.level, served.freq_mhz, served.in_time, served.degree) == ("M4", 400.0, True, "sets")
    assert (read(system, "scaling_governor"), read(system, "scaling_setspeed")) == ("userspace", "400000")
    assert served.charge_share == 0.5
    assert served.temperature_c == 45.0
    governor.close()
    assert read(system, "scaling_governor") == "schedutil"


def test_a_plug_brings_the_densest_level(system: Sysfs, clock: ManualClock) -> None:
    governor, _ = governed(system, clock, Goal())
    assert governor.serve("x").level == "M4"
    system.charger(1)
    clock.tick(1.0)
    served = governor.serve("x")
    assert (served.level, served.reason, served.on_ac) == ("M1", Reason.MAINS.value, True)


def test_heat_and_the_system_s_own_limit(system: Sysfs, clock: ManualClock) -> None:
    governor, _ = governed(system, clock, Goal(reserve=0.0))
    assert governor.serve("x").level == "M1"
    system.put(POLICY, scaling_max_freq=800_000)
    clock.tick(1.0)
    served = governor.serve("x")
    # At 800 MHz M1 would take 104 ms.
    assert (served.level, served.in_time) == ("M4", True)
    assert served.freq_mhz <= 800.0


@pytest.fixture
def without_userspace(system: Sysfs) -> Sysfs:
    system.policy(0, "0 1 2 3", scaling_available_governors="performance schedutil")
    return system


def test_a_clock_set_by_its_limits_is_raised_again(without_userspace: Sysfs, clock: ManualClock) -> None:
    governor, _ = governed(without_userspace, clock, Goal())
    served = governor.serve("x")
    assert (served.level, served.freq_mhz, read(without_userspace, "scaling_max_freq")) == ("M4", 400.0, "400000")
    hurried = governor.serve("x", clock.running_s - 0.04)
    assert (hurried.level, hurried.in_time) == ("M4", True)
    assert hurried.freq_mhz > 400.0
    assert governor.serve("x").freq_mhz == 400.0
    without_userspace.charger(1)
    clock.tick(1.0)
    mains = governor.serve("x")
    assert (mains.level, mains.in_time, read(without_userspace, "scaling_max_freq")) == ("M1", True, "1400000")


def test_the_system_s_own_limit_below_a_drawn_one_counts(without_userspace: Sysfs, clock: ManualClock) -> None:
    governor, _ = governed(without_userspace, clock, Goal(reserve=0.0))
    assert governor.serve("x").level == "M1"
    without_userspace.put(POLICY, scaling_max_freq=800_000)
    clock.tick(1.0)
    for _ in range(3):
        # Once 800 MHz and less are drawn, nothing shows the limit any more; it is believed for a while.
        served = governor.serve("x")
        assert (served.level, served.in_time) == ("M4", True)
        assert served.freq_mhz <= 800.0
        clock.tick(1.0)
    clock.tick(60.0)
    assert governor.serve("x").level == "M1"


def test_files_that_disappear_lose_no_request(system: Sysfs, clock: ManualClock) -> None:
    governor, control = governed(system, clock, Goal(until_h=8.0))
    answers = [governor.serve("x")]
    for gone in (
        f"{POLICY}/scaling_cur_freq",
        "class/power_supply/BAT0/capacity",
        "class/power_supply/BAT0/energy_now",
    ):
        (system.root / gone).unlink()
        clock.tick(1.0)
        answers.append(governor.serve("x"))
    for path in (system.root / POLICY).iterdir():
        if path.name != "scaling_setspeed":
            path.unlink()
    clock.tick(1.0)
    answers.append(governor.serve("x"))
    assert [a.output for a in answers] == [a.level for a in answers]
    assert answers[-1].charge_share is None
    assert all(a.in_time for a in answers)
    governor.close()
    control.release()


def test_without_permission_it_follows(
    system: Sysfs, clock: ManualClock, unprivileged: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    for path in (system.root / POLICY).iterdir():
        path.chmod(0o444)
    with unprivileged():
        governor, control = governed(system, clock, Goal())
        served = governor.serve("x")
        assert (served.degree, served.freq_mhz) == ("follows", 800.0)
        assert control.why
        governor.close()
    assert read(system, "scaling_governor") == "schedutil"


def test_a_machine_that_slept_goes_on(system: Sysfs, clock: ManualClock) -> None:
    governor, _ = governed(system, clock, Goal(until_h=8.0, margin=0.2))
    before = governor.serve("x")
    clock.sleep(9 * 3600.0)
    after = governor.serve("x")
    assert before.in_time
    assert after.in_time
    # The wanted time is over: what is left may be spent on score.
    assert after.level == "M1"
