"""A ranking of a layer's cells, and cuts of it: nested levels by construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid, FloatArray

NEVER = np.iinfo(np.int32).max
"""Rank of a cell that block pruning removed: no cut keeps it."""

LevelMasks = dict[str, BoolArray]
"""One level: linear name to cell mask ``(bands, in_features)``."""


@dataclass(frozen=True)
class LayerRanking:
    """The order in which the cells of one linear layer are dropped.

    Args:
        grid: the layer's cells.
        rank: ``(bands, in_features) int32``; the least cut that keeps a cell is its rank plus 1. Several cells may
            share a rank (cells of different tiles of a shared pattern); ``NEVER`` marks what block pruning removed.
    """

    grid: CellGrid
    rank: NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.rank.shape != self.grid.shape or self.rank.dtype != np.int32:
            raise UserInputError(
                f"a ranking must be int32 of shape {self.grid.shape}, not {self.rank.dtype} of {self.rank.shape}."
            )

    @property
    def max_cut(self) -> int:
        """The cut that keeps the whole backbone."""
        alive = self.rank[self.rank != NEVER]
        return int(alive.max()) + 1 if alive.size else 0

    def keep(self, cut: int) -> BoolArray:
        """Cell mask of the cells that ``cut`` keeps."""
        return self.rank < min(cut, NEVER)

    def cut_for_sparsity(self, sparsity: float) -> int:
        """The largest cut whose weight sparsity is at least ``sparsity`` (0 keeps the whole backbone).

        The sparsity counts what block pruning removed.
        """
        if not 0.0 <= sparsity < 1.0:
            raise UserInputError(f"a sparsity of {sparsity} is outside 0 <= sparsity < 1.")
        alive = self.rank != NEVER
        rows = np.broadcast_to(self.grid.rows_per_band()[:, None], self.rank.shape)[alive]
        # Weights kept with each rank; equal ranks leave together.
        kept = np.cumsum(np.bincount(self.rank[alive], weights=rows))
        budget = (1.0 - sparsity) * self.grid.out_features * self.grid.in_features
        # A half weight of slack keeps float rounding from dropping a cell that fits exactly.
        first = int(np.searchsorted(kept, budget + 0.5, side="right"))
        return self.max_cut if first == len(kept) else first


def free_ranking(grid: CellGrid, scores: FloatArray, removed: BoolArray | None = None) -> LayerRanking:
    """Rank every cell of a layer by its own score, highest first.

    Args:
        scores: ``(bands, in_features)``, higher is more important; ties keep the order of bands and columns.
        removed: cells that block pruning took, ``(bands, in_features)``.
    """
    if scores.shape != grid.shape:
        raise UserInputError(f"scores of shape {scores.shape} do not fit a grid of {grid.shape}.")
    if not np.isfinite(scores).all():
        raise UserInputError("cell scores contain NaN or infinity; check the weights and the calibration text.")
    flat = scores.astype(np.float64).ravel().copy()
    gone = np.zeros(flat.shape, dtype=bool) if removed is None else removed.ravel()
    flat[gone] = -np.inf
    order = np.argsort(-flat, kind="stable")
    rank = np.empty(flat.shape, dtype=np.int32)
    rank[order] = np.arange(len(flat), dtype=np.int32)
    rank[gone] = NEVER
    return LayerRanking(grid, rank.reshape(grid.shape))


def level_masks(rankings: Mapping[str, LayerRanking], cuts: Mapping[str, int]) -> LevelMasks:
    """Cell masks of one level from its cut per layer."""
    missing = set(rankings) - set(cuts)
    if missing:
        raise UserInputError(f"the level has no cut for {', '.join(sorted(missing))}; give one for every layer.")
    return {name: ranking.keep(cuts[name]) for name, ranking in rankings.items()}


def uniform_cuts(rankings: Mapping[str, LayerRanking], sparsity: float) -> dict[str, int]:
    """The cut of every layer at one common weight sparsity."""
    return {name: ranking.cut_for_sparsity(sparsity) for name, ranking in rankings.items()}


def model_sparsity(grids: Mapping[str, CellGrid], masks: LevelMasks) -> float:
    """Share of the weights of all prunable layers that a level removes, 0 to 1."""
    total = sum(grid.out_features * grid.in_features for grid in grids.values())
    kept = sum(float(masks[name].sum(axis=1) @ grid.rows_per_band()) for name, grid in grids.items())
    return 1.0 - kept / total


def are_nested(levels: Sequence[LevelMasks]) -> bool:
    """Whether each level keeps only cells that the level before it keeps (densest first)."""
    return all(not (sparse[name] & ~dense[name]).any() for dense, sparse in pairwise(levels) for name in sparse)
