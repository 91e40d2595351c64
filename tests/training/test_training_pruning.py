"""Gradual magnitude pruning and movement pruning: what goes, what never comes back, and what the optimizer forgets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import level_masks
from lavolta.training.masking import MaskedLinears
from lavolta.training.movement import MovementPruning
from lavolta.training.pruning import FixedMasks, GradualMagnitude
from lavolta.training.schedules import CubicSparsity

# Odd on purpose: a ragged last band for cells of 4 and 2 rows.
SHAPES = {"a": (7, 5), "b": (3, 11)}


def masked(cell_rows: int = 1, seed: int = 0) -> MaskedLinears:
    generator = torch.Generator().manual_seed(seed)
    linears = {}
    for name, (rows, columns) in SHAPES.items():
        linears[name] = nn.Linear(columns, rows)
        with torch.no_grad():
            linears[name].weight.copy_(torch.randn(rows, columns, generator=generator))
    return MaskedLinears(linears, {name: CellGrid(*shape, cell_rows) for name, shape in SHAPES.items()})


def wander(layers: MaskedLinears, seed: int) -> None:
    """Move every weight by chance, also those behind a mask, as an optimizer might."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in layers.linears:
            weight = layers.dense_weight(name)
            weight.add_(torch.randn(weight.shape, generator=generator))


@given(
    st.sampled_from([1, 2, 4]), st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 9), st.integers(1, 6), st.data()
)
@settings(max_examples=40)
def test_masks_only_shrink_and_end_at_each_layers_own_target(
    cell_rows: int, first: float, second: float, steps: int, events: int, data: st.DataObject
) -> None:
    layers = masked(cell_rows)
    targets = {"a": first, "b": second}
    pruning = GradualMagnitude(layers, targets, CubicSparsity(steps, events))
    before = pruning.masks()
    for step in range(steps + 1):
        pruning.before_step(step, None)
        now = pruning.masks()
        assert all(not (now[name] & ~before[name]).any() for name in now)
        for name, linear in layers.linears.items():
            expanded = torch.from_numpy(layers.grids[name].expand(now[name]))
            assert bool((linear.weight[~expanded] == 0).all())
        before = now
        wander(layers, data.draw(st.integers(0, 99)))
    assert pruning.settled(steps)
    for name, target in targets.items():
        grid, mask = layers.grids[name], pruning.masks()[name]
        removed = grid.weight_sparsity(mask) * grid.out_features * grid.in_features
        wanted = target * grid.out_features * grid.in_features
        # A cell more would be a whole cell too sparse; a half weight of slack belongs to `cut_for_sparsity`.
        assert wanted - 0.5 <= removed + 1e-6
        assert removed <= wanted + cell_rows


def test_the_smallest_of_what_is_left_goes() -> None:
    layers = masked()
    pruning = GradualMagnitude(layers, {"a": 0.6, "b": 0.6}, CubicSparsity(2, 2))
    pruning.before_step(1, None)
    weight = layers.dense_weight("a").detach()
    kept = torch.from_numpy(pruning.masks()["a"])
    assert float(weight[kept].abs().min()) > float(weight[~kept].abs().max())
    assert 0 < int((~kept).sum()) < 21
    # What was dropped may grow behind its mask; it does not come back.
    with torch.no_grad():
        weight[~kept] = 100.0
    pruning.before_step(2, None)
    later = torch.from_numpy(pruning.masks()["a"])
    assert not bool((later & ~kept).any())
    assert int((~later).sum()) == 21


def test_the_optimizer_forgets_what_was_dropped() -> None:
    layers = masked()
    weights = [layers.dense_weight(name) for name in SHAPES]
    optimizer = torch.optim.AdamW(weights, lr=0.1, weight_decay=0.0)
    pruning = GradualMagnitude(layers, {"a": 0.5, "b": 0.5}, CubicSparsity(1, 1))
    frozen: dict[str, torch.Tensor] = {}
    for step in range(4):
        pruning.before_step(step, optimizer)
        gone = {name: torch.from_numpy(~mask) for name, mask in pruning.masks().items()}
        if step == 1:
            frozen = {name: layers.dense_weight(name).detach()[gone[name]].clone() for name in SHAPES}
        optimizer.zero_grad()
        torch.autograd.backward(sum(linear.weight.square().sum() for linear in layers.linears.values()))
        optimizer.step()
    for name in SHAPES:
        assert torch.equal(layers.dense_weight(name).detach()[gone[name]], frozen[name])
        assert bool((optimizer.state[layers.dense_weight(name)]["exp_avg"][gone[name]] == 0).all())


def test_a_ladder_drops_first_what_left_first() -> None:
    layers = masked()
    pruning = GradualMagnitude(layers, {"a": 0.8, "b": 0.8}, CubicSparsity(4, 4))
    seen = []
    for step in range(5):
        pruning.before_step(step, None)
        seen.append(pruning.masks())
        wander(layers, step)
    rankings = pruning.rankings()
    for masks in seen:
        cuts = {name: int(mask.sum()) for name, mask in masks.items()}
        found = level_masks(rankings, cuts)
        assert all(np.array_equal(found[name], masks[name]) for name in masks)


