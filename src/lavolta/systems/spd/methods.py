"""The table of pruning methods: which cells go, what the rest learns from, which weights are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lavolta.models.loaded import Batch, LoadedModel
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.ranking import LevelMasks, level_masks
from lavolta.training.compensated import GradualSecondOrder
from lavolta.training.encoder import encoder_statistics
from lavolta.training.grafting import LossTerms
from lavolta.training.masking import MaskedLinears
from lavolta.training.movement import MovementPruning
from lavolta.training.oneshot import compensate_linears, gradual_rankings
from lavolta.training.pruning import FixedMasks, GradualMagnitude, Pruning
from lavolta.training.saliency import LinearStats, importance
from lavolta.training.schedules import ConstantReplacing, CubicSparsity, MixedReplacing, Replacing

FIRST_PROBABILITY = 0.8
"""SPD's grafting probability while it prunes."""

PRUNE_SHARE, RISE_SHARE = 1 / 2, 1 / 6
"""Of the steps: SPD prunes in 30 of 60 epochs, and its probability rises to 1 in the next 10."""

HALF, MOST, WIDTH = 0.5, 0.9, 384
"""Sparsities and width of the model at which learning rates were chosen."""

EVENTS, COMPENSATED_EVENTS = 12, 8
"""Cuts of gradual pruning; one that compensates costs as much as a dozen steps of training."""

Criterion = Literal["gradual", "gradual-sparsegpt", "movement", "magnitude", "wanda", "sparsegpt"]


@dataclass(frozen=True)
class Method:
    """One way to prune.

    Args:
        criterion: which cells go, and when.
        layers_only: train the student's layers alone; embeddings and head stay as fine-tuned.
        layer_losses: SPD's loss (attention, hidden states, soft labels; gold scores for a regression); else
            labels and, where ``soft`` says so, the teacher's outputs.
        soft: weight of the teacher's outputs beside the labels.
        grafting: ``"progressive"``, ``"constant"`` or ``"none"``.
        lr: peak learning rate at 90 % and more, chosen on held-out data as `experiments/spd/README.md` says.
        lr_half: the same at 50 % and less; see `peak_lr`.
        begin: share of the target sparsity that the first step jumps.
        restart: whether the learning rate restarts where the pruning ends.
    """

    criterion: Criterion
    lr: float
    lr_half: float
    layers_only: bool = False
    layer_losses: bool = False
    soft: float = 0.0
    temperature: float = 2.0
    grafting: Literal["progressive", "constant", "none"] = "none"
    begin: float = 0.0
    restart: bool = True

    def peak_lr(self, sparsity: float, hidden: int) -> float:
        """The peak learning rate where so much of all layers together goes: geometric between half and 90 %.

        What few cuts have broken needs small steps to mend; a rate for 90 % breaks more than they did. Adam moves every
        weight by about the rate, so that an output of a wider model moves by more: a model above `WIDTH` takes its rate
        by the inverse of its width (Yang et al. 2022). For SPD that gives BERT-base 6.0e-4, where its authors' example
        has 6.4e-4.

        Args:
            hidden: width of the model.
        """
        share = max(0.0, (sparsity - HALF) / (MOST - HALF))
        rate = self.lr if sparsity >= MOST else float(self.lr_half * (self.lr / self.lr_half) ** share)
        return rate * min(1.0, WIDTH / hidden)

    def terms(self, kind: str, mask_padding: bool) -> LossTerms:
        """The loss for a task of this kind."""
        if self.layer_losses:
            regression = kind == "regression"
            return LossTerms(
                label=1.0 if regression else 0.0, soft=0.0 if regression else 1.0, mask_padding=mask_padding
            )
        return LossTerms(label=1.0, soft=self.soft, hidden=0.0, attention=0.0, temperature=self.temperature)

    def replacing(self, steps: int, pruned: int) -> Replacing:
        """The grafting probability by step."""
        if self.grafting == "none":
            return ConstantReplacing(1.0)
        if self.grafting == "constant":
            return ConstantReplacing(FIRST_PROBABILITY)
        return MixedReplacing(FIRST_PROBABILITY, pruned, max(1, round(RISE_SHARE * steps)))


_SPD_LR, _GMP_LR, _SOFT = (1.2e-3, 8e-5), (3.2e-4, 3.2e-4), 4.0
_JUMP = 0.75
"""Of the target, before any training: what compensation makes up for alone needs no steps to recover."""

