"""What decides which cells are zero while a model is trained: fixed masks, and gradual pruning by magnitude."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.sparsity.ranking import LayerRanking, LevelMasks, free_ranking
from lavolta.training.masking import MaskedLinears
from lavolta.training.schedules import CubicSparsity


class Pruning(Protocol):
    """The masks of a training run, step by step."""

    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        """Set the masks that hold in a step, 0-based; called in order, without gaps, and once more at the end."""

    def settled(self, step: int) -> bool:
        """Whether the masks of this step are those of the result."""

    def masks(self) -> LevelMasks:
        """The present cell masks ``(bands, in_features)``."""

    def parameters(self) -> list[Tensor]:
        """What the method trains beside the weights, in a stable order; mostly nothing."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `restore` continues."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""

    def detach(self) -> None:
        """Take the masks off the layers, which then hold zeros where the masks are."""


class FixedMasks:
    """The same masks in every step: pruning happened before the training."""

    def __init__(self, masked: MaskedLinears, masks: LevelMasks) -> None:
        self._masked, self._masks = masked, masks

    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        del optimizer
        if step == 0:
            apply_masks(self._masked, self._masks)

    def settled(self, step: int) -> bool:
        del step
        return True

    def masks(self) -> LevelMasks:
        return self._masks

    def parameters(self) -> list[Tensor]:
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        del state
        apply_masks(self._masked, self._masks)

    def detach(self) -> None:
        bake(self._masked, self._masks)


class GradualPruning(ABC):
    """Drops cells a few at a time, in every layer by its own target; none comes back. What goes, a subclass says.

    What was dropped keeps its last value behind the mask, and the optimizer forgets it.

    Args:
        masked: the layers.
        targets: linear name to final sparsity, 0 to below 1.
        schedule: what share of the target holds when.

    Raises:
        UserInputError: a target outside its range, or for a layer that is not there.
    """

    def __init__(self, masked: MaskedLinears, targets: Mapping[str, float], schedule: CubicSparsity) -> None:
        self._masked, self._targets, self._schedule = masked, check_targets(masked.linears, targets), schedule
        self._share = 0.0
        self._event = 0
        self._dropped_at: dict[str, NDArray[np.int16]] = {
            name: np.zeros(grid.shape, dtype=np.int16) for name, grid in masked.grids.items()
        }

    @abstractmethod
    def cut(self, step: int, alive: LevelMasks, sparsities: Mapping[str, float]) -> LevelMasks:
        """The masks of the next event.

        Args:
            step: before which it happens.
            alive: the present masks, which are applied to the layers.
            sparsities: of every layer after the event.
        """

    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        share = self._schedule.share(step)
        if share == self._share:
            return
        alive = self.masks()
        kept = self.cut(step, alive, {name: share * target for name, target in self._targets.items()})
        self._share, self._event = share, self._event + 1
        for name, dropped_at in self._dropped_at.items():
            dropped_at[~kept[name] & alive[name]] = self._event
        weight_masks = apply_masks(self._masked, self.masks())
        if optimizer is not None:
            # A momentum from before the event would go on moving what no longer counts.
            for name, mask in weight_masks.items():
                for moment in ("exp_avg", "exp_avg_sq"):
                    held = optimizer.state.get(self._masked.dense_weight(name), {}).get(moment)
                    if held is not None:
                        held.mul_(mask)

    def settled(self, step: int) -> bool:
        return self._schedule.share(step) == 1.0

    def masks(self) -> LevelMasks:
        return {name: dropped_at == 0 for name, dropped_at in self._dropped_at.items()}

    def parameters(self) -> list[Tensor]:
        return []

    def state(self) -> dict[str, Any]:
        dropped = {name: torch.from_numpy(at.copy()) for name, at in self._dropped_at.items()}
        return {"share": self._share, "event": self._event, "dropped_at": dropped}

    def restore(self, state: dict[str, Any]) -> None:
        self._share, self._event = float(state["share"]), int(state["event"])
        for name, dropped_at in self._dropped_at.items():
            dropped_at[...] = state["dropped_at"][name].numpy()
        apply_masks(self._masked, self.masks())

    def detach(self) -> None:
        bake(self._masked, self.masks())


class GradualMagnitude(GradualPruning):
    """Drops the cells of least magnitude, by the sum of their squared weights inside each layer.

    A ladder of denser levels can be made from what it leaves: the values behind the masks, and the order of leaving.
    """

    def cut(self, step: int, alive: LevelMasks, sparsities: Mapping[str, float]) -> LevelMasks:
        del step
        kept = {}
        for name, grid in self._masked.grids.items():
            ranking = free_ranking(grid, self._magnitudes(name), removed=~alive[name])
            kept[name] = ranking.keep(ranking.cut_for_sparsity(sparsities[name]))
        return kept

    def rankings(self) -> dict[str, LayerRanking]:
        """The order in which cells left, as rankings: what stays first, then what was dropped last."""
        found = {}
        for name, dropped_at in self._dropped_at.items():
            grid = self._masked.grids[name]
            age = np.where(dropped_at == 0, 0, self._event + 1 - dropped_at).ravel()
            order = np.lexsort((-self._magnitudes(name).ravel(), age))
            rank = np.empty(grid.cells, dtype=np.int32)
            rank[order] = np.arange(grid.cells, dtype=np.int32)
            found[name] = LayerRanking(grid, rank.reshape(grid.shape))
        return found

    def _magnitudes(self, name: str) -> NDArray[np.float64]:
        weight = self._masked.dense_weight(name).detach().cpu().double().numpy()
        return self._masked.grids[name].cell_scores(np.square(weight))


def apply_masks(masked: MaskedLinears, masks: LevelMasks) -> dict[str, Tensor]:
    """Set cell masks on the layers, on the device of each weight; returns them as ``(out_features, in_features)``."""
    expanded = {
        name: torch.from_numpy(masked.grids[name].expand(mask)).to(masked.dense_weight(name).device)
        for name, mask in masks.items()
    }
    masked.set_weight_masks(expanded)
    return expanded


def bake(masked: MaskedLinears, masks: LevelMasks) -> None:
    """Take the masks off; the plain weights are zero where they were masked."""
    for name, mask in apply_masks(masked, masks).items():
        with torch.no_grad():
            masked.dense_weight(name).mul_(mask)
    masked.detach()


def check_targets(names: Iterable[str], targets: Mapping[str, float]) -> dict[str, float]:
    """One target for every layer.

    Raises:
        UserInputError: a layer without a target, an unknown layer, a target outside 0 to below 1.
    """
    wanted = set(names)
    if missing := sorted(wanted - set(targets)):
        raise UserInputError(f"{missing[0]} has no target sparsity; give one for every layer.")
    if unknown := sorted(set(targets) - wanted):
        raise UserInputError(
            f"{unknown[0]} is no layer of the model; its layers are {', '.join(sorted(wanted)[:3])}, ..."
        )
    for name, target in targets.items():
        if not 0.0 <= target < 1.0:
            raise UserInputError(f"the sparsity of {name} is {target:g}; give a number from 0 to below 1.")
    return dict(targets)
