"""Block pruning, level 1 of RT3: whole strips of a row or of a column are removed and never come back.

Source: Li et al., Findings of EMNLP 2020 (arXiv 2009.08065), the block-structured pruning that RT3 (arXiv 2102.06336)
starts from; the exact count and the guard are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid, FloatArray

Mode = Literal["row", "column"]
Scope = Literal["layer", "block"]


@dataclass(frozen=True)
class GroupGrid:
    """How a weight ``(out_features, in_features)`` is divided in groups that live or die together.

    * ``mode="row"``: columns are cut in strips ``size`` wide (the blocks); a group is one row of one strip.
    * ``mode="column"``: rows are cut in bands ``size`` high (the blocks); a group is one column of one band.

    The last block may be ragged: it behaves as if the weight were padded with zeros.

    A *line* is what the groups of different blocks have in common: the row in row mode, the column in column mode.
    Group arrays have the shape ``(blocks, lines)`` in both modes.

    Raises:
        UserInputError: for an unknown mode, an empty weight or a size below 1.
    """

    out_features: int
    in_features: int
    mode: Mode
    size: int

    def __post_init__(self) -> None:
        if self.mode not in ("row", "column"):
            raise UserInputError(f"the group mode is {self.mode!r}; choose 'row' or 'column'.")
        if self.size < 1:
            raise UserInputError(f"a group of {self.size} weights is empty; give a size of 1 or more.")
        if self.out_features < 1 or self.in_features < 1:
            raise UserInputError(
                f"a weight of shape ({self.out_features}, {self.in_features}) has no groups; leave this layer out."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """``(blocks, lines)``."""
        split, lines = (
            (self.in_features, self.out_features) if self.mode == "row" else (self.out_features, self.in_features)
        )
        return -(-split // self.size), lines

    @property
    def groups(self) -> int:
        blocks, lines = self.shape
        return blocks * lines

    def norms(self, weight: FloatArray) -> NDArray[np.float64]:
        """The l2 norm of every group, ``(blocks, lines)``, in one call."""
        if weight.shape != (self.out_features, self.in_features):
            raise UserInputError(
                f"a weight of shape {tuple(weight.shape)} does not fit groups of "
                f"({self.out_features}, {self.in_features})."
            )
        along = weight.T if self.mode == "row" else weight
        # The largest weight is divided out, so that no square overflows or vanishes.
        scale = float(np.abs(along).max())
        if not np.isfinite(scale):
            raise UserInputError("the weight contains NaN or infinity; repair the model before pruning it.")
        if scale == 0.0:
            return np.zeros(self.shape)
        squares = np.square(along.astype(np.float64) / scale)
        starts = np.arange(0, along.shape[0], self.size)
        total: NDArray[np.float64] = np.sqrt(np.add.reduceat(squares, starts, axis=0)) * scale
        return total

    def expand(self, group_mask: BoolArray) -> BoolArray:
        """A mask of groups ``(blocks, lines)`` to a mask of weights ``(out_features, in_features)``."""
        if group_mask.shape != self.shape:
            raise UserInputError(f"a group mask of shape {group_mask.shape} does not fit groups of {self.shape}.")
        split = self.in_features if self.mode == "row" else self.out_features
        along = np.repeat(group_mask, self.size, axis=0)[:split]
        return np.ascontiguousarray(along.T) if self.mode == "row" else along

    def to_cells(self, group_mask: BoolArray, grid: CellGrid) -> BoolArray:
        """A mask of groups ``(blocks, lines)`` to a mask of cells ``(bands, in_features)``.

        Raises:
            UserInputError: a group boundary runs through a cell, so that the mask has no meaning for cells.
        """
        if (grid.out_features, grid.in_features) != (self.out_features, self.in_features):
            raise UserInputError(
                f"a grid of ({grid.out_features}, {grid.in_features}) does not fit groups of "
                f"({self.out_features}, {self.in_features})."
            )
        whole = self.size % grid.cell_rows == 0 or self.size >= self.out_features
        if grid.cell_rows > 1 and (self.mode == "row" or not whole):
            raise UserInputError(
                f"{self.mode} groups of {self.size} cut through cells of {grid.cell_rows} rows; "
                f"use column groups with a multiple of {grid.cell_rows} rows."
            )
        return self.expand(group_mask)[:: grid.cell_rows]


@dataclass(frozen=True)
class RemovedGroups:
    """What block pruning took from one weight.

    Args:
        grid: the groups.
        removed: ``(blocks, lines) bool``, true for a removed group.
    """

    grid: GroupGrid
    removed: BoolArray

    def weights(self) -> BoolArray:
        """Removed weights, ``(out_features, in_features) bool``."""
        return self.grid.expand(self.removed)

    def cells(self, grid: CellGrid) -> BoolArray:
        """Removed cells, ``(bands, in_features) bool``; see ``GroupGrid.to_cells`` for when this is refused."""
        return self.grid.to_cells(self.removed, grid)


def prune_groups(
    weight: FloatArray,
    ratio: float,
    mode: Mode,
    size: int,
    scope: Scope = "layer",
    keep_rows: bool = True,
) -> RemovedGroups:
    """Remove the groups of least l2 norm: exactly ``round(ratio * groups)``, the same ones on every run.

    Args:
        weight: ``(out_features, in_features)``: the weight, or the square root of a saliency.
        ratio: share of the groups to remove, 0 to 1 (halves round up).
        mode, size: the groups, see ``GroupGrid``.
        scope: ``"layer"`` compares all groups of the layer (as coded by the authors of block pruning), ``"block"``
            removes the same share of every block (what RT3 is believed to do). Of equal norms the earlier block, then
            the earlier line, goes.
        keep_rows: never remove a whole line (row in row mode, column in column mode) in all its blocks; the weakest
            other groups go instead, so the count stays exact.

    Raises:
        UserInputError: a ratio outside 0 to 1, NaN weights, or so high a ratio that some line must vanish.
    """
    grid = GroupGrid(weight.shape[0], weight.shape[1], mode, size)
    return RemovedGroups(grid, _weakest(grid.norms(weight), ratio, scope, keep_rows))


def random_groups(
    grid: GroupGrid, ratio: float, rng: np.random.Generator, scope: Scope = "layer", keep_rows: bool = True
) -> RemovedGroups:
    """Remove groups by chance under the same rules of count and guard: the rBP rows of RT3's ablation."""
    return RemovedGroups(grid, _weakest(rng.random(grid.shape), ratio, scope, keep_rows))


