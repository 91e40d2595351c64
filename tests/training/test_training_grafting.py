"""Grafting: what a forward pass runs, what is trained and what is not, and what the losses are."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import tiny_model
from torch.nn import functional

from lavolta.errors import UserInputError
from lavolta.models.hf import from_transformers
from lavolta.models.loaded import Batch, LoadedModel, run_module
from lavolta.training.distill import attention_error, soft_cross_entropy, summed_hidden_error
from lavolta.training.grafting import GraftedModel, GraftingObjective, LossTerms, draw_replaced, freeze, trace
from lavolta.training.schedules import ConstantReplacing, MixedReplacing

LABELS = 3


def teacher(labels: int = LABELS, seed: int = 0) -> LoadedModel:
    return from_transformers(tiny_model("bert", labels, seed), name="tiny")


def batch(rows: int = 5, tokens: int = 7, pad: int = 0, seed: int = 0, labels: int = LABELS) -> Batch:
    """Rows of different lengths with ``pad`` more columns of padding."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, tokens + 1, rows)
    lengths[0] = tokens
    ids = np.zeros((rows, tokens + pad), dtype=np.int64)
    mask = np.arange(tokens + pad) < lengths[:, None]
    ids[mask] = rng.integers(1, 50, int(mask.sum()))
    wanted = rng.random(rows).astype(np.float32) if labels == 1 else rng.integers(0, labels, rows)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.zeros(ids.shape, dtype=torch.int64),
        torch.arange(rows),
        torch.from_numpy(wanted),
    )


def grafted(of: LoadedModel, dropout: bool = False, moved: float = 0.3) -> GraftedModel:
    """A student whose layers have moved away from their originals."""
    found = GraftedModel(copy.deepcopy(of), dropout)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in found.layers:
            for parameter in layer.parameters():
                parameter.add_(moved * torch.randn(parameter.shape, generator=generator))
    return found


def test_no_student_layer_is_the_teacher_and_all_are_the_student() -> None:
    dense = teacher()
    model = grafted(dense)
    seen, n = batch(), len(model.layers)
    with torch.no_grad():
        wanted = run_module(dense, seen)
        none = model.run(seen, [False] * n, with_attention=False)
        all_ = model.run(seen, [True] * n, with_attention=False)
        own = run_module(model.student, seen)
    assert torch.equal(none.output, wanted.output)
    assert torch.equal(all_.output, own.output)
    assert all(torch.equal(a, b) for a, b in zip(all_.hidden, own.all_hidden, strict=True))
    assert not torch.allclose(none.output, all_.output)


def test_attention_weights_are_those_of_the_fast_path() -> None:
    dense = teacher()
    seen = batch(pad=2)
    with torch.no_grad():
        shown = trace(dense.module, list(dense.module.layers), seen, with_attention=True)
        plain = run_module(dense, seen)
    for weights in shown.attention:
        assert weights.shape == (5, 5, 9, 9)
        # Rows of float32 sum to 1 within one rounding a term.
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 5, 9), rtol=0, atol=9 * 2**-23)
        assert bool((weights.masked_select(~seen.attention_mask[:, None, None, :].expand_as(weights)) == 0).all())
    torch.testing.assert_close(shown.output, plain.output, rtol=1e-4, atol=1e-5)


@given(st.floats(0, 1), st.integers(0, 1000), st.integers(0, 10**6))
def test_draws_are_a_function_of_seed_and_step(probability: float, seed: int, step: int) -> None:
    first = draw_replaced(probability, 12, seed, step)
    assert first == draw_replaced(probability, 12, seed, step)
    assert draw_replaced(0.0, 12, seed, step) == [False] * 12
    assert draw_replaced(1.0, 12, seed, step) == [True] * 12


def test_layers_are_drawn_independently_at_the_rate() -> None:
    draws = np.array([draw_replaced(0.8, 12, 3, step) for step in range(4000)], dtype=float)
    # Six standard deviations of a mean of 4000 (or of a correlation of 4000 pairs).
    assert np.abs(draws.mean(axis=0) - 0.8).max() < 6 * (0.8 * 0.2 / 4000) ** 0.5
    off = np.corrcoef(draws.T)[~np.eye(12, dtype=bool)]
    assert np.abs(off).max() < 6 / 4000**0.5


