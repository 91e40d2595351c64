"""Pruning ratios of layers under one budget: every vector that is proposed is moved on to the budget, none is rejected.

EagleEye (ECCV 2020) draws ratio vectors and rejects those that miss the target by more than half a percent; in many
dimensions nearly all do. Here a vector is shifted as a whole and clipped to its bounds until it meets the budget, and
then rounded to whole cells, so that the budget is a constraint that no candidate can break.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import InfeasibleError, UserInputError
from lavolta.search.spaces import Actions, Facts, Step, check_actions

FloatVector = NDArray[np.float64]
NEXT_TO = 1e-7
"""Share of a cell by which floating point may miss a whole number of them."""


@dataclass(frozen=True)
class Part:
    """One prunable layer: its number of cells, and what keeping one of them costs, in the unit of the budget."""

    name: str
    cells: int
    cell_cost: float

    @property
    def cost(self) -> float:
        """Of the whole layer."""
        return self.cells * self.cell_cost


def project(ratios: Sequence[float], weights: Sequence[float], mean: float, low: float, high: float) -> FloatVector:
    """The vector ``clip(ratios + shift, low, high)`` whose weighted mean is ``mean``.

    The clipped shift is the Euclidean projection on to box and budget where all weights are equal. The mean rises with
    the shift and is linear between the shifts at which an entry meets a bound, so the solution is exact.

    Args:
        ratios: ``(n,)`` finite numbers.
        weights: ``(n,)`` positive numbers.
        mean: what is to be reached, ``low <= mean <= high``.

    Raises:
        UserInputError: a mean outside the bounds, or values that are not finite.
    """
    wanted, share = np.asarray(ratios, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(wanted).all() and np.isfinite(share).all() and (share > 0).all() and len(share) == len(wanted)):
        raise UserInputError("ratios and their weights must be finite, one positive weight for each ratio.")
    if not low <= mean <= high:
        raise UserInputError(f"a mean ratio of {mean:g} is outside the bounds {low:g} to {high:g}; widen them.")
    share = share / share.sum()
    shifts = np.unique(np.concatenate([low - wanted, high - wanted]))
    means = np.array([share @ np.clip(wanted + shift, low, high) for shift in shifts])
    shift = float(np.interp(mean, means, shifts))
    moved: FloatVector = np.clip(wanted + shift, low, high)
    return moved


def whole_cells(ratios: Sequence[float], parts: Sequence[Part], limit: float) -> tuple[int, ...]:
    """Kept cells of every layer: as the ratios say, rounded down, and up again as far as the budget goes.

    Layers get a cell back in the order of what rounding took from them. Where the ratios meet the budget, every layer
    is within one cell of its ratio, and what is left of the budget is less than the dearest cell.
    """
    exact = [(1.0 - ratio) * part.cells for ratio, part in zip(ratios, parts, strict=True)]
    # A share of 1 - 0.7 is a little more or less than 0.3: what is next to a whole cell is one.
    kept = [min(math.floor(cells + NEXT_TO), part.cells) for cells, part in zip(exact, parts, strict=True)]
    allowed = limit + NEXT_TO * len(parts) * max(part.cell_cost for part in parts)
    spent = math.fsum(count * part.cell_cost for count, part in zip(kept, parts, strict=True))
    order = sorted(range(len(parts)), key=lambda i: (kept[i] - exact[i], i))
    for i in order:
        if kept[i] < parts[i].cells and spent + parts[i].cell_cost <= allowed:
            kept[i] += 1
            spent += parts[i].cell_cost
    return tuple(kept)


@dataclass(frozen=True)
class RatioSpace:
    """One ratio per layer under one budget; a child is a grid index per layer, and every child meets the budget.

    Args:
        parts: the layers.
        limit: the largest sum of the costs of kept cells.
        low, high: bounds of every ratio, 0 to below 1.
        steps_per_ratio: grid steps between the bounds.
        firsts: ratio vectors that are tried before any that a sampler proposes.

    Raises:
        InfeasibleError: no vector within the bounds meets the limit; the message names what would.
        UserInputError: no layer, or bounds outside their range.
    """

    parts: tuple[Part, ...]
    limit: float
    low: float
    high: float
    steps_per_ratio: int = 100
    firsts: tuple[tuple[float, ...], ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if not self.parts or any(part.cells < 1 or not part.cell_cost > 0 for part in self.parts):
            raise UserInputError("every layer needs cells and a cost above 0; give at least one layer.")
        if not 0.0 <= self.low <= self.high < 1.0:
            raise UserInputError(f"the bounds {self.low:g} to {self.high:g} of a ratio must rise within 0 to below 1.")
        if not self.low - 1e-9 <= self.mean <= self.high + 1e-9:
            raise InfeasibleError(
                f"an overall ratio of {self.mean:.4g} cannot be reached with ratios from {self.low:g} to "
                f"{self.high:g} in every layer; ask for one between them, or widen the bounds."
            )

    @property
    def total(self) -> float:
        """Cost of everything kept."""
        return math.fsum(part.cost for part in self.parts)

    @property
    def mean(self) -> float:
        """The ratio that the layers have together, weighted by their cost."""
        return 1.0 - self.limit / self.total

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(Step(part.name, self.steps_per_ratio + 1) for part in self.parts)

    def settle(self, actions: Sequence[int]) -> Actions:
        wanted = check_actions(self.steps, actions)
        ratios = self._ratios(wanted)
        moved = self._projected(ratios)
        unit = self.unit
        # A vector on the grid misses the budget by less than half a step; `decode` makes up for it.
        if float(np.abs(moved - ratios).max()) <= 0.5 * unit + 1e-12:
            return wanted
        return self.actions_of(moved)

    def decode(self, actions: Sequence[int]) -> dict[str, int]:
        """Kept cells of each layer."""
        ratios = self._projected(self._ratios(self.settle(actions)))
        kept = whole_cells([float(ratio) for ratio in ratios], self.parts, self.limit)
        return {part.name: count for part, count in zip(self.parts, kept, strict=True)}

    def facts(self, actions: Sequence[int]) -> Facts:
        """Cost and limit in the unit of the budget, and the sparsity over all cells."""
        kept = self.decode(actions)
        cost = math.fsum(part.cell_cost * kept[part.name] for part in self.parts)
        cells = sum(part.cells for part in self.parts)
        # Whole cells meet the limit but for the rounding of its own floating-point number.
        return Facts((min(cost, self.limit),), (1.0 - sum(kept.values()) / cells,), self.limit)

    def describe(self) -> dict[str, Any]:
        return {"kind": "ratios", **asdict(self)}

    @property
    def unit(self) -> float:
        """Ratio between two neighbours of the grid."""
        return (self.high - self.low) / self.steps_per_ratio

    def actions_of(self, ratios: Sequence[float] | FloatVector) -> Actions:
        """The child next to a ratio vector that meets the budget."""
        if self.unit == 0.0:
            return (0,) * len(self.parts)
        places = np.rint((self._projected(np.asarray(ratios)) - self.low) / self.unit)
        return tuple(int(place) for place in np.clip(places, 0, self.steps_per_ratio))

    @property
    def first_children(self) -> tuple[Actions, ...]:
        """`firsts` as children."""
        return tuple(self.actions_of(ratios) for ratios in self.firsts)

    def _ratios(self, actions: Actions) -> FloatVector:
        return self.low + self.unit * np.asarray(actions, dtype=np.float64)

    def _projected(self, ratios: FloatVector) -> FloatVector:
        mean = min(max(self.mean, self.low), self.high)
        return project([float(r) for r in ratios], [part.cost for part in self.parts], mean, self.low, self.high)


@dataclass(frozen=True)
class ShortList:
    """Some children of another space, to be looked at again: the only step picks one of them.

    Args:
        space: where they come from.
        children: settled actions, best first.
    """

    space: RatioSpace
    children: tuple[Actions, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return (Step("child", len(self.children)),)

    @property
    def first_children(self) -> tuple[Actions, ...]:
        return tuple((place,) for place in range(len(self.children)))

    def settle(self, actions: Sequence[int]) -> Actions:
        return check_actions(self.steps, actions)

    def decode(self, actions: Sequence[int]) -> dict[str, int]:
        return self.space.decode(self.children[self.settle(actions)[0]])

    def facts(self, actions: Sequence[int]) -> Facts:
        return self.space.facts(self.children[self.settle(actions)[0]])

    def describe(self) -> dict[str, Any]:
        return {"kind": "short list", "space": self.space.describe(), "children": [list(c) for c in self.children]}


def thinned(kept: Mapping[str, int], parts: Sequence[Part], limit: float) -> dict[str, int]:
    """Kept cells of every layer after each has given up the same share of them, so that the limit is met.

    What a layer keeps in proportion to another stays as it was. Nothing changes where the limit is met already.
    """
    cost = math.fsum(part.cell_cost * kept[part.name] for part in parts)
    if cost <= limit:
        return dict(kept)
    counts = whole_cells([1.0 - limit / cost * kept[part.name] / part.cells for part in parts], parts, limit)
    return {part.name: count for part, count in zip(parts, counts, strict=True)}


def ratios_of(kept: Mapping[str, int], parts: Sequence[Part]) -> dict[str, float]:
    """The share of the cells that each layer lost."""
    return {part.name: 1.0 - kept[part.name] / part.cells for part in parts}
