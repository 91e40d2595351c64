"""What could have been: the best that any policy could do, knowing every arrival and every run time in advance.

Dynamic programming over requests in order: for every moment at which the processor may be free again, the least cost
that leads there. The clock may change freely within a run. A deadline is given up only where even the fastest choice,
taken for every request, misses it (that schedule finishes every request first, so nobody misses less). The oracle is a
bound: changes of clock, level and cluster cost it nothing (a run that goes on on another cluster costs that one move),
and while requests queue, moments are rounded down to a grid. No policy that misses as few deadlines does better (a test
holds it with tolerance 0).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.devices.charge import to_fj, to_ns
from lavolta.errors import UserInputError
from lavolta.runtime.hull import time_energy_hull
from lavolta.runtime.scenario import Choice, Option, Scenario


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
    menu = _menu(scenario, scenario.options.values())
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
        for stage in _stages(scenario, _menu_of_scores(scenario, options, price), slowdowns, iter(arrivals)):
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


_MenuItem = tuple[int, int | float, int | float, int]
"""Predicted time (ns), cost per ns of it, and cost and time (ns) however long the run takes."""


def _menu(scenario: Scenario, options: Iterable[Option]) -> list[_MenuItem]:
    """What a run may be, at its energy above idle."""
    options, idle_uw = list(options), scenario.idle_uw[1]
    alone: list[tuple[int, int]] = []
    for same in _grouped(options, lambda choice: choice.kind):
        alone += [(o.latency_ns, o.cell_uw - idle_uw) for o in same]
        for quick, slow in itertools.pairwise(time_energy_hull(same, idle_uw)):
            alone += _mixes(quick, slow, idle_uw)
    moved: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for same in _grouped(options, lambda choice: (choice.level, choice.threads)):
        for quick, slow in itertools.pairwise(time_energy_hull(same, idle_uw)):
            if quick.choice.cluster != slow.choice.cluster:
                cost = scenario.switch_fj(quick.choice, slow.choice), scenario.switch_ns(quick.choice, slow.choice)
                moved.setdefault(cost, []).extend(_mixes(quick, slow, idle_uw))
    menu: list[_MenuItem] = [(time_ns, extra_uw, 0, 0) for time_ns, extra_uw in _pareto(alone)]
    for (move_fj, move_ns), runs in moved.items():
        menu += [(time_ns, extra_uw, move_fj, move_ns) for time_ns, extra_uw in _pareto(runs)]
    return menu


def _menu_of_scores(scenario: Scenario, options: Sequence[Option], price: float) -> list[_MenuItem]:
    """The same for each score; costs are ``price * energy - score``."""
    menu: list[_MenuItem] = []
    for score in sorted({option.score for option in options}):
        for time_ns, extra_uw, move_fj, move_ns in _menu(scenario, (o for o in options if o.score == score)):
            menu.append((time_ns, price * extra_uw, price * move_fj - score, move_ns))
    return menu


def _grouped(options: Iterable[Option], key: Callable[[Choice], Any]) -> list[list[Option]]:
    groups: dict[Any, list[Option]] = {}
    for option in options:
        groups.setdefault(key(option.choice), []).append(option)
    return list(groups.values())


def _pareto(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Time and power by rising time; each costs less than all quicker ones. Both stretch alike under a slowdown."""
    found: list[tuple[int, int]] = []
    for time_ns, extra_uw in sorted(runs):
        if not found or time_ns * extra_uw < found[-1][0] * found[-1][1]:
            found.append((time_ns, extra_uw))
    return found


def _mixes(quick: Option, slow: Option, idle_uw: int) -> list[tuple[int, int]]:
    """Time and power of runs that change between two options on the way: they lie on the line between them in time and
    energy. It stands here as `MIXES` pieces, each with the shortest time and the least energy of its own: no mix is
    better than its piece.
    """
    quick_fj, slow_fj = ((option.cell_uw - idle_uw) * option.latency_ns for option in (quick, slow))
    found = []
    for piece in range(MIXES):
        time_ns = quick.latency_ns + (slow.latency_ns - quick.latency_ns) * piece // MIXES
        found.append((time_ns, (quick_fj + (slow_fj - quick_fj) * (piece + 1) // MIXES) // time_ns))
    return found


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
    exact = all(isinstance(item[1], int) for item in menu)
    kind = np.int64 if exact else np.float64
    latency_ns = np.array([item[0] for item in menu], dtype=np.int64)
    rate = np.array([item[1] for item in menu], dtype=kind)
    fixed = np.array([item[2] for item in menu], dtype=kind)
    fixed_ns = np.array([item[3] for item in menu], dtype=np.int64)
    deadline_ns = scenario.deadline_ns
    grid_ns = max(1, deadline_ns // GRID)
    # When the processor is free, after the present arrival; its cost beyond `base`; the same for the fastest schedule.
    free_ns, cost, base = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=kind), 0 if exact else 0.0
    quickest_ns = 0
    arrival = next(arrivals, None)
    request = 0
    while arrival is not None:
        time_ns = np.maximum(1, np.rint(latency_ns * slowdowns[request % len(slowdowns)]).astype(np.int64))
        after = (free_ns[:, None] + (time_ns + fixed_ns)[None, :]).ravel()
        spent = (cost[:, None] + (rate * time_ns + fixed)[None, :]).ravel()
        quickest_ns += int((time_ns + fixed_ns).min())
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
