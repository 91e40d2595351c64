"""Whole charges: batching equals stepping, energy is conserved, and each policy does what its words say."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices import Accounting, DeviceProfile, Work
from lavolta.errors import InfeasibleError, UserInputError
from lavolta.runtime.policies import (
    POLICIES,
    LavoltaPolicy,
    State,
    hardware_only,
    make_policy,
    mode_frequencies,
    no_reconfiguration,
    rt3,
)
from lavolta.runtime.scenario import Choice, LevelWork, Scenario
from lavolta.runtime.simulation import SimulationResult, compare, improvement, simulate

BASE = devices.load("odroid-xu3-a7")
CLUSTER = BASE.cluster().name
SOURCE = {"text": "test", "licence": "none", "label": "assumption"}


def device(
    capacity_mwh: float = 0.05, idle_mw: float = 30.0, resistance_mohm: float = 0.0, switch_us: float = 140.0
) -> DeviceProfile:
    """The paper's board with a battery small enough to be run step by step."""
    changes = {
        "battery": {
            "capacity_mwh": capacity_mwh,
            "nominal_mv": 3700.0,
            "internal_resistance_mohm": resistance_mohm,
            "source": SOURCE,
        },
        "switching": {
            "frequency_us": switch_us,
            "frequency_uj": 29.0 * (switch_us > 0),
            "level_us": 10.0 * (switch_us > 0),
            "level_uj": 0.0,
            "source": SOURCE,
        },
        "power": {"idle_mw": idle_mw, "board_mw": 400.0, "source": SOURCE},
    }
    return devices.validate({**BASE.model_dump(), **changes}, "test device")


def level(name: str, kept_macs: float, score: float) -> LevelWork:
    """A level whose latency is cycles only: 1.667 cycles per kept MAC on the paper's board."""
    return LevelWork(name, Work(8, 16, kept_macs, 0.0, 0.0, 0.0), score)


# At 1400 MHz: 59.5, 41.7, 33.3 and 16.7 ms.
LEVELS = (level("M1", 50e6, 0.9), level("M2", 35e6, 0.88), level("M3", 28e6, 0.85), level("M4", 14e6, 0.7))


def scenario(
    deadline_ms: float = 65.0,
    period_ms: float = 65.0,
    profile: DeviceProfile | None = None,
    threads: tuple[int, ...] = (1,),
    accounting: Accounting = Accounting.CPU,
) -> Scenario:
    return Scenario(profile or device(), LEVELS, deadline_ms, period_ms, threads, accounting=accounting)


def check_books(result: SimulationResult, start: float = 1.0) -> None:
    """Energy in equals energy out, and every count adds up."""
    energy = result.energy
    parts = energy.idle_mwh + energy.switching_mwh + energy.battery_loss_mwh
    # Sums of a few doubles of the size of the capacity.
    tolerance = 1e-12 * result.capacity_mwh
    assert sum(energy.by_level_mwh.values()) + parts == pytest.approx(energy.total_mwh, abs=tolerance)
    assert sum(energy.by_frequency_mwh.values()) + parts == pytest.approx(energy.total_mwh, abs=tolerance)
    assert start * result.capacity_mwh - result.remaining_mwh == pytest.approx(energy.total_mwh, abs=tolerance)
    assert result.inferences == sum(result.inferences_by_level.values()) == result.on_time + result.deadline_misses
    assert sum(result.time_by_level_h.values()) == pytest.approx(result.time_h, rel=1e-12)
    times, charges = zip(*result.curve, strict=True)
    assert list(times) == sorted(times)
    assert list(charges) == sorted(charges, reverse=True)
    assert len(times) <= 202
    json.dumps(result.as_dict(), allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    deadline_ms=st.floats(20, 200),
    period_ms=st.floats(20, 200),
    start=st.floats(0, 1),
    idle_mw=st.sampled_from([0.0, 5.0, 30.0]),
    resistance=st.sampled_from([0.0, 150.0]),
    switch_us=st.sampled_from([0.0, 140.0, 5000.0]),
    threads=st.sampled_from([(1,), (2, 1, 4)]),
    goal=st.sampled_from([{}, {"until_h": 5e-4}, {"until_h": 3e-4, "reserve": 0.2}, {"reserve": 0.4}]),
)
def test_batching_equals_stepping_and_nothing_is_lost(
    deadline_ms, period_ms, start, idle_mw, resistance, switch_us, threads, goal
) -> None:
    profile = device(0.03, idle_mw, resistance, switch_us)
    given_scenario = scenario(deadline_ms, period_ms, profile, threads)
    policies = [no_reconfiguration(given_scenario), hardware_only(given_scenario)]
    for make in (rt3, lambda s: LavoltaPolicy(s, **goal)):
        try:
            policies.append(make(given_scenario))
        except InfeasibleError:
            assert not given_scenario.fitting(with_switch=False)
    for policy in policies:
        batched = simulate(given_scenario, policy, charge=start)
        assert batched == simulate(given_scenario, policy, charge=start, batch=False)
        check_books(batched, start)
        if policy.name == "lavolta":
            assert batched.deadline_misses == 0


