"""Which cut for which layer, without learning: least total proxy loss under a latency budget, by table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lavolta.errors import InfeasibleError, UserInputError

RESOLUTION = 1 << 15
"""Steps (a count) in which the span between the cheapest and the dearest plan is divided."""

GUARD = 1e-12
"""Share of the budget left unspent against floating-point rounding."""


@dataclass(frozen=True)
class Option:
    """One cut of one layer: its proxy loss (any unit, lower is better, additive) and its cost."""

    cut: int
    loss: float
    cost_ms: float


@dataclass(frozen=True)
class Allocation:
    """A cut for each layer.

    Args:
        cuts: layer to cut.
        loss: total proxy loss.
        cost_ms: total cost, fixed part included; at most the budget.
        slack_ms: the plan is at least as good as the best one under a budget smaller by this much.
    """

    cuts: dict[str, int]
    loss: float
    cost_ms: float
    slack_ms: float


def allocate(tables: Mapping[str, Sequence[Option]], budget_ms: float, fixed_ms: float = 0.0) -> Allocation:
    """Choose one option per layer with the least total loss whose total cost is at most `budget_ms`.

    The multiple-choice knapsack, solved exactly on costs rounded up to 1/32768 of the span between the cheapest and the
    dearest plan. The rounding does not depend on the budget, so a larger budget never gives a larger loss.

    Args:
        tables: layer to its options, at least one each.
        fixed_ms: cost of what is never cut.

    Raises:
        InfeasibleError: even the cheapest options miss the budget; the message names what they cost.
        UserInputError: for an empty table, or a loss, cost or budget that is NaN, infinite or (cost) negative.
    """
    if not math.isfinite(budget_ms):
        raise UserInputError(f"budget_ms is {budget_ms}; it must be a finite number.")
    if not (math.isfinite(fixed_ms) and fixed_ms >= 0):
        raise UserInputError(f"fixed_ms is {fixed_ms}; it must be a finite number, 0 or more.")
    for name, options in tables.items():
        _check_table(name, options)
    cheapest_ms = {name: min(option.cost_ms for option in options) for name, options in tables.items()}
    floor_ms = math.fsum([fixed_ms, *cheapest_ms.values()])
    if floor_ms > budget_ms:
        raise InfeasibleError(
            f"no cuts meet {budget_ms:g} ms: the cheapest cost {floor_ms:.4g} ms; "
            f"allow that much, or offer sparser cuts."
        )
    span_ms = math.fsum(max(o.cost_ms for o in options) - cheapest_ms[name] for name, options in tables.items())
    unit_ms = span_ms / RESOLUTION if span_ms > 0 else 1.0
    # Each layer rounds up by less than one unit, so the dearest plan takes at most this many units.
    # The guard is far above the rounding of the sums and far below a unit: the exact cost never passes the budget.
    spare_ms = max(budget_ms - floor_ms - GUARD * budget_ms, 0.0)
    capacity = min(math.floor(spare_ms / unit_ms), RESOLUTION + len(tables))
    units = {
        name: [math.ceil((option.cost_ms - cheapest_ms[name]) / unit_ms) for option in options]
        for name, options in tables.items()
    }

    loss = np.zeros(capacity + 1)  # least loss of the layers so far within each number of units
    picks: dict[str, np.ndarray[tuple[int], np.dtype[np.int32]]] = {}
    for name, options in tables.items():
        best = np.full(capacity + 1, np.inf)
        pick = np.zeros(capacity + 1, dtype=np.int32)
        for index, option in enumerate(options):
            need = units[name][index]
            if need > capacity:
                continue
            candidate = loss[: capacity + 1 - need] + option.loss
            better = candidate < best[need:]
            best[need:][better] = candidate[better]
            pick[need:][better] = index
        loss, picks[name] = best, pick

    chosen: dict[str, Option] = {}
    left = capacity
    for name in reversed(list(tables)):
        index = int(picks[name][left])
        chosen[name] = tables[name][index]
        left -= units[name][index]
    return Allocation(
        cuts={name: chosen[name].cut for name in tables},
        loss=math.fsum(option.loss for option in chosen.values()),
        cost_ms=math.fsum([fixed_ms, *(option.cost_ms for option in chosen.values())]),
        slack_ms=unit_ms * (len(tables) + 1) + GUARD * budget_ms,
    )


def _check_table(name: str, options: Sequence[Option]) -> None:
    if not options:
        raise UserInputError(f"layer {name!r} has no option; give at least one cut, or leave the layer out.")
    for option in options:
        if not (math.isfinite(option.loss) and math.isfinite(option.cost_ms) and option.cost_ms >= 0):
            raise UserInputError(
                f"cut {option.cut} of layer {name!r} has loss {option.loss} and cost {option.cost_ms} ms; "
                f"both must be finite and the cost 0 or more."
            )
