"""A usual day on one charge: every policy under the same requests and the same timing noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lavolta.errors import UserInputError
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_policy import GovernorPolicy
from lavolta.runtime.policies import hardware_only, no_reconfiguration, rt3
from lavolta.runtime.policy import Policy
from lavolta.runtime.scenario import Scenario
from lavolta.runtime.simulation import SimulationResult, simulate
from lavolta.runtime.stock_policies import Ondemand, Schedutil
from lavolta.runtime.ztt_policy import ZttLikePolicy

DAY_H = 24.0
NOISE_DRAWS = 4999
"""Run times are drawn once and repeat after so many requests."""


@dataclass(frozen=True)
class Day:
    """A day of requests.

    Args:
        scenario: its period is the mean over the day; its gap the shortest time between two requests.
        arrivals_ms, slowdowns: what all policies face.
    """

    scenario: Scenario
    arrivals_ms: tuple[float, ...]
    slowdowns: tuple[float, ...]


def usual_day(scenario: Scenario, noise: float, seed: int) -> Day:
    """Draw a day of `traffic.day`; requests come no closer than the fastest choice can serve them one by one.

    Raises:
        UserInputError: a mean period that leaves no room for irregular requests.
    """
    quickest_ms = min(option.latency_ns for option in scenario.options.values()) / 1e6 * (1 + noise)
    gap_ms = quickest_ms + 2 * scenario.full_switch_ns / 1e6
    if gap_ms >= scenario.period_ms:
        raise UserInputError(
            f"a mean of {scenario.period_ms:g} ms between requests is too short: one alone may take {gap_ms:.4g} ms; "
            "give a longer --period-ms."
        )
    rng = np.random.default_rng(seed)
    arrivals = traffic.day(scenario.period_ms, gap_ms, 1, rng)
    slowdowns = traffic.uniform_noise(noise, NOISE_DRAWS, rng)
    return Day(replace(scenario, gap_ms=gap_ms), tuple(arrivals), tuple(slowdowns))


def simulate_day(day: Day, margin: float, charge: float = 1.0, seed: int = 0) -> dict[str, SimulationResult]:
    """Every policy on that day, from the same charge; ours wants it to last until the evening, with the best score.

    Args:
        margin: share by which a run may take longer than predicted, for RT3's mapping and for ours.
        charge: share of the capacity in the morning.
        seed: of the exploration of the zTT-like policy.
    """
    scenario = day.scenario
    fixed = no_reconfiguration(scenario)
    level = fixed.modes[0].level
    goal = Goal(until_h=DAY_H, margin=margin)
    policies: list[Policy] = [
        fixed,
        hardware_only(scenario),
        Ondemand(scenario, level),
        Schedutil(scenario, level),
        ZttLikePolicy(scenario, level, seed),
        rt3(scenario, margin),
        GovernorPolicy(scenario, goal, traffic.day_demand(scenario.period_ms)),
    ]
    return {
        policy.name: simulate(scenario, policy, charge=charge, arrivals_ms=day.arrivals_ms, slowdowns=day.slowdowns)
        for policy in policies
    }
