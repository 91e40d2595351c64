"""The kernel's governors, by hand; zTT-like; traffic; and what all policies share: books that balance, one seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices import Work
from lavolta.errors import UserInputError
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_policy import GovernorPolicy
from lavolta.runtime.policies import hardware_only, no_reconfiguration, rt3
from lavolta.runtime.scenario import LevelWork, Scenario
from lavolta.runtime.simulation import SimulationResult, simulate
from lavolta.runtime.stock_policies import STOCK, Ondemand, Performance, Powersave, Schedutil
from lavolta.runtime.ztt_policy import ZttLikePolicy

BASE = devices.load("odroid-xu3-a7")
MS = 1_000_000
# 25 ms of work at the top clock of 1400 MHz, cycles only.
TIMES = {freq: round(25 * MS * 1400 / freq) for freq in (400.0, 600.0, 800.0, 1000.0, 1200.0, 1400.0)}


def level(name: str, kept_macs: float, score: float) -> LevelWork:
    return LevelWork(name, Work(8, 16, kept_macs, 0.0, 0.0, 0.0), score)


LEVELS = (level("M1", 50e6, 0.9), level("M4", 14e6, 0.7))


def scenario(capacity_mwh: float = 0.3, resistance_mohm: float = 0.0) -> Scenario:
    battery = BASE.battery.model_copy(
        update={"capacity_mah": None, "capacity_mwh": capacity_mwh, "internal_resistance_mohm": resistance_mohm}
    )
    return Scenario(BASE.model_copy(update={"battery": battery}), LEVELS, 75.0, 75.0)


def test_ondemand_by_hand() -> None:
    governor = Ondemand(scenario(), "M1")
    # 10 ms at 400 MHz do 10 / 87.5 of the work; the sample was fully busy, so the rest runs at the top.
    rest = round((1 - 10 / 87.5) * 25 * MS)
    assert governor.run(0, TIMES) == [(400.0, 10 * MS), (1400.0, pytest.approx(rest, abs=1))]
    # It ended at 32.14 ms: the sample from 30 ms is 21.4 % busy, 400 + 0.214 x 1000 = 614 MHz, so the next starts at
    # 600 MHz within the sample after it.
    first, second = governor.run(41 * MS, TIMES)[:2]
    assert first == (600.0, 9 * MS)
    # That sample is 90 % busy, below the threshold: 400 + 0.9 x 1000 = 1300 MHz lies between two steps; one of them.
    assert second[0] in (1200.0, 1400.0)
    # After long idleness it is at the bottom again.
    assert governor.run(1000 * MS, TIMES)[0] == (400.0, 10 * MS)


def test_schedutil_by_hand() -> None:
    # One clock: the signal after 32 ms of work is one half, and a quarter after 32 ms more of rest.
    one = {1400.0: 32 * MS}
    governor = Schedutil(scenario(), "M1")
    governor._steps = [1400.0]
    assert governor.run(0, one) == [(1400.0, 32 * MS)]
    assert governor._signal == pytest.approx(0.5)
    assert governor._estimate == pytest.approx(0.5)
    governor.run(64 * MS, {1400.0: 1})
    # The estimate remembers: 1.25 x 0.5 x 1400 = 875 MHz at the next wake-up, although the signal has fallen.
    fresh = Schedutil(scenario(), "M1")
    fresh._signal, fresh._estimate, fresh._last_ns = 0.5, 0.5, 0
    assert fresh.run(320 * MS, TIMES)[0][0] == 1000.0
    # From nothing it climbs step by step, and a long run reaches the top.
    fresh.restart()
    pieces = fresh.run(0, {freq: 40 * time for freq, time in TIMES.items()})
    clocks = [freq for freq, _ in pieces]
    assert clocks[0] == 400.0
    assert clocks == sorted(clocks)
    assert clocks[-1] == 1400.0


@settings(max_examples=60)
@given(starts=st.lists(st.integers(0, 200 * MS), min_size=1, max_size=6), kind=st.sampled_from(STOCK))
def test_the_work_of_a_run_is_done_exactly(starts, kind) -> None:
    governor, now = kind(scenario(), "M1"), 0
    for pause in starts:
        now += pause
        pieces = governor.run(now, TIMES)
        assert all(time_ns > 0 for _, time_ns in pieces)
        # A piece may be rounded up by a nanosecond, once per run.
        assert sum(time_ns / TIMES[freq] for freq, time_ns in pieces) == pytest.approx(1.0, abs=1e-6)
        now += sum(time_ns for _, time_ns in pieces)


def check_books(result: SimulationResult) -> None:
    energy = result.energy
    parts = energy.idle_mwh + energy.switching_mwh + energy.battery_loss_mwh
    tolerance = 1e-12 * result.capacity_mwh
    assert sum(energy.by_level_mwh.values()) + parts == pytest.approx(energy.total_mwh, abs=tolerance)
    assert sum(energy.by_frequency_mwh.values()) + parts == pytest.approx(energy.total_mwh, abs=tolerance)
    assert result.capacity_mwh - result.remaining_mwh == pytest.approx(energy.total_mwh, abs=tolerance)
    assert result.inferences == result.on_time + result.deadline_misses


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), resistance=st.sampled_from([0.0, 150.0]), irregular=st.booleans())
def test_energy_is_conserved_and_a_seed_repeats(seed: int, resistance: float, irregular: bool) -> None:
    given_scenario = scenario(0.05, resistance)
    rng = np.random.default_rng(seed)
    noise = traffic.lognormal_noise(0.2, 101, rng)
    arrivals = traffic.bursty(75.0, 20.0, 2000, rng) if irregular else None
    policies = [
        no_reconfiguration(given_scenario),
        hardware_only(given_scenario),
        rt3(given_scenario, 0.2),
        GovernorPolicy(given_scenario, Goal(margin=0.2)),
        ZttLikePolicy(given_scenario, "M4", seed=seed),
        *(kind(given_scenario, "M4") for kind in STOCK),
    ]
    for policy in policies:
        result = simulate(given_scenario, policy, slowdowns=noise, arrivals_ms=arrivals)
        check_books(result)
        assert result == simulate(given_scenario, policy, slowdowns=noise, arrivals_ms=arrivals)


def test_performance_is_no_reconfiguration_and_powersave_is_late() -> None:
    given_scenario = scenario()
    top = simulate(given_scenario, Performance(given_scenario, "M1"))
    fixed = simulate(given_scenario, no_reconfiguration(given_scenario, "M1"))
    # The kernel's governor starts at the lowest clock: one change of 29 uJ.
    assert abs(top.inferences - fixed.inferences) <= 1
    slow = simulate(given_scenario, Powersave(given_scenario, "M1"))
    assert slow.deadline_misses == slow.inferences
    assert slow.baseline == "stock Linux, powersave: level M1 for the whole charge; clock: always the lowest clock"


def test_ztt_like_learns_to_be_in_time_and_frugal() -> None:
    given_scenario = scenario(3.0)
    learned = simulate(given_scenario, ZttLikePolicy(given_scenario, "M4"))
    fast = simulate(given_scenario, Performance(given_scenario, "M4"))
    assert learned.deadline_misses < 0.05 * learned.inferences
    assert learned.on_time > 1.1 * fast.on_time
    assert learned.baseline.startswith("zTT-like")


def test_traffic_has_its_mean_and_its_gap() -> None:
    rng = np.random.default_rng(0)
    for arrivals in (traffic.poisson(100.0, 20.0, 20_000, rng), traffic.bursty(100.0, 20.0, 40_000, rng)):
        steps = np.diff(arrivals)
        assert steps.min() >= 20.0 - 1e-6
        # Five standard errors of the mean; a burst's quiet has a deviation of about 8 x 80 ms in one of 8 steps.
        assert steps.mean() == pytest.approx(100.0, abs=5 * steps.std() / np.sqrt(len(steps)))
    assert traffic.periodic(50.0, 3) == [0.0, 50.0, 100.0]
    assert traffic.poisson(50.0, 0.0, 0, rng) == traffic.bursty(50.0, 0.0, 0, rng) == []
    noise = traffic.uniform_noise(0.2, 1000, rng)
    assert 0.8 <= min(noise) < 0.82
    assert 1.18 < max(noise) <= 1.2


def test_a_day_has_its_hours() -> None:
    arrivals = np.array(traffic.day(10_000.0, 0.0, 10, np.random.default_rng(1)))
    # 86,400 expected; five standard deviations of a Poisson count.
    assert len(arrivals) == pytest.approx(86_400, abs=5 * 86_400**0.5)
    hours = np.bincount((arrivals // 3.6e6).astype(int) % 24, minlength=24)
    assert np.argmax(hours) == np.argmax(traffic.DAY_SHARES)
    demand = traffic.day_demand(10_000.0)
    day_ns = round(traffic.DAY_MS * 1e6)
    assert demand(0, day_ns) == pytest.approx(8640)
    assert demand(day_ns // 2, 3 * day_ns) + demand(0, day_ns // 2) == pytest.approx(3 * 8640)
    # From 3 to 4 at night: the share of that hour.
    hour_ns = day_ns // 24
    assert demand(3 * hour_ns, 4 * hour_ns) == pytest.approx(8640 * traffic.DAY_SHARES[3] / sum(traffic.DAY_SHARES))


def test_wrong_values_are_named() -> None:
    rng = np.random.default_rng(0)
    for make, message in (
        (lambda: Schedutil(scenario(), "M9"), "unknown level 'M9'; the levels are M1, M4"),
        (lambda: ZttLikePolicy(scenario(), "M9"), "unknown level 'M9'"),
        (lambda: traffic.poisson(10.0, 10.0, 5, rng), "gap of 10.0 ms does not fit"),
        (lambda: traffic.bursty(10.0, 1.0, 5, rng, mean_burst=0.5), "mean_burst is 0.5"),
        (lambda: traffic.uniform_noise(1.0, 5, rng), "noise of 1.0"),
        (lambda: traffic.lognormal_noise(-1.0, 5, rng), "noise of -1.0"),
    ):
        with pytest.raises(UserInputError, match=message):
            make()
