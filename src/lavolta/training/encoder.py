"""What a pruned model learns from: a task's labels, and the dense teacher's outputs and hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as functional
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.models.loaded import Batch, LoadedModel, run_module
from lavolta.models.transformer import EncoderOutput
from lavolta.training.distill import embedding_loss, hidden_loss, soft_label_loss
from lavolta.training.saliency import LinearStats, collect_stats

MOST_TOKENS = 256
"""Tokens of a batch whose next-token distributions are compared: a whole vocabulary of numbers for each."""


@dataclass(frozen=True)
class LossWeights:
    """How much each part of the loss counts.

    Args:
        label: the task's own loss; batches without labels learn from the teacher alone.
        output: the teacher's outputs (soft labels, scores, embeddings, or a language model's next tokens).
        hidden: the teacher's hidden states, all layers.
    """

    label: float = 1.0
    output: float = 1.0
    hidden: float = 1.0


class EncoderObjective:
    """Loss of the live model on a batch of sequences.

    Args:
        student: the model that is trained.
        source: the batch of a step, a function of the step alone.
        teacher: the dense model; ``None`` trains on labels alone.
        weights: of the parts; an embedding has no labels, so that its weight does not count.

    Raises:
        UserInputError: neither labels nor a teacher to learn from.
    """

    def __init__(
        self,
        student: LoadedModel,
        source: Callable[[int], Batch],
        teacher: LoadedModel | None,
        weights: LossWeights,
    ) -> None:
        taught = teacher is not None and (weights.output or weights.hidden)
        if not taught and (not weights.label or student.spec.task == "embedding"):
            raise UserInputError("there is nothing to learn from: give a teacher, or a task with labels.")
        self._student, self._source, self._teacher, self._weights = student, source, teacher, weights
        if teacher is not None:
            teacher.module.eval()

    def batch(self, step: int) -> Batch:
        return self._source(step)

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        rows = len(batch.rows)
        edges = [round(i * rows / parts) for i in range(parts + 1)]
        return [_rows(batch, first, last) for first, last in pairwise(edges) if last > first]

    def loss(self, batch: Batch) -> Tensor:
        out: EncoderOutput = self._student.module(batch.input_ids, batch.attention_mask, batch.type_ids)
        weights, task = self._weights, self._student.spec.task
        output = _outputs(self._student, out, batch)
        total = output.new_zeros(())
        labelled = batch.labels is not None or self._teacher is None
        if weights.label and task != "embedding" and labelled:
            total = total + weights.label * label_loss(output, batch, task)
        if self._teacher is None:
            return total
        with torch.no_grad():
            taught: EncoderOutput = self._teacher.module(batch.input_ids, batch.attention_mask, batch.type_ids)
            target = _outputs(self._teacher, taught, batch)
        if weights.output:
            total = total + weights.output * output_loss(output, target, task)
        if weights.hidden:
            total = total + weights.hidden * hidden_loss(
                out.all_hidden[1:], taught.all_hidden[1:], batch.attention_mask
            )
        return total


def encoder_statistics(loaded: LoadedModel, batches: Iterable[Batch], hessians: bool) -> dict[str, LinearStats]:
    """Input statistics of an encoder's linears over batches; padding does not count."""
    loaded.module.eval()
    return collect_stats(
        loaded.linears,
        batches,
        lambda batch: run_module(loaded, batch),
        lambda batch: batch.attention_mask,
        hessians,
    )


def _outputs(loaded: LoadedModel, out: EncoderOutput, batch: Batch) -> Tensor:
    """``(n, outputs)``: of every sequence, or of some real tokens, evenly spaced, of a language model."""
    if out.output is not None:
        return out.output
    real = out.hidden[batch.attention_mask]
    return loaded.module.logits(real[:: -(-len(real) // MOST_TOKENS)])


def label_loss(output: Tensor, batch: Batch, task: str) -> Tensor:
    """The task's own loss: cross-entropy of classes, mean squared error of scores.

    Raises:
        UserInputError: the batch has no labels.
    """
    if batch.labels is None:
        raise UserInputError("these batches have no labels; set the label weight to 0 or give a labelled task.")
    if task == "regression":
        return functional.mse_loss(output.squeeze(-1), batch.labels.to(output.dtype))
    return functional.cross_entropy(output, batch.labels)


def output_loss(student: Tensor, teacher: Tensor, task: str) -> Tensor:
    """Distance to the teacher's output: soft labels, squared score error, or embedding cosine."""
    if task == "embedding":
        return embedding_loss(student, teacher)
    if task == "regression":
        return functional.mse_loss(student, teacher)
    return soft_label_loss(student, teacher, temperature=2.0)


def _rows(batch: Batch, first: int, last: int) -> Batch:
    mask = batch.attention_mask[first:last]
    # A part may hold only short sequences: cut the padding that it no longer needs.
    tokens = int(mask.sum(dim=1).max())
    return Batch(
        batch.input_ids[first:last, :tokens],
        mask[:, :tokens],
        None if batch.type_ids is None else batch.type_ids[first:last, :tokens],
        batch.rows[first:last],
        None if batch.labels is None else batch.labels[first:last],
    )
