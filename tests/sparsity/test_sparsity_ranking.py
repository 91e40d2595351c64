"""Rankings and cuts: nesting, exact sparsity, ties, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.ranking import (
    NEVER,
    LayerRanking,
    are_nested,
    free_ranking,
    level_masks,
    model_sparsity,
    uniform_cuts,
)

grids = st.builds(CellGrid, st.integers(1, 21), st.integers(1, 17), st.sampled_from(CELL_ROWS))
seeds = st.integers(0, 2**32 - 1)


def random_ranking(grid: CellGrid, seed: int, distinct: int | None = None) -> LayerRanking:
    """A free ranking with some cells removed, or one with ``distinct`` shared ranks."""
    rng = np.random.default_rng(seed)
    removed = rng.random(grid.shape) < 0.3
    if distinct is None:
        return free_ranking(grid, rng.random(grid.shape), removed)
    rank = rng.integers(0, distinct, grid.shape, dtype=np.int32)
    return LayerRanking(grid, np.where(removed, np.int32(NEVER), rank).astype(np.int32))


@given(grids, seeds, st.lists(st.integers(0, 400), min_size=2, max_size=5), st.sampled_from([None, 1, 5]))
def test_any_two_cuts_are_nested(grid: CellGrid, seed: int, cuts: list[int], distinct: int | None) -> None:
    ranking = random_ranking(grid, seed, distinct)
    assert are_nested([{"a": ranking.keep(cut)} for cut in sorted(cuts, reverse=True)])


@given(grids, seeds, st.floats(0, 0.999), st.sampled_from([None, 1, 5]))
def test_cut_reaches_its_sparsity_and_no_larger_cut_does(
    grid: CellGrid, seed: int, sparsity: float, distinct: int | None
) -> None:
    ranking = random_ranking(grid, seed, distinct)
    cut = ranking.cut_for_sparsity(sparsity)
    half_weight = 0.5 / (grid.out_features * grid.in_features)
    assert grid.weight_sparsity(ranking.keep(cut)) >= sparsity - half_weight - 1e-9
    if cut < ranking.max_cut:
        assert grid.weight_sparsity(ranking.keep(cut + 1)) < sparsity - half_weight + 1e-9


@given(grids, seeds)
def test_removed_cells_come_back_at_no_cut(grid: CellGrid, seed: int) -> None:
    rng = np.random.default_rng(seed)
    removed = rng.random(grid.shape) < 0.5
    ranking = free_ranking(grid, rng.random(grid.shape), removed)
    assert not (ranking.keep(NEVER) & removed).any()
    np.testing.assert_array_equal(ranking.keep(ranking.max_cut), ~removed)
    assert ranking.max_cut == (~removed).sum()


def test_highest_score_is_kept_longest_and_ties_keep_order() -> None:
    ranking = free_ranking(CellGrid(2, 3, 1), np.array([[1.0, 3.0, 1.0], [3.0, 0.0, 2.0]]))
    assert ranking.rank.tolist() == [[3, 0, 4], [1, 5, 2]]


def test_everything_removed_leaves_cut_zero() -> None:
    grid = CellGrid(3, 2, 4)
    ranking = free_ranking(grid, np.ones(grid.shape), np.ones(grid.shape, dtype=bool))
    assert ranking.max_cut == 0
    assert ranking.cut_for_sparsity(0.0) == 0
    assert not ranking.keep(10).any()


def test_ragged_band_counts_its_real_rows() -> None:
    # 5 rows in cells of 4: the second band's cells hold one weight each. 8 of 10 weights must stay at 20 %.
    grid = CellGrid(5, 2, 4)
    ranking = free_ranking(grid, np.array([[4.0, 3.0], [2.0, 1.0]]))
    assert grid.weight_sparsity(ranking.keep(ranking.cut_for_sparsity(0.2))) == pytest.approx(0.2)


@given(seeds, st.floats(0, 0.99))
def test_model_sparsity_is_the_share_of_all_weights(seed: int, sparsity: float) -> None:
    shapes = {"a": CellGrid(7, 5, 4), "b": CellGrid(16, 3, 4)}
    rankings = {name: random_ranking(grid, seed) for name, grid in shapes.items()}
    masks = level_masks(rankings, uniform_cuts(rankings, sparsity))
    kept = sum(shapes[name].expand(mask).sum() for name, mask in masks.items())
    assert model_sparsity(shapes, masks) == pytest.approx(1 - kept / (7 * 5 + 16 * 3))


def test_wrong_values_are_refused_in_words() -> None:
    grid = CellGrid(4, 3, 4)
    ranking = free_ranking(grid, np.ones(grid.shape))
    with pytest.raises(UserInputError, match="sparsity"):
        ranking.cut_for_sparsity(1.0)
    with pytest.raises(UserInputError, match="NaN"):
        free_ranking(grid, np.full(grid.shape, np.nan))
    with pytest.raises(UserInputError, match="do not fit"):
        free_ranking(grid, np.ones((3, 4)))
    with pytest.raises(UserInputError, match="int32"):
        LayerRanking(grid, np.zeros(grid.shape, dtype=np.int64))
    with pytest.raises(UserInputError, match="no cut for b"):
        level_masks({"b": ranking}, {})


def test_sets_of_different_cells_are_not_nested() -> None:
    first, second = np.array([[True, False]]), np.array([[False, True]])
    assert not are_nested([{"a": first}, {"a": second}])
