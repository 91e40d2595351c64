"""Cell masks on live linear layers: the same weights, seen through the level that is set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lavolta.errors import UserInputError
from lavolta.sparsity.ranking import LayerRanking, LevelMasks

if TYPE_CHECKING:
    from lavolta.sparsity.cells import CellGrid


class _Mask(nn.Module):
    """Multiplies a weight ``(out_features, in_features)`` by the current mask; without one it passes."""

    mask: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        return weight if self.mask is None else weight * self.mask


class MaskedLinears:
    """The prunable linears of one model, with one level's masks applied at a time.

    Gradients reach only the weights that the current level keeps; the dense weights stay in the module and are what is
    trained.

    Args:
        linears: canonical name to live module.
        grids: canonical name to cell grid of the same shape.

    Raises:
        UserInputError: a layer without a grid, a grid that does not fit its layer, or a layer that is masked already.
    """

    def __init__(self, linears: Mapping[str, nn.Linear], grids: Mapping[str, CellGrid]) -> None:
        self.linears = dict(linears)
        self.grids = dict(grids)
        self._masks: dict[str, _Mask] = {}
        for name, linear in self.linears.items():
            if name not in self.grids:
                raise UserInputError(f"{name} has no cell grid; give one for every layer.")
            if parametrize.is_parametrized(linear, "weight"):
                raise UserInputError(f"{name} is masked already; detach its masks first.")
            shape = (self.grids[name].out_features, self.grids[name].in_features)
            if tuple(linear.weight.shape) != shape:
                raise UserInputError(f"{name} has shape {tuple(linear.weight.shape)}, but its grid is for {shape}.")
        for name, linear in self.linears.items():
            self._masks[name] = _Mask()
            parametrize.register_parametrization(linear, "weight", self._masks[name])

    def set_masks(self, masks: LevelMasks | None) -> None:
        """Apply one level (cell masks by layer name), or none: the dense model."""
        if masks is None:
            self.set_weight_masks(None)
            return
        missing = sorted(set(self.linears) - set(masks))
        if missing:
            raise UserInputError(f"the level has no mask for {', '.join(missing)}; give one for every layer.")
        self.set_weight_masks({name: torch.from_numpy(self.grids[name].expand(masks[name])) for name in self.linears})

    def set_weight_masks(self, masks: Mapping[str, Tensor] | None) -> None:
        """Apply masks that are already expanded to ``(out_features, in_features)``, or none."""
        for name, holder in self._masks.items():
            holder.mask = None if masks is None else masks[name]

    def dense_weight(self, name: str) -> Tensor:
        """The trained weight without a mask, ``(out_features, in_features)``, the parameter itself."""
        return self.linears[name].get_parameter("parametrizations.weight.original")

    def detach(self) -> None:
        """Take the masks off; the modules are plain again and hold the dense weights."""
        self.set_masks(None)
        for linear in self.linears.values():
            parametrize.remove_parametrizations(linear, "weight", leave_parametrized=True)

    @contextmanager
    def at(self, masks: LevelMasks | None) -> Iterator[None]:
        """The model at one level inside a ``with`` block, dense again after it."""
        self.set_masks(masks)
        try:
            yield
        finally:
            self.set_masks(None)


def expanded_rank(ranking: LayerRanking) -> Tensor:
    """A ranking spread over the weights, ``(out_features, in_features) int32``: ``rank < cut`` is the mask of a cut."""
    rows = np.repeat(ranking.rank, ranking.grid.cell_rows, axis=0)[: ranking.grid.out_features]
    return torch.from_numpy(np.ascontiguousarray(rows))