METHODS = {
    "spd": Method("gradual", *_SPD_LR, layers_only=True, layer_losses=True, grafting="progressive"),
    "spd-constant": Method("gradual", *_SPD_LR, layers_only=True, layer_losses=True, grafting="constant"),
    "layer-kd-frozen": Method("gradual", *_SPD_LR, layers_only=True, layer_losses=True),
    "gmp-kd-layers": Method("gradual", *_SPD_LR, layer_losses=True),
    "gmp-kd": Method("gradual", *_GMP_LR, soft=_SOFT),
    "gmp": Method("gradual", *_GMP_LR),
    "gradual-sparsegpt": Method("gradual-sparsegpt", *_GMP_LR, soft=_SOFT, begin=_JUMP),
    "gradual-sparsegpt+spd": Method(
        "gradual-sparsegpt", *_SPD_LR, layers_only=True, layer_losses=True, grafting="progressive", begin=_JUMP
    ),
    "movement": Method("movement", *_GMP_LR, soft=_SOFT),
    "magnitude": Method("magnitude", *_GMP_LR, soft=_SOFT, restart=False),
    "wanda": Method("wanda", *_GMP_LR, soft=_SOFT, restart=False),
    "sparsegpt": Method("sparsegpt", *_GMP_LR, soft=_SOFT, restart=False),
    "sparsegpt+spd": Method(
        "sparsegpt", *_SPD_LR, layers_only=True, layer_losses=True, grafting="progressive", restart=False
    ),
}
SCORE_LR = 2e-2
"""Learning rate of movement pruning's scores at the weights' peak."""


def trained(method: Method, student: LoadedModel) -> list[Tensor]:
    """The weights that a method trains, in a stable order; call it after masks are attached."""
    return [
        parameter
        for name, parameter in student.module.named_parameters()
        if not name.endswith(".scores") and (name.startswith("layers.") or not method.layers_only)
    ]


def make_pruning(
    method: Method,
    student: LoadedModel,
    masked: MaskedLinears,
    targets: Mapping[str, float],
    pruned: int,
    batches: Sequence[Batch],
    cuts: int | None = None,
) -> Pruning:
    """The pruning of a run over ``pruned`` steps.

    Args:
        targets: linear name to sparsity.
        batches: training batches for the statistics of what looks at inputs, on the student's device.
        cuts: of a gradual method; ``None`` takes its own number.
    """
    usual = COMPENSATED_EVENTS if method.criterion == "gradual-sparsegpt" else EVENTS
    schedule = CubicSparsity(pruned, cuts or usual, method.begin)
    if method.criterion == "gradual":
        return GradualMagnitude(masked, targets, schedule)
    if method.criterion == "gradual-sparsegpt":
        return GradualSecondOrder(masked, targets, schedule, _statistics(student, batches))
    if method.criterion == "movement":
        return MovementPruning(masked, targets, schedule)
    if method.criterion == "magnitude":
        return GradualMagnitude(masked, targets, CubicSparsity(0))
    if method.criterion == "wanda":
        return FixedMasks(masked, _wanda(student, masked, targets, batches))
    return FixedMasks(masked, _second_order(student, masked, targets, batches))


def _statistics(student: LoadedModel, batches: Sequence[Batch]) -> Callable[[], Mapping[str, LinearStats]]:
    """What the student's layers see whenever it is asked, all of them in the path; dropout stays as it was."""

    def measured() -> Mapping[str, LinearStats]:
        was_training = student.module.training
        try:
            return encoder_statistics(student, batches, hessians=True)
        finally:
            student.module.train(was_training)

    return measured


def _wanda(
    student: LoadedModel, masked: MaskedLinears, targets: Mapping[str, float], batches: Sequence[Batch]
) -> LevelMasks:
    stats = encoder_statistics(student, batches, hessians=False)
    return {
        name: _highest_by_band(
            grid, grid.cell_scores(importance(masked.dense_weight(name), stats[name], "activation")), targets[name]
        )
        for name, grid in masked.grids.items()
    }


def _highest_by_band(grid: CellGrid, scores: np.ndarray, sparsity: float) -> BoolArray:
    """The best cells of every band, equally many in each, as Wanda compares within each output."""
    keep = max(1, round((1.0 - sparsity) * grid.in_features))
    order = np.argsort(-scores, axis=1, kind="stable")
    mask = np.zeros(grid.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :keep], True, axis=1)
    return mask


def _second_order(
    student: LoadedModel, masked: MaskedLinears, targets: Mapping[str, float], batches: Sequence[Batch]
) -> LevelMasks:
    """Masks that leave step by step while the rest makes up for them, as in SparseGPT; changes the weights."""
    stats = encoder_statistics(student, batches, hessians=True)
    rankings = {}
    for name, linear in masked.linears.items():
        one = gradual_rankings({name: linear}, masked.grids, stats, targets[name], beyond=False)
        rankings.update(one)
    masks = level_masks(rankings, {name: r.cut_for_sparsity(targets[name]) for name, r in rankings.items()})
    for name, found in compensate_linears(masked.linears, masked.grids, stats, [masks]).items():
        with torch.no_grad():
            masked.dense_weight(name).copy_(found.weight)
            if found.bias is not None:
                masked.linears[name].bias.copy_(found.bias)
    return masks
