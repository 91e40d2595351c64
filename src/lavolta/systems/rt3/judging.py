"""How good each level of a bundle is, by what the engine answers at it: the precision of the bundle is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lavolta.models.batching import Encoded, encode_texts, predict
from lavolta.models.loaded import LoadedModel
from lavolta.models.tasks import TaskData
from lavolta.runtime.engine import Model
from lavolta.runtime.measure import cosines, overlaps

ENGINE_BATCH = 16
JUDGED_TEXTS = 512
JUDGED_WRITING = 64
"""Texts that a model that writes is judged on: each of its tokens has an output as wide as the vocabulary."""
WRITING_TOKENS = 64

Advance = Callable[[], None]


@dataclass(frozen=True)
class Judge:
    """What the levels of a bundle are measured by.

    Args:
        field: of a level in the manifest, ``"score"`` or ``"fidelity"``.
        texts: that it looks at, or pairs of them.
        steps: times that ``rate`` advances.
        rate: a number for every level, densest first; it may turn the level.
    """

    field: str
    texts: int
    steps: int
    rate: Callable[[Model, Advance], list[float]]


def task_judge(task: TaskData, dev: Encoded) -> Judge:
    """The task's own metric on its development split, 0 to 100."""
    labels = dev.labels
    assert labels is not None

    def rate(model: Model, advance: Advance) -> list[float]:
        outputs = np.zeros((len(model.levels), len(dev), model.spec.outputs), dtype=np.float32)
        for rows in _batches(dev):
            for level, answers in enumerate(_answers(model, dev.take(rows))):
                outputs[level, rows] = answers
            advance()
        return [100.0 * task.score(answers, labels)[task.metric] for answers in outputs]

    return Judge("score", len(dev), len(_batches(dev)), rate)


def fidelity_judge(dense: LoadedModel, texts: Sequence[str]) -> Judge:
    """Likeness to the dense model on texts that were not trained on: what levels have where there is no task.

    For vectors it is their mean cosine. For a model that writes it is the mean overlap of the distributions of the next
    token, the sum of the smaller of the two probabilities of each token.

    Args:
        texts: the first `JUDGED_TEXTS` of them count, or `JUDGED_WRITING` cut to `WRITING_TOKENS`.
    """
    if dense.spec.task == "language-model":
        encoded = encode_texts(dense, texts[:JUDGED_WRITING], WRITING_TOKENS)
        steps, rate = len(encoded), _overlap
    else:
        encoded = encode_texts(dense, texts[:JUDGED_TEXTS])
        steps, rate = len(_batches(encoded)), _cosine
    return Judge("fidelity", len(encoded), steps, lambda model, advance: rate(model, dense, encoded, advance))


def _batches(encoded: Encoded) -> list[NDArray[np.int64]]:
    """Rows of similar length."""
    order = np.argsort(-encoded.lengths, kind="stable")
    return [order[start : start + ENGINE_BATCH] for start in range(0, len(order), ENGINE_BATCH)]


def _answers(model: Model, some: Encoded) -> Iterator[NDArray[np.float32]]:
    """What every level answers."""
    for level in range(len(model.levels)):
        model.switch(level)
        yield model.run(some.ids, some.types)


def _cosine(model: Model, dense: LoadedModel, encoded: Encoded, advance: Advance) -> list[float]:
    expected = predict(dense, encoded)
    sums = np.zeros(len(model.levels))
    for rows in _batches(encoded):
        sums += [cosines(answers, expected[rows]).sum() for answers in _answers(model, encoded.take(rows))]
        advance()
    return [float(value) / len(encoded) for value in sums]


def _overlap(model: Model, dense: LoadedModel, encoded: Encoded, advance: Advance) -> list[float]:
    sums = np.zeros(len(model.levels))
    dense.module.eval()
    for row, ids in enumerate(encoded.ids):
        with torch.no_grad():
            # One text at a time: the outputs of all would fill the memory.
            expected = dense.module.logits(dense.module.hidden(torch.from_numpy(ids)[None]))[0].numpy()
        sums += [overlaps(answers, expected).sum() for answers in _answers(model, encoded.take([row]))]
        advance()
    return [float(value) / int(encoded.lengths.sum()) for value in sums]
