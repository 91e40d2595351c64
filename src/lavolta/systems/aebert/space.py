"""The candidates of a search: what each layer's ratio may be, and which vectors come first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lavolta.search import Option, RatioSpace, allocate
from lavolta.systems.aebert.budget import Budget
from lavolta.training.proxies import RUNGS, Calibration, global_ratios

BELOW, ABOVE = 0.35, 0.25
"""How far a layer's ratio may be below and above the overall one by default."""
HIGHEST = 0.98
"""No layer loses more by default."""
COMPARED = 0.6
"""Sparser candidates are compared at this ratio: far beyond it nothing is left of an output without training, and no
proxy tells one candidate from another."""
FIXED = ("uniform", "global-magnitude", "sensitivity")
SENSITIVITY_STEPS = 33


def bounds_of(budget: Budget, low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """The bounds of every ratio: those given, and around the overall ratio where none is."""
    mean = 1.0 - budget.limit / sum(part.cost for part in budget.parts)
    least = max(0.0, mean - BELOW) if low is None else low
    most = max(mean, min(HIGHEST, mean + ABOVE)) if high is None else high
    return least, most


def compared_space(budget: Budget, low: float | None = None, high: float | None = None) -> RatioSpace:
    """The candidates: under the budget itself, or where that asks for more than `COMPARED`, under that.

    Thinned to the budget, a candidate is within the bounds that are given, or usual, for the budget.

    Raises:
        InfeasibleError, UserInputError: bounds that the budget cannot be met with.
    """
    least, most = bounds_of(budget, low, high)
    wanted = RatioSpace(budget.parts, budget.limit, least, most)
    if wanted.mean <= COMPARED:
        return wanted
    relaxed = replace(budget, limit=(1.0 - COMPARED) * wanted.total)
    usual = bounds_of(relaxed)
    share = budget.limit / relaxed.limit
    lower, upper = (1.0 - (1.0 - bound) / share for bound in (least, most))
    return replace(
        wanted,
        limit=relaxed.limit,
        low=max(usual[0] if low is None else 0.0, lower),
        high=upper if high is not None else min(usual[1], upper),
    )


def fixed_candidates(
    calibration: Calibration, errors: Mapping[str, NDArray[np.float64]], space: RatioSpace
) -> tuple[tuple[float, ...], ...]:
    """The vectors named in `FIXED`, in that order: all layers alike, one threshold, least sum of output errors."""
    mean = space.mean
    alike = global_ratios(calibration.dense, calibration.grids, mean)
    tables: dict[str, list[Option]] = {}
    for part in space.parts:
        grid = np.linspace(space.low, space.high, SENSITIVITY_STEPS)
        losses = np.interp(grid, RUNGS, errors[part.name])
        tables[part.name] = [
            Option(place, float(loss), (1.0 - float(ratio)) * part.cost)
            for place, (ratio, loss) in enumerate(zip(grid, losses, strict=True))
        ]
    plan = allocate(tables, max(space.limit, sum(min(o.cost_ms for o in t) for t in tables.values()) * (1 + 1e-9)))
    steps = np.linspace(space.low, space.high, SENSITIVITY_STEPS)
    return (
        (mean,) * len(space.parts),
        tuple(alike[part.name] for part in space.parts),
        tuple(float(steps[plan.cuts[part.name]]) for part in space.parts),
    )
