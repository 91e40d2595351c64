"""The packed layout that the engine streams: one array of weights, and a table of runs per level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid

MAX_LEVELS = 64
# As in native/kernels/linear/packed.h.
_BLOCK_COLUMNS = 256
_COLUMNS_WITHOUT_BLOCKS = 512
_ROWS_IN_BLOCKS = 4


@dataclass(frozen=True)
class PackedLinear:
    """One linear layer with all its levels.

    Args:
        grid: the layer's cells.
        values: ``(cells, cell_rows) float32``, the cells that any level keeps; a ragged last band has zero rows.
        columns: ``(cells,) uint16``, the input feature of each cell.
        runs: ``(n, 2) uint32``, ``(first cell, count)``.
        run_ptr: ``(levels, bands + 1) uint32``; band ``b`` of level ``l`` is ``runs[run_ptr[l, b]:run_ptr[l, b + 1]]``.
    """

    grid: CellGrid
    values: NDArray[np.float32]
    columns: NDArray[np.uint16]
    runs: NDArray[np.uint32]
    run_ptr: NDArray[np.uint32]

    @property
    def levels(self) -> int:
        return int(self.run_ptr.shape[0])

    def kept_cells(self, level: int) -> int:
        """Cells that ``level`` streams."""
        first, last = int(self.run_ptr[level, 0]), int(self.run_ptr[level, -1])
        return int(self.runs[first:last, 1].sum())

    def streamed_bytes(self, level: int) -> int:
        """Bytes of values and columns that one pass of ``level`` reads."""
        return self.kept_cells(level) * (4 * self.grid.cell_rows + 2)


def pack_linear(weight: NDArray[np.floating], masks: Sequence[BoolArray], cell_rows: int) -> PackedLinear:
    """Pack a weight ``(out_features, in_features)`` with a cell mask ``(bands, in_features)`` per level, densest first.

    In each band the kept cells lie in blocks of columns (`column_blocks`). Those of a block are grouped by the exact
    set of levels that keep them, groups of more levels first, by column inside a group. Nested levels then stream
    one contiguous prefix per band and block.

    Raises:
        UserInputError: no level, too many levels, NaN or infinite weights, or masks of another shape.
    """
    grid = CellGrid(weight.shape[0], weight.shape[1], cell_rows)
    cells = group_cells(weight, masks, cell_rows, column_blocks(grid))
    runs, run_ptr = level_runs(cells.band, cells.signature, cells.grid.bands, len(masks))
    return PackedLinear(cells.grid, cells.values, cells.column.astype(np.uint16), runs, run_ptr)


def column_blocks(grid: CellGrid) -> int:
    """Equal blocks of columns that the cells of an fp32 band lie in.

    The engine multiplies a block with activations that stay in the first-level cache. Activations of up to 512 columns
    stay there by themselves; for cells of 1 or 2 rows the engine blocks differently.
    """
    if grid.cell_rows < _ROWS_IN_BLOCKS or grid.in_features <= _COLUMNS_WITHOUT_BLOCKS:
        return 1
    return -(-grid.in_features // _BLOCK_COLUMNS)


@dataclass(frozen=True)
class GroupedCells:
    """The cells that any level keeps, in stored order.

    Args:
        band, column: ``(cells,)``, where each one is.
        signature: ``(cells,) uint64``, bit ``l`` is set where level ``l`` keeps the cell.
        values: ``(cells, cell_rows) float32``.
    """

    grid: CellGrid
    band: NDArray[np.intp]
    column: NDArray[np.intp]
    signature: NDArray[np.uint64]
    values: NDArray[np.float32]


def group_cells(
    weight: NDArray[np.floating], masks: Sequence[BoolArray], cell_rows: int, blocks: int = 1
) -> GroupedCells:
    """Check and order the cells of a layer as `pack_linear` documents it, in ``blocks`` equal blocks of columns."""
    grid = CellGrid(weight.shape[0], weight.shape[1], cell_rows)
    if not 1 <= len(masks) <= MAX_LEVELS:
        raise UserInputError(f"{len(masks)} levels cannot be packed; give 1 to {MAX_LEVELS}.")
    if not np.isfinite(weight).all():
        raise UserInputError("the weight contains NaN or infinity; repair the model before packing it.")
    signature = np.zeros(grid.shape, dtype=np.uint64)
    for level, mask in enumerate(masks):
        if mask.shape != grid.shape:
            raise UserInputError(f"the mask of level {level} has shape {mask.shape}, not {grid.shape}.")
        signature |= mask.astype(np.uint64) << np.uint64(level)
    band, column = np.nonzero(signature)
    cell_signature = signature[band, column]
    membership = _popcount(cell_signature)
    block = column // -(-grid.in_features // blocks)
    order = np.lexsort((column, cell_signature, -membership, block, band))
    band, column, cell_signature = band[order], column[order], cell_signature[order]
    values = np.ascontiguousarray(grid.to_bands(weight.astype(np.float32)).transpose(0, 2, 1)[band, column])
    return GroupedCells(grid, band, column, cell_signature, values)


def level_runs(
    band: NDArray[np.intp], signature: NDArray[np.uint64], bands: int, levels: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """``runs`` and ``run_ptr`` of units (cells or quads) in stored order; adjacent runs of a band are one."""
    band_start = np.searchsorted(band, np.arange(bands + 1))
    runs: list[NDArray[np.uint32]] = []
    run_ptr = np.zeros((levels, bands + 1), dtype=np.uint32)
    total = 0
    for level in range(levels):
        kept = ((signature >> np.uint64(level)) & np.uint64(1)).astype(bool)
        before = np.concatenate(([False], kept[:-1]))
        before[band_start[:-1][band_start[:-1] < len(kept)]] = False
        starts = np.flatnonzero(kept & ~before)
        after = np.concatenate((kept[1:], [False])) if len(kept) else kept
        last_of_band = band_start[1:][band_start[1:] > 0] - 1
        after[last_of_band] = False
        ends = np.flatnonzero(kept & ~after) + 1
        run_ptr[level] = total + np.searchsorted(starts, band_start)
        runs.append(np.stack([starts, ends - starts], axis=1).astype(np.uint32))
        total += len(starts)
    return np.concatenate(runs), run_ptr


def unpack_linear(packed: PackedLinear, level: int) -> NDArray[np.float32]:
    """The dense weight ``(out_features, in_features)`` that ``level`` computes with; what it dropped is zero."""
    grid = packed.grid
    bands = np.zeros((grid.bands, grid.in_features, grid.cell_rows), dtype=np.float32)
    for band in range(grid.bands):
        for start, count in packed.runs[packed.run_ptr[level, band] : packed.run_ptr[level, band + 1]]:
            cells = slice(int(start), int(start) + int(count))
            bands[band, packed.columns[cells]] = packed.values[cells]
    rows = bands.transpose(0, 2, 1).reshape(grid.bands * grid.cell_rows, grid.in_features)
    return np.ascontiguousarray(rows[: grid.out_features])


def _popcount(signature: NDArray[np.uint64]) -> NDArray[np.int64]:
    count = np.zeros(signature.shape, dtype=np.int64)
    for level in range(MAX_LEVELS):
        count += ((signature >> np.uint64(level)) & np.uint64(1)).astype(np.int64)
    return count
