"""The packed layout that the engine streams: one array of weights, of which a level is the first part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.groups import LARGEST_SIZE, MAX_LEVELS, Groups, group_order, group_sizes

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
        groups: which of them each level keeps; units are cells.
    """

    grid: CellGrid
    values: NDArray[np.float32]
    columns: NDArray[np.uint16]
    groups: Groups

    def kept_cells(self, level: int) -> int:
        """Cells that ``level`` streams."""
        return self.groups.count(level)

    def streamed_bytes(self, level: int) -> int:
        """Bytes of values and columns that one pass of ``level`` reads."""
        return self.kept_cells(level) * (4 * self.grid.cell_rows + 2)


def pack_linear(weight: NDArray[np.floating], masks: Sequence[BoolArray], cell_rows: int) -> PackedLinear:
    """Pack a weight ``(out_features, in_features)`` with a cell mask ``(bands, in_features)`` per level, densest first.

    Cells are grouped by the exact set of levels that keep them, groups of more levels first. A group lies in blocks of
    columns (`column_blocks`), in a block band by band, in a band by column. Every one of nested levels is then the
    beginning of all cells, and any level streams few long stretches.

    Raises:
        UserInputError: no level, too many levels, NaN or infinite weights, or masks of another shape.
    """
    grid = CellGrid(weight.shape[0], weight.shape[1], cell_rows)
    cells = group_cells(weight, masks, cell_rows, column_blocks(grid))
    return PackedLinear(cells.grid, cells.values, cells.column.astype(np.uint16), cells.groups)


def column_blocks(grid: CellGrid) -> int:
    """Equal blocks of columns that the cells of an fp32 group lie in.

    The engine multiplies a block with activations that stay in the first-level cache. Activations of up to 512 columns
    stay there by themselves; for cells of 1 or 2 rows the engine blocks differently.
    What a block has of a band is counted in two bytes.
    """
    if grid.cell_rows < _ROWS_IN_BLOCKS or grid.in_features <= _COLUMNS_WITHOUT_BLOCKS:
        return -(-grid.in_features // LARGEST_SIZE)
    return -(-grid.in_features // _BLOCK_COLUMNS)


@dataclass(frozen=True)
class GroupedCells:
    """The cells that any level keeps, in stored order.

    Args:
        band, column, group: ``(cells,)``, where each one is.
        groups: of the cells.
        values: ``(cells, cell_rows) float32``.
    """

    grid: CellGrid
    band: NDArray[np.intp]
    column: NDArray[np.intp]
    group: NDArray[np.intp]
    groups: Groups
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
    kept_by, group = group_order(signature[band, column])
    block = column // -(-grid.in_features // blocks)
    # Cells come by band and column: a stable sort leaves them so in their group and block.
    order = np.argsort(group * blocks + block, kind="stable")
    band, column, group, block = band[order], column[order], group[order], block[order]
    sizes = group_sizes(group, block, band, (len(kept_by), blocks, grid.bands))
    values = np.ascontiguousarray(grid.to_bands(weight.astype(np.float32)).transpose(0, 2, 1)[band, column])
    return GroupedCells(grid, band, column, group, Groups(sizes, kept_by, len(masks)), values)


def unpack_linear(packed: PackedLinear, level: int) -> NDArray[np.float32]:
    """The dense weight ``(out_features, in_features)`` that ``level`` computes with; what it dropped is zero."""
    grid, cells = packed.grid, packed.groups.kept_units(level)
    bands = np.zeros((grid.bands, grid.in_features, grid.cell_rows), dtype=np.float32)
    bands[packed.groups.bands()[cells], packed.columns[cells]] = packed.values[cells]
    rows = bands.transpose(0, 2, 1).reshape(grid.bands * grid.cell_rows, grid.in_features)
    return np.ascontiguousarray(rows[: grid.out_features])