def block_prune_cells(
    grid: CellGrid,
    weight: FloatArray,
    ratio: float,
    band_rows: int,
    rng: np.random.Generator | None = None,
    scope: Scope = "layer",
    keep_rows: bool = True,
) -> BoolArray:
    """Removed cells ``(bands, in_features)`` of column-mode block pruning in bands of ``band_rows`` rows.

    Args:
        weight: ``(out_features, in_features)``: the weight, or the square root of a saliency.
        ratio: share of the groups to remove, 0 to 1.
        band_rows: a multiple of ``grid.cell_rows``, or at least all rows (one band, which needs ``keep_rows=False``).
        rng: given, the groups are chosen by chance and the weight is not looked at.
    """
    groups = GroupGrid(grid.out_features, grid.in_features, "column", band_rows)
    if rng is None:
        removed = prune_groups(weight, ratio, "column", band_rows, scope, keep_rows)
    else:
        removed = random_groups(groups, ratio, rng, scope, keep_rows)
    return removed.cells(grid)


def _weakest(norms: NDArray[np.float64], ratio: float, scope: Scope, keep_lines: bool) -> BoolArray:
    """``(blocks, lines) bool``: the weakest groups by exact count."""
    if not 0.0 <= ratio <= 1.0:
        raise UserInputError(f"a pruning ratio of {ratio} is outside 0 <= ratio <= 1.")
    if scope not in ("layer", "block"):
        raise UserInputError(f"the pruning scope is {scope!r}; choose 'layer' or 'block'.")
    blocks, lines = norms.shape
    per_block = _count(ratio, lines)
    total = _count(ratio, norms.size) if scope == "layer" else blocks * per_block
    if keep_lines and norms.size - total < lines:
        raise UserInputError(
            f"removing {total} of {norms.size} groups cannot leave one group in each of {lines} lines; "
            f"lower the ratio {ratio} to {1.0 - 1.0 / blocks:.3g}, use smaller groups, or allow whole lines to go."
        )
    removed = np.zeros(norms.shape, dtype=bool)
    if scope == "block":
        order = np.argsort(norms, axis=1, kind="stable")
        np.put_along_axis(removed, order[:, :per_block], True, axis=1)
        return _restore_lines(norms, removed) if keep_lines else removed
    order = np.argsort(norms, axis=None, kind="stable")
    if keep_lines:
        position = np.empty(norms.size, dtype=np.int64)
        position[order] = np.arange(norms.size)
        # The last group of a line in the order of removal stays: the strongest, ties resolved like everywhere else.
        last = position.reshape(norms.shape).argmax(axis=0)
        protected = np.zeros(norms.shape, dtype=bool)
        protected[last, np.arange(lines)] = True
        order = order[~protected.ravel()[order]]
    removed.ravel()[order[:total]] = True
    return removed


def _restore_lines(norms: NDArray[np.float64], removed: BoolArray) -> BoolArray:
    """Give every line that lost all its groups one back, by the cheapest exchange inside one block.

    The exchange partner is a kept group of a line that has another; while some line has none, one exists by counting.
    """
    removed = removed.copy()
    kept_in_line = (~removed).sum(axis=0)
    for line in np.flatnonzero(kept_in_line == 0):
        spare = np.where(~removed & (kept_in_line >= 2), norms, np.inf)
        partner = spare.argmin(axis=1)
        price = spare[np.arange(len(partner)), partner] - norms[:, line]
        block = int(price.argmin())
        removed[block, partner[block]] = True
        removed[block, line] = False
        kept_in_line[partner[block]] -= 1
        kept_in_line[line] += 1
    return removed


def _count(ratio: float, groups: int) -> int:
    return int(np.floor(ratio * groups + 0.5))
