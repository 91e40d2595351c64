"""Losses against the dense teacher: zero at equality, blind to padding, and what each of them measures."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta.training.distill import embedding_loss, hidden_loss, soft_label_loss

seeds = st.integers(0, 2**31)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seeds, st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=25)
def test_equal_models_lose_nothing(seed: int, batch: int, width: int) -> None:
    states = [draw(seed + i, batch, 3, width) for i in range(2)]
    assert hidden_loss(states, states, torch.ones(batch, 3)).item() == 0.0
    flat = draw(seed, batch, width)
    assert soft_label_loss(flat, flat, 2.0).item() == pytest.approx(0.0, abs=1e-14)
    assert embedding_loss(flat, flat).item() == pytest.approx(0.0, abs=1e-14)


@given(seeds)
@settings(max_examples=20)
def test_hidden_loss_does_not_see_padding(seed: int) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    student, teacher = [draw(seed, 2, 3, 4)], [draw(seed + 1, 2, 3, 4)]
    before = hidden_loss(student, teacher, mask)
    for states in (student, teacher):
        states[0] = torch.where(mask.bool()[..., None], states[0], 1e3 * draw(seed + 2, 2, 3, 4))
    assert torch.equal(hidden_loss(student, teacher, mask), before)


def test_hidden_loss_is_the_error_in_shares_of_the_teachers_power() -> None:
    teacher = [draw(0, 2, 3, 4), 100.0 * draw(1, 2, 3, 4)]
    mask = torch.ones(2, 3)
    # A state of zero misses all the power; one that is 10 % off misses 1 % of it; layers count alike.
    assert hidden_loss([0.0 * t for t in teacher], teacher, mask).item() == pytest.approx(1.0)
    assert hidden_loss([1.1 * teacher[0], teacher[1]], teacher, mask).item() == pytest.approx(0.005)
    with pytest.raises(ValueError, match="zip"):
        hidden_loss(teacher[:1], teacher, mask)


def test_soft_label_loss_is_the_kl_divergence() -> None:
    student = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64))
    teacher = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]], dtype=torch.float64))
    golden = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert soft_label_loss(student, teacher).item() == pytest.approx(golden / 2)
    # Logits of temperature T are those of temperature 1 divided by T; the factor T^2 keeps gradients alike.
    assert soft_label_loss(3 * student, 3 * teacher, 3.0).item() == pytest.approx(9 * golden / 2)
    # A distribution does not know what was added to its logits.
    assert soft_label_loss(student + 7, teacher - 2).item() == pytest.approx(golden / 2)


@given(seeds, st.integers(1, 5), st.floats(0.1, 10))
@settings(max_examples=25)
def test_embedding_loss_ignores_length_and_common_rotation(seed: int, batch: int, scale: float) -> None:
    student, teacher = draw(seed, batch, 6), draw(seed + 1, batch, 6)
    loss = embedding_loss(student, teacher).item()
    assert loss > 0
    assert embedding_loss(scale * student, teacher / scale).item() == pytest.approx(loss)
    turn = torch.linalg.qr(draw(seed + 2, 6, 6)).Q
    assert embedding_loss(student @ turn, teacher @ turn).item() == pytest.approx(loss)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    assert embedding_loss(student[order], teacher[order]).item() == pytest.approx(loss)


def test_embedding_loss_by_hand() -> None:
    teacher = torch.eye(2, dtype=torch.float64)
    # Opposite vectors keep their distances: only the direct term of 2 is left.
    assert embedding_loss(-teacher, teacher).item() == pytest.approx(2.0)
    # Two sentences that became one: cosines 1 and 0, and two of four entries of the cosine matrix are off by 1.
    assert embedding_loss(teacher[[0, 0]], teacher).item() == pytest.approx(0.5 + 0.5)
