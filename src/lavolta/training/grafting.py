"""Progressive grafting: student layers stand in for a teacher's layers, by chance, more and more often.

Source of the method: SPD (Huang et al., ACL 2022, arXiv 2110.08190) as its authors coded it; the mechanism of replacing
layers is that of BERT-of-Theseus (Xu et al., EMNLP 2020, arXiv 2002.02925). Where the code and good sense differ, the
options say which is which: padding does not count here unless it is asked for, and frozen weights have no gradients,
so that the norm that is clipped is that of the trained weights alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lavolta.errors import UserInputError
from lavolta.models.layers import Layer
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.models.transformer import Transformer
from lavolta.training.distill import attention_error, soft_cross_entropy, summed_hidden_error
from lavolta.training.encoder import label_loss
from lavolta.training.schedules import Replacing


class Trace(NamedTuple):
    """What one forward pass shows.

    Args:
        hidden: embeddings and the output of every layer, ``layers + 1`` tensors ``(batch, tokens, hidden)``.
        attention: per layer ``(batch, heads, tokens, tokens)`` before dropout; empty where it was not asked for.
        output: ``(batch, outputs)``.
    """

    hidden: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    output: Tensor


def trace(module: Transformer, layers: Sequence[Layer], batch: Batch, with_attention: bool) -> Trace:
    """Run ``module`` with these layers in the place of its own."""
    x = module.embeddings(batch.input_ids, batch.type_ids)
    mask = module.mask(batch.attention_mask)
    hidden, attention = [x], []
    for layer in layers:
        if with_attention:
            x, weights = layer.forward_with_weights(x, mask)
            attention.append(weights)
        else:
            x = layer(x, mask)
        hidden.append(x)
    return Trace(tuple(hidden), tuple(attention), module.output(x, batch.attention_mask))


@dataclass(frozen=True)
class LossTerms:
    """What a student learns from, and how much each part counts.

    Args:
        label: the task's own loss on gold labels.
        soft: the teacher's outputs: soft cross-entropy of classes, squared error of scores.
        hidden: hidden states, embeddings and all layers.
        attention: attention weights of all layers.
        temperature: of the soft labels.
        mask_padding: padding does not count in hidden states and attention; false counts it, as published.
    """

    label: float = 0.0
    soft: float = 1.0
    hidden: float = 1.0
    attention: float = 1.0
    temperature: float = 1.0
    mask_padding: bool = True

    def __post_init__(self) -> None:
        parts = (self.label, self.soft, self.hidden, self.attention)
        if min(parts) < 0 or max(parts) == 0 or not self.temperature > 0:
            raise UserInputError(f"loss weights of {parts} at temperature {self.temperature:g} teach nothing.")

    @property
    def needs_teacher(self) -> bool:
        return bool(self.soft or self.needs_layers)

    @property
    def needs_layers(self) -> bool:
        """Whether the teacher's outputs alone are not enough."""
        return bool(self.hidden or self.attention)


class GraftedModel:
    """A student whose layers may be replaced by the frozen layers that they were copied from.

    Args:
        student: a copy of the fine-tuned model; its layers are trained, and it is the result.
        dropout: whether the forward passes of the training drop anything.
    """

    def __init__(self, student: LoadedModel, dropout: bool = True) -> None:
        spec = student.spec
        if spec.norm_first or spec.causal or spec.position == "rope" or not spec.outputs or spec.pooling == "none":
            raise UserInputError(
                f"{spec.name} is no encoder with a task's head; grafting takes BERT, DistilBERT, RoBERTa and MiniLM "
                "that were fine-tuned on a task."
            )
        self.student = student
        self.layers = cast("list[Layer]", list(student.module.layers))
        self.originals = cast("list[Layer]", list(copy.deepcopy(student.module.layers)))
        for layer in self.originals:
            layer.requires_grad_(False)
        self.set_training(dropout)

    def set_training(self, dropout: bool) -> None:
        for module in (self.student.module, *self.originals):
            module.train(dropout)

    def run(self, batch: Batch, replaced: Sequence[bool], with_attention: bool) -> Trace:
        """One forward pass; ``replaced`` says for each layer whether the student's own one is taken."""
        path = [
            mine if yes else theirs for mine, theirs, yes in zip(self.layers, self.originals, replaced, strict=True)
        ]
        return trace(self.student.module, path, batch, with_attention)


