"""Gradual pruning that compensates: every cut is chosen by second order, and what stays makes up for what left.

A cut is that of `lavolta.training.oneshot`, made on the model as training has left it: its present weights, the inputs
that its present layers see, its present outputs as what is to be kept. Pruning by second order in several cuts with
training between them is known from Optimal BERT Surgeon (Kurtic et al., EMNLP 2022, arXiv 2203.07259), which measures
the loss of a cell by gradients; here the measure is the output error of its layer, as in SparseGPT (Frantar and
Alistarh, arXiv 2301.00774), for which calibration text without labels is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from lavolta.errors import UserInputError
from lavolta.sparsity.ranking import LevelMasks
from lavolta.training.masking import MaskedLinears
from lavolta.training.oneshot import compensate, gradual_rankings
from lavolta.training.pruning import GradualPruning
from lavolta.training.saliency import LinearStats
from lavolta.training.schedules import CubicSparsity

ROUNDS = 4
"""Rounds of a ranking from dense to the sparsity of a cut; those that lie behind it already cost nothing."""

ITERATIONS = 12
"""Steps of conjugate gradients of a cut: it begins nearer to its solution than one cut to the last sparsity does."""


class GradualSecondOrder(GradualPruning):
    """Drops the cells whose loss the rest of their layer makes up for best, and lets it make up for them.

    The optimizer keeps what it knows of the weights that stay. Compensation moves them, but the gradient of a linear
    layer's weight is made of its inputs and of the gradient of its outputs, and both are what compensation keeps as
    they were; moments that begin anew would take a step of the full learning rate in every weight, which undoes it.

    Args:
        masked: the layers; their weights and biases must be among what is trained, or a resumed run would lose them.
        statistics: of the inputs of every layer of the live model, with their products; called at every cut, it must
            leave no trace in the model.
    """

    def __init__(
        self,
        masked: MaskedLinears,
        targets: Mapping[str, float],
        schedule: CubicSparsity,
        statistics: Callable[[], Mapping[str, LinearStats]],
    ) -> None:
        super().__init__(masked, targets, schedule)
        self._statistics = statistics

    def cut(self, step: int, alive: LevelMasks, sparsities: Mapping[str, float]) -> LevelMasks:
        """The masks of the next event; the weights and biases of the layers become those for it.

        Raises:
            UserInputError: weights or inputs that are not finite; no layer has been changed.
        """
        removed = {name: ~mask for name, mask in alive.items()}
        kept, linears = {}, self._masked.linears
        try:
            stats = self._statistics()
            for name, linear in linears.items():
                ranking = gradual_rankings(
                    {name: linear}, self._masked.grids, stats, sparsities[name], ROUNDS, removed, beyond=False
                )[name]
                kept[name] = ranking.keep(ranking.cut_for_sparsity(sparsities[name]))
        except UserInputError as error:
            raise UserInputError(
                f"nothing can be pruned before step {step}: {str(error).rstrip('.')}, or lower the learning rate."
            ) from error
        for name in linears:
            if not np.array_equal(kept[name], alive[name]):
                self._compensate(name, kept[name], stats[name])
        return kept

    def _compensate(self, name: str, kept: np.ndarray, stats: LinearStats) -> None:
        linear, weight = self._masked.linears[name], self._masked.dense_weight(name)
        mask = torch.from_numpy(self._masked.grids[name].expand(kept))
        found = compensate(linear.weight, linear.bias, stats, [mask], [1.0], iterations=ITERATIONS)
        with torch.no_grad():
            weight.copy_(torch.where(mask, found.weight, weight.cpu()))
            if found.bias is not None:
                linear.bias.copy_(found.bias)
