"""Several clusters: what may be chosen, what a move costs, heat, and a run that follows its choice to the cores."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices import Accounting, Work
from lavolta.devices.cell import load_cell
from lavolta.devices.sources import Degree, SimulatedDevice
from lavolta.errors import InfeasibleError, UserInputError
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal, Governor
from lavolta.runtime.governor_loop import Answer, LiveGovernor
from lavolta.runtime.governor_memory import TRUSTED, Correction, Memory
from lavolta.runtime.governor_policy import GovernorPolicy
from lavolta.runtime.governor_simulated import SimulatedRunner
from lavolta.runtime.oracle import most_inferences
from lavolta.runtime.policies import no_reconfiguration, rt3
from lavolta.runtime.policy import State
from lavolta.runtime.scenario import Choice, LevelWork, Scenario
from lavolta.runtime.simulation import simulate
from lavolta.runtime.stock_policies import STOCK, Schedutil
from lavolta.runtime.ztt_policy import ZttLikePolicy

PHONE = devices.load("freqbench-sm8150")
BIG, LITTLE, PRIME = PHONE.cluster_names


def level(name: str, kept_macs: float, score: float) -> LevelWork:
    return LevelWork(name, Work(8, 16, kept_macs, 0.0, 0.0, 0.0), score)


# On one big core at its top: 43, 17 and 5.2 ms; on a little one 117, 47 and 14 ms.
LEVELS = (level("dense", 500e6, 1.0), level("half", 200e6, 0.95), level("sparse", 60e6, 0.8))


def scenario(clusters: tuple[str, ...] = (BIG, LITTLE, PRIME), deadline_ms: float = 60.0, **more: object) -> Scenario:
    battery = PHONE.battery.model_copy(update={"capacity_mah": None, "capacity_mwh": 0.1})
    profile = PHONE.model_copy(update={"battery": battery})
    return Scenario(profile, LEVELS, deadline_ms, deadline_ms, clusters=clusters, **more)


def test_what_may_be_chosen() -> None:
    every = scenario()
    assert every.used_cluster.name == BIG
    assert {choice.cluster for choice in every.options} == {BIG, LITTLE, PRIME}
    # The prime cluster has one core: two threads are not offered there, and not refused.
    two = scenario(threads=(1, 2))
    assert {(c.cluster, c.threads) for c in two.options} == {(BIG, 1), (BIG, 2), (LITTLE, 1), (LITTLE, 2), (PRIME, 1)}
    with pytest.raises(UserInputError, match=f"threads .2,. do not fit cluster {PRIME}"):
        scenario(clusters=(PRIME, BIG), threads=(2,))
    with pytest.raises(UserInputError, match="named twice"):
        scenario(clusters=(BIG, BIG))
    with pytest.raises(UserInputError, match="not a choice here"):
        scenario(clusters=(BIG,)).option(Choice(300.0, 1, "dense", LITTLE))
    assert {choice.cluster for choice in scenario(clusters=()).options} == {BIG}


def test_a_move_costs_its_own_time_and_a_change_of_clock() -> None:
    every, cost = scenario(), PHONE.switching
    before = Choice(710.4, 1, "half", BIG)
    assert every.switch_ns(before, replace(before, cluster=LITTLE)) == 1000 * (cost.frequency_us + cost.cluster_us)
    assert every.switch_fj(before, replace(before, cluster=LITTLE)) == 10**9 * (cost.frequency_uj + cost.cluster_uj)
    assert every.switch_ns(None, before) == every.switch_ns(before, before) == 0
    assert every.full_switch_ns - scenario(clusters=(BIG,)).full_switch_ns == 1000 * cost.cluster_us > 0


def test_fixed_policies_stay_on_the_first_cluster_or_the_named_one() -> None:
    every = scenario()
    for policy in (no_reconfiguration(every), rt3(every)):
        assert {mode.cluster for mode in policy.modes} == {BIG}
    stock = Schedutil(every, "sparse", cluster=LITTLE)
    assert stock.name == f"schedutil:sparse on {LITTLE}"
    result = simulate(every, stock)
    assert {name.split()[0] for name in result.energy.by_frequency_mwh} == {LITTLE}
    assert result.cluster_switches == 0
    alone = scenario(clusters=(LITTLE,))
    assert simulate(alone, Schedutil(alone, "sparse")).inferences == result.inferences
    assert ZttLikePolicy(every, "sparse", cluster=LITTLE).choose(State(1, 1, 0)).cluster == LITTLE
    with pytest.raises(UserInputError, match="cluster 'a99'"):
        Schedutil(every, "sparse", cluster="a99")


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), deadline_ms=st.floats(20.0, 130.0), irregular=st.booleans())
def test_more_clusters_are_never_late_and_hardly_ever_worse(seed: int, deadline_ms: float, irregular: bool) -> None:
    rng = np.random.default_rng(seed)
    noise = traffic.uniform_noise(0.2, 499, rng)
    every, arrivals = scenario(deadline_ms=deadline_ms), None
    if irregular:
        every = replace(every, period_ms=2 * deadline_ms, gap_ms=deadline_ms / 2)
        arrivals = traffic.poisson(2 * deadline_ms, deadline_ms / 2, 4000, rng)
    found = {}
    for names in ((BIG, LITTLE, PRIME), (BIG,), (LITTLE,)):
        given_scenario = replace(every, clusters=names)
        try:
            policy = GovernorPolicy(given_scenario, Goal(margin=0.2))
        except InfeasibleError:
            assert names == (LITTLE,)
            continue
        found[names] = simulate(given_scenario, policy, slowdowns=noise, arrivals_ms=arrivals)
    best = found.pop((BIG, LITTLE, PRIME))
    assert best.deadline_misses == 0
    assert best.inferences <= most_inferences(every, noise, arrivals).inferences
    for single in found.values():
        if single.deadline_misses == 0:
            # Room for a move is kept, and energies of single requests are predictions.
            assert best.inferences >= single.inferences * 0.97


@settings(max_examples=60)
@given(st.floats(20, 120), st.floats(0, 40), st.sampled_from([True, False]))
def test_hotter_never_takes_more_power(temperature_c: float, rise_c: float, on_ac: bool) -> None:
    """A little cluster that is too slow for its lowered clock is no reason to take a hungrier one."""
    every = scenario(deadline_ms=80.0)
    governor, goal = Governor(every, Goal()), Goal(warn_c=60.0, max_c=80.0)
    powers = []
    for now_c in (temperature_c, temperature_c + rise_c):
        limits = goal.heat_limits_mhz(now_c, every.used_clusters)
        powers.append(governor.decide(State(1, 1, 0, on_ac=on_ac, limit_mhz=limits)).option.load_uw)
    assert powers[0] >= powers[1]
    hottest = goal.heat_limits_mhz(81.0, every.used_clusters)
    assert hottest == {BIG: 0.0, LITTLE: 300.0, PRIME: 0.0}
    assert goal.heat_limits_mhz(59.0, every.used_clusters) == {}


def test_what_one_cluster_teaches_is_not_believed_of_another() -> None:
    slow = Correction((2000,) * TRUSTED)
    memory = Memory(overall=slow, clusters={LITTLE: slow, BIG: Correction((1000,) * TRUSTED)})
    assert memory.factor_milli(LITTLE, "half", 0.0) == 2000
    assert memory.factor_milli(BIG, "half", 0.0) == 1000
    # Of a cluster that nothing is known of, what is known of the device.
    assert memory.factor_milli(PRIME, "half", 0.0) == 2000
    # Half takes 47 ms on the little cluster: predicted in time there, but twice that in truth.
    every = scenario(deadline_ms=60.0)
    assert Governor(every, Goal(min_score=0.9)).decide(State(1, 1, 0)).option.choice.cluster == LITTLE
    assert Governor(every, Goal(min_score=0.9)).decide(State(1, 1, 0), memory).option.choice.cluster == BIG


def live(degree: Degree = Degree.SETS) -> tuple[LiveGovernor, SimulatedDevice, SimulatedRunner]:
    every = scenario(accounting=Accounting.BOARD, gap_ms=0.0)
    device = SimulatedDevice(PHONE, load_cell(), degree=degree)
    runner = SimulatedRunner(device, LEVELS)
    return LiveGovernor(every, Goal(margin=0.1), runner, device, device, runner.now_s), device, runner


def test_a_live_governor_moves_the_run_and_parks_the_cluster_it_left() -> None:
    governor, device, runner = live()
    served = []
    for plugged in (False, True, False):
        device.plug(plugged)
        served.append(governor.serve("x"))
        runner.wait_until(runner.now_s() + 0.1)
    assert [answer.in_time for answer in served] == [True] * 3
    assert [answer.cluster for answer in served][0::2] == [LITTLE, LITTLE]
    assert served[1].level == "dense"
    assert served[1].cluster != LITTLE
    # The one that was left idles at its lowest clock.
    left = PHONE.cluster(served[1].cluster)
    assert device.clock_mhz(left.name) == left.steps[0].freq_mhz
    assert device.clock_mhz(LITTLE) == served[2].freq_mhz


def test_clocks_of_all_clusters_are_followed() -> None:
    governor, device, _ = live(Degree.FOLLOWS)
    device.follow(LITTLE, 300.0)
    device.follow(BIG, 1920.0)
    device.follow(PRIME, 825.6)
    served = governor.serve("x")
    # At 300 MHz the little cluster takes 83 ms for the sparse level.
    assert (served.cluster, served.freq_mhz, served.in_time) == (PRIME, 820.0, True)
    device.follow(LITTLE, 1785.6)
    assert governor.serve("x").cluster == LITTLE


def test_a_runner_that_stays_where_it_is_is_refused() -> None:
    device = SimulatedDevice(PHONE, load_cell())

    def stays(*_: object) -> Answer:
        return Answer(None)

    with pytest.raises(UserInputError, match="stays on one cluster"):
        LiveGovernor(scenario(), Goal(), stays, device, device, lambda: 0.0)
    one = scenario(clusters=(BIG,), gap_ms=0.0)
    assert LiveGovernor(one, Goal(), stays, device, device, lambda: 0.0).serve("x").cluster == BIG


@pytest.mark.parametrize("kind", STOCK)
def test_nobody_beats_the_oracle_that_has_all_clusters(kind: type) -> None:
    every = scenario()
    noise = traffic.uniform_noise(0.2, 199, np.random.default_rng(1))
    bound = most_inferences(every, noise)
    assert bound.misses == 0
    for name in (BIG, LITTLE, PRIME):
        result = simulate(every, kind(every, "sparse", cluster=name), slowdowns=noise)
        if result.deadline_misses == 0:
            assert result.inferences <= bound.inferences
