"""Packing: every level unpacks to the masked weight, nested levels are the beginning of all cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.groups import MAX_LEVELS, MOST_GROUPS
from lavolta.sparsity.packing import column_blocks, pack_linear, unpack_linear
from lavolta.sparsity.ranking import free_ranking

grids = st.builds(CellGrid, st.integers(1, 21), st.integers(1, 19), st.sampled_from(CELL_ROWS))
seeds = st.integers(0, 2**32 - 1)


@given(grids, seeds, st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_each_level_unpacks_to_its_masked_weight(grid: CellGrid, seed: int, levels: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((grid.out_features, grid.in_features)).astype(np.float32)
    masks = [rng.random(grid.shape) < density for _ in range(levels)]
    packed = pack_linear(weight, masks, grid.cell_rows)
    assert len(packed.columns) == np.logical_or.reduce(masks).sum()
    for level, mask in enumerate(masks):
        np.testing.assert_array_equal(unpack_linear(packed, level), weight * grid.expand(mask))
        assert packed.kept_cells(level) == mask.sum()


@given(grids, seeds, st.lists(st.integers(0, 300), min_size=1, max_size=5))
def test_nested_levels_are_the_beginning_of_all_cells(grid: CellGrid, seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    ranking = free_ranking(grid, rng.random(grid.shape))
    masks = [ranking.keep(cut) for cut in sorted(cuts, reverse=True)]
    packed = pack_linear(rng.standard_normal((grid.out_features, grid.in_features)), masks, grid.cell_rows)
    for level, mask in enumerate(masks):
        assert packed.groups.kept_units(level).tolist() == list(range(mask.sum()))


@given(grids, seeds, st.integers(1, 4))
def test_a_level_streams_each_of_its_groups_whole(grid: CellGrid, seed: int, levels: int) -> None:
    """Cells lie by group, band and column, and the groups of a level hold what it keeps, in any layer."""
    rng = np.random.default_rng(seed)
    masks = [rng.random(grid.shape) < 0.4 for _ in range(levels)]
    packed = pack_linear(np.ones((grid.out_features, grid.in_features)), masks, grid.cell_rows)
    groups = packed.groups
    assert groups.sizes.shape == (len(groups.kept_by), 1, grid.bands)
    signature = np.sum([mask.astype(np.uint64) << np.uint64(level) for level, mask in enumerate(masks)], axis=0)
    wanted = [
        (int(group), band, int(column))
        for group in groups.kept_by
        for band in range(grid.bands)
        for column in np.flatnonzero(signature[band] == group)
    ]
    group_of = np.repeat(groups.kept_by, groups.sizes.sum(axis=(1, 2), dtype=np.int64))
    stored = zip(group_of.tolist(), groups.bands().tolist(), packed.columns.tolist(), strict=True)
    assert list(stored) == wanted
    shared = [int(group).bit_count() for group in groups.kept_by]
    assert shared == sorted(shared, reverse=True)


def test_golden_layout_of_two_nested_levels() -> None:
    # By hand: band 0 keeps column 2 in both levels, 0 and 3 in the first; band 1 (one real row) column 3 in both, 1 in
    # the first. What both keep comes first.
    weight = np.arange(12, dtype=np.float64).reshape(3, 4)
    dense = np.array([[True, False, True, True], [False, True, False, True]])
    sparse = np.array([[False, False, True, False], [False, False, False, True]])
    packed = pack_linear(weight, [dense, sparse], 2)
    assert packed.columns.tolist() == [2, 3, 0, 3, 1]
    assert packed.values.tolist() == [[2, 6], [11, 0], [0, 4], [3, 7], [9, 0]]
    assert packed.groups.kept_by.tolist() == [0b11, 0b01]
    assert packed.groups.sizes.tolist() == [[[1, 1]], [[2, 1]]]
    # Bands add up what both levels keep before what the first one does.
    runs, run_ptr = packed.groups.runs(0)
    assert (runs.tolist(), run_ptr.tolist()) == ([[0, 1], [2, 2], [1, 1], [4, 1]], [0, 2, 4])
    runs, run_ptr = packed.groups.runs(1)
    assert (runs.tolist(), run_ptr.tolist()) == ([[0, 1], [1, 1]], [0, 1, 2])


@pytest.mark.parametrize(("columns", "blocks"), [(512, 1), (513, 3), (768, 3), (770, 4)])
@pytest.mark.parametrize("cell_rows", [2, 4, 16])
def test_wide_layers_lie_block_by_block(columns: int, blocks: int, cell_rows: int) -> None:
    """A group's cells are in rising blocks of columns, each of all bands; a band adds them up block by block."""
    rng = np.random.default_rng(columns)
    grid = CellGrid(3 * cell_rows - 1, columns, cell_rows)
    ranking = free_ranking(grid, rng.random(grid.shape))
    masks = [ranking.keep(cut) for cut in (grid.cells, grid.cells // 2, grid.cells // 10)]
    weight = rng.standard_normal((grid.out_features, grid.in_features)).astype(np.float32)
    packed = pack_linear(weight, masks, cell_rows)
    blocks = blocks if cell_rows >= 4 else 1
    assert column_blocks(grid) == blocks
    assert packed.groups.sizes.shape == (3, blocks, grid.bands)
    width = -(-columns // blocks)
    own = [masks[2], masks[1] & ~masks[2], masks[0] & ~masks[1]]
    stored = iter(packed.columns.tolist())
    for group, mask in enumerate(own):
        for block in range(blocks):
            for band in range(grid.bands):
                inside = np.flatnonzero(mask[band, block * width : (block + 1) * width]) + block * width
                assert packed.groups.sizes[group, block, band] == len(inside)
                assert [next(stored) for _ in inside] == inside.tolist()
    for level, mask in enumerate(masks):
        np.testing.assert_array_equal(unpack_linear(packed, level), weight * grid.expand(mask))
        runs, run_ptr = packed.groups.runs(level)
        for band in range(grid.bands):
            read = [packed.columns[first : first + count] for first, count in runs[run_ptr[band] : run_ptr[band + 1]]]
            streamed = np.concatenate([*read, np.zeros(0, np.uint16)]).astype(np.int64)
            assert (np.diff(streamed // width) >= 0).all()
            assert sorted(streamed.tolist()) == np.flatnonzero(mask[band]).tolist()


@pytest.mark.parametrize(("columns", "blocks"), [(65535, 1), (65536, 2)])
def test_two_bytes_count_what_a_block_has_of_a_band(columns: int, blocks: int) -> None:
    packed = pack_linear(np.ones((1, columns), np.float32), [np.ones((1, columns), bool)], 1)
    assert packed.groups.sizes.shape == (1, blocks, 1)
    assert packed.kept_cells(0) == columns
    assert packed.columns.tolist() == list(range(columns))


def test_largest_column_index_fits() -> None:
    weight = np.ones((1, 1 << 16), dtype=np.float32)
    mask = np.zeros((1, 1 << 16), dtype=bool)
    mask[0, -1] = True
    assert pack_linear(weight, [mask], 1).columns.tolist() == [(1 << 16) - 1]


def test_all_64_levels_can_be_told_apart() -> None:
    masks = [np.arange(MAX_LEVELS)[None, :] == level for level in range(MAX_LEVELS)]
    weight = np.arange(1, MAX_LEVELS + 1, dtype=np.float32)[None, :]
    packed = pack_linear(weight, masks, 1)
    for level in range(MAX_LEVELS):
        assert np.flatnonzero(unpack_linear(packed, level)).tolist() == [level]


def test_wrong_values_are_refused_in_words() -> None:
    weight, mask = np.ones((4, 3)), np.ones((1, 3), dtype=bool)
    with pytest.raises(UserInputError, match="0 levels"):
        pack_linear(weight, [], 4)
    with pytest.raises(UserInputError, match="65 levels"):
        pack_linear(weight, [mask] * (MAX_LEVELS + 1), 4)
    with pytest.raises(UserInputError, match="level 1 has shape"):
        pack_linear(weight, [mask, mask.T], 4)
    # Eleven levels, no two cells in the same ones.
    wide = np.arange(1, MOST_GROUPS + 2)[None, :]
    with pytest.raises(UserInputError, match="in 1025 groups"):
        pack_linear(np.ones(wide.shape), [(wide >> level) % 2 == 1 for level in range(11)], 1)
    assert (
        len(pack_linear(np.ones((1, 1024)), [(wide[:, :1024] >> level) % 2 == 1 for level in range(11)], 1).columns)
        == 1024
    )
    for bad in (np.nan, np.inf):
        with pytest.raises(UserInputError, match="NaN or infinity"):
            pack_linear(np.full((4, 3), bad), [mask], 4)
