"""Level 1 of RT3: block pruning to a backbone, real (reweighted group lasso) or by chance for the ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lavolta.models.loaded import LoadedModel
from lavolta.sparsity.block import GroupGrid, block_prune_cells
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.training.group_lasso import GroupLasso
from lavolta.training.joint import JointConfig, Objective, train_joint
from lavolta.training.levels import DenseOnly
from lavolta.training.masking import MaskedLinears


@dataclass(frozen=True)
class BackboneOptions:
    """How the backbone is made.

    Args:
        ratio: share of the groups that go.
        band_rows: height of a group, a multiple of the cell height; the paper's block count is not known.
        lasso_steps: steps of group lasso before the hard prune; 0 prunes by norm alone.
        strength: lambda of the penalty.
    """

    ratio: float = 0.3
    band_rows: int = 16
    lasso_steps: int = 100
    strength: float = 1e-4
    lr: float = 5e-5


class LassoObjective:
    """An objective plus the group-lasso penalty."""

    def __init__(self, inner: Objective, lasso: GroupLasso) -> None:
        self._inner, self._lasso = inner, lasso

    def batch(self, step: int) -> Any:
        return self._inner.batch(step)

    def split(self, batch: Any, parts: int) -> Sequence[Any]:
        return self._inner.split(batch, parts)

    def loss(self, batch: Any) -> Tensor:
        return self._inner.loss(batch) + self._lasso.penalty()


def real_backbone(
    student: LoadedModel,
    grids: dict[str, CellGrid],
    objective: Objective,
    trainable: Sequence[Tensor],
    options: BackboneOptions,
    seed: int,
) -> dict[str, BoolArray]:
    """Train with the penalty, then take the weakest groups: removed cells ``(bands, in_features)`` by name.

    The student's weights are changed by the training; the caller masks what was removed from then on.
    """
    masked = MaskedLinears(student.linears, grids)
    try:
        if options.lasso_steps:
            groups = {
                name: GroupGrid(grid.out_features, grid.in_features, "column", options.band_rows)
                for name, grid in grids.items()
            }
            weights = {name: masked.dense_weight(name) for name in grids}
            # Fewer steps than the authors' first refresh (epoch 4): alpha stays that of the dense weights.
            lasso = GroupLasso(weights, groups, options.strength)
            config = JointConfig(steps=options.lasso_steps, lr=options.lr, seed=seed, checkpoint_every=10**9)
            train_joint(masked, DenseOnly(), LassoObjective(objective, lasso), trainable, config)
        return {
            name: block_prune_cells(grid, masked.dense_weight(name).detach().numpy(), options.ratio, options.band_rows)
            for name, grid in grids.items()
        }
    finally:
        masked.detach()


def random_backbone(
    student: LoadedModel, grids: dict[str, CellGrid], options: BackboneOptions, seed: int
) -> dict[str, BoolArray]:
    """As many groups of every layer, by chance."""
    rng = np.random.default_rng((seed, 1))
    weights = student.weights()
    return {
        name: block_prune_cells(grid, weights[name], options.ratio, options.band_rows, rng)
        for name, grid in grids.items()
    }