def test_the_papers_modes_reproduce_its_arithmetic() -> None:
    """No idle power, free switches, latency equal to the deadline: the sheet's 2.4 gives (1 + 1.89 + 2.73) / 3."""
    levels = tuple(level(name, 50e6 * freq / 1400, 1.0) for name, freq in (("M1", 1400), ("M2", 1000), ("M3", 800)))
    deadline_ms = 1.667 * 50e6 / 1.4e6
    exact = Scenario(device(5.0, idle_mw=0.0, switch_us=0.0), levels, deadline_ms, deadline_ms)
    results = compare(exact)
    first = results["no-reconfiguration"]
    assert first.inferences_by_level.keys() == {"M1"}
    # Energy of a run: 193.7 mW for 59.5 ms; the charge ends in the last one.
    assert first.inferences == math.floor(5.0 * 3.6e6 / (90 * 1.4 * 1.24**2 * deadline_ms))
    assert improvement(results["rt3"], first) == pytest.approx((1 + 1.89 + 2.73) / 3, abs=0.01)
    assert list(results["rt3"].inferences_by_level) == ["M1", "M2", "M3"]
    assert results["rt3"].deadline_misses == 0
    assert results["rt3"].level_switches == results["rt3"].frequency_switches == 2
    # One third of the charge at 1400 MHz is in time; below, the same level takes longer than deadline and period.
    assert results["hardware-only"].on_time == pytest.approx(first.inferences / 3, abs=1)
    assert results["lavolta"].inferences >= results["rt3"].inferences
    # E2 is the "DVFS only" column: 1 + 1.35 + 1.56 runs of a third each.
    assert improvement(replace(results["hardware-only"], on_time=results["hardware-only"].inferences), first) == (
        pytest.approx((1 + 1.35 + 1.56) / 3, abs=0.01)
    )


def test_a_long_charge_has_millions_of_requests_and_is_quick() -> None:
    result = simulate(scenario(65, 65, device(1e5)), make_policy("lavolta", scenario()))
    assert result.inferences > 10_000_000
    check_books(result)


def test_idle_power_counts_and_the_accounting_is_stated() -> None:
    cpu, board = scenario(accounting=Accounting.CPU), scenario(accounting=Accounting.BOARD)
    results = {s.accounting: {n: r.inferences for n, r in compare(s).items()} for s in (cpu, board)}
    ratio = {a: r["lavolta"] / r["no-reconfiguration"] for a, r in results.items()}
    assert ratio[Accounting.CPU] > ratio[Accounting.BOARD] > 1
    assert "processor only" in simulate(cpu, rt3(cpu)).accounting
    assert "whole board" in simulate(board, rt3(board)).accounting


def test_every_policy_says_what_it_does() -> None:
    words = {name: result.baseline for name, result in compare(scenario()).items()}
    assert list(words) == list(POLICIES)
    assert "1400 MHz and level M1 for the whole charge" in words["no-reconfiguration"]
    assert "level M1 throughout, 1400 MHz with level M1 above 67 %" in words["hardware-only"]
    assert "1000 MHz with level M2 above 33 % of the charge; 800 MHz with level M3 above 0 %" in words["rt3"]
    assert "lowest energy per period" in words["lavolta"]


def test_misses_are_those_of_the_policy() -> None:
    results = compare(scenario())
    assert results["hardware-only"].deadline_misses > 0
    assert {results[name].deadline_misses for name in ("no-reconfiguration", "rt3", "lavolta")} == {0}


