"""What a cut does to a model after its layers made up for it: the measurement behind the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lavolta.models.loaded import Batch, LoadedModel
from lavolta.sparsity.ranking import LevelMasks
from lavolta.training.distill import embedding_loss
from lavolta.training.encoder import label_loss
from lavolta.training.masking import MaskedLinears
from lavolta.training.oneshot import Compensated, compensate_linears
from lavolta.training.saliency import LinearStats

PROBE_ITERATIONS = 15
"""Steps of conjugate gradients while searching: the order of the groups is settled long before the last digit."""


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
    for name in masked.linears:
        _put(masked, name, found[name].weight, found[name].bias)


def output_distance(dense: LoadedModel, student: LoadedModel, batch: Batch) -> Callable[[], float]:
    """How far the student's outputs on a batch are from the dense model's, with the labels where there are some."""
    dense.module.eval()
    student.module.eval()
    with torch.no_grad():
        target = dense.module(batch.input_ids, batch.attention_mask, batch.type_ids)
    task, real = dense.spec.task, batch.attention_mask[:, :, None]
    numbers = int(real.sum()) * target.hidden.shape[-1]

    def distance() -> float:
        out = student.module(batch.input_ids, batch.attention_mask, batch.type_ids)
        if task == "embedding":
            return float(embedding_loss(out.output, target.output))
        # Padding is nobody's answer.
        apart: float = float(((out.hidden - target.hidden).square() * real).sum()) / numbers
        return apart + (float(label_loss(out.output, batch, task)) if batch.labels is not None else 0.0)

    return distance


class CutProbe:
    """Cuts some layers of a copy of the model, compensates them, and measures what that does.

    Args:
        dense: the untouched layers, canonical name to module.
        masked: the layers of the copy that is cut; they hold the dense weights again after every measurement.
        distance: of the copy as it is now from what it should be; lower is better.
    """

    def __init__(
        self,
        dense: Mapping[str, nn.Linear],
        masked: MaskedLinears,
        stats: Mapping[str, LinearStats],
        distance: Callable[[], float],
    ) -> None:
        self._linears, self._masked, self._stats, self._distance = dict(dense), masked, stats, distance
        self._masks: LevelMasks = {}
        self._found: dict[str, Compensated] = {}

    def prepare(self, masks: LevelMasks) -> None:
        """Compensate every layer for these masks, each layer by itself."""
        self._masks = masks
        self._found = compensate_linears(
            self._linears, self._masked.grids, self._stats, [masks], iterations=PROBE_ITERATIONS
        )

    def loss(self, members: Sequence[str]) -> float:
        """The distance when only ``members`` are cut; lower is better."""
        whole: dict[str, Tensor] = {name: torch.ones(()) for name in self._linears}
        for name in members:
            whole[name] = torch.from_numpy(self._masked.grids[name].expand(self._masks[name]))
            _put(self._masked, name, self._found[name].weight, self._found[name].bias)
        try:
            with torch.no_grad():
                self._masked.set_weight_masks(whole)
                return self._distance()
        finally:
            self._masked.set_masks(None)
            for name in members:
                _put(self._masked, name, self._linears[name].weight, self._linears[name].bias)


def _put(masked: MaskedLinears, name: str, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        masked.dense_weight(name).copy_(weight)
        if bias is not None:
            masked.linears[name].bias.copy_(bias)
