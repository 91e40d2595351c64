"""What could have been: the best that any policy could do, knowing every arrival and every run time in advance.

Dynamic programming over requests in order: for every moment at which the processor may be free again, the least cost
that leads there. The clock may change freely within a run. A deadline is given up only where even the fastest choice,
taken for every request, misses it (that schedule finishes every request first, so nobody misses less). The oracle is a
bound: changes of clock, level and cluster cost it nothing, and while requests queue, moments are rounded down to a
grid. No policy that misses as few deadlines does better (a test holds it with tolerance 0).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.devices.charge import to_fj, to_ns
from lavolta.errors import UserInputError
from lavolta.runtime.scenario import Option, Scenario


@dataclass(frozen=True)
class OracleResult:
    """The most answers that a charge can give.

    Args:
        inferences: finished before the charge ends.
        misses: deadlines that nobody can keep, among them.
        ended: ``charge`` or ``arrivals``.
    """

    inferences: int
    misses: int
    ended: str


GRID = 256
"""Moments per deadline at which the processor may be free again, while requests queue."""
MIXES = 16
"""Pieces of the line between two clocks."""
LONGEST_QUEUE = 4
"""Deadlines of backlog that are told apart."""


def most_inferences(
    scenario: Scenario, slowdowns: Sequence[float], arrivals_ms: Sequence[float] | None = None, charge: float = 1.0
) -> OracleResult:
    """The most requests that a charge can answer, all of them served in order with as few misses as possible.

    Args:
        slowdowns: what to multiply the predicted time of each request with; starts again at its end.
        arrivals_ms: one request every period, without end, where not given.
        charge: share of the capacity at the start.
    """
    idle_uw = scenario.idle_uw[1]
    capacity_fj = to_fj(scenario.profile.battery.energy_mwh * charge)
    menu = _pareto(_mixed(scenario.options.values(), idle_uw))
    count, misses = 0, 0
    for stage in _stages(scenario, menu, slowdowns, _arrivals(scenario, arrivals_ms)):
        spent_fj = int(stage.base) + idle_uw * stage.arrival_ns + int((stage.cost + idle_uw * stage.after_ns).min())
        if spent_fj > capacity_fj:
            return OracleResult(count, misses, "charge")
        count, misses = count + 1, misses + stage.late
    return OracleResult(count, misses, "arrivals")


def best_mean_score(
    scenario: Scenario,
    until_h: float,
    slowdowns: Sequence[float],
    arrivals_ms: Sequence[float] | None = None,
    reserve: float = 0.0,
    rounds: int = 24,
) -> float:
    """An upper bound of the mean score of all requests before ``until_h``, each on time, with one full charge.

    The Lagrangian dual: for any price of energy, the best of ``score - price * energy`` plus the price of what there is
    bounds the sum of scores; the smallest bound of ``rounds`` prices is returned.

    Raises:
        UserInputError: no request before that time, or the charge does not last that long even when idle.
    """
    until_ns = round(until_h * 3.6e12)
    arrivals = list(itertools.takewhile(lambda a: a < until_ns, _arrivals(scenario, arrivals_ms)))
    idle_uw = scenario.idle_uw[1]
    budget_fj = to_fj(scenario.profile.battery.energy_mwh * (1 - reserve)) - idle_uw * until_ns
    if not arrivals or budget_fj <= 0:
        raise UserInputError(f"nothing can be served for {until_h} h: no request, or no charge left beside idle power.")
    options = list(scenario.options.values())
    top = max(option.score for option in options)

    def bound(price: float) -> float:
        cost = 0.0
        for stage in _stages(scenario, _pareto_of_scores(options, idle_uw, price), slowdowns, iter(arrivals)):
            cost = stage.base + float(stage.cost.min())
        return (price * budget_fj - cost) / len(arrivals)

    # The dual is convex in the price: a golden section on its logarithm finds the smallest bound.
    dearest = max((o.score for o in options), default=0.0) - min(o.score for o in options)
    each_fj = budget_fj / len(arrivals)
    low, high = dearest / each_fj * 1e-3, dearest / each_fj * 1e3
    best = top
    for _ in range(rounds if dearest else 0):
        third = (high / low) ** (1 / 3)
        left, right = bound(low * third), bound(low * third * third)
        best = min(best, left, right)
        if left < right:
            high = low * third * third
        else:
            low = low * third
    return best


_MenuItem = tuple[int, int | float, int | float]
"""Predicted time (ns), cost per ns of run time, cost of the run however long it takes."""


def _pareto(options: list[tuple[int, int]]) -> list[_MenuItem]:
    """Options by rising time; each costs less than all quicker ones. Time and cost stretch alike under a slowdown."""
    menu: list[_MenuItem] = []
    for latency_ns, extra_uw in sorted(options, key=lambda o: (o[0], o[1])):
        if not menu or latency_ns * extra_uw < menu[-1][0] * menu[-1][1]:
            menu.append((latency_ns, extra_uw, 0))
    return menu


def _pareto_of_scores(options: Sequence[Option], idle_uw: int, price: float) -> list[_MenuItem]:
    """Per level the options that are worth having; costs are ``price * energy - score``."""
    menu: list[_MenuItem] = []
    for score in sorted({option.score for option in options}):
        same = _mixed([option for option in options if option.score == score], idle_uw)
        menu += [(latency_ns, price * extra_uw, -score) for latency_ns, extra_uw, _ in _pareto(same)]
    return menu


def _mixed(options: Iterable[Option], idle_uw: int) -> list[tuple[int, int]]:
    """Time and power above idle of options, and of runs that change between two clocks of one cluster on the way.

    Every mix of two options lies on the line between them in time and energy. A line stands here as `MIXES` items, each
    with the shortest time and the least energy of its piece: no mix is better than the item of its piece.
    """

    found: list[tuple[int, int]] = []
    for _, group in itertools.groupby(
        sorted(options, key=lambda o: (o.choice.kind, o.latency_ns)), key=lambda o: o.choice.kind
    ):
        points = [(o.latency_ns, o.cell_uw - idle_uw) for o in group]
        found += points
        hull: list[tuple[int, int]] = []
        for time_ns, extra_uw in points:
            point = time_ns, time_ns * extra_uw
            while len(hull) > 1 and _is_above(hull[-1], hull[-2], point):
                hull.pop()
            hull.append(point)
        for (quick_ns, quick_fj), (slow_ns, slow_fj) in itertools.pairwise(hull):
            if slow_fj < quick_fj:
                for piece in range(MIXES):
                    time_ns = quick_ns + (slow_ns - quick_ns) * piece // MIXES
                    found.append((time_ns, (quick_fj + (slow_fj - quick_fj) * (piece + 1) // MIXES) // time_ns))
    return found


def _is_above(point: tuple[int, int], left: tuple[int, int], right: tuple[int, int]) -> bool:
    """Whether a point is on or above the line between its neighbors."""
    return (point[1] - left[1]) * (right[0] - left[0]) >= (right[1] - left[1]) * (point[0] - left[0])


@dataclass(frozen=True)
class _Stage:
    """All ways to finish one request.

    Args:
        after_ns, cost: when, after the arrival, and the cost beyond ``base``; one of each per way.
        late: whether this deadline cannot be kept.
    """

    arrival_ns: int
    base: float
    after_ns: NDArray[np.int64]
    cost: NDArray[Any]
    late: bool


def _stages(
    scenario: Scenario, menu: Sequence[_MenuItem], slowdowns: Sequence[float], arrivals: Iterator[int]
) -> Iterator[_Stage]:
    """The requests one after another. Costs are whole numbers where the menu's are."""
    exact = all(isinstance(rate, int) for _, rate, _ in menu)
    kind = np.int64 if exact else np.float64
    latency_ns = np.array([item[0] for item in menu], dtype=np.int64)
    rate = np.array([item[1] for item in menu], dtype=kind)
    fixed = np.array([item[2] for item in menu], dtype=kind)
    deadline_ns = scenario.deadline_ns
    grid_ns = max(1, deadline_ns // GRID)
    # When the processor is free, after the present arrival; its cost beyond `base`; the same for the fastest schedule.
    free_ns, cost, base = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=kind), 0 if exact else 0.0
    quickest_ns = 0
    arrival = next(arrivals, None)
    request = 0
    while arrival is not None:
        time_ns = np.maximum(1, np.rint(latency_ns * slowdowns[request % len(slowdowns)]).astype(np.int64))
        after = (free_ns[:, None] + time_ns[None, :]).ravel()
        spent = (cost[:, None] + (rate * time_ns + fixed)[None, :]).ravel()
        quickest_ns += int(time_ns.min())
        late = quickest_ns > deadline_ns
        if not late:
            kept = after <= deadline_ns
            after, spent = after[kept], spent[kept]
        yield _Stage(arrival, base, after, spent, late)
        following = next(arrivals, None)
        if following is None:
            return
        step = following - arrival
        quickest_ns = max(0, quickest_ns - step)
        place = np.minimum(np.maximum(0, after - step) // grid_ns, LONGEST_QUEUE * GRID)
        least = np.full(int(place.max()) + 1, np.iinfo(np.int64).max if exact else np.inf, dtype=kind)
        np.minimum.at(least, place, spent)
        # A later moment is worth keeping only when it is cheaper than every earlier one.
        before = np.minimum.accumulate(least)
        better = np.flatnonzero(np.concatenate(([True], before[1:] < before[:-1])) & (least == before))
        free_ns, cost = better * grid_ns, least[better]
        lowest = cost.min()
        base, cost = base + (int(lowest) if exact else float(lowest)), cost - lowest
        arrival = following
        request += 1


def _arrivals(scenario: Scenario, arrivals_ms: Sequence[float] | None) -> Iterator[int]:
    if arrivals_ms is None:
        return itertools.count(0, scenario.period_ns)
    return iter([to_ns(arrival) for arrival in arrivals_ms])
