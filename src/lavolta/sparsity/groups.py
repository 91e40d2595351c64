"""Groups: which cells of a packed layer its levels keep, as sizes of stretches, two bytes each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray

MAX_LEVELS = 64
MOST_GROUPS = 1024
"""Groups of a layer, at most: ten levels of which none is a part of another can make as many."""
MOST_BLOCKS = 256
"""Blocks of columns in a group, at most."""
LARGEST_SIZE = int(np.iinfo(np.uint16).max)


@dataclass(frozen=True)
class Groups:
    """What levels keep; units are cells, or quads of an int8 layer.

    A group is what the same levels keep. Units lie group by group, in a group block of columns by block of columns, in
    a block band by band. A level streams some groups whole; of nested levels it is the first ones.

    Args:
        sizes: ``(groups, blocks, bands) uint16``, units.
        kept_by: ``(groups,) uint64``, bit ``l`` is set where level ``l`` keeps the group.
        levels: how many there are.
    """

    sizes: NDArray[np.uint16]
    kept_by: NDArray[np.uint64]
    levels: int

    def keeps(self, level: int) -> BoolArray:
        """``(groups,)``, which ones ``level`` streams."""
        kept: BoolArray = ((self.kept_by >> np.uint64(level)) & np.uint64(1)).astype(bool)
        return kept

    def kept_units(self, level: int) -> NDArray[np.int64]:
        """Indices of the units that ``level`` streams, rising."""
        sizes = self.sizes.sum(axis=(1, 2), dtype=np.int64)
        return np.flatnonzero(np.repeat(self.keeps(level), sizes))

    def count(self, level: int) -> int:
        """How many units ``level`` streams."""
        return int(self.sizes[self.keeps(level)].sum(dtype=np.int64))

    def bands(self) -> NDArray[np.int64]:
        """``(units,)``, the band of each unit."""
        groups, blocks, bands = self.sizes.shape
        return np.repeat(np.tile(np.arange(bands), groups * blocks), self.sizes.reshape(-1))

    def runs(self, level: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """What kernels follow.

        Returns:
            ``runs``, ``(n, 2)``: first unit and count; ``run_ptr``, ``(bands + 1,)``: band ``b`` adds up
            ``runs[run_ptr[b]:run_ptr[b + 1]]`` in this order, block by block, in a block group by group.
        """
        sizes = self.sizes.astype(np.int64)
        ends = np.cumsum(sizes.reshape(-1)).reshape(sizes.shape)
        pairs = np.stack([ends - sizes, sizes], axis=-1)[self.keeps(level)]
        pairs = pairs.transpose(2, 1, 0, 3).reshape(sizes.shape[2], -1, 2)
        there = pairs[:, :, 1] > 0
        run_ptr = np.concatenate(([0], np.cumsum(there.sum(axis=1))))
        return pairs[there].astype(np.uint32), run_ptr.astype(np.uint32)


def group_order(signature: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The groups of cells with such signatures: those that more levels keep first.

    Returns:
        the signature of every group, and the group of every cell.

    Raises:
        UserInputError: more groups than a bundle holds.
    """
    found = np.unique(signature)
    if len(found) > MOST_GROUPS:
        raise UserInputError(
            f"the levels divide the cells of a layer in {len(found)} groups, at most {MOST_GROUPS} fit; give levels of "
            "which each is a part of the denser one, or fewer."
        )
    order = np.lexsort((found, -_popcount(found)))
    rank = np.empty(len(found), dtype=np.intp)
    rank[order] = np.arange(len(found))
    return found[order], rank[np.searchsorted(found, signature)]


def group_sizes(
    group: NDArray[np.intp], block: NDArray[np.intp], band: NDArray[np.intp], shape: tuple[int, int, int]
) -> NDArray[np.uint16]:
    """``sizes`` of units in these groups, blocks and bands; each fits because a block has at most `LARGEST_SIZE`."""
    _, blocks, bands = shape
    sizes = np.bincount((group * blocks + block) * bands + band, minlength=int(np.prod(shape)))
    return sizes.astype(np.uint16).reshape(shape)


def _popcount(signature: NDArray[np.uint64]) -> NDArray[np.int64]:
    count = np.zeros(signature.shape, dtype=np.int64)
    for level in range(MAX_LEVELS):
        count += ((signature >> np.uint64(level)) & np.uint64(1)).astype(np.int64)
    return count