@settings(max_examples=40, deadline=None)
@given(
    charges=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(sorted),
    time_ms=st.integers(0, 4000),
    waited_ms=st.integers(0, 60),
    current=st.none() | st.sampled_from(sorted(scenario().options)),
    goal=st.sampled_from([{}, {"until_h": 5e-4}, {"until_h": 8e-4, "reserve": 0.3}, {"reserve": 0.4}]),
)
def test_less_charge_never_picks_a_hungrier_choice(charges, time_ms, waited_ms, current, goal) -> None:
    given_scenario = scenario(80, 80)
    capacity = devices.charge.to_fj(0.05)
    policies = [LavoltaPolicy(given_scenario, **goal), rt3(given_scenario), no_reconfiguration(given_scenario)]
    for policy in policies:
        less, more = (
            given_scenario.period_fj(
                given_scenario.option(
                    policy.choose(State(capacity * c // 10**6, capacity, time_ms * 10**6, waited_ms * 10**6, current))
                )
            )
            for c in charges
        )
        assert less <= more


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0.01, 0.3), period_ms=st.floats(40, 120))
def test_a_margin_as_wide_as_the_noise_never_misses(seed: int, noise: float, period_ms: float) -> None:
    given_scenario = scenario(period_ms, period_ms)
    policy = LavoltaPolicy(given_scenario, margin=noise)
    result = simulate(given_scenario, policy, rng=np.random.default_rng(seed), noise=noise)
    assert result.deadline_misses == 0
    assert result.inferences > 0
    again = simulate(given_scenario, policy, rng=np.random.default_rng(seed), noise=noise)
    assert result == again


def test_a_wanted_lifetime_is_kept_with_the_best_score_it_allows() -> None:
    given_scenario = scenario(65, 65, device(1.0))
    shortest = simulate(given_scenario, no_reconfiguration(given_scenario))
    longest = simulate(given_scenario, LavoltaPolicy(given_scenario))
    wanted_h = (shortest.time_h + longest.time_h) / 2
    planned = simulate(given_scenario, LavoltaPolicy(given_scenario, until_h=wanted_h))
    assert planned.time_h >= wanted_h
    assert planned.deadline_misses == 0
    assert longest.mean_score < planned.mean_score < shortest.mean_score
    # A handful of changes, not one per request.
    assert planned.level_switches <= 4
    kept = simulate(given_scenario, LavoltaPolicy(given_scenario, until_h=wanted_h, reserve=0.2))
    at_the_end = max(share for hours, share in kept.curve if hours >= wanted_h * 0.99)
    assert at_the_end >= 0.2 - 0.005
    assert kept.mean_score < planned.mean_score
    equal_life = simulate(given_scenario, LavoltaPolicy(given_scenario, until_h=1e9))
    assert equal_life.inferences == longest.inferences


def test_a_reserve_alone_is_spent_on_accuracy_first() -> None:
    given_scenario = scenario(65, 65, device(1.0))
    result = simulate(given_scenario, LavoltaPolicy(given_scenario, reserve=0.25))
    assert list(result.inferences_by_level) == ["M1", "M4"]
    assert result.level_switches == 1
    floor = simulate(given_scenario, LavoltaPolicy(given_scenario, min_score=0.85))
    assert list(floor.inferences_by_level) == ["M3"]


def test_given_arrivals_queue_and_end() -> None:
    given_scenario = scenario(100, 100, device(1.0))
    policy = no_reconfiguration(given_scenario, "M1")
    # 59.5 ms each: the second waits 59.5 and takes 119.1 ms, the third comes when all is quiet.
    result = simulate(given_scenario, policy, arrivals_ms=[0.0, 0.0, 500.0])
    assert (result.inferences, result.on_time, result.ended) == (3, 2, "arrivals")
    assert result.worst_response_ms == pytest.approx(2 * 1.667 * 50 / 1.4, rel=1e-6)
    check_books(result)
    # Ours runs M1 at 1000 MHz (83.4 ms); the second has 46.6 ms left, in which M2 at 1400 MHz (41.7 ms) is the best.
    ours = simulate(given_scenario, LavoltaPolicy(given_scenario, reserve=0.0), arrivals_ms=[0.0, 30.0, 500.0])
    assert ours.deadline_misses == 0
    assert ours.inferences_by_level == {"M1": 2, "M2": 1}
    assert simulate(given_scenario, policy, arrivals_ms=[]).inferences == 0
    for bad in ([5.0, 1.0], [-1.0]):
        with pytest.raises(UserInputError, match="must rise"):
            simulate(given_scenario, policy, arrivals_ms=bad)


def test_odd_charges() -> None:
    empty = simulate(scenario(), rt3(scenario()), charge=0.0)
    assert (empty.inferences, empty.time_h, empty.mean_score, empty.energy.total_mwh) == (0, 0.0, None, 0.0)
    # 0.000001 mWh is 3.6 mJ; one run takes 13.3 mJ.
    tiny = scenario(profile=device(1e-6))
    result = simulate(tiny, no_reconfiguration(tiny))
    assert (result.inferences, result.unfinished, result.remaining_mwh) == (0, 1, 0.0)
    assert improvement(result, result) is None
    with pytest.raises(UserInputError, match="outside 0"):
        simulate(scenario(), rt3(scenario()), charge=1.5)


