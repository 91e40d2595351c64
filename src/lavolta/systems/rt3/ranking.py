"""Which cells every layer drops first, and how much each layer gives for a level's sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import NEVER, LayerRanking, LevelMasks
from lavolta.training.masking import MaskedLinears
from lavolta.training.oneshot import compensate_linears
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


def compensate(
    dense: Mapping[str, nn.Linear],
    masked: MaskedLinears,
    stats: Mapping[str, LinearStats],
    levels: Sequence[LevelMasks],
) -> None:
    """Give the masked model the shared weights that make up, for all levels together, for the cells that left.

    Args:
        dense: the untouched layers, canonical name to module.
        masked: the same layers of the copy that is changed.
    """
    found = compensate_linears(dense, masked.grids, stats, levels)
    with torch.no_grad():
        for name, linear in masked.linears.items():
            masked.dense_weight(name).copy_(found[name].weight)
            bias = found[name].bias
            if bias is not None:
                linear.bias.copy_(bias)
