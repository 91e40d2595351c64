"""Int8 packing: every level unpacks to the masked, rounded weight; quads are whole and fillers zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS, BoolArray, CellGrid
from lavolta.sparsity.packing_int8 import MOST_OF_A_SIGN, QUAD, PackedInt8, pack_int8, unpack_int8

grids = st.builds(CellGrid, st.integers(1, 21), st.integers(1, 19), st.sampled_from(CELL_ROWS))
seeds = st.integers(0, 2**32 - 1)


def packed_case(
    grid: CellGrid, seed: int, levels: int, density: float
) -> tuple[np.ndarray, list[BoolArray], PackedInt8]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((grid.out_features, grid.in_features)).astype(np.float32)
    masks = [rng.random(grid.shape) < density for _ in range(levels)]
    return weight, masks, pack_int8(weight, masks, grid.cell_rows)


@given(grids, seeds, st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_each_level_unpacks_to_its_masked_rounded_weight(
    grid: CellGrid, seed: int, levels: int, density: float
) -> None:
    weight, masks, packed = packed_case(grid, seed, levels, density)
    stored = grid.expand(np.logical_or.reduce(masks))
    np.testing.assert_allclose(packed.scale, np.where(stored, np.abs(weight), 0.0).max(axis=1) / 127, rtol=1e-6)
    for level, mask in enumerate(masks):
        kept = grid.expand(mask)
        unpacked = unpack_int8(packed, level)
        assert (unpacked[~kept] == 0.0).all()
        # Half a step, and the roundings of the quotient (at most 127) and of the product.
        error = np.abs(unpacked - weight)[kept]
        limit = (0.5 + 127 * 3 * np.finfo(np.float32).eps) * np.broadcast_to(packed.scale[:, None], weight.shape)[kept]
        assert (error <= limit).all()
        assert packed.kept_cells(level) == mask.sum()


@given(grids, seeds, st.integers(1, 4), st.sampled_from([0.1, 0.6, 1.0]))
def test_quads_are_whole_and_fillers_are_zero(grid: CellGrid, seed: int, levels: int, density: float) -> None:
    _, masks, packed = packed_case(grid, seed, levels, density)
    assert packed.values.shape == (len(packed.columns) // QUAD, grid.cell_rows, QUAD)
    assert packed.values.min(initial=0) >= -127
    signatures = sum(mask.astype(np.int64) << level for level, mask in enumerate(masks))
    sizes = [int((row == value).sum()) for row in signatures for value in np.unique(row[row > 0])]
    assert len(packed.columns) == sum(-(-size // QUAD) * QUAD for size in sizes)
    assert int(packed.fillers.sum()) == len(packed.columns) - sum(sizes)
    by_cell = packed.values.transpose(0, 2, 1).reshape(-1, grid.cell_rows)
    assert not by_cell[packed.fillers].any()
    # Fillers come last in their quad.
    quads = packed.fillers.reshape(-1, QUAD)
    assert (quads[:, 1:] >= quads[:, :-1]).all()


def too_large_pairs(packed: PackedInt8) -> int:
    """Pairs in which some row has more than `MOST_OF_A_SIGN` of one sign."""
    pairs = packed.values.astype(np.int64).reshape(-1, packed.grid.cell_rows, 2, 2)
    of_a_sign = np.maximum(np.maximum(pairs, 0).sum(axis=3), np.maximum(-pairs, 0).sum(axis=3))
    return int((of_a_sign > MOST_OF_A_SIGN).any(axis=1).sum())


@pytest.mark.parametrize("cell_rows", CELL_ROWS)
def test_neighbors_change_places_where_both_pairs_fit_then(cell_rows: int) -> None:
    """Columns whose signs alternate two by two are too large in every pair, and in none once partners are exchanged."""
    weight = np.tile(np.array([1.0, 1.0, -1.0, -1.0], np.float32), (cell_rows, 6))
    packed = pack_int8(weight, [np.ones((1, 24), bool)], cell_rows)
    assert too_large_pairs(packed) == 0
    assert sorted(packed.columns.tolist()) == list(range(24))
    np.testing.assert_array_equal(np.sign(unpack_int8(packed, 0)), weight)


def test_pairs_do_not_leave_their_group() -> None:
    """Two groups, each of one sign: nothing can fit, and every cell stays with the levels that keep it."""
    weight = np.repeat(np.array([[1.0, -1.0]], np.float32), 8, axis=1)
    sparse = np.arange(16)[None, :] < 8
    packed = pack_int8(weight, [np.ones((1, 16), bool), sparse], 1)
    assert sorted(packed.columns[:8].tolist()) == list(range(8))
    assert too_large_pairs(packed) == 8


@given(seeds, st.sampled_from(CELL_ROWS), st.integers(1, 3))
def test_packing_makes_no_pair_too_large_that_was_not(seed: int, cell_rows: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    grid = CellGrid(cell_rows, 61, cell_rows)
    weight = rng.standard_normal((cell_rows, 61)).astype(np.float32)
    masks = [rng.random(grid.shape) < 0.7 for _ in range(levels)]
    packed = pack_int8(weight, masks, cell_rows)
    # The same cells by column inside their groups, as they were before any exchange.
    signature = sum(mask.astype(np.int64) << level for level, mask in enumerate(masks))[0]
    values = np.rint(weight / packed.scale[:, None]).astype(np.int64)
    before = 0
    for kept in np.unique(signature[signature > 0]):
        columns = np.flatnonzero(signature == kept)
        pairs = values[:, columns[: len(columns) // 2 * 2]].reshape(cell_rows, -1, 2)
        of_a_sign = np.maximum(np.maximum(pairs, 0).sum(axis=2), np.maximum(-pairs, 0).sum(axis=2))
        before += int((of_a_sign > MOST_OF_A_SIGN).any(axis=0).sum())
    assert too_large_pairs(packed) <= before


def test_golden_layout_of_two_nested_levels() -> None:
    # By hand: band 0 keeps column 2 in both levels, 0 and 3 in the first; band 1 (one real row) column 1 in the first.
    # Its rows have largest weights 3, 7 and 9; 4 * 127 / 7 = 72.57 and 6 * 127 / 7 = 108.86.
    weight = np.arange(12, dtype=np.float64).reshape(3, 4)
    dense = np.array([[True, False, True, True], [False, True, False, False]])
    sparse = np.array([[False, False, True, False], [False, False, False, False]])
    packed = pack_int8(weight, [dense, sparse], 2)
    assert packed.columns.tolist() == [2, 2, 2, 2, 0, 3, 0, 0, 1, 1, 1, 1]
    assert packed.values.tolist() == [
        [[85, 0, 0, 0], [109, 0, 0, 0]],
        [[0, 127, 0, 0], [73, 127, 0, 0]],
        [[127, 0, 0, 0], [0, 0, 0, 0]],
    ]
    assert packed.groups.kept_by.tolist() == [0b11, 0b01]
    assert packed.groups.sizes.tolist() == [[[1, 0]], [[1, 1]]]
    np.testing.assert_array_equal(packed.scale, np.array([3, 7, 9], dtype=np.float32) / np.float32(127))


def test_weights_without_size_have_no_scale() -> None:
    """Rows of zeros, and rows whose step would be no normal number."""
    weight = np.array([[0.0, 0.0], [1e-40, -1e-40], [1.0, 0.5]], dtype=np.float32)
    packed = pack_int8(weight, [np.ones((3, 2), dtype=bool)], 1)
    assert packed.scale[:2].tolist() == [0.0, 0.0]
    assert unpack_int8(packed, 0)[:2].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert unpack_int8(packed, 0)[2, 0] == 1.0


def test_wrong_values_are_refused_in_words() -> None:
    mask = np.ones((1, 3), dtype=bool)
    with pytest.raises(UserInputError, match="0 levels"):
        pack_int8(np.ones((4, 3)), [], 4)
    with pytest.raises(UserInputError, match="NaN or infinity"):
        pack_int8(np.full((4, 3), np.nan), [mask], 4)
