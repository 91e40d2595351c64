"""The objective of an encoder: labels and teacher, padding, and the division of a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import VOCAB, tiny_model

from lavolta.errors import UserInputError
from lavolta.models.hf import from_transformers
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.training.encoder import EncoderObjective, LossWeights, label_loss, output_loss


def encoder(labels: int = 0, seed: int = 0) -> LoadedModel:
    loaded = from_transformers(tiny_model("bert", labels, seed), name="tiny")
    loaded.module.eval()
    return loaded


def make_batch(lengths: list[int], pad: int = 0, labels: torch.Tensor | None = None, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    longest = max(lengths)
    ids = np.full((len(lengths), longest), pad)
    mask = np.zeros((len(lengths), longest), dtype=bool)
    for row, length in enumerate(lengths):
        ids[row, :length] = rng.integers(1, VOCAB, length)
        mask[row, :length] = True
    return Batch(
        torch.from_numpy(ids), torch.from_numpy(mask), torch.zeros(ids.shape, dtype=torch.int64),
        torch.arange(len(lengths)), labels,
    )  # fmt: skip


def objective(student: LoadedModel, teacher: LoadedModel | None, weights: LossWeights) -> EncoderObjective:
    return EncoderObjective(student, lambda step: make_batch([3], seed=step), teacher, weights)


@pytest.mark.parametrize("outputs", [0, 3])
def test_what_pads_a_batch_changes_nothing(outputs: int) -> None:
    student, teacher = encoder(outputs), encoder(outputs, 1)
    labels = torch.tensor([0, 2, 1]) if outputs else None
    aim = objective(student, teacher, LossWeights())
    losses = [aim.loss(make_batch([9, 4, 1], pad, labels)) for pad in (0, 7, VOCAB - 1)]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])
    gradient = torch.autograd.grad(losses[2], student.module.embeddings.word.weight)[0]
    rows = make_batch([9, 4, 1], VOCAB - 1)
    seen = set(rows.input_ids[rows.attention_mask].tolist())
    assert VOCAB - 1 in seen or not gradient[VOCAB - 1].any()


@pytest.mark.parametrize("outputs", [0, 1, 3])
def test_a_student_that_is_its_teacher_loses_nothing(outputs: int) -> None:
    student, teacher = encoder(outputs), encoder(outputs)
    loss = objective(student, teacher, LossWeights(label=0.0)).loss(make_batch([5, 2]))
    # Rounding of float32: a cosine of 1 is off by a few times 6e-8.
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    student, teacher = encoder(3), encoder(3, 1)
    batch = make_batch([5, 2], labels=torch.tensor([1, 2]))
    parts = [
        objective(student, teacher, weights).loss(batch).item()
        for weights in (LossWeights(1, 0, 0), LossWeights(0, 1, 0), LossWeights(0, 0, 1), LossWeights(2, 3, 5))
    ]
    assert all(part > 0 for part in parts)
    assert parts[3] == pytest.approx(2 * parts[0] + 3 * parts[1] + 5 * parts[2], rel=1e-5)
    alone = objective(student, None, LossWeights(1, 4, 4)).loss(batch).item()
    assert alone == pytest.approx(parts[0])


def test_the_teacher_gets_no_gradient_and_no_dropout() -> None:
    student, teacher = encoder(3), encoder(3, 1)
    teacher.module.train()
    aim = objective(student, teacher, LossWeights(0, 1, 1))
    aim.loss(aim.batch(0)).backward()
    assert not teacher.module.training
    assert all(p.grad is None for p in teacher.module.parameters())
    assert student.linears["layers.0.ffn.up"].weight.grad is not None


def test_labels_by_hand() -> None:
    batch = make_batch([1, 1], labels=torch.tensor([2.0, -1.0]))
    assert label_loss(torch.tensor([[1.0], [1.0]]), batch, "regression").item() == pytest.approx((1 + 4) / 2)
    batch = replace(batch, labels=torch.tensor([0, 1]))
    even = torch.zeros(2, 4)
    assert label_loss(even, batch, "classification").item() == pytest.approx(np.log(4))
    left, right = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    assert output_loss(left, right, "regression").item() == pytest.approx(4.5)


def test_a_batch_without_labels_learns_from_the_teacher_alone() -> None:
    student, teacher = encoder(3), encoder(3)
    batch = make_batch([3, 1])
    taught = objective(student, teacher, LossWeights(1.0, 1.0, 1.0)).loss(batch).item()
    assert taught == pytest.approx(objective(student, teacher, LossWeights(0.0, 1.0, 1.0)).loss(batch).item())


def test_missing_labels_and_nothing_to_learn_are_refused() -> None:
    with pytest.raises(UserInputError, match="no labels; set the label weight to 0"):
        objective(encoder(3), None, LossWeights()).loss(make_batch([2]))
    for student, teacher, weights in (
        (encoder(), None, LossWeights()),
        (encoder(3), None, LossWeights(label=0.0)),
        (encoder(), encoder(), LossWeights(1.0, 0.0, 0.0)),
        (encoder(3), encoder(3), LossWeights(0.0, 0.0, 0.0)),
    ):
        with pytest.raises(UserInputError, match="nothing to learn from"):
            objective(student, teacher, weights)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 12), st.booleans(), st.booleans())
@settings(max_examples=40)
def test_the_parts_of_a_batch_are_its_rows_once(lengths: list[int], parts: int, labelled: bool, typed: bool) -> None:
    batch = make_batch(lengths, labels=torch.arange(len(lengths)) if labelled else None)
    if not typed:
        batch = replace(batch, type_ids=None)
    found = objective(encoder(), encoder(), LossWeights()).split(batch, parts)
    assert len(found) == min(parts, len(lengths))
    assert torch.cat([part.rows for part in found]).tolist() == batch.rows.tolist()
    assert max(len(p.rows) for p in found) - min(len(p.rows) for p in found) <= 1
    for part in found:
        # Padding goes, tokens stay.
        assert part.input_ids.shape == part.attention_mask.shape
        assert part.attention_mask.sum(dim=1).tolist() == [lengths[row] for row in part.rows]
        assert part.attention_mask.shape[1] == max(lengths[row] for row in part.rows)
        for place, row in enumerate(part.rows):
            kept = part.attention_mask[place]
            assert torch.equal(part.input_ids[place][kept], batch.input_ids[row][batch.attention_mask[row]])
        assert (part.type_ids is None) is not typed
        assert part.labels is None or torch.equal(part.labels, part.rows)
