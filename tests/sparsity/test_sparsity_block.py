"""Block pruning: the pitfalls that papers/rt3.md lists for it, each turned into a test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.sparsity.block import GroupGrid, RemovedGroups, block_prune_cells, prune_groups, random_groups
from lavolta.sparsity.cells import CellGrid

MODES = ("row", "column")
SCOPES = ("layer", "block")
shapes = st.tuples(st.integers(1, 17), st.integers(1, 17))
seeds = st.integers(0, 2**32 - 1)
modes = st.sampled_from(MODES)
scopes = st.sampled_from(SCOPES)


def looped_norms(weight: np.ndarray, mode: str, size: int) -> np.ndarray:
    """The plain loop over blocks and lines that the one vectorized call replaces."""
    along = weight.T if mode == "row" else weight
    blocks = [along[start : start + size] for start in range(0, len(along), size)]
    return np.array([[np.sqrt((block[:, line] ** 2).sum()) for line in range(along.shape[1])] for block in blocks])


@given(shapes, seeds, modes, st.integers(1, 20))
def test_vectorized_norms_equal_the_loop(shape: tuple[int, int], seed: int, mode: str, size: int) -> None:
    weight = np.random.default_rng(seed).standard_normal(shape)
    grid = GroupGrid(*shape, mode, size)
    expected = looped_norms(weight, mode, size)
    assert grid.shape == expected.shape
    # Two ways to add `size` squares differ by at most size roundings, and the scale adds three.
    np.testing.assert_allclose(grid.norms(weight), expected, rtol=(size + 3) * np.finfo(float).eps)


def test_column_blocks_are_a_real_split_and_not_a_reshape() -> None:
    # By hand. A plain reshape of this weight to (2, 6) would mix columns: its rows are (0..5) and (6..11).
    weight = np.arange(12, dtype=float).reshape(4, 3)
    grid = GroupGrid(4, 3, "column", 2)
    np.testing.assert_allclose(grid.norms(weight) ** 2, [[0 + 9, 1 + 16, 4 + 25], [36 + 81, 49 + 100, 64 + 121]])
    strips = GroupGrid(4, 3, "row", 2)
    np.testing.assert_allclose(
        strips.norms(weight) ** 2, [[0 + 1, 9 + 16, 36 + 49, 81 + 100], [4, 25, 64, 121]], rtol=1e-15
    )


def test_ragged_block_counts_as_padded_with_zeros() -> None:
    weight = np.random.default_rng(0).standard_normal((7, 5))
    padded = np.concatenate([weight, np.zeros((2, 5))])
    np.testing.assert_array_equal(
        GroupGrid(7, 5, "column", 3).norms(weight), GroupGrid(9, 5, "column", 3).norms(padded)
    )


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_norms_neither_vanish_nor_overflow(scale: float) -> None:
    np.testing.assert_allclose(GroupGrid(2, 1, "column", 2).norms(np.array([[3.0], [4.0]]) * scale), 5 * scale)


@given(shapes, seeds, modes, st.integers(1, 20))
def test_expanded_mask_says_for_each_weight_what_its_group_says(
    shape: tuple[int, int], seed: int, mode: str, size: int
) -> None:
    grid = GroupGrid(*shape, mode, size)
    mask = np.random.default_rng(seed).random(grid.shape) < 0.5
    expanded = grid.expand(mask)
    for row, column in np.ndindex(shape):
        block, line = (column // size, row) if mode == "row" else (row // size, column)
        assert expanded[row, column] == mask[block, line]


@given(shapes, seeds, modes, st.integers(1, 9), scopes, st.floats(0, 1), st.booleans())
def test_count_is_exact_whatever_the_ties(
    shape: tuple[int, int], seed: int, mode: str, size: int, scope: str, ratio: float, constant: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct values make ties at the threshold the rule; a constant weight makes everything a tie.
    weight = np.ones(shape) if constant else rng.integers(0, 3, shape).astype(float)
    removed = prune_groups(weight, ratio, mode, size, scope, keep_rows=False)
    blocks, lines = removed.grid.shape
    if scope == "layer":
        assert removed.removed.sum() == int(np.floor(ratio * blocks * lines + 0.5))
    else:
        assert (removed.removed.sum(axis=1) == int(np.floor(ratio * lines + 0.5))).all()
    again = prune_groups(weight.copy(), ratio, mode, size, scope, keep_rows=False)
    np.testing.assert_array_equal(removed.removed, again.removed)


@given(shapes, seeds, modes, st.integers(1, 9), st.floats(0, 1))
def test_nothing_kept_is_weaker_than_anything_removed(
    shape: tuple[int, int], seed: int, mode: str, size: int, ratio: float
) -> None:
    weight = np.random.default_rng(seed).standard_normal(shape)
    found = prune_groups(weight, ratio, mode, size, keep_rows=False)
    norms = found.grid.norms(weight)
    if found.removed.any() and not found.removed.all():
        assert norms[found.removed].max() <= norms[~found.removed].min()


def test_ties_go_in_the_order_of_blocks_and_lines() -> None:
    found = prune_groups(np.ones((4, 3)), 0.5, "column", 2, keep_rows=False)
    assert found.removed.tolist() == [[True, True, True], [False, False, False]]


@given(shapes, seeds, modes, st.integers(1, 6), scopes, st.floats(0, 1), st.booleans())
def test_guard_keeps_a_group_of_every_line_and_the_count(
    shape: tuple[int, int], seed: int, mode: str, size: int, scope: str, ratio: float, by_chance: bool
) -> None:
    rng = np.random.default_rng(seed)
    grid = GroupGrid(*shape, mode, size)
    blocks, lines = grid.shape
    # Whole lines of tiny weights are what an unguarded prune would take.
    weight = rng.standard_normal(shape) * np.where(rng.random(shape[0]) < 0.5, 1e-6, 1.0)[:, None]
    weight = weight * np.where(rng.random(shape[1]) < 0.5, 1e-6, 1.0)
    expected = int(np.floor(ratio * grid.groups + 0.5))
    if scope == "block":
        expected = blocks * int(np.floor(ratio * lines + 0.5))

    def prune() -> RemovedGroups:
        return random_groups(grid, ratio, rng, scope) if by_chance else prune_groups(weight, ratio, mode, size, scope)

    if grid.groups - expected < lines:
        with pytest.raises(UserInputError, match="cannot leave one group"):
            prune()
        return
    found = prune()
    assert not found.removed.all(axis=0).any()
    assert found.removed.sum() == expected
    if scope == "block":
        assert len(set(found.removed.sum(axis=1).tolist())) == 1
    lines_alive = ~found.weights()
    assert lines_alive.any(axis=1 if mode == "row" else 0).all()


@given(shapes, seeds, modes, st.integers(1, 6), scopes, st.floats(0, 0.5))
def test_guard_changes_nothing_where_no_line_is_lost(
    shape: tuple[int, int], seed: int, mode: str, size: int, scope: str, ratio: float
) -> None:
    weight = np.random.default_rng(seed).integers(1, 4, shape).astype(float)
    free = prune_groups(weight, ratio, mode, size, scope, keep_rows=False)
    if not free.removed.all(axis=0).any():
        np.testing.assert_array_equal(prune_groups(weight, ratio, mode, size, scope).removed, free.removed)


def test_guard_protects_the_strongest_group_of_a_weak_row() -> None:
    # Row 0 is the weakest in both strips; without the guard both of its groups are the first to go.
    weight = np.array([[1.0, 2.0], [5.0, 6.0], [7.0, 8.0]])
    free = prune_groups(weight, 2 / 6, "row", 1, keep_rows=False)
    assert free.weights().tolist() == [[True, True], [False, False], [False, False]]
    kept = prune_groups(weight, 2 / 6, "row", 1)
    assert kept.weights().tolist() == [[True, False], [True, False], [False, False]]
    by_block = prune_groups(weight, 1 / 3, "row", 1, scope="block")
    # In the second strip the cheapest exchange costs 6 - 2, in the first 5 - 1: the same, and the first strip wins.
    assert by_block.weights().tolist() == [[False, True], [True, False], [False, False]]


@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 4),
    st.floats(0, 0.5),
    seeds,
    st.booleans(),
)
def test_cells_are_removed_exactly_where_their_weights_are(
    rows: int, columns: int, cell_rows: int, factor: int, ratio: float, seed: int, by_chance: bool
) -> None:
    grid = CellGrid(rows, columns, cell_rows)
    weight = np.random.default_rng(seed).standard_normal((rows, columns))
    band_rows = cell_rows * factor
    rng = np.random.default_rng(seed) if by_chance else None
    cells = block_prune_cells(grid, weight, ratio, band_rows, rng, keep_rows=False)
    if by_chance:
        groups = GroupGrid(rows, columns, "column", band_rows)
        expected = random_groups(groups, ratio, np.random.default_rng(seed), keep_rows=False)
    else:
        expected = prune_groups(weight, ratio, "column", band_rows, keep_rows=False)
    assert cells.shape == grid.shape
    np.testing.assert_array_equal(grid.expand(cells), expected.weights())


def test_one_band_of_all_rows_is_a_whole_column() -> None:
    grid = CellGrid(7, 3, 4)
    weight = np.ones((7, 3)) * [3.0, 1.0, 2.0]
    assert block_prune_cells(grid, weight, 1 / 3, 7, keep_rows=False).tolist() == [[False, True, False]] * 2


def test_row_strips_are_unions_of_cells_of_one_row_only() -> None:
    found = prune_groups(np.eye(3) + 0.1, 0.3, "row", 2)
    np.testing.assert_array_equal(found.cells(CellGrid(3, 3, 1)), found.weights())
    with pytest.raises(UserInputError, match="cut through cells"):
        found.cells(CellGrid(3, 3, 2))


def test_random_groups_follow_the_seed_only() -> None:
    grid = GroupGrid(12, 7, "column", 4)
    first, second, other = (random_groups(grid, 0.4, np.random.default_rng(seed)).removed for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_random_groups_are_fair() -> None:
    # 2,000 draws of 1 in 4 groups: mean 500, deviation sqrt(2000 * 3 / 16) = 19.4; five deviations is 1 in 1.7 million.
    grid = GroupGrid(2, 2, "column", 1)
    rng = np.random.default_rng(0)
    counts = sum(random_groups(grid, 0.25, rng).removed.astype(int) for _ in range(2000))
    assert (np.abs(counts - 500) < 97).all()


def test_all_zero_weight_is_pruned_by_count() -> None:
    assert prune_groups(np.zeros((6, 5)), 0.5, "column", 2).removed.sum() == 8


def test_wrong_values_are_refused_in_words() -> None:
    weight = np.ones((4, 4))
    for ratio in (-0.1, 1.1, np.nan):
        with pytest.raises(UserInputError, match="ratio"):
            prune_groups(weight, ratio, "row", 2)
    with pytest.raises(UserInputError, match="'diagonal'"):
        prune_groups(weight, 0.5, "diagonal", 2)
    with pytest.raises(UserInputError, match="'model'"):
        prune_groups(weight, 0.5, "row", 2, scope="model")
    with pytest.raises(UserInputError, match="group of 0"):
        prune_groups(weight, 0.5, "row", 0)
    for bad in (np.nan, np.inf):
        with pytest.raises(UserInputError, match="NaN or infinity"):
            prune_groups(np.where(np.eye(4) > 0, bad, 1.0), 0.5, "row", 2)
    with pytest.raises(UserInputError, match="cut through cells"):
        block_prune_cells(CellGrid(8, 4, 4), np.ones((8, 4)), 0.2, 6)
    with pytest.raises(UserInputError, match=r"lower the ratio 0\.8 to 0\.5"):
        block_prune_cells(CellGrid(8, 4, 4), np.ones((8, 4)), 0.8, 4)
    with pytest.raises(UserInputError, match="does not fit"):
        GroupGrid(4, 4, "row", 2).norms(np.ones((4, 5)))
