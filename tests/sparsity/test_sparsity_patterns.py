"""Patterns: nested ranked sets, RT3's binary sets, assignment by argmax, ragged tiles."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.pattern_sets import PatternSet, RankedPatternSet, pattern_storage
from lavolta.sparsity.patterns import (
    assign,
    assign_tiles,
    generate_pattern_set,
    pattern_set_for_model,
    random_pattern_set,
    ranked_pattern_rankings,
)
from lavolta.sparsity.ranking import NEVER, are_nested, level_masks, model_sparsity, uniform_cuts

seeds = st.integers(0, 2**32 - 1)


@st.composite
def models(draw: st.DrawFn) -> tuple[dict[str, CellGrid], dict, dict, int]:
    """One to three layers of odd shapes with scores, removed cells and a tile that may be larger than a layer."""
    cell_rows = draw(st.sampled_from([1, 2, 4]))
    tile = cell_rows * draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(seeds))
    grids = {
        name: CellGrid(draw(st.integers(1, 17)), draw(st.integers(1, 17)), cell_rows)
        for name in "abc"[: draw(st.integers(1, 3))]
    }
    scores = {name: rng.random(grid.shape) * (rng.random(grid.shape) < 0.8) for name, grid in grids.items()}
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    removed = {name: rng.random(grid.shape) < share for name, grid in grids.items()}
    return grids, scores, removed, tile


def preserved(mask: np.ndarray, grid: CellGrid, scores: np.ndarray) -> float:
    return float((scores * mask * (grid.rows_per_band() / grid.cell_rows)[:, None]).sum())


@given(models(), st.integers(1, 4), seeds)
def test_ranked_levels_are_nested_and_within_the_backbone(model: tuple, patterns: int, seed: int) -> None:
    grids, scores, removed, tile = model
    rankings, _ = ranked_pattern_rankings(grids, scores, tile, patterns, np.random.default_rng(seed), removed)
    levels = [level_masks(rankings, uniform_cuts(rankings, sparsity)) for sparsity in (0.0, 0.2, 0.5, 0.8)]
    assert are_nested(levels)
    for name, grid in grids.items():
        np.testing.assert_array_equal(rankings[name].rank == NEVER, removed[name])
        np.testing.assert_array_equal(levels[0][name], ~removed[name])
        assert grid.weight_sparsity(levels[2][name]) >= 0.5 - 0.5 / (grid.out_features * grid.in_features) - 1e-9


@given(models(), st.integers(1, 4), seeds)
def test_every_tile_shows_one_ranking_of_the_set(model: tuple, patterns: int, seed: int) -> None:
    grids, scores, removed, tile = model
    rankings, found = ranked_pattern_rankings(grids, scores, tile, patterns, np.random.default_rng(seed), removed)
    assert found.patterns == patterns
    height = tile // found.cell_rows
    for name, grid in grids.items():
        for top in range(0, grid.bands, height):
            for left in range(0, grid.in_features, tile):
                rank = rankings[name].rank[top : top + height, left : left + tile]
                alive = rank != NEVER
                crops = found.ranks[:, : rank.shape[0], : rank.shape[1]]
                assert any((crop[alive] == rank[alive]).all() for crop in crops)


def test_two_kinds_of_tiles_get_a_pattern_each() -> None:
    # Tiles of one kind keep their weight in the upper half, of the other in the left half; noise is a tenth of that.
    rng = np.random.default_rng(3)
    upper, left = np.zeros((6, 6)), np.zeros((6, 6))
    upper[:3], left[:, :3] = 1.0, 1.0
    kinds = rng.integers(0, 2, (5, 4))
    scores = np.block([[np.where(kind, upper, left) for kind in row] for row in kinds]) + rng.random((30, 24)) * 0.1
    grids = {"a": CellGrid(30, 24, 1)}
    rankings, found = ranked_pattern_rankings(grids, {"a": scores}, 6, 2, rng, sparsities=(0.5,))
    halves = {tuple(mask.ravel().tolist()) for mask in found.cut(18).masks}
    assert halves == {tuple(upper.astype(bool).ravel().tolist()), tuple(left.astype(bool).ravel().tolist())}
    keep = rankings["a"].keep(18)
    assert scores[keep].min() > scores[~keep].max()


@given(models(), st.integers(1, 4), seeds)
@settings(max_examples=40)
def test_same_seed_gives_the_same_rankings(model: tuple, patterns: int, seed: int) -> None:
    grids, scores, removed, tile = model
    first, first_set = ranked_pattern_rankings(grids, scores, tile, patterns, np.random.default_rng(seed), removed)
    again, again_set = ranked_pattern_rankings(grids, scores, tile, patterns, np.random.default_rng(seed), removed)
    np.testing.assert_array_equal(first_set.ranks, again_set.ranks)
    assert all((first[name].rank == again[name].rank).all() for name in grids)


def test_clustering_keeps_more_than_one_shared_ranking() -> None:
    rng = np.random.default_rng(0)
    grids = {"a": CellGrid(48, 40, 4)}
    scores = {"a": rng.random(grids["a"].shape) ** 4}
    kept = []
    for patterns in (1, 4, 16):
        rankings, _ = ranked_pattern_rankings(grids, scores, 8, patterns, np.random.default_rng(1), sparsities=(0.5,))
        kept.append(preserved(rankings["a"].keep(8), grids["a"], scores["a"]))
    assert kept[0] < kept[1] < kept[2]


@given(models(), st.integers(1, 5), st.floats(0, 1), st.integers(1, 6), seeds)
def test_binary_sets_keep_an_exact_count(model: tuple, patterns: int, sparsity: float, samples: int, seed: int) -> None:
    grids, scores, removed, tile = model
    cell_rows = grids["a"].cell_rows
    cells = tile // cell_rows * tile
    expected = int(np.floor((1 - sparsity) * cells + 0.5))
    rng = np.random.default_rng(seed)
    made = generate_pattern_set(grids, scores, tile, patterns, sparsity, rng, samples, removed)
    by_chance = random_pattern_set(tile, cell_rows, patterns, sparsity, rng)
    for found in (made, by_chance):
        assert found.patterns == patterns
        assert (found.masks.sum(axis=(1, 2)) == expected).all()
        assert found.kept == expected
        assert found.sparsity == pytest.approx(1 - expected / cells)


@given(models(), st.integers(1, 4), st.floats(0, 1), seeds)
def test_each_tile_takes_the_one_pattern_that_preserves_most(
    model: tuple, patterns: int, sparsity: float, seed: int
) -> None:
    grids, scores, removed, tile = model
    found = random_pattern_set(tile, grids["a"].cell_rows, patterns, sparsity, np.random.default_rng(seed))
    index = assign_tiles(found, grids, scores, removed)
    masks = assign(found, grids, scores, removed)
    height = tile // found.cell_rows
    for name, grid in grids.items():
        alive = scores[name] * ~removed[name] * grid.rows_per_band()[:, None]
        assert not (masks[name] & removed[name]).any()
        for row, column in np.ndindex(index[name].shape):
            place = np.s_[row * height : (row + 1) * height, column * tile : (column + 1) * tile]
            crops = [mask[: alive[place].shape[0], : alive[place].shape[1]] for mask in found.masks]
            sums = [(alive[place] * crop).sum() for crop in crops]
            chosen = index[name][row, column]
            # Sums of at most tile^2 positive numbers in two orders differ by less than this.
            assert sums[chosen] >= max(sums) * (1 - 2 * tile * tile * np.finfo(float).eps)
            np.testing.assert_array_equal(masks[name][place], crops[chosen] & ~removed[name][place])


def test_ties_and_zero_tiles_take_the_first_pattern_and_never_add_up() -> None:
    masks = np.zeros((4, 2, 2), dtype=bool)
    for pattern, place in enumerate(np.ndindex(2, 2)):
        masks[pattern][place] = True
    grids = {"a": CellGrid(4, 6, 1)}
    for scores in (np.zeros((4, 6)), np.ones((4, 6))):
        found = assign(PatternSet(2, 1, masks), grids, {"a": scores})["a"]
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, np.tile([[True, False], [False, False]], (2, 3)))


def test_preserved_frobenius_norm_decides() -> None:
    # One large weight beats three small ones in squares (9 > 3), though not in absolute sums (3 = 3).
    weight = np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    first = np.array([[False, False, False], [False, True, False], [False, True, True]])
    second = np.array([[True, True, True], [False, False, False], [False, False, False]])
    found = assign_tiles(PatternSet(3, 1, np.stack([first, second])), {"a": CellGrid(3, 3, 1)}, {"a": weight**2})
    assert found["a"].tolist() == [[1]]


def test_pattern_keeps_the_top_positions_of_the_summed_tiles() -> None:
    # All four tiles are summed, so the result is known: position sums are 10, 4, 3 and 8.
    scores = np.array([[1.0, 0, 2, 1], [0, 3, 3, 1], [3, 1, 4, 2], [0, 2, 0, 2.0]])
    found = generate_pattern_set(
        {"a": CellGrid(4, 4, 1)}, {"a": scores}, 2, 3, 0.5, np.random.default_rng(0), samples=4
    )
    assert found.masks.tolist() == [[[True, False], [False, True]]] * 3


def test_cropped_tiles_do_not_make_patterns_while_whole_ones_exist() -> None:
    # The right edge, cropped to one column, has all the weight; it must not drag the patterns there.
    scores = np.ones((4, 5))
    scores[:, 4] = 100.0
    scores[:, 1::2] += 1.0
    found = generate_pattern_set({"a": CellGrid(4, 5, 1)}, {"a": scores}, 2, 1, 0.5, np.random.default_rng(0))
    assert found.masks[0].tolist() == [[False, True], [False, True]]


def test_removed_cells_count_nothing_in_generation() -> None:
    scores = np.tile([[9.0, 2.0], [1.0, 3.0]], (3, 3))
    removed = np.tile([[True, False], [False, False]], (3, 3))
    found = generate_pattern_set(
        {"a": CellGrid(6, 6, 1)}, {"a": scores}, 2, 1, 0.5, np.random.default_rng(0), removed={"a": removed}
    )
    assert found.masks[0].tolist() == [[False, True], [False, True]]


@given(models(), st.integers(1, 3), st.floats(0, 0.99), seeds)
def test_set_for_a_model_reaches_its_sparsity_with_block_pruning_counted(
    model: tuple, patterns: int, sparsity: float, seed: int
) -> None:
    grids, scores, removed, tile = model
    found = pattern_set_for_model(grids, scores, tile, patterns, sparsity, np.random.default_rng(seed), removed=removed)
    assert model_sparsity(grids, assign(found, grids, scores, removed)) >= sparsity - 1e-9
    if not any(mask.any() for mask in removed.values()) and patterns == 1:
        denser = generate_pattern_set(
            grids, scores, tile, patterns, found.sparsity, np.random.default_rng(seed), removed=removed
        )
        np.testing.assert_array_equal(denser.masks, found.masks)


def test_set_for_a_model_is_the_densest_that_fits() -> None:
    grids = {"a": CellGrid(12, 12, 1)}
    scores = {"a": np.random.default_rng(0).random((12, 12))}
    found = pattern_set_for_model(grids, scores, 4, 2, 0.6, np.random.default_rng(1))
    # 16 cells a tile: 6 kept are 62.5 % sparse, 7 kept only 56.25 %.
    assert found.kept == 6


@given(models(), st.integers(1, 4), st.floats(0, 1), seeds)
def test_sets_survive_json(model: tuple, patterns: int, sparsity: float, seed: int) -> None:
    grids, scores, removed, tile = model
    rng = np.random.default_rng(seed)
    binary = random_pattern_set(tile, grids["a"].cell_rows, patterns, sparsity, rng)
    again = PatternSet.from_dict(json.loads(json.dumps(binary.to_dict())))
    np.testing.assert_array_equal(again.masks, binary.masks)
    assert (again.tile, again.cell_rows) == (binary.tile, binary.cell_rows)
    _, ranked = ranked_pattern_rankings(grids, scores, tile, patterns, rng, removed)
    back = RankedPatternSet.from_dict(json.loads(json.dumps(ranked.to_dict())))
    np.testing.assert_array_equal(back.ranks, ranked.ranks)
    for kept in (0, 1, tile // back.cell_rows * tile):
        assert back.cut(kept).kept == kept


def test_storage_of_the_papers_example() -> None:
    # papers/rt3.md 1.6: 100 x 100 patterns, 4 of them, are 4 x 10^4 bits; an 800 x 800 matrix has 64 tiles of 2 bits.
    found = random_pattern_set(100, 1, 4, 0.5, np.random.default_rng(0))
    storage = pattern_storage(found, {"a": CellGrid(800, 800, 1)})
    assert (storage.pattern_bytes, storage.index_bytes, storage.total_bytes) == (5000, 16, 5016)
    # 10,000 ranks need 14 bits each.
    ranks = np.stack([np.arange(10_000, dtype=np.int32).reshape(100, 100)] * 4)
    ranked = pattern_storage(RankedPatternSet(100, 1, ranks), {"a": CellGrid(801, 800, 1), "b": CellGrid(1, 1, 1)})
    assert (ranked.pattern_bytes, ranked.index_bytes) == (70_000, 18 + 1)


def test_one_pattern_needs_no_index() -> None:
    found = random_pattern_set(4, 2, 1, 0.5, np.random.default_rng(0))
    assert pattern_storage(found, {"a": CellGrid(9, 9, 2)}).index_bytes == 0


def test_wrong_values_are_refused_in_words() -> None:
    rng = np.random.default_rng(0)
    grids, scores = {"a": CellGrid(8, 8, 4)}, {"a": np.ones((2, 8))}
    with pytest.raises(UserInputError, match="tile of 6 is not a multiple"):
        ranked_pattern_rankings(grids, scores, 6, 2, rng)
    with pytest.raises(UserInputError, match="0 patterns"):
        generate_pattern_set(grids, scores, 4, 0, 0.5, rng)
    with pytest.raises(UserInputError, match="0 patterns"):
        random_pattern_set(4, 1, 0, 0.5, rng)
    with pytest.raises(UserInputError, match=r"sparsity of 1\.5"):
        generate_pattern_set(grids, scores, 4, 1, 1.5, rng)
    with pytest.raises(UserInputError, match=r"sparsity of 1\.0"):
        pattern_set_for_model(grids, scores, 4, 1, 1.0, rng)
    with pytest.raises(UserInputError, match="0 sampled tiles"):
        generate_pattern_set(grids, scores, 4, 1, 0.5, rng, samples=0)
    with pytest.raises(UserInputError, match="at least one sparsity"):
        ranked_pattern_rankings(grids, scores, 4, 2, rng, sparsities=())
    with pytest.raises(UserInputError, match="b has no cell scores"):
        assign(random_pattern_set(4, 4, 1, 0.5, rng), grids | {"b": grids["a"]}, scores)
    with pytest.raises(UserInputError, match="a: scores of shape"):
        ranked_pattern_rankings(grids, {"a": np.ones((8, 8))}, 4, 2, rng)
    for bad in (np.nan, -1.0):
        with pytest.raises(UserInputError, match="finite and not negative"):
            ranked_pattern_rankings(grids, {"a": np.full((2, 8), bad)}, 4, 2, rng)
    with pytest.raises(UserInputError, match="a: removed cells"):
        ranked_pattern_rankings(grids, scores, 4, 2, rng, {"a": np.ones((8, 8), dtype=bool)})
    with pytest.raises(UserInputError, match="one cell height"):
        generate_pattern_set(grids | {"b": CellGrid(8, 8, 2)}, scores, 4, 2, 0.5, rng)
    with pytest.raises(UserInputError, match="equal counts"):
        PatternSet(2, 1, np.stack([np.eye(2, dtype=bool), np.ones((2, 2), dtype=bool)]))
    with pytest.raises(UserInputError, match="give booleans"):
        PatternSet(2, 1, np.ones((1, 2, 2)))
    with pytest.raises(UserInputError, match="do not fit a tile"):
        PatternSet(2, 1, np.ones((1, 2, 3), dtype=bool))
    with pytest.raises(UserInputError, match="once"):
        RankedPatternSet(2, 1, np.zeros((1, 2, 2), dtype=np.int32))


@pytest.mark.parametrize(
    "damage",
    [
        {"masks": ["zz"]},
        {"masks": ["ffff"]},
        {"masks": []},
        {"masks": None},
        {"tile": "wide"},
        {"tile": 3},
        {"cell_rows": 0},
    ],
)
def test_damaged_pattern_sets_are_refused_in_words(damage: dict) -> None:
    data = random_pattern_set(2, 2, 1, 0.5, np.random.default_rng(0)).to_dict() | damage
    with pytest.raises(UserInputError):
        PatternSet.from_dict(data)


@pytest.mark.parametrize(
    "damage", [{"ranks": [[0, 1, 2]]}, {"ranks": [[0, 0, 1, 2]]}, {"ranks": []}, {"ranks": 7}, {"ranks": [[2**40] * 4]}]
)
def test_damaged_rankings_are_refused_in_words(damage: dict) -> None:
    with pytest.raises(UserInputError):
        RankedPatternSet.from_dict({"tile": 2, "cell_rows": 1} | damage)


def test_missing_field_is_refused_in_words() -> None:
    for kind in (PatternSet, RankedPatternSet):
        with pytest.raises(UserInputError, match="is not a"):
            kind.from_dict({"tile": 2})
