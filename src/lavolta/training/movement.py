"""Movement pruning: scores that are trained beside the weights decide which cells stay.

Source: Sanh, Wolf and Rush 2020 (arXiv 2005.07683), the form with a fixed share of the scores of each matrix: a cell
stays while its score is among the highest, and the gradient of the mask goes straight through to the score. Weights
that move away from zero gain, whatever their size; cells may come back while the masks are not settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import LevelMasks
from lavolta.training.masking import MaskedLinears
from lavolta.training.pruning import bake, check_targets
from lavolta.training.schedules import CubicSparsity


def _highest(scores: Tensor, count: int) -> Tensor:
    """1 for the ``count`` highest scores and 0 elsewhere, of their shape; without a gradient."""
    mask = torch.zeros_like(scores).flatten()
    mask[torch.topk(scores.detach().flatten(), count, sorted=False).indices] = 1.0
    return mask.view_as(scores)


class _Scored(nn.Module):
    """Multiplies a weight by the mask of its cells' scores."""

    def __init__(self, grid: CellGrid, device: torch.device) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(grid.shape, device=device))
        self.grid = grid
        self.count = grid.cells

    def forward(self, weight: Tensor) -> Tensor:
        if self.count == self.grid.cells and not self.scores.requires_grad:
            return weight
        # The second term is zero and hands the gradient of the mask to the scores as it is.
        cells = _highest(self.scores, self.count) + (self.scores - self.scores.detach())
        return weight * cells.repeat_interleave(self.grid.cell_rows, dim=0)[: len(weight)]


class MovementPruning:
    """Keeps the cells of highest score in every layer by its own target.

    Args:
        masked: the layers; masks of their own stay off.
        targets: linear name to final sparsity.
        schedule: what share of the target holds when; the scores stop with its last event.
    """

    def __init__(self, masked: MaskedLinears, targets: Mapping[str, float], schedule: CubicSparsity) -> None:
        self._masked, self._targets, self._schedule = masked, check_targets(masked.linears, targets), schedule
        self._scored: dict[str, _Scored] = {}
        for name, linear in masked.linears.items():
            self._scored[name] = _Scored(masked.grids[name], masked.dense_weight(name).device)
            parametrize.register_parametrization(linear, "weight", self._scored[name])

    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        del optimizer
        share = self._schedule.share(step)
        for name, scored in self._scored.items():
            cells = scored.grid.cells
            scored.count = max(1, round((1.0 - share * self._targets[name]) * cells))
            scored.scores.requires_grad_(share < 1.0)

    def settled(self, step: int) -> bool:
        return self._schedule.share(step) == 1.0

    def masks(self) -> LevelMasks:
        return {
            name: _highest(scored.scores, scored.count).cpu().numpy().astype(np.bool_)
            for name, scored in self._scored.items()
        }

    def parameters(self) -> list[Tensor]:
        return [scored.scores for scored in self._scored.values()]

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        del state

    def detach(self) -> None:
        masks = self.masks()
        for name in self._scored:
            # The scores' factor becomes a plain one that passes everything; the masks go into the weights.
            self._scored[name].count = self._scored[name].grid.cells
            self._scored[name].scores.requires_grad_(False)
        bake(self._masked, masks)
