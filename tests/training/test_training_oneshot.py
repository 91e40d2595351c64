"""One-shot compensation: the minimum it claims to be, for one level and for many, and rankings that adapt."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import NEVER, are_nested, free_ranking, level_masks, uniform_cuts
from lavolta.training.oneshot import Compensated, compensate, compensate_linears, gradual_rankings, output_error
from lavolta.training.saliency import LinearStats, collect_stats, importance

seeds = st.integers(0, 2**32 - 1)


def correlated_inputs(tokens: int, features: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(features) + 0.5 * torch.randn(features, features, generator=generator) / features**0.5
    return torch.randn(tokens, features, generator=generator) @ mix + 0.3


def layer_and_stats(
    rows: int, columns: int, seed: int, bias: bool = True
) -> tuple[nn.Linear, torch.Tensor, LinearStats]:
    torch.manual_seed(seed % 2**31)
    layer = nn.Linear(columns, rows, bias=bias)
    inputs = correlated_inputs(8 * columns + 5, columns, seed % 2**31)
    return layer, inputs, collect_stats({"a": layer}, [inputs], layer, hessians=True)["a"]


def joint_error(layer: nn.Linear, new: Compensated, inputs: torch.Tensor, masks: list, shares: list) -> float:
    """The objective itself, summed over real inputs in float64."""
    x, old = inputs.double(), layer.weight.detach().double()
    bias = torch.zeros(len(old)) if layer.bias is None else layer.bias.detach()
    new_bias = torch.zeros(len(old)) if new.bias is None else new.bias
    exact = x @ old.T + bias
    errors = [((x @ (new.weight.double() * mask).T + new_bias) - exact).square().sum(1).mean() for mask in masks]
    return float(sum(share * error for share, error in zip(shares, errors, strict=True)))


def exact_minimum(layer: nn.Linear, inputs: torch.Tensor, masks: list, shares: list) -> float:
    """The same objective by a dense solver, one row and all levels at a time: stacked weighted least squares."""
    x = inputs.double().numpy()
    ones = np.ones((len(x), 1))
    total = 0.0
    for row, weight in enumerate(layer.weight.detach().double().numpy()):
        target = x @ weight
        blocks = [np.hstack([x * masks[level][row].numpy(), ones]) for level in range(len(masks))]
        matrix = np.vstack([np.sqrt(share) * block for share, block in zip(shares, blocks, strict=True)])
        wanted = np.concatenate([np.sqrt(share) * target for share in shares])
        solution = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
        total += ((matrix @ solution - wanted) ** 2).sum() / len(x)
    return total


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 5), (3, 7), (5, 13)])
def test_joint_solution_is_the_least_squares_one(levels: int, shape: tuple[int, int]) -> None:
    layer, inputs, stats = layer_and_stats(*shape, seed=levels)
    generator = torch.Generator().manual_seed(7)
    # Masks that are not nested: independent pattern sets are compensated by the same code.
    masks = [torch.rand(shape, generator=generator) < 0.6 for _ in range(levels)]
    shares = [1.0, 2.0, 0.5][:levels]
    # Undamped, so that the solver without damping is the reference; a dozen unknowns converge in 60 steps.
    found = compensate(layer.weight, layer.bias, stats, masks, shares, damping=0.0, iterations=60)
    expected = exact_minimum(layer, inputs, masks, shares)
    reached = joint_error(layer, found, inputs, masks, shares)
    # The Hessian is float32: 1e-6 of the output energy, which is of order one per row.
    assert reached == pytest.approx(expected, rel=1e-3, abs=1e-5 * shape[0])


def test_one_removed_weight_costs_its_second_order_saliency() -> None:
    layer, inputs, stats = layer_and_stats(1, 6, seed=0, bias=False)
    saliency = importance(layer.weight, stats, "second-order", 0.0)[0]
    for removed in range(6):
        mask = torch.ones(1, 6, dtype=torch.bool)
        mask[0, removed] = False
        found = compensate(layer.weight, None, stats, [mask], [1.0], damping=0.0)
        assert found.bias is None
        assert joint_error(layer, found, inputs, [mask], [1.0]) == pytest.approx(saliency[removed], rel=1e-3, abs=1e-7)


def test_bias_alone_makes_up_for_the_mean() -> None:
    # Inputs that never vary: dropping all weights costs nothing once the bias has their mean output.
    layer = nn.Linear(3, 2)
    inputs = torch.tensor([[1.0, 2.0, -1.0]]).repeat(9, 1)
    stats = collect_stats({"a": layer}, [inputs], layer, hessians=True)["a"]
    found = compensate(layer.weight, layer.bias, stats, [torch.zeros(2, 3, dtype=torch.bool)])
    np.testing.assert_allclose(found.bias.detach(), layer(inputs[0]).detach(), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 3), seeds, st.booleans())
@settings(max_examples=40)
def test_compensation_never_raises_the_joint_error(rows: int, columns: int, levels: int, seed: int, bias: bool) -> None:
    layer, inputs, stats = layer_and_stats(rows, columns, seed, bias)
    generator = torch.Generator().manual_seed(seed % 2**31)
    masks = [torch.rand(rows, columns, generator=generator) < 0.5 for _ in range(levels)]
    found = compensate(layer.weight, layer.bias, stats, masks, [1.0] * levels)
    before = joint_error(
        layer,
        Compensated(layer.weight.detach(), None if layer.bias is None else layer.bias.detach()),
        inputs,
        masks,
        [1.0] * levels,
    )
    # Damping minimizes a slightly different sum: it adds one hundredth of the mean squared input times the change.
    damped = 0.01 * float(stats.second_moment.mean()) * levels * float(layer.weight.detach().square().sum())
    assert joint_error(layer, found, inputs, masks, [1.0] * levels) <= before + damped
    unused = ~torch.stack(masks).any(0)
    assert torch.equal(found.weight[unused], layer.weight.detach()[unused])


def test_level_that_drops_nothing_alone_changes_nothing() -> None:
    layer, _, stats = layer_and_stats(4, 6, seed=1)
    found = compensate(layer.weight, layer.bias, stats, [torch.ones(4, 6, dtype=torch.bool)])
    torch.testing.assert_close(found.weight, layer.weight.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.bias, layer.bias.detach(), rtol=0, atol=1e-6)


def test_shared_weights_serve_all_levels_better_than_those_of_one() -> None:
    layer, _, stats = layer_and_stats(24, 40, seed=2)
    ranking = free_ranking(CellGrid(24, 40, 1), importance(layer.weight, stats, "activation"))
    masks = [torch.from_numpy(ranking.keep(ranking.cut_for_sparsity(sparsity))) for sparsity in (0.4, 0.7)]

    def errors(found: Compensated) -> list[float]:
        return [output_error(layer.weight, layer.bias, found.weight * mask, found.bias, stats) for mask in masks]

    plain = errors(Compensated(layer.weight.detach(), layer.bias.detach()))
    densest, sparsest = (errors(compensate(layer.weight, layer.bias, stats, [mask])) for mask in masks)
    joint = errors(compensate(layer.weight, layer.bias, stats, masks))
    assert all(shared < old for shared, old in zip(joint, plain, strict=True))
    # Weights made for one level are best there and fail elsewhere; the shared ones lie between at both.
    assert densest[0] < joint[0] < sparsest[0]
    assert sparsest[1] < joint[1] < densest[1]


def test_output_error_is_measured_in_shares_of_the_output_variance() -> None:
    layer, inputs, stats = layer_and_stats(3, 5, seed=3)
    assert output_error(layer.weight, layer.bias, layer.weight, layer.bias, stats) == 0.0
    centered = layer(inputs).detach().double()
    centered -= centered.mean(0)
    other = layer.weight.detach() * 0.5
    expected = (inputs.double() @ (layer.weight.detach() - other).double().T).square().sum() / centered.square().sum()
    found = output_error(layer.weight, layer.bias, other, layer.bias, stats)
    assert found == pytest.approx(float(expected), rel=1e-4)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4]), st.floats(0, 0.9), st.booleans(), seeds)
@settings(max_examples=40)
def test_gradual_ranking_ranks_every_backbone_cell_once(
    rows: int, columns: int, cell_rows: int, sparsest: float, some_removed: bool, seed: int
) -> None:
    layer, _, stats = layer_and_stats(rows, columns, seed, bias=bool(seed % 2))
    grid = CellGrid(rows, columns, cell_rows)
    removed = np.random.default_rng(seed).random(grid.shape) < (0.4 if some_removed else 0.0)
    before = layer.weight.detach().clone()
    rankings = gradual_rankings({"a": layer}, {"a": grid}, {"a": stats}, sparsest, 3, {"a": removed})
    rank = rankings["a"].rank
    np.testing.assert_array_equal(rank == NEVER, removed)
    assert sorted(rank[~removed].tolist()) == list(range(int((~removed).sum())))
    assert torch.equal(layer.weight, before)
    levels = [level_masks(rankings, uniform_cuts(rankings, sparsity)) for sparsity in (0.0, 0.3, 0.6)]
    assert are_nested(levels)


def test_gradual_ranking_keeps_one_of_two_twins() -> None:
    # Inputs 0 and 1 are twins and matter most; each alone can be replaced by the other, both together by nothing.
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(400, 1, generator=generator)
    twins = base + 0.01 * torch.randn(400, 2, generator=generator)
    inputs = torch.cat([twins, 0.5 * torch.randn(400, 2, generator=generator)], dim=1)
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    stats = {"a": collect_stats({"a": layer}, [inputs], layer, hessians=True)["a"]}
    grid = {"a": CellGrid(1, 4, 1)}
    at_once = free_ranking(grid["a"], importance(layer.weight, stats["a"], "second-order"))
    assert sorted(at_once.rank[0, :2].tolist()) == [2, 3]
    gradual = gradual_rankings({"a": layer}, grid, stats, sparsest=0.5, rounds=2)["a"]
    assert sorted(gradual.rank[0, :2].tolist()) == [0, 3]


@given(st.integers(1, 9), st.integers(2, 9), st.floats(0, 0.95), st.integers(1, 4), seeds)
@settings(max_examples=40)
def test_without_the_order_beyond_the_same_cells_leave_in_the_same_order(
    rows: int, columns: int, sparsest: float, rounds: int, seed: int
) -> None:
    layer, _, stats = layer_and_stats(rows, columns, seed)
    grid = CellGrid(rows, columns, 1)
    whole, short = (
        gradual_rankings({"a": layer}, {"a": grid}, {"a": stats}, sparsest, rounds, beyond=beyond)["a"]
        for beyond in (True, False)
    )
    kept = int(np.ceil((1.0 - sparsest) * grid.cells))
    np.testing.assert_array_equal(short.keep(kept), whole.keep(kept))
    np.testing.assert_array_equal(short.rank[~short.keep(kept)], whole.rank[~whole.keep(kept)])
    assert sorted(short.rank.ravel().tolist()) == list(range(grid.cells))


def test_gradual_masks_lose_less_than_those_taken_at_once() -> None:
    layer, _, stats = layer_and_stats(32, 48, seed=5)
    grids, linears, statistics = {"a": CellGrid(32, 48, 4)}, {"a": layer}, {"a": stats}
    at_once = {"a": free_ranking(grids["a"], grids["a"].cell_scores(importance(layer.weight, stats, "second-order")))}
    errors = []
    for rankings in (at_once, gradual_rankings(linears, grids, statistics)):
        masks = level_masks(rankings, uniform_cuts(rankings, 0.7))
        found = compensate_linears(linears, grids, statistics, [masks])["a"]
        kept = torch.from_numpy(grids["a"].expand(masks["a"]))
        errors.append(output_error(layer.weight, layer.bias, found.weight * kept, found.bias, stats))
    assert errors[1] < errors[0]


def test_dtype_of_the_layer_is_kept() -> None:
    layer, _, stats = layer_and_stats(4, 6, seed=1)
    layer = layer.to(torch.bfloat16)
    found = compensate(layer.weight, layer.bias, stats, [torch.rand(4, 6) < 0.5])
    assert (found.weight.dtype, found.bias.dtype) == (torch.bfloat16, torch.bfloat16)


def test_dead_inputs_give_finite_weights() -> None:
    layer = nn.Linear(4, 3)
    stats = collect_stats({"a": layer}, [torch.zeros(5, 4)], layer, hessians=True)["a"]
    found = compensate(layer.weight, layer.bias, stats, [torch.rand(3, 4) < 0.5])
    assert torch.isfinite(found.weight).all()
    assert torch.isfinite(found.bias).all()


def test_wrong_values_are_refused_in_words() -> None:
    layer, inputs, stats = layer_and_stats(3, 4, seed=0)
    mask = torch.ones(3, 4, dtype=torch.bool)
    with pytest.raises(UserInputError, match="at least one"):
        compensate(layer.weight, layer.bias, stats, [])
    with pytest.raises(UserInputError, match=r"shape \(3, 4\)"):
        compensate(layer.weight, layer.bias, stats, [mask.T])
    for shares in ([1.0, 1.0], [-1.0], [0.0]):
        with pytest.raises(UserInputError, match="level weights"):
            compensate(layer.weight, layer.bias, stats, [mask], shares)
    plain = collect_stats({"a": layer}, [inputs], layer)["a"]
    with pytest.raises(UserInputError, match="hessians=True"):
        compensate(layer.weight, layer.bias, plain, [mask])
    grids = {"a": CellGrid(3, 4, 1)}
    with pytest.raises(UserInputError, match="0 rounds"):
        gradual_rankings({"a": layer}, grids, {"a": stats}, 0.5, 0)
    with pytest.raises(UserInputError, match=r"sparsity of 1\.0"):
        gradual_rankings({"a": layer}, grids, {"a": stats}, 1.0)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.raises(UserInputError, match="weight of a contains NaN"):
        gradual_rankings({"a": layer}, grids, {"a": stats})