def test_only_student_layers_learn_and_all_of_them_through_frozen_ones() -> None:
    dense = teacher()
    model = grafted(dense, dropout=True)
    trainable = list(model.student.module.layers.parameters())
    freeze(model.student.module, trainable)
    before = {name: p.detach().clone() for name, p in model.student.module.named_parameters()}
    originals = [p.detach().clone() for layer in model.originals for p in layer.parameters()]
    taught = [p.detach().clone() for p in dense.module.parameters()]
    objective = GraftingObjective(model, dense, lambda step: batch(seed=step), LossTerms(), ConstantReplacing(0.5))
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    for step in range(8):
        optimizer.zero_grad()
        loss = objective.loss(step)
        if loss.requires_grad:
            torch.autograd.backward(loss)
        optimizer.step()
    for name, parameter in model.student.module.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("layers."), name
    frozen = [p for layer in model.originals for p in layer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(originals, frozen, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(taught, dense.module.parameters(), strict=True))
    # A student layer below a frozen one has a gradient from above it.
    optimizer.zero_grad()
    shown = model.run(batch(), [True, False], with_attention=False)
    torch.autograd.backward(shown.output.square().sum())
    assert float(model.layers[0].ffn.up.weight.grad.abs().sum()) > 0
    assert model.layers[1].ffn.up.weight.grad is None or float(model.layers[1].ffn.up.weight.grad.abs().sum()) == 0
    assert all(p.grad is None for p in frozen)


def test_the_teacher_is_run_without_dropout() -> None:
    dense = teacher()
    dense.module.train()
    terms = LossTerms(soft=1.0, hidden=1.0, attention=1.0)
    objective = GraftingObjective(grafted(dense), dense, lambda _: batch(), terms, ConstantReplacing(1.0))
    with torch.no_grad():
        assert float(objective.loss(0)) == float(objective.loss(0))


@given(st.integers(1, 6))
@settings(max_examples=6)
def test_padding_does_not_count(pad: int) -> None:
    dense = teacher()
    model = grafted(dense)

    def loss(columns: int, mask_padding: bool) -> float:
        terms = LossTerms(mask_padding=mask_padding)
        objective = GraftingObjective(model, dense, lambda _: batch(pad=columns), terms, ConstantReplacing(1.0))
        with torch.no_grad():
            return float(objective.loss(0))

    assert loss(pad, True) == pytest.approx(loss(0, True), rel=1e-4)
    # As published it does: the same pairs in a longer batch cost something else.
    assert loss(pad, False) != pytest.approx(loss(0, False), rel=1e-3)


def test_the_published_losses_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    student, taught = (torch.randn(2, 4, 3, generator=generator) for _ in range(2))
    logits, soft = (torch.randn(2, 3, generator=generator) for _ in range(2))
    by_hand = 0.0
    for row in range(2):
        target = np.exp(soft[row].numpy()) / np.exp(soft[row].numpy()).sum()
        by_hand -= float((target * (logits[row].numpy() - np.log(np.exp(logits[row].numpy()).sum()))).sum())
    # Mean over batch and classes: divided by the number of classes, too.
    assert float(soft_cross_entropy(logits, soft)) == pytest.approx(by_hand / (2 * 3), rel=1e-5)
    twice = summed_hidden_error([student, student], [taught, taught], None)
    assert float(twice) == pytest.approx(2 * float(((student - taught) ** 2).mean()), rel=1e-5)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    real = torch.cat([(student - taught)[0, :3], (student - taught)[1, :1]])
    assert float(summed_hidden_error([student], [taught], mask)) == pytest.approx(float((real**2).mean()), rel=1e-5)
    maps, wanted = (torch.rand(2, 5, 4, 4, generator=generator) for _ in range(2))
    assert float(attention_error([maps], [wanted], None)) == pytest.approx(
        float(((maps - wanted) ** 2).mean()), rel=1e-5
    )
    square = (maps - wanted) ** 2
    pairs = torch.cat([square[0, :, :3, :3].flatten(), square[1, :, :1, :1].flatten()])
    assert float(attention_error([maps], [wanted], mask)) == pytest.approx(float(pairs.mean()), rel=1e-5)


def test_a_regression_learns_the_gold_score_and_a_class_the_teachers() -> None:
    dense = teacher(1)
    model = grafted(dense)
    seen = batch(labels=1)
    gold = LossTerms(label=1.0, soft=0.0, hidden=0.0, attention=0.0)
    with torch.no_grad():
        found = GraftingObjective(model, None, lambda _: seen, gold, ConstantReplacing(1.0)).loss(0)
        own = run_module(model.student, seen).output
    assert float(found) == pytest.approx(float(functional.mse_loss(own[:, 0], seen.labels)), rel=1e-6)


@pytest.mark.parametrize("labels", [1, LABELS])
def test_stored_outputs_of_the_teacher_are_worth_its_passes(labels: int) -> None:
    dense = teacher(labels)
    terms = LossTerms(label=1.0, soft=4.0, hidden=0.0, attention=0.0, temperature=2.0)
    # A batch shows rows of the data in an order of its own; what the data has besides must not be looked at.
    places = [7, 2, 9, 0, 4]
    shown = replace(batch(labels=labels), rows=torch.tensor(places))
    outputs = torch.full((10, labels), float("nan"))
    dense.module.eval()
    with torch.no_grad():
        outputs[places] = run_module(dense, shown).output

    def loss(taught: LoadedModel | torch.Tensor) -> float:
        objective = GraftingObjective(grafted(dense), taught, lambda _: shown, terms, ConstantReplacing(1.0))
        return float(objective.loss(0).detach())

    assert loss(outputs) == loss(dense)
    assert loss(2.0 * outputs) != loss(dense)


def test_what_cannot_be_grafted_is_refused() -> None:
    with pytest.raises(UserInputError, match="no encoder with a task's head"):
        GraftedModel(from_transformers(tiny_model("bert"), name="headless"))
    with pytest.raises(UserInputError, match="teach nothing"):
        LossTerms(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(UserInputError, match="there is none"):
        GraftingObjective(grafted(teacher()), None, lambda _: batch(), LossTerms(), ConstantReplacing(1.0))
    with pytest.raises(UserInputError, match="the loss compares layers, and the teacher's outputs alone were given"):
        GraftingObjective(grafted(teacher()), torch.zeros(2, 2), lambda _: batch(), LossTerms(), ConstantReplacing(1.0))


def errors_and_growth(model: GraftedModel, dense: LoadedModel, seen: Batch) -> tuple[float, float]:
    """Both sides of the error bound on one batch whose tokens are all real.

    Left: how far the student's output is off. Right: what each student layer adds on the teacher's own inputs, times
    how much the student's later layers let such a difference grow. The growth is measured along the very segment that
    the telescoping sum needs, so that the bound must hold.
    """
    n = len(model.layers)
    with torch.no_grad():
        path = trace(dense.module, list(dense.module.layers), seen, False).hidden
        bound = 0.0
        for i in range(n):
            mine, theirs = model.layers[i](path[i], None), path[i + 1]
            added = float((mine - theirs).norm())
            growth = 1.0
            for j in range(i + 1, n):
                after_mine, after_theirs = model.layers[j](mine, None), model.layers[j](theirs, None)
                growth *= float((after_mine - after_theirs).norm()) / max(float((mine - theirs).norm()), 1e-30)
                mine, theirs = after_mine, after_theirs
            bound += added * growth
        off = float((model.run(seen, [True] * n, False).hidden[-1] - path[-1]).norm())
    return off, bound


@given(st.floats(1e-3, 0.5), st.integers(0, 50))
@settings(max_examples=15)
def test_the_error_of_the_whole_is_bounded_by_the_errors_of_its_layers(moved: float, seed: int) -> None:
    """A reconstruction of ours of the error-bound property, not the paper's theorem: telescoping and the triangle
    inequality give ``|f_S(x) - f_T(x)| <= sum_i eps_i * prod_(j > i) L_j``."""
    dense = teacher(seed=seed)
    off, bound = errors_and_growth(grafted(dense, moved=moved), dense, batch(tokens=7, seed=seed, rows=1))
    assert 0 < off <= bound * (1 + 1e-4)


def test_the_mixed_schedule_reaches_the_whole_student() -> None:
    schedule = MixedReplacing(0.5, hold=3, rise=2)
    assert all(draw_replaced(schedule.at(step), 6, 0, step) == [True] * 6 for step in range(5, 40))
