"""The packed layout of int8 layers: quads of four cells, one scale per row, the same groups and levels as fp32."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.groups import Groups, group_sizes
from lavolta.sparsity.packing import group_cells

QUAD = 4
"""Columns of a quad: what the dot-product instructions of x86 and Arm add up at once."""
LARGEST = 127
"""Values go from -127 to 127: the range is symmetric, -128 is not used."""
MOST_OF_A_SIGN = 128
"""Weights of one sign in a pair may add up to this: times inputs up to 255 it is below 2^15."""
_FARTHEST_PAIR = 12


@dataclass(frozen=True)
class PackedInt8:
    """One int8 linear layer with all its levels; the weight is ``values * scale`` of its row.

    The cells of a band that the same levels keep fill whole quads; the last one is filled up with *fillers*: cells of
    value 0 that repeat the quad's first column.

    Args:
        grid: the layer's cells.
        values: ``(quads, cell_rows, 4) int8``, -127 to 127; a ragged last band has zero rows.
        columns: ``(4 * quads,) uint16``, the input feature of each cell.
        groups: which of them each level keeps; units are quads.
        scale: ``(out_features,) float32``.
    """

    grid: CellGrid
    values: NDArray[np.int8]
    columns: NDArray[np.uint16]
    groups: Groups
    scale: NDArray[np.float32]

    @cached_property
    def fillers(self) -> BoolArray:
        """``(4 * quads,)``, which cells only fill up a quad."""
        quads = self.columns.reshape(-1, QUAD)
        repeats: BoolArray = quads == quads[:, :1]
        repeats[:, 0] = False
        return repeats.reshape(-1)

    def kept_cells(self, level: int) -> int:
        """Cells that ``level`` streams, fillers not counted."""
        fillers = self.fillers.reshape(-1, QUAD)[self.groups.kept_units(level)]
        return fillers.size - int(fillers.sum())

    def streamed_bytes(self, level: int) -> int:
        """Bytes of values and columns that one pass of ``level`` reads, fillers among them."""
        return QUAD * self.groups.count(level) * (self.grid.cell_rows + 2)


def pack_int8(weight: NDArray[np.floating], masks: Sequence[BoolArray], cell_rows: int) -> PackedInt8:
    """Quantize and pack a weight ``(out_features, in_features)``; masks as in `pack_linear`.

    The scale of a row is its largest absolute weight that any level keeps, divided by 127, so that all levels share one
    set of values; a weight becomes the nearest multiple of it (half to even).

    Raises:
        UserInputError: no level, too many levels, NaN or infinite weights, or masks of another shape.
    """
    cells = group_cells(weight, masks, cell_rows)
    grid = cells.grid
    largest = np.zeros((grid.bands, cell_rows), dtype=np.float32)
    np.maximum.at(largest, cells.band, np.abs(cells.values))
    scale = largest / np.float32(LARGEST)
    # Weights so small that their scale is no longer a normal number are not worth a digit.
    scale[scale < np.finfo(np.float32).tiny] = 0.0
    divisor = np.where(scale == 0.0, np.float32(np.inf), scale)[cells.band]
    values = np.clip(np.rint(cells.values / divisor), -LARGEST, LARGEST).astype(np.int8)

    slot, share, quad_band, quad_group = _quads(cells.band, cells.group)
    order = _harmless_order(values, share)
    padded = np.zeros((QUAD * len(quad_band), cell_rows), dtype=np.int8)
    padded[slot] = values[order]
    columns = np.zeros(len(padded), dtype=np.uint16)
    columns[slot] = cells.column[order]
    filler = np.ones(len(padded), dtype=bool)
    filler[slot] = False
    columns = np.where(filler, np.repeat(columns[::QUAD], QUAD), columns)
    kept_by = cells.groups.kept_by
    sizes = group_sizes(quad_group, np.zeros_like(quad_group), quad_band, (len(kept_by), 1, grid.bands))
    return PackedInt8(
        grid,
        np.ascontiguousarray(padded.reshape(-1, QUAD, cell_rows).transpose(0, 2, 1)),
        columns,
        Groups(sizes, kept_by, len(masks)),
        scale.reshape(-1)[: grid.out_features].copy(),
    )


def unpack_int8(packed: PackedInt8, level: int) -> NDArray[np.float32]:
    """The dense weight ``(out_features, in_features)`` that ``level`` computes with; what it dropped is zero."""
    grid, quads = packed.grid, packed.groups.kept_units(level)
    bands = np.zeros((grid.bands, grid.in_features, grid.cell_rows), dtype=np.float32)
    cells = (QUAD * quads[:, None] + np.arange(QUAD)).reshape(-1)
    real = ~packed.fillers[cells]
    values = packed.values[quads].transpose(0, 2, 1).reshape(-1, grid.cell_rows)
    bands[np.repeat(packed.groups.bands()[quads], QUAD)[real], packed.columns[cells[real]]] = values[real]
    rows = bands.transpose(0, 2, 1).reshape(grid.bands * grid.cell_rows, grid.in_features)[: grid.out_features]
    return np.ascontiguousarray(rows * packed.scale[:, None])


def _quads(
    band: NDArray[np.intp], group: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Where each cell goes among padded quads and its share, ``(cells,)``; band and group of each quad.

    A share is what a group has of a band.
    """
    if not len(band):
        return band, band, band, band
    first = np.flatnonzero(np.concatenate(([True], (np.diff(band) != 0) | (np.diff(group) != 0))))
    sizes = np.diff(np.concatenate((first, [len(band)])))
    quads = -(-sizes // QUAD)
    start = QUAD * (np.cumsum(quads) - quads)
    slot = np.arange(len(band)) - np.repeat(first, sizes) + np.repeat(start, sizes)
    share = np.repeat(np.arange(len(first)), sizes)
    return slot, share, np.repeat(band[first], quads), np.repeat(group[first], quads)


def _harmless_order(values: NDArray[np.int8], share: NDArray[np.intp]) -> NDArray[np.intp]:
    """An order of the cells, nearly the given one, in which few neighbors have large weights of one sign in a row.

    Instructions that add two products in 16 bits take at most `MOST_OF_A_SIGN` of a sign from a pair; the engine
    computes larger ones with an additional cell. The second cells of nearby pairs of a share change places where both
    pairs fit then.

    Args:
        values: ``(cells, cell_rows)`` in stored order.
        share: ``(cells,)``, rising: what a group has of a band, which begins with a quad.
    """
    order = np.arange(len(values))
    place = order - np.searchsorted(share, share)
    second = np.flatnonzero(place % 2 == 1)
    first, of = values[second - 1].astype(np.int16), share[second]

    def fit(left: NDArray[np.int16], right: NDArray[np.int8]) -> BoolArray:
        of_a_sign = np.where((left < 0) == (right < 0), np.abs(left + right), 0)
        return np.asarray((of_a_sign <= MOST_OF_A_SIGN).all(axis=1))

    # Every other stretch of as many pairs as the distance, so that no pair takes part twice in a round.
    for distance, turn in itertools.product(range(1, _FARTHEST_PAIR + 1), (0, 1)):
        here = np.flatnonzero(~fit(first, values[order[second]]))
        here = here[(here // distance % 2 == turn) & (here + distance < len(second))]
        here = here[of[here] == of[here + distance]]
        there = here + distance
        good = fit(first[here], values[order[second[there]]]) & fit(first[there], values[order[second[here]]])
        a, b = second[here[good]], second[there[good]]
        order[a], order[b] = order[b], order[a]
    return order
