"""The oracle is a bound: it equals brute force on small cases, and no policy beats it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices import Work
from lavolta.devices.charge import to_fj, to_ns
from lavolta.errors import UserInputError
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_policy import GovernorPolicy
from lavolta.runtime.oracle import best_mean_score, most_inferences
from lavolta.runtime.policies import no_reconfiguration, rt3
from lavolta.runtime.scenario import LevelWork, Scenario
from lavolta.runtime.simulation import simulate
from lavolta.runtime.stock_policies import Ondemand, Performance, Schedutil

BASE = devices.load("odroid-xu3-a7")


def level(name: str, kept_macs: float, score: float) -> LevelWork:
    return LevelWork(name, Work(8, 16, kept_macs, 0.0, 0.0, 0.0), score)


LEVELS = (level("M1", 50e6, 0.9), level("M3", 28e6, 0.85), level("M4", 14e6, 0.7))


def scenario(capacity_mwh: float, period_ms: float = 75.0, steps: int = 6, **more: object) -> Scenario:
    battery = BASE.battery.model_copy(update={"capacity_mah": None, "capacity_mwh": capacity_mwh})
    cluster = BASE.clusters[0]
    cluster = cluster.model_copy(update={"steps": cluster.steps[-steps:]})
    profile = BASE.model_copy(update={"battery": battery, "clusters": (cluster,)})
    return Scenario(profile, LEVELS, 75.0, period_ms, **more)


def brute_force(given_scenario: Scenario, slowdowns: list[float], arrivals_ms: list[float], gift: float = 0.0) -> int:
    """Most requests in a row, all in time, over every sequence of options of the sparsest level and of mixes of its two
    clocks, a quarter each; switches are free, and so is a share of the time and the energy between the two clocks.
    """
    slow, quick = (o for o in given_scenario.options.values() if o.choice.level == "M4")
    idle_uw, capacity = given_scenario.idle_uw[1], to_fj(given_scenario.profile.battery.energy_mwh)
    slow_fj, quick_fj = ((o.cell_uw - idle_uw) * o.latency_ns for o in (slow, quick))
    options = [
        (
            quick.latency_ns + max(0.0, share - gift) * (slow.latency_ns - quick.latency_ns),
            quick_fj + min(1.0, share + gift) * (slow_fj - quick_fj),
        )
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    best = 0
    for sequence in itertools.product(options, repeat=len(arrivals_ms)):
        free, spent = 0, 0
        for count, ((latency_ns, extra_fj), arrival_ms) in enumerate(zip(sequence, arrivals_ms, strict=True), 1):
            arrival = to_ns(arrival_ms)
            free = max(free, arrival) + max(1, round(latency_ns * slowdowns[count - 1]))
            spent += extra_fj * slowdowns[count - 1]
            if free - arrival > given_scenario.deadline_ns or idle_uw * free + spent > capacity:
                break
            best = max(best, count)
    return best


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    capacity_mwh=st.floats(0.0005, 0.006),
    gap_ms=st.sampled_from([1.0, 30.0, 100.0]),
)
def test_the_oracle_against_brute_force(seed: int, capacity_mwh: float, gap_ms: float) -> None:
    rng = np.random.default_rng(seed)
    given_scenario = scenario(capacity_mwh, period_ms=150.0, steps=2, gap_ms=gap_ms)
    arrivals = traffic.poisson(150.0, gap_ms, 4, rng)
    noise = traffic.uniform_noise(0.2, 4, rng)
    oracle = most_inferences(given_scenario, noise, arrivals)
    assert oracle.inferences >= brute_force(given_scenario, noise, arrivals)
    if gap_ms >= given_scenario.deadline_ms:
        # Nobody queues, so no moment is rounded; what is given away covers every mix and the oracle's own pieces.
        assert oracle.inferences <= brute_force(given_scenario, noise, arrivals, gift=0.25)
        assert oracle.misses == 0


def test_one_request_by_hand() -> None:
    # M4 at 600 MHz: 1.667 x 14e6 / 600e6 s = 38.9 ms at 30 + 45.45 mW = 2.935 mJ; at 400 MHz 58.3 ms at 60.2 mW = 3.51.
    # The oracle may take a sixteenth less than the 9.7 ms between 600 and 800 MHz: 0.018 mJ of idle power.
    fj = 1e12
    for energy_mj, expected in ((2.916, 0), (2.936, 1)):
        result = most_inferences(scenario(energy_mj * fj / devices.charge.FJ_PER_MWH), [1.0], [0.0])
        assert (result.inferences, result.ended) == (expected, "arrivals" if expected else "charge")


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["periodic", "poisson", "bursty"]),
    gap_ms=st.sampled_from([5.0, 21.0, 60.0]),
    noise=st.sampled_from([0.0, 0.2]),
)
def test_nobody_beats_the_oracle(seed: int, kind: str, gap_ms: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    slowdowns = traffic.uniform_noise(noise, 211, rng)
    if kind == "periodic":
        given_scenario, arrivals = scenario(0.1), None
    else:
        given_scenario = scenario(0.1, period_ms=150.0, gap_ms=gap_ms)
        arrivals = (traffic.poisson if kind == "poisson" else traffic.bursty)(150.0, gap_ms, 1000, rng)
    oracle = most_inferences(given_scenario, slowdowns, arrivals)
    for policy in (
        GovernorPolicy(given_scenario, Goal(margin=0.2)),
        GovernorPolicy(given_scenario, Goal()),
        rt3(given_scenario, 0.2),
        no_reconfiguration(given_scenario, "M4"),
        *(make(given_scenario, name) for make in (Performance, Ondemand, Schedutil) for name in ("M1", "M4")),
    ):
        result = simulate(given_scenario, policy, slowdowns=slowdowns, arrivals_ms=arrivals)
        assert result.deadline_misses >= oracle.misses or result.inferences < oracle.inferences
        if result.deadline_misses <= oracle.misses:
            assert result.inferences <= oracle.inferences


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), hours=st.floats(0.0008, 0.002), irregular=st.booleans())
def test_nobody_beats_the_best_mean_score(seed: int, hours: float, irregular: bool) -> None:
    rng = np.random.default_rng(seed)
    slowdowns = traffic.uniform_noise(0.2, 97, rng)
    given_scenario, arrivals = scenario(0.1), None
    if irregular:
        given_scenario = scenario(0.1, period_ms=150.0, gap_ms=21.0)
        arrivals = traffic.poisson(150.0, 21.0, 1000, rng)
    bound = best_mean_score(given_scenario, hours, slowdowns, arrivals)
    until = arrivals or traffic.periodic(75.0, 1000)
    served = [arrival for arrival in until if arrival < hours * 3.6e6]
    policy = GovernorPolicy(given_scenario, Goal(margin=0.2, until_h=hours))
    result = simulate(given_scenario, policy, slowdowns=slowdowns, arrivals_ms=served)
    if result.ended == "arrivals" and result.deadline_misses == 0:
        # Equal when the best level is affordable throughout: a sum of doubles.
        assert result.mean_score <= bound + 1e-9
    assert bound <= 0.9 + 1e-9


def test_impossible_times_are_named() -> None:
    with pytest.raises(UserInputError, match="nothing can be served for 1 h"):
        best_mean_score(scenario(0.01), 1, [1.0])
    with pytest.raises(UserInputError, match="nothing can be served"):
        best_mean_score(scenario(0.1), 0.001, [1.0], [])
