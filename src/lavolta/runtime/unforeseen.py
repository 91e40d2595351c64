"""What could have been without foresight of the noise: arrivals, charge and the spread of run times are known alone.

A policy that cannot look into a run learns how long it takes when it ends. All that it can do meanwhile is to follow a
plan: this clock until then, that one afterwards. The plan with the least expected energy whose slowest run is in time
grows faster as fewer runs are left in it (Lorch and Smith, PACE, 2001). Here it is computed exactly, for any mix of the
options of a level, with free changes, and for the slowdowns that are really drawn.

Where requests queue, each is given its whole deadline, as though none were before it: the bound is looser then.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lavolta.devices.charge import to_fj, to_ns
from lavolta.runtime.hull import time_energy_hull
from lavolta.runtime.oracle import OracleResult
from lavolta.runtime.scenario import Option, Scenario

Numbers = NDArray[np.float64]


def most_inferences_unforeseen(
    scenario: Scenario, slowdowns: Sequence[float], arrivals_ms: Sequence[float] | None = None, charge: float = 1.0
) -> OracleResult:
    """The answers of the best plan, the same for every run, under the very noise that a policy meets.

    No policy that keeps every deadline and cannot look into a run does better on average; one may be lucky.

    Args:
        slowdowns: what to multiply the predicted time of each request with; starts again at its end. Their spread is
            what is known in advance.
        arrivals_ms: one request every period, without end, where not given.
        charge: share of the capacity at the start.
    """
    drawn = np.asarray(slowdowns, dtype=np.float64)
    ordered, place = np.unique(drawn, return_inverse=True)
    left = 1.0 - np.searchsorted(np.sort(drawn), ordered, side="left") / len(drawn)
    levels: dict[tuple[str, int], list[Option]] = {}
    for option in scenario.options.values():
        levels.setdefault((option.choice.level, option.choice.threads), []).append(option)
    plans = [_plan(scenario, same, ordered, left) for same in levels.values()]
    # Whoever is in time first, then whoever needs least.
    time_ns, above_fj = min(
        plans, key=lambda plan: (max(0, round(plan[0][-1]) - scenario.limit_ns), float(plan[1][place].sum()))
    )
    return _spend(scenario, time_ns[place], above_fj[place], arrivals_ms, charge)


def _plan(scenario: Scenario, options: Sequence[Option], ordered: Numbers, left: Numbers) -> tuple[Numbers, Numbers]:
    """Time and energy above idle of a run of each slowdown under the best plan of one level.

    Args:
        ordered: slowdowns, rising, none twice.
        left: share of the runs that take at least each of them.
    """
    idle_uw = scenario.idle_uw[1]
    hull = time_energy_hull(options, idle_uw)
    pieces = np.diff(ordered, prepend=0.0)
    time_ns = pieces * hull[-1].latency_ns
    above_fj = pieces * (hull[-1].cell_uw - idle_uw) * hull[-1].latency_ns
    missing_ns = float(time_ns.sum()) - scenario.limit_ns
    # Every piece of a run may be made quicker, from one option to the next. What a saved nanosecond costs rises along
    # the hull, and falls with the runs that are left: the cheapest savings first is the optimum of this linear program.
    steps = list(itertools.pairwise(reversed(hull)))
    saved = [slow.latency_ns - quick.latency_ns for slow, quick in steps]
    dearer = [
        (quick.cell_uw - idle_uw) * quick.latency_ns - (slow.cell_uw - idle_uw) * slow.latency_ns
        for slow, quick in steps
    ]
    # One row for each step, also where there is none.
    saved_ns, dearer_fj = (np.array(each, dtype=np.float64).reshape(-1, 1) * pieces for each in (saved, dearer))
    if steps and missing_ns > 0:
        order = np.argsort((left * dearer_fj / np.maximum(saved_ns, 1e-300)).ravel(), kind="stable")
        before_ns = np.concatenate(([0.0], np.cumsum(saved_ns.ravel()[order])[:-1]))
        shares = np.zeros(saved_ns.size)
        shares[order] = np.clip((missing_ns - before_ns) / np.maximum(saved_ns.ravel()[order], 1e-300), 0.0, 1.0)
        share = shares.reshape(saved_ns.shape)
        time_ns = time_ns - (share * saved_ns).sum(axis=0)
        above_fj = above_fj + (share * dearer_fj).sum(axis=0)
    return np.cumsum(time_ns), np.cumsum(above_fj)


def _spend(
    scenario: Scenario, time_ns: Numbers, above_fj: Numbers, arrivals_ms: Sequence[float] | None, charge: float
) -> OracleResult:
    """Answer requests until the charge ends, each as long after its arrival as its run takes."""
    idle_uw, cycle = scenario.idle_uw[1], len(time_ns)
    capacity_fj = to_fj(scenario.profile.battery.energy_mwh * charge)
    late = time_ns > scenario.deadline_ns + 1.0
    known = None if arrivals_ms is None else np.array([to_ns(arrival) for arrival in arrivals_ms], dtype=np.float64)
    count, misses, spent_fj = 0, 0, 0.0
    while known is None or count < len(known):
        arrivals_ns = (
            (count + np.arange(cycle, dtype=np.float64)) * scenario.period_ns
            if known is None
            else known[count : count + cycle]
        )
        here = len(arrivals_ns)
        total_fj = spent_fj + np.cumsum(above_fj[:here])
        over = np.flatnonzero(total_fj + idle_uw * (arrivals_ns + time_ns[:here]) > capacity_fj)
        inside = int(over[0]) if len(over) else here
        count, misses = count + inside, misses + int(late[:inside].sum())
        if inside < here:
            return OracleResult(count, misses, "charge")
        spent_fj = float(total_fj[-1])
    return OracleResult(count, misses, "arrivals")
