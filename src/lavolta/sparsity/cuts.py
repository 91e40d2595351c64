"""Cuts: what nested levels keep of a packed layer, as lengths of prefixes, two bytes each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavolta.sparsity.packing import PackedLinear, column_blocks
from lavolta.sparsity.packing_int8 import QUAD, PackedInt8

MOST_BLOCKS = 256
"""Blocks of columns in a band, at most."""
_LONGEST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Cuts:
    """What levels keep where each is a part of the denser ones; units are cells, or quads of an int8 layer.

    Args:
        starts: ``(bands * blocks + 1,) uint32``, the first unit of every block of every band, and how many units there
            are.
        cuts: ``(levels, bands, blocks) uint16``, how many units a level keeps from the start of each block.
    """

    starts: NDArray[np.uint32]
    cuts: NDArray[np.uint16]


def cuts_of(packed: PackedLinear | PackedInt8) -> Cuts | None:
    """The cuts that say the same as the runs of a layer.

    Returns:
        ``None`` where a level keeps what a denser one does not, as pattern sets do, or more of a block than two bytes
        can count: such a layer keeps its runs.
    """
    grid, levels = packed.grid, packed.levels
    blocks, unit = (1, QUAD) if isinstance(packed, PackedInt8) else (column_blocks(packed.grid), 1)
    units = len(packed.columns) // unit
    pointers, runs = packed.run_ptr.astype(np.int64), packed.runs.astype(np.int64)
    if len(runs) and int(runs.sum(axis=1).max()) > units:
        return None
    # The densest of nested levels keeps all units, so its runs tell their bands.
    densest = runs[pointers[0, 0] : pointers[0, -1], 1]
    if int(densest.sum()) != units:
        return None
    band = np.repeat(np.repeat(np.arange(grid.bands), np.diff(pointers[0])), densest)
    segment = band * blocks + packed.columns[::unit].astype(np.int64) // -(-grid.in_features // blocks)
    starts = np.searchsorted(segment, np.arange(grid.bands * blocks + 1))
    kept_before = np.zeros((levels, units + 1), dtype=np.int64)
    for level in range(levels):
        first, count = runs[pointers[level, 0] : pointers[level, -1]].T
        # Up where a run begins, down where it ends: the sum says whether a unit is kept.
        steps = np.zeros(units + 1, dtype=np.int64)
        np.add.at(steps, first, 1)
        np.add.at(steps, first + count, -1)
        kept_before[level, 1:] = np.cumsum(np.cumsum(steps)[:-1])
    lengths = np.diff(kept_before[:, starts], axis=1)
    if (lengths > _LONGEST).any() or (np.diff(lengths, axis=0) > 0).any():
        return None
    cuts = Cuts(starts.astype(np.uint32), lengths.astype(np.uint16).reshape(levels, grid.bands, blocks))
    same = all(np.array_equal(*pair) for pair in zip(runs_of_cuts(cuts), (packed.runs, packed.run_ptr), strict=True))
    return cuts if same else None


def runs_of_cuts(cuts: Cuts) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """``runs`` and ``run_ptr`` as packing makes them: adjacent runs of a band are one."""
    levels, bands, blocks = cuts.cuts.shape
    starts = cuts.starts.astype(np.int64)
    runs: list[NDArray[np.uint32]] = []
    run_ptr = np.zeros((levels, bands + 1), dtype=np.uint32)
    total = 0
    for level in range(levels):
        count = cuts.cuts[level].reshape(-1).astype(np.int64)
        kept = np.flatnonzero(count)
        first, band = starts[kept], kept // blocks
        end = first + count[kept]
        apart = np.ones(len(kept), dtype=bool)
        apart[1:] = (first[1:] != end[:-1]) | (band[1:] != band[:-1])
        begins, ends = np.flatnonzero(apart), np.flatnonzero(np.append(apart[1:], True)[: len(kept)])
        runs.append(np.stack([first[begins], end[ends] - first[begins]], axis=1).astype(np.uint32))
        run_ptr[level] = total + np.searchsorted(band[begins], np.arange(bands + 1))
        total += len(begins)
    return np.concatenate(runs), run_ptr