def test_a_period_shorter_than_the_run_is_no_rhythm_to_keep() -> None:
    crowded = scenario(deadline_ms=65, period_ms=10)
    assert simulate(crowded, no_reconfiguration(crowded, "M4")).deadline_misses > 0
    for make in (rt3, LavoltaPolicy):
        with pytest.raises(InfeasibleError, match=r"no level meets 10 ms .* closest is M4 .*a request every 10 ms"):
            make(crowded)


def test_a_deadline_no_level_meets_names_what_would_do() -> None:
    with pytest.raises(InfeasibleError, match=r"closest is M4 at 1400 MHz .* 16\.67 ms; allow 17 ms, .* at most 60 %"):
        LavoltaPolicy(scenario(deadline_ms=10))
    with pytest.raises(InfeasibleError, match="with a margin of 50 %; lower them"):
        LavoltaPolicy(scenario(deadline_ms=20), margin=0.5)
    with pytest.raises(InfeasibleError, match=r"with a score of at least 0\.95"):
        LavoltaPolicy(scenario(), min_score=0.95)


def test_one_frequency_and_one_level() -> None:
    profile = device()
    cluster = profile.clusters[0]
    single = profile.model_copy(update={"clusters": (cluster.model_copy(update={"steps": cluster.steps[-1:]}),)})
    one = Scenario(single, LEVELS[:1], 65, 65)
    assert mode_frequencies(one) == [1400]
    results = compare(one)
    assert len({result.inferences for result in results.values()}) == 1
    assert all(result.frequency_switches == 0 for result in results.values())


def test_no_room_for_a_switch_means_no_switch() -> None:
    tight_ms = 1.667 * 14 / 1.4 + 0.001
    tight = scenario(tight_ms, tight_ms)
    result = simulate(tight, LavoltaPolicy(tight, until_h=1e-4))
    assert result.deadline_misses == result.level_switches == 0
    assert list(result.inferences_by_level) == ["M4"]


def test_a_weak_battery_narrows_the_choice() -> None:
    # 3.7^2 / 4R W at most: 160 mW, so 1400 MHz (224 mW with idle) cannot be had.
    weak = scenario(100, 100, device(resistance_mohm=3700**2 / 4 / 160))
    assert max(choice.freq_mhz for choice in weak.options) == 1000
    assert simulate(weak, LavoltaPolicy(weak)).energy.battery_loss_mwh > 0
    with pytest.raises(InfeasibleError, match="the battery cannot give"):
        no_reconfiguration(weak)


def test_wrong_values_are_named() -> None:
    for changes, message in (
        ({"deadline_ms": 0.0}, "deadline_ms is 0.0"),
        ({"period_ms": float("nan")}, "period_ms is nan"),
        ({"levels": ()}, "no level to run"),
        ({"levels": LEVELS[:1] * 2}, "two levels have the same name"),
        ({"levels": (level("x", 1.0, float("nan")),)}, "the score of level x is nan"),
        ({"threads": (5,)}, "give 1 to 4"),
        ({"clusters": ("a15",)}, "has no cluster 'a15'"),
    ):
        with pytest.raises(UserInputError, match=message):
            replace(scenario(), **changes)
    for goal, message in (
        ({"margin": -1.0}, "margin of -1.0"),
        ({"until_h": 0.0}, "until_h is 0.0"),
        ({"reserve": 1.0}, "reserve of 1.0"),
    ):
        with pytest.raises(UserInputError, match=message):
            LavoltaPolicy(scenario(), **goal)
    with pytest.raises(UserInputError, match="unknown level 'M9'; the levels are M1, M2"):
        no_reconfiguration(scenario(), "M9")
    with pytest.raises(UserInputError, match="unknown policy 'x'; choose one of no-reconfiguration"):
        make_policy("x", scenario())
    with pytest.raises(UserInputError, match="noise needs a random generator"):
        simulate(scenario(), rt3(scenario()), noise=0.1)
    with pytest.raises(UserInputError, match=r"noise of 1\.0"):
        simulate(scenario(), rt3(scenario()), noise=1.0)
    with pytest.raises(UserInputError, match="not a choice here"):
        scenario().option(Choice(1400, 1, "M9", CLUSTER))
