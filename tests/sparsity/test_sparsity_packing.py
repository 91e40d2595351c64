"""Packing: every level unpacks to the masked weight, nested levels stream one prefix per band and block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.packing import MAX_LEVELS, column_blocks, pack_linear, unpack_linear
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
def test_nested_levels_stream_one_prefix_of_each_band(grid: CellGrid, seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    ranking = free_ranking(grid, rng.random(grid.shape))
    masks = [ranking.keep(cut) for cut in sorted(cuts, reverse=True)]
    weight = rng.standard_normal((grid.out_features, grid.in_features))
    packed = pack_linear(weight, masks, grid.cell_rows)
    starts = np.concatenate(([0], np.cumsum(masks[0].sum(axis=1))))
    for level, mask in enumerate(masks):
        for band in range(grid.bands):
            runs = packed.runs[packed.run_ptr[level, band] : packed.run_ptr[level, band + 1]]
            count = int(mask[band].sum())
            assert runs.tolist() == ([[starts[band], count]] if count else [])


@given(grids, seeds, st.integers(1, 4))
def test_runs_of_a_band_are_ascending_apart_and_inside_it(grid: CellGrid, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [rng.random(grid.shape) < 0.4 for _ in range(levels)]
    packed = pack_linear(np.ones((grid.out_features, grid.in_features)), masks, grid.cell_rows)
    assert (np.diff(packed.run_ptr.astype(np.int64), axis=1) >= 0).all()
    ends = np.cumsum(np.logical_or.reduce(masks).sum(axis=1))
    for level in range(levels):
        for band in range(grid.bands):
            position = int(ends[band - 1]) if band else 0
            for run, (start, count) in enumerate(packed.runs[slice(*packed.run_ptr[level, band : band + 2])].tolist()):
                # Adjacent runs are merged, so a later one leaves a gap.
                assert start >= position + (run > 0)
                assert count > 0
                position = start + count
            assert position <= ends[band]


def test_golden_layout_of_two_nested_levels() -> None:
    # By hand: band 0 keeps column 2 in both levels, 0 and 3 in the first; band 1 (one real row) column 1 in the first.
    weight = np.arange(12, dtype=np.float64).reshape(3, 4)
    dense = np.array([[True, False, True, True], [False, True, False, False]])
    sparse = np.array([[False, False, True, False], [False, False, False, False]])
    packed = pack_linear(weight, [dense, sparse], 2)
    assert packed.columns.tolist() == [2, 0, 3, 1]
    assert packed.values.tolist() == [[2, 6], [0, 4], [3, 7], [9, 0]]
    assert packed.runs.tolist() == [[0, 3], [3, 1], [0, 1]]
    assert packed.run_ptr.tolist() == [[0, 1, 2], [2, 3, 3]]


@pytest.mark.parametrize(("columns", "blocks"), [(512, 1), (513, 3), (768, 3), (770, 4)])
@pytest.mark.parametrize("cell_rows", [2, 4, 16])
def test_wide_layers_lie_block_by_block(columns: int, blocks: int, cell_rows: int) -> None:
    """In a block of columns a nested level is a prefix: groups of sparser levels come first, by column in a group."""
    rng = np.random.default_rng(columns)
    grid = CellGrid(3 * cell_rows - 1, columns, cell_rows)
    ranking = free_ranking(grid, rng.random(grid.shape))
    masks = [ranking.keep(cut) for cut in (grid.cells, grid.cells // 2, grid.cells // 10)]
    weight = rng.standard_normal((grid.out_features, grid.in_features)).astype(np.float32)
    packed = pack_linear(weight, masks, cell_rows)
    blocks = blocks if cell_rows >= 4 else 1
    assert column_blocks(grid) == blocks
    width = -(-columns // blocks)
    for level, mask in enumerate(masks):
        np.testing.assert_array_equal(unpack_linear(packed, level), weight * grid.expand(mask))
        for band in range(grid.bands):
            expected: list[list[int]] = []
            runs = packed.runs[packed.run_ptr[level, band] : packed.run_ptr[level, band + 1]].tolist()
            start = int(masks[0][:band].sum())
            for low in range(0, columns, width):
                inside = slice(low, low + width)
                count = int(mask[band, inside].sum())
                if count and expected and sum(expected[-1]) == start:
                    expected[-1][1] += count
                elif count:
                    expected.append([start, count])
                kept = packed.columns[start : start + count].astype(np.int64)
                assert sorted(kept.tolist()) == (low + np.flatnonzero(mask[band, inside])).tolist()
                assert (np.diff(kept) < 0).sum() < len(masks) - level or count < 2
                start += int(masks[0][band, inside].sum())
            assert runs == expected


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
    for bad in (np.nan, np.inf):
        with pytest.raises(UserInputError, match="NaN or infinity"):
            pack_linear(np.full((4, 3), bad), [mask], 4)
