"""A task's data made ready for one model: what is trained on, what chooses, what is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.models.batching import Encoded, encode_pairs, predict
from lavolta.models.loaded import LoadedModel
from lavolta.models.tasks import TaskData

HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 256
"""Of the training rows, what is held out to choose among the states of a training; and the most rows of it."""

LOOK_ROWS = 256
"""Rows of training and development data that are scored along the way; the end scores all of the latter."""

BEST = 100.0
NORMAL_95 = 1.645
"""Standard deviations above chance that a fine-tuned model must reach: one-sided, 5 %."""


@dataclass(frozen=True)
class TaskSplits:
    """Three parts of one task, tokenised.

    Args:
        task: labels and metric.
        train: what is trained on: the training rows without those held out.
        held_out: training rows that choose among the states of a training.
        dev: the development split, for the report alone.
        looks: smaller parts, by name, that are scored along the way: ``train``, ``held_out``, ``dev``.
    """

    task: TaskData
    train: Encoded
    held_out: Encoded
    dev: Encoded
    looks: Mapping[str, Encoded]


def split_task(
    loaded: LoadedModel,
    task: TaskData,
    seed: int,
    max_tokens: int = 128,
    rows: int | None = None,
    look_rows: int = LOOK_ROWS,
) -> TaskSplits:
    """Hold out a part of the training rows by chance, the same for equal seeds.

    Args:
        loaded: whose tokenizer is used.
        rows: at most so many rows of every split, the first of a random order; ``None`` takes all.
        look_rows: rows of each part that is scored along the way.

    Raises:
        UserInputError: fewer than two training rows.
    """
    generator = np.random.default_rng((seed, len(task.train)))
    order = generator.permutation(len(task.train))[:rows]
    if len(order) < 2:
        raise UserInputError(f"{task.name} has {len(order)} training rows; at least 2 are needed, one to choose by.")
    held = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(order))))
    everything = encode_pairs(loaded, task.train, max_tokens)
    train, held_out = everything.take(np.sort(order[held:])), everything.take(np.sort(order[:held]))
    dev = encode_pairs(loaded, task.dev, max_tokens)
    if rows is not None:
        dev = dev.take(generator.permutation(len(dev))[:rows])

    def part(encoded: Encoded) -> Encoded:
        return encoded.take(np.sort(generator.permutation(len(encoded))[:look_rows]))

    return TaskSplits(task, train, held_out, dev, {"train": part(train), "held_out": held_out, "dev": part(dev)})


def task_score(loaded: LoadedModel, task: TaskData, encoded: Encoded, device: torch.device | str = "cpu") -> float:
    """The task's own metric on tokenised rows, 0 to 100."""
    return task_scores(loaded, task, encoded, device)[task.metric]


def task_scores(
    loaded: LoadedModel, task: TaskData, encoded: Encoded, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Every metric of the task on tokenised rows, 0 to 100.

    Raises:
        UserInputError: rows without labels, or outputs that are not finite.
    """
    if encoded.labels is None:
        raise UserInputError(f"the rows of {task.name} have no labels to score against; give a task with labels.")
    found = task.score(predict(loaded, encoded, device=device), encoded.labels)
    return {metric: 100.0 * value for metric, value in found.items()}


def chance(task: TaskData, labels: NDArray[np.generic]) -> tuple[str, float, float]:
    """What a model that knows nothing scores on these labels: metric, its expected value, and the value that chance
    exceeds once in twenty times, 0 to 100.

    Classes are compared by accuracy with the most frequent class, scores by rank correlation with none.
    """
    count = len(labels)
    if task.kind == "regression":
        return "spearman", 0.0, 100.0 * NORMAL_95 / math.sqrt(max(count - 1, 1))
    share = float(np.bincount(labels.astype(np.int64)).max()) / count
    return "accuracy", 100.0 * share, 100.0 * (share + NORMAL_95 * math.sqrt(share * (1.0 - share) / count))


def untellable(task: TaskData, encoded: Encoded) -> str | None:
    """One sentence, without its stop, if labelled rows are so few or so uneven that chance may score best on them."""
    assert encoded.labels is not None
    if chance(task, encoded.labels)[2] < BEST:
        return None
    return f"{len(encoded)} held-out rows of {task.name} are too few, or too uneven, to tell the teacher from chance"


def at_chance(task: TaskData, encoded: Encoded, scores: Mapping[str, float], who: str, rows: str) -> str | None:
    """One sentence, without its stop, if a model's scores on labelled rows are what chance gives; ``None`` if better,
    or if the rows are no judge, see `untellable`.

    Args:
        scores: what `task_scores` gave for these rows.
        who, rows: what the sentence calls the model and the rows.
    """
    assert encoded.labels is not None
    metric, expected, limit = chance(task, encoded.labels)
    if scores[metric] > limit or limit >= BEST:
        return None
    return (
        f"{who} has {metric} {scores[metric]:.1f} on {len(encoded)} {rows} rows of {task.name}, and knowing nothing "
        f"gives {expected:.1f} (up to {limit:.1f} by chance)"
    )