def draw_replaced(probability: float, layers: int, seed: int, step: int) -> list[bool]:
    """One independent draw for each layer, shared by the whole batch; a function of seed and step alone."""
    drawn = np.random.default_rng((seed, step)).random(layers) < probability
    return [bool(yes) for yes in drawn]


class GraftingObjective:
    """The loss of a step: a batch through the grafted model, compared with labels and with the teacher.

    Args:
        grafted: what is trained.
        teacher: the fine-tuned dense model, run in evaluation mode without gradients in every step; or, for terms that
            compare outputs alone, its outputs on every row ``(rows, outputs)``, by ``Batch.rows``; ``None`` for labels
            alone.
        source: the batch of a step, a function of the step alone.
        terms: of the loss.
        replacing: how likely each student layer is in the path; constant 1 is plain training.
        seed: of the draws.
        device: where batches are moved.

    Raises:
        UserInputError: terms that need a teacher without one, or its layers where there are outputs alone.
    """

    def __init__(
        self,
        grafted: GraftedModel,
        teacher: LoadedModel | Tensor | None,
        source: Callable[[int], Batch],
        terms: LossTerms,
        replacing: Replacing,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if teacher is None and terms.needs_teacher:
            raise UserInputError("the loss compares with a teacher, and there is none; give one, or labels alone.")
        if isinstance(teacher, Tensor) and terms.needs_layers:
            raise UserInputError(
                "the loss compares layers, and the teacher's outputs alone were given; give the model."
            )
        self.grafted, self.replacing = grafted, replacing
        self._teacher, self._source, self._terms, self._seed, self._device = teacher, source, terms, seed, device
        if isinstance(teacher, LoadedModel):
            teacher.module.eval()

    def loss(self, step: int) -> Tensor:
        """A scalar."""
        batch = self._source(step).to(self._device)
        replaced = draw_replaced(self.replacing.at(step), len(self.grafted.layers), self._seed, step)
        terms, task = self._terms, self.grafted.student.spec.task
        mine = self.grafted.run(batch, replaced, terms.attention > 0)
        total = mine.output.new_zeros(())
        if terms.label:
            total = total + terms.label * label_loss(mine.output, batch, task)
        if self._teacher is None or not terms.needs_teacher:
            return total
        taught = self._taught(self._teacher, batch)
        if terms.soft:
            total = total + terms.soft * _output_error(mine.output, taught.output, task, terms.temperature)
        mask = batch.attention_mask if terms.mask_padding else None
        if terms.hidden:
            total = total + terms.hidden * summed_hidden_error(mine.hidden, taught.hidden, mask)
        if terms.attention:
            total = total + terms.attention * attention_error(mine.attention, taught.attention, mask)
        return total

    def _taught(self, teacher: LoadedModel | Tensor, batch: Batch) -> Trace:
        if isinstance(teacher, Tensor):
            return Trace((), (), teacher[batch.rows].to(self._device))
        with torch.no_grad():
            layers = cast("list[Layer]", list(teacher.module.layers))
            return trace(teacher.module, layers, batch, self._terms.attention > 0)


def _output_error(student: Tensor, teacher: Tensor, task: str, temperature: float) -> Tensor:
    if task == "regression":
        return functional.mse_loss(student, teacher)
    return soft_cross_entropy(student, teacher, temperature)


def freeze(module: nn.Module, trainable: Sequence[Tensor]) -> None:
    """Take the gradients off every parameter that is not in ``trainable``."""
    chosen = {id(parameter) for parameter in trainable}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
