"""Reweighted group lasso: training that pushes groups towards zero, the hard prune, and retraining around the holes.

Source: reweighted block pruning (Li et al., Findings of EMNLP 2020, arXiv 2009.08065), level 1 of RT3:

    loss = task + sum_l lambda_l * sum_g alpha_g * ||W_g||_2,    alpha_g = 1 / (||W_g||_2 + eps)

with ``alpha`` held constant between refreshes. A small group is pressed harder than a large one, so the groups part
into those that matter and those that are as good as zero, and cutting the latter costs little.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from lavolta.errors import UserInputError
from lavolta.sparsity.block import GroupGrid, RemovedGroups, Scope, prune_groups

EPSILON = 1e-3
STRENGTH = 1e-4
REFRESH_EPOCHS = (4, 8, 12, 16)
"""Values of the authors' own training code."""


def group_norms(weight: Tensor, grid: GroupGrid) -> Tensor:
    """The l2 norm of every group, ``(blocks, lines)``, differentiable; a group of zeros has gradient zero, not NaN.

    Args:
        weight: ``(out_features, in_features)``.
        grid: groups of the same shape; a ragged last block counts as padded with zeros.
    """
    if tuple(weight.shape) != (grid.out_features, grid.in_features):
        raise UserInputError(
            f"a weight of shape {tuple(weight.shape)} does not fit groups of ({grid.out_features}, {grid.in_features})."
        )
    along = weight.T if grid.mode == "row" else weight
    blocks, lines = grid.shape
    padded = functional.pad(along, (0, 0, 0, blocks * grid.size - along.shape[0]))
    norms: Tensor = torch.linalg.vector_norm(padded.reshape(blocks, grid.size, lines), dim=1)
    return norms


class GroupLasso:
    """The penalty of all layers, and its weights ``alpha``.

    ``alpha`` is set from the weights at hand when the object is made.

    Args:
        weights: canonical name to the trained parameter, ``(out_features, in_features)``.
        groups: canonical name to its groups.
        strength: ``lambda``, one for all layers or one by name.
        epsilon: in ``alpha``; the norm below which a group counts as gone.
        refresh_epochs: the epochs before which ``alpha`` is made anew.

    Raises:
        UserInputError: a layer without groups or strength, groups of another shape, or values that are not positive.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        groups: Mapping[str, GroupGrid],
        strength: float | Mapping[str, float] = STRENGTH,
        epsilon: float = EPSILON,
        refresh_epochs: Collection[int] = REFRESH_EPOCHS,
    ) -> None:
        missing = sorted(set(weights) - set(groups))
        if missing:
            raise UserInputError(f"{', '.join(missing)} has no groups; give them for every layer.")
        if not epsilon > 0:
            raise UserInputError(f"epsilon is {epsilon}; give a positive number, or empty groups divide by zero.")
        self.weights = dict(weights)
        self.groups = {name: groups[name] for name in weights}
        self.strength = _per_layer(strength, weights, "strength")
        self.epsilon = epsilon
        self.refresh_epochs = frozenset(refresh_epochs)
        self.alpha: dict[str, Tensor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Set ``alpha`` from the current norms."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.alpha[name] = 1.0 / (group_norms(weight, self.groups[name]) + self.epsilon)

    def begin_epoch(self, epoch: int) -> bool:
        """Call before every epoch, counted from 0: refreshes ``alpha`` where the schedule asks, and tells whether."""
        due = epoch in self.refresh_epochs
        if due:
            self.refresh()
        return due

    def penalty(self) -> Tensor:
        """The scalar to add to the task's loss; its gradient reaches the weights."""
        terms = [
            self.strength[name] * (self.alpha[name] * group_norms(weight, self.groups[name])).sum()
            for name, weight in self.weights.items()
        ]
        return torch.stack(terms).sum() if terms else torch.zeros(())


def hard_prune(
    weights: Mapping[str, Tensor],
    groups: Mapping[str, GroupGrid],
    ratio: float | Mapping[str, float],
    scope: Scope = "layer",
    keep_rows: bool = True,
) -> dict[str, RemovedGroups]:
    """Set the weakest groups of every layer to zero, in place, by the exact count of ``prune_groups``.

    Args:
        weights: canonical name to parameter.
        ratio: share of the groups to remove, one for all layers or one by name.

    Returns:
        Canonical name to what was removed; nothing is changed when one layer is refused.
    """
    ratios = _per_layer(ratio, weights, "ratio")
    removed = {
        name: prune_groups(
            weight.detach().float().cpu().numpy(), ratios[name], groups[name].mode, groups[name].size, scope, keep_rows
        )
        for name, weight in weights.items()
    }
    with torch.no_grad():
        for name, weight in weights.items():
            weight[torch.from_numpy(removed[name].weights()).to(weight.device)] = 0.0
    return removed


@contextmanager
def held_at_zero(
    weights: Mapping[str, Tensor], removed: Mapping[str, RemovedGroups], optimizer: Optimizer
) -> Iterator[None]:
    """Masked retraining: while this context is open, removed weights get no gradient and stay exactly zero.

    The gradient is masked so that clipping and the optimizer's averages see living weights only; the weights are masked
    again after every step because momentum from before the prune would move them.

    Args:
        weights: canonical name to parameter, each with gradients.
        removed: what ``hard_prune`` returned; layers without an entry are left alone.
        optimizer: the one whose steps train these weights.
    """
    keep = {
        name: torch.from_numpy(~entry.weights()).to(weights[name].device)
        for name, entry in removed.items()
        if name in weights
    }

    def apply(*_: object) -> None:
        with torch.no_grad():
            for name, mask in keep.items():
                weights[name].mul_(mask)

    apply()
    # torch leaves register_hook untyped.
    tensors: Mapping[str, Any] = weights
    handles = [tensors[name].register_hook(lambda gradient, mask=mask: gradient * mask) for name, mask in keep.items()]
    handles.append(optimizer.register_step_post_hook(apply))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _per_layer(value: float | Mapping[str, float], names: Collection[str], what: str) -> dict[str, float]:
    """One value for all layers, or one by name, as a value by name; refused where one is missing or negative."""
    if not isinstance(value, Mapping):
        value = dict.fromkeys(names, value)
    missing = sorted(set(names) - set(value))
    if missing:
        raise UserInputError(f"{', '.join(missing)} has no {what}; give one for every layer.")
    for name in names:
        if not value[name] >= 0:
            raise UserInputError(f"the {what} of {name} is {value[name]}; give 0 or more.")
    return {name: float(value[name]) for name in names}
