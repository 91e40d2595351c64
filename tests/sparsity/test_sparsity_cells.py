"""Cells and bands: ragged edges, shares, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS, MAX_IN_FEATURES, CellGrid

# One row, one less and one more than the cells, primes, and a shape of a real layer.
SHAPES = [(1, 1), (3, 5), (4, 1), (5, 7), (7, 2), (8, 3), (9, 13), (17, 11), (31, 384)]

grids = st.builds(CellGrid, st.integers(1, 37), st.integers(1, 23), st.sampled_from(CELL_ROWS))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
def test_bands_cover_every_row_once(shape: tuple[int, int], cell_rows: int) -> None:
    grid = CellGrid(*shape, cell_rows)
    rows = grid.rows_per_band()
    assert rows.sum() == shape[0]
    assert (rows[:-1] == cell_rows).all()
    assert 1 <= rows[-1] <= cell_rows
    assert grid.cells == grid.bands * shape[1]


@given(grids, st.integers(0, 2**32 - 1))
def test_banded_weight_is_the_weight_and_zeros(grid: CellGrid, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((grid.out_features, grid.in_features))
    bands = grid.to_bands(weight)
    assert bands.shape == (grid.bands, grid.cell_rows, grid.in_features)
    rows = bands.reshape(-1, grid.in_features)
    np.testing.assert_array_equal(rows[: grid.out_features], weight)
    assert not rows[grid.out_features :].any()


@given(grids, st.integers(0, 2**32 - 1))
def test_expanded_mask_agrees_with_cell_of_each_weight(grid: CellGrid, seed: int) -> None:
    mask = np.random.default_rng(seed).random(grid.shape) < 0.5
    expanded = grid.expand(mask)
    for row in range(grid.out_features):
        np.testing.assert_array_equal(expanded[row], mask[row // grid.cell_rows])
    assert grid.weight_sparsity(mask) == pytest.approx(1.0 - expanded.mean(), abs=1e-12)


@given(grids, st.integers(0, 2**32 - 1))
def test_cell_score_is_mean_of_real_rows_times_height(grid: CellGrid, seed: int) -> None:
    saliency = np.random.default_rng(seed).random((grid.out_features, grid.in_features))
    scores = grid.cell_scores(saliency)
    for band in range(grid.bands):
        real = saliency[band * grid.cell_rows : (band + 1) * grid.cell_rows]
        np.testing.assert_allclose(scores[band], real.mean(axis=0) * grid.cell_rows, rtol=1e-12)


def test_equal_weights_score_equally_in_a_ragged_band() -> None:
    assert len(np.unique(CellGrid(9, 2, 8).cell_scores(np.full((9, 2), 0.25)))) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((4, 4, 3), "cell_rows"),
        ((0, 4, 4), "no cells"),
        ((4, 0, 4), "no cells"),
        ((4, MAX_IN_FEATURES + 1, 4), "16 bits"),
    ],
)
def test_impossible_grid_is_refused_in_words(arguments: tuple[int, int, int], word: str) -> None:
    with pytest.raises(UserInputError, match=word):
        CellGrid(*arguments)


def test_foreign_shapes_are_refused() -> None:
    grid = CellGrid(5, 3, 4)
    with pytest.raises(UserInputError, match="does not fit"):
        grid.to_bands(np.zeros((3, 5)))
    with pytest.raises(UserInputError, match="does not fit"):
        grid.expand(np.zeros((5, 3), dtype=bool))
