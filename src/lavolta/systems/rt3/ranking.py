"""Which cells every layer drops first, and how much each layer gives for a level's sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.ranking import NEVER, LayerRanking, free_ranking
from lavolta.training.saliency import Kind, LinearStats, importances

CellScores = dict[str, NDArray[np.float64]]

MIN_KEPT = 0.04
"""No layer keeps less: one that is cut away altogether cannot recover in training."""


def cell_scores(
    linears: Mapping[str, nn.Linear],
    grids: Mapping[str, CellGrid],
    stats: Mapping[str, LinearStats] | None,
    kind: Kind,
) -> CellScores:
    """Saliency of every cell, ``(bands, in_features)``, as a share of its layer's whole output energy.

    Dividing by the layer's energy makes cells of different layers comparable: the score is the relative error of the
    layer's output when the cell goes.
    """
    saliency = importances(linears, stats, kind)
    energy = importances(linears, stats, "activation" if stats is not None else "magnitude")
    return {
        name: grid.cell_scores(saliency[name]) / max(float(energy[name].sum()), 1e-30) for name, grid in grids.items()
    }


def rank_cells(
    grids: Mapping[str, CellGrid], scores: CellScores, removed: Mapping[str, BoolArray] | None = None
) -> dict[str, LayerRanking]:
    """Every layer's own ranking of all its cells."""
    return {
        name: free_ranking(grid, scores[name], None if removed is None else removed.get(name))
        for name, grid in grids.items()
    }


def budget_cuts(
    rankings: Mapping[str, LayerRanking], scores: CellScores, sparsity: float, min_kept: float = MIN_KEPT
) -> dict[str, int]:
    """Cuts that together reach a model sparsity and drop the cells of least relative error, whatever their layer.

    Args:
        rankings: per layer; every cut is a prefix of its layer's ranking.
        scores: the cell scores of `cell_scores`.
        sparsity: of all prunable weights together, what block pruning removed counted in.
        min_kept: least share that a layer keeps.

    Raises:
        UserInputError: the sparsity is outside its range, or leaves less than ``min_kept`` everywhere.
    """
    if not 0.0 <= sparsity < 1.0 - min_kept:
        raise UserInputError(f"a sparsity of {sparsity} is outside 0 <= sparsity < {1.0 - min_kept:.2f}.")
    names = list(rankings)
    marginal: list[NDArray[np.float64]] = []
    weights: list[NDArray[np.int64]] = []
    owner: list[NDArray[np.int64]] = []
    base = 0
    kept_cells = dict.fromkeys(names, 0)
    for index, name in enumerate(names):
        ranking, rows = rankings[name], rankings[name].grid.rows_per_band()
        alive = ranking.rank != NEVER
        order = np.argsort(ranking.rank[alive], kind="stable")
        size = np.broadcast_to(rows[:, None], ranking.rank.shape)[alive][order]
        # A prefix must go in order: a cell is worth at least what every later cell of its layer is worth, per weight.
        value = scores[name][alive][order]
        value = np.maximum.accumulate(value[::-1])[::-1]
        floor = min(len(size), int(np.ceil(min_kept * ranking.grid.cells)))
        kept_cells[name] = floor
        base += int(size[:floor].sum())
        marginal.append(value[floor:])
        weights.append(size[floor:])
        owner.append(np.full(len(size) - floor, index))
    total = sum(r.grid.out_features * r.grid.in_features for r in rankings.values())
    value, size, layer = np.concatenate(marginal), np.concatenate(weights), np.concatenate(owner)
    order = np.argsort(-value, kind="stable")
    fits = np.searchsorted(np.cumsum(size[order]) + base, (1.0 - sparsity) * total + 0.5, side="right")
    taken = np.bincount(layer[order[:fits]], minlength=len(names))
    return {name: kept_cells[name] + int(taken[index]) for index, name in enumerate(names)}


def nested_budget_cuts(
    rankings: Mapping[str, LayerRanking], scores: CellScores, sparsities: Sequence[float]
) -> list[dict[str, int]]:
    """`budget_cuts` for several sparsities, densest first; a sparser level never keeps more of any layer."""
    return [budget_cuts(rankings, scores, sparsity) for sparsity in sorted(sparsities)]