def test_cells_that_left_together_are_ordered_by_what_they_held() -> None:
    layers = masked()
    pruning = GradualMagnitude(layers, {"a": 0.5, "b": 0.5}, CubicSparsity(0))
    pruning.before_step(0, None)
    gone = {name: ~mask for name, mask in pruning.masks().items()}
    for name, ranking in pruning.rankings().items():
        weight = layers.dense_weight(name).detach().numpy()
        held = layers.grids[name].cell_scores(np.square(weight.astype(np.float64)))[gone[name]]
        by_rank = held[np.argsort(ranking.rank[gone[name]])]
        assert (np.diff(by_rank) <= 0).all()


def test_a_state_continues_where_it_was_taken() -> None:
    straight, stopped = masked(), masked()
    schedule, targets = CubicSparsity(6, 3), {"a": 0.9, "b": 0.4}
    whole, first = GradualMagnitude(straight, targets, schedule), GradualMagnitude(stopped, targets, schedule)
    for step in range(7):
        whole.before_step(step, None)
        if step == 3:
            state, resumed = first.state(), GradualMagnitude(stopped, targets, schedule)
            resumed.restore(state)
            first = resumed
        first.before_step(step, None)
        wander(straight, step)
        wander(stopped, step)
    assert all(np.array_equal(whole.masks()[name], first.masks()[name]) for name in SHAPES)


@pytest.mark.parametrize("kind", ["gradual", "fixed", "movement"])
def test_detached_layers_are_plain_and_zero_where_they_were_masked(kind: str) -> None:
    layers, targets = masked(2), {"a": 0.5, "b": 0.5}
    if kind == "gradual":
        pruning = GradualMagnitude(layers, targets, CubicSparsity(0))
    elif kind == "movement":
        pruning = MovementPruning(layers, targets, CubicSparsity(0))
    else:
        pruning = FixedMasks(layers, {name: np.eye(*grid.shape, dtype=bool) for name, grid in layers.grids.items()})
    pruning.before_step(0, None)
    seen = {name: linear.weight.detach().clone() for name, linear in layers.linears.items()}
    masks = pruning.masks()
    pruning.detach()
    for name, linear in layers.linears.items():
        assert type(linear) is nn.Linear
        assert isinstance(linear.weight, nn.Parameter)
        assert torch.equal(linear.weight, seen[name])
        assert bool((linear.weight[~torch.from_numpy(layers.grids[name].expand(masks[name]))] == 0).all())


@pytest.mark.parametrize(
    "targets", [{"a": 0.5}, {"a": 0.5, "b": 0.5, "c": 0.5}, {"a": 1.0, "b": 0}, {"a": -0.1, "b": 0}]
)
def test_targets_that_cannot_be_are_refused(targets: dict[str, float]) -> None:
    with pytest.raises(UserInputError):
        GradualMagnitude(masked(), targets, CubicSparsity(2))


def test_a_score_gains_what_its_weight_moves_away_from_zero() -> None:
    # Movement pruning: dL/dS is the sum over the cell of dL/dW' * W, also where the mask is 0.
    layers = masked(2)
    pruning = MovementPruning(layers, {"a": 0.5, "b": 0.5}, CubicSparsity(4, 4))
    scores = pruning.parameters()
    for step in range(2):
        pruning.before_step(step, None)
        for score in scores:
            score.grad = None
        slope = {
            name: torch.randn(shape, generator=torch.Generator().manual_seed(step)) for name, shape in SHAPES.items()
        }
        torch.autograd.backward(sum((linear.weight * slope[n]).sum() for n, linear in layers.linears.items()))
        for name, score in zip(SHAPES, scores, strict=True):
            per_weight = (slope[name] * layers.dense_weight(name).detach()).numpy()
            wanted = layers.grids[name].to_bands(per_weight).sum(axis=1)
            np.testing.assert_allclose(score.grad.numpy(), wanted, rtol=1e-5, atol=1e-6)
            with torch.no_grad():
                score -= score.grad
    assert int(pruning.masks()["a"].sum()) < layers.grids["a"].cells


def test_movement_keeps_exactly_as_many_as_asked_and_may_change_its_mind() -> None:
    layers = masked()
    pruning = MovementPruning(layers, {"a": 0.4, "b": 0.8}, CubicSparsity(2, 1))
    with torch.no_grad():
        pruning.parameters()[0].copy_(torch.arange(35.0).view(7, 5))
    pruning.before_step(1, None)
    assert bool(pruning.masks()["a"].all())
    pruning.before_step(2, None)
    assert pruning.masks()["a"].sum() == 21
    assert pruning.masks()["a"].ravel()[14:].all()
    assert pruning.masks()["b"].sum() == round(0.2 * 33)
    assert not any(score.requires_grad for score in pruning.parameters())
    with torch.no_grad():
        pruning.parameters()[0].neg_()
    assert pruning.masks()["a"].ravel()[:21].all()
