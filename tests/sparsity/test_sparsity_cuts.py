"""Cuts: they say what the runs of nested levels say, and no other layer has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.sparsity.cells import CELL_ROWS, BoolArray, CellGrid
from lavolta.sparsity.cuts import Cuts, cuts_of, runs_of_cuts
from lavolta.sparsity.packing import PackedLinear, column_blocks, pack_linear
from lavolta.sparsity.packing_int8 import PackedInt8, pack_int8

Pack = Callable[[np.ndarray, list[BoolArray], int], PackedLinear | PackedInt8]
PACKERS = (pack_linear, pack_int8)
grids = st.builds(CellGrid, st.integers(1, 21), st.integers(1, 19), st.sampled_from(CELL_ROWS))
seeds = st.integers(0, 2**32 - 1)
shares = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=5)


def nested(grid: CellGrid, rng: np.random.Generator, keep: list[float]) -> list[BoolArray]:
    share = rng.random(grid.shape)
    return [share < part for part in sorted(keep, reverse=True)]


def packed_of(grid: CellGrid, seed: int, masks: list[BoolArray], pack: Pack) -> PackedLinear | PackedInt8:
    weight = np.random.default_rng(seed).standard_normal((grid.out_features, grid.in_features)).astype(np.float32)
    return pack(weight, masks, grid.cell_rows)


@given(grids, seeds, shares, st.sampled_from(PACKERS))
def test_nested_levels_have_cuts_that_give_their_runs(grid: CellGrid, seed: int, keep: list[float], pack: Pack) -> None:
    masks = nested(grid, np.random.default_rng(seed), keep)
    packed = packed_of(grid, seed, masks, pack)
    cuts = cuts_of(packed)
    assert cuts is not None
    assert cuts.starts.dtype == np.uint32
    assert cuts.cuts.dtype == np.uint16
    assert cuts.cuts.shape == (len(masks), grid.bands, 1)
    runs, run_ptr = runs_of_cuts(cuts)
    np.testing.assert_array_equal(runs, packed.runs)
    np.testing.assert_array_equal(run_ptr, packed.run_ptr)
    if pack is pack_linear:
        for level, mask in enumerate(masks):
            np.testing.assert_array_equal(cuts.cuts[level, :, 0], mask.sum(axis=1))


@given(seeds, shares, st.sampled_from([4, 16]), st.sampled_from([513, 770]))
def test_wide_layers_have_a_cut_for_every_block(seed: int, keep: list[float], cell_rows: int, columns: int) -> None:
    """Blocks that a level keeps whole are one run with the next, so there are fewer runs than cuts."""
    grid = CellGrid(2 * cell_rows - 1, columns, cell_rows)
    masks = nested(grid, np.random.default_rng(seed), keep)
    packed = packed_of(grid, seed, masks, pack_linear)
    cuts = cuts_of(packed)
    assert cuts is not None
    blocks = column_blocks(grid)
    assert cuts.cuts.shape == (len(masks), grid.bands, blocks)
    width = -(-columns // blocks)
    for level, mask in enumerate(masks):
        for block in range(blocks):
            inside = mask[:, block * width : (block + 1) * width]
            np.testing.assert_array_equal(cuts.cuts[level, :, block], inside.sum(axis=1))
    for mine, theirs in zip(runs_of_cuts(cuts), (packed.runs, packed.run_ptr), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@given(grids, seeds, st.sampled_from(PACKERS))
def test_a_level_that_keeps_what_the_densest_does_not_has_runs(grid: CellGrid, seed: int, pack: Pack) -> None:
    rng = np.random.default_rng(seed)
    first = rng.random(grid.shape) < 0.5
    first.flat[rng.integers(grid.cells)] = False
    assert cuts_of(packed_of(grid, seed, [first, np.ones(grid.shape, bool)], pack)) is None


def test_levels_that_are_no_part_of_each_other_have_runs() -> None:
    """All of both is in the densest level, but neither is in the other; and the same with the sparser one first."""
    grid = CellGrid(2, 12, 2)
    column = np.arange(12)[None, :]
    everything, left, right = column >= 0, column < 6, column >= 6
    assert cuts_of(packed_of(grid, 0, [everything, left, right], pack_linear)) is None
    assert cuts_of(packed_of(grid, 0, [everything, column < 3, left], pack_linear)) is None
    assert cuts_of(packed_of(grid, 0, [everything, left, column < 3], pack_linear)) is not None


@pytest.mark.parametrize(("columns", "fits"), [(65535, True), (65536, False)])
def test_two_bytes_count_all_but_the_widest_band(columns: int, fits: bool) -> None:
    packed = pack_linear(np.ones((1, columns), np.float32), [np.ones((1, columns), bool)], 1)
    assert (cuts_of(packed) is not None) == fits


def test_golden_cuts_and_runs() -> None:
    """By hand: two bands of two blocks; the first keeps all of its first block, so its runs touch and are one."""
    cuts = Cuts(
        np.array([0, 3, 5, 5, 9], np.uint32),
        np.array([[[3, 2], [0, 4]], [[3, 1], [0, 2]], [[0, 1], [0, 0]]], np.uint16),
    )
    runs, run_ptr = runs_of_cuts(cuts)
    assert runs.tolist() == [[0, 5], [5, 4], [0, 4], [5, 2], [3, 1]]
    assert run_ptr.tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 5]]
