"""Reweighted group lasso: a penalty that has an effect, a gradient that is right, masks that hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lavolta.errors import UserInputError
from lavolta.sparsity.block import GroupGrid
from lavolta.sparsity.cells import CellGrid
from lavolta.training.group_lasso import GroupLasso, group_norms, hard_prune, held_at_zero

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
modes = st.sampled_from(["row", "column"])
sizes = st.integers(1, 10)
seeds = st.integers(0, 2**32 - 1)


def random_weight(shape: tuple[int, int], seed: int, zeros: float = 0.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape) * (rng.random(shape) >= zeros)
    return torch.from_numpy(weight).requires_grad_()


@given(shapes, modes, sizes, seeds)
def test_norms_are_those_of_the_numpy_groups(shape: tuple[int, int], mode: str, size: int, seed: int) -> None:
    weight = random_weight(shape, seed, zeros=0.4)
    grid = GroupGrid(*shape, mode, size)
    np.testing.assert_allclose(
        group_norms(weight, grid).detach().numpy(), grid.norms(weight.detach().numpy()), rtol=20 * np.finfo(float).eps
    )


@given(shapes, modes, sizes, seeds)
def test_gradient_is_the_closed_form(shape: tuple[int, int], mode: str, size: int, seed: int) -> None:
    weight = random_weight(shape, seed, zeros=0.6)
    grid = GroupGrid(*shape, mode, size)
    lasso = GroupLasso({"a": weight}, {"a": grid}, strength=0.3, epsilon=1e-3)
    lasso.penalty().backward()
    values = weight.detach().numpy()
    norms = grid.norms(values)
    # lambda * alpha_g * W_g / ||W_g||; a group of zeros pulls nowhere.
    pull = np.divide(0.3 / (norms + 1e-3), norms, out=np.zeros_like(norms), where=norms > 0)
    split = shape[1] if mode == "row" else shape[0]
    per_weight = np.repeat(pull, size, axis=0)[:split]
    expected = values * (per_weight.T if mode == "row" else per_weight)
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["row", "column"])
def test_gradient_is_the_numerical_one(mode: str) -> None:
    weight = random_weight((5, 7), 0)
    lasso = GroupLasso({"a": weight}, {"a": GroupGrid(5, 7, mode, 3)}, strength=1.0)
    assert torch.autograd.gradcheck(lambda _: lasso.penalty(), (weight,))


def test_group_of_zeros_has_gradient_zero_and_not_nan() -> None:
    weight = torch.zeros(4, 4, requires_grad=True)
    lasso = GroupLasso({"a": weight}, {"a": GroupGrid(4, 4, "column", 2)})
    lasso.penalty().backward()
    assert torch.equal(weight.grad, torch.zeros(4, 4))


def test_first_penalty_counts_the_groups() -> None:
    # alpha is 1 / (norm + eps) at the start, so every group far from zero adds nearly one.
    weight = torch.ones(6, 4, requires_grad=True)
    penalty = GroupLasso({"a": weight}, {"a": GroupGrid(6, 4, "column", 3)}, strength=2.0).penalty()
    assert penalty.item() == pytest.approx(2.0 * 8 * np.sqrt(3) / (np.sqrt(3) + 1e-3), rel=1e-6)


def test_alpha_is_constant_until_it_is_refreshed() -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    lasso = GroupLasso({"a": weight}, {"a": GroupGrid(2, 2, "row", 2)}, refresh_epochs=(2,))
    before = lasso.alpha["a"].clone()
    assert not before.requires_grad
    with torch.no_grad():
        weight.mul_(0.5)
    assert not lasso.begin_epoch(0)
    assert not lasso.begin_epoch(1)
    assert torch.equal(lasso.alpha["a"], before)
    assert lasso.begin_epoch(2)
    np.testing.assert_allclose(lasso.alpha["a"], 1 / (np.sqrt(0.5) + 1e-3), rtol=1e-6)


def test_penalty_in_the_loss_separates_groups_and_no_penalty_does_not() -> None:
    # The task needs inputs 0 and 1 only; the others are noise that plain training keeps at its start.
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 6, generator=generator)
    target = inputs[:, :2] @ torch.randn(2, 4, generator=generator)
    grid = GroupGrid(4, 6, "column", 2)

    def train(strength: float) -> np.ndarray:
        layer = nn.Linear(6, 4, bias=False)
        with torch.no_grad():
            layer.weight.fill_(0.3)
        # Plain gradient steps around zero are as large as lr * strength / epsilon: 0.02 here, far below the start.
        lasso = GroupLasso({"a": layer.weight}, {"a": grid}, strength, epsilon=0.05)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
        for epoch in range(20):
            lasso.begin_epoch(epoch)
            for _ in range(10):
                optimizer.zero_grad()
                # Only the needed inputs enter, so that the task itself says nothing about the others.
                task = (inputs[:, :2] @ layer.weight[:, :2].T - target).square().mean()
                (task + lasso.penalty()).backward()
                optimizer.step()
        return grid.norms(layer.weight.detach().numpy())

    free, pressed = train(0.0), train(0.02)
    np.testing.assert_allclose(free[:, 2:], 0.3 * np.sqrt(2), rtol=1e-6)
    assert pressed[:, 2:].max() <= 0.02
    assert pressed[:, :2].min() > 0.5 * free[:, :2].min()


@given(shapes, modes, sizes, seeds, st.floats(0, 1))
@settings(max_examples=50)
def test_hard_prune_zeroes_what_it_reports_and_nothing_else(
    shape: tuple[int, int], mode: str, size: int, seed: int, ratio: float
) -> None:
    weight = random_weight(shape, seed)
    before = weight.detach().clone().numpy()
    removed = hard_prune({"a": weight}, {"a": GroupGrid(*shape, mode, size)}, ratio, keep_rows=False)["a"]
    np.testing.assert_array_equal(weight.detach().numpy(), np.where(removed.weights(), 0.0, before))
    assert removed.removed.sum() == int(np.floor(ratio * removed.grid.groups + 0.5))


def test_refused_prune_changes_no_layer() -> None:
    weights = {"a": torch.ones(4, 4), "b": torch.full((4, 4), torch.nan)}
    with pytest.raises(UserInputError, match="NaN"):
        hard_prune(weights, dict.fromkeys(weights, GroupGrid(4, 4, "row", 2)), 0.5)
    assert torch.equal(weights["a"], torch.ones(4, 4))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_removed_weights_stay_zero_in_spite_of_momentum(make: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 6)
    options = {"lr": 0.05, "momentum": 0.9} if make is torch.optim.SGD else {"lr": 0.05, "weight_decay": 0.1}
    optimizer = make(layer.parameters(), **options)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        layer(torch.randn(16, 8)).square().sum().backward()
        optimizer.step()
        return layer.weight.grad

    step()
    weights = {"a": layer.weight}
    removed = hard_prune(weights, {"a": GroupGrid(6, 8, "column", 2)}, 0.5)
    gone = torch.from_numpy(removed["a"].weights())
    kept_before = layer.weight.detach()[~gone].clone()
    with held_at_zero(weights, removed, optimizer):
        for _ in range(3):
            gradient = step()
            assert not gradient[gone].any()
            assert not layer.weight.detach()[gone].any()
    assert (layer.weight.detach()[~gone] != kept_before).all()
    # Closed again, the layer trains freely: no hook is left behind.
    step()
    assert layer.weight.detach()[gone].any()


def test_pruned_groups_are_cells_of_the_backbone() -> None:
    weight = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    removed = hard_prune({"a": weight}, {"a": GroupGrid(16, 6, "column", 8)}, 0.25)["a"]
    grid = CellGrid(16, 6, 4)
    assert not weight.numpy()[grid.expand(removed.cells(grid))].any()
    assert removed.cells(grid).sum() == 3 * 2


def test_strength_and_ratio_may_differ_by_layer() -> None:
    weights = {name: torch.ones(4, 4, requires_grad=True) for name in "ab"}
    groups = dict.fromkeys("ab", GroupGrid(4, 4, "column", 2))
    GroupLasso(weights, groups, strength={"a": 1.0, "b": 0.0}).penalty().backward()
    assert weights["a"].grad.all()
    assert not weights["b"].grad.any()
    removed = hard_prune(weights, groups, {"a": 0.5, "b": 0.25})
    assert [removed[name].removed.sum() for name in "ab"] == [4, 2]


def test_wrong_values_are_refused_in_words() -> None:
    weights, groups = {"a": torch.ones(4, 4)}, {"a": GroupGrid(4, 4, "row", 2)}
    with pytest.raises(UserInputError, match="a has no groups"):
        GroupLasso(weights, {})
    with pytest.raises(UserInputError, match="a has no strength"):
        GroupLasso(weights, groups, strength={})
    with pytest.raises(UserInputError, match="strength of a is -1"):
        GroupLasso(weights, groups, strength=-1.0)
    with pytest.raises(UserInputError, match="epsilon is 0"):
        GroupLasso(weights, groups, epsilon=0)
    with pytest.raises(UserInputError, match="does not fit"):
        GroupLasso({"a": torch.ones(4, 5)}, groups)
    with pytest.raises(UserInputError, match="a has no ratio"):
        hard_prune(weights, groups, {})
