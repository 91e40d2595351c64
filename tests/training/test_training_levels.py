"""What one training step visits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_toys import Toy, toy_masks

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import LayerRanking, are_nested, free_ranking
from lavolta.training.levels import DenseOnly, FixedLevels, RankedLevels, WeightMasks

LAYERS = {"a": (8, 6), "b": (5, 9), "c": (16, 4)}


def rankings(cell_rows: int = 2) -> dict[str, LayerRanking]:
    rng = np.random.default_rng(0)
    grids = {name: CellGrid(*shape, cell_rows) for name, shape in LAYERS.items()}
    return {name: free_ranking(grid, rng.random(grid.shape)) for name, grid in grids.items()}


def share_cuts(found: dict[str, LayerRanking], share: float) -> dict[str, int]:
    return {name: round(share * ranking.max_cut) for name, ranking in found.items()}


def kept(visit: WeightMasks | None) -> dict[str, int]:
    assert visit is not None
    return {name: int(mask.sum()) for name, mask in visit.items()}


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 3))
@settings(max_examples=25)
def test_sandwich_visits_both_ends_and_random_cuts_between(step: int, seed: int, random_visits: int) -> None:
    ranked = rankings()
    levels = RankedLevels(ranked, [share_cuts(ranked, s) for s in (0.9, 0.5, 0.2)], random_visits)
    visits = levels.visits(step, seed)
    assert len(visits) == 2 + random_visits
    ends = [{n: torch.from_numpy(ranked[n].grid.expand(m)) for n, m in levels.masks(i).items()} for i in (0, 2)]
    for visit, end in zip(visits[:2], ends, strict=True):
        assert visit is not None
        assert all(torch.equal(visit[name], end[name]) for name in LAYERS)
    for visit in visits[2:]:
        assert visit is not None
        for name in LAYERS:
            # Between the ends: what the sparsest keeps is kept, what the densest drops is dropped.
            assert not (ends[1][name] & ~visit[name]).any()
            assert not (visit[name] & ~ends[0][name]).any()


def test_random_cuts_are_of_the_step_and_seed_alone_and_of_each_layer_by_itself() -> None:
    ranked = rankings()
    make = [RankedLevels(ranked, [share_cuts(ranked, s) for s in (1.0, 0.0)]) for _ in range(2)]
    draws = [kept(make[0].visits(step, 5)[2]) for step in range(200)]
    assert draws == [kept(make[1].visits(step, 5)[2]) for step in range(200)]
    assert draws != [kept(make[0].visits(step, 6)[2]) for step in range(200)]
    shares = {name: np.array([d[name] for d in draws]) / np.prod(LAYERS[name]) for name in LAYERS}
    for share in shares.values():
        # Uniform on 0 to 1: mean 1/2 and variance 1/12; 200 draws have a standard error of 0.02 of the mean.
        assert abs(share.mean() - 0.5) < 0.08
        assert abs(share.var() - 1 / 12) < 0.03
    # One draw for all layers would correlate them wholly; 200 independent ones correlate by 0.07.
    assert abs(np.corrcoef(shares["a"], shares["b"])[0, 1]) < 0.3


def test_a_single_level_is_visited_alone() -> None:
    ranked = rankings()
    levels = RankedLevels(ranked, [share_cuts(ranked, 0.3)])
    assert len(levels.visits(0, 0)) == 1
    assert kept(levels.visits(0, 0)[0]) == kept(levels.visits(9, 4)[0])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.sampled_from([1, 2, 16]))
@settings(max_examples=20)
def test_falling_cuts_give_nested_levels(shares: list[float], cell_rows: int) -> None:
    ranked = rankings(cell_rows)
    levels = RankedLevels(ranked, [share_cuts(ranked, s) for s in sorted(shares, reverse=True)])
    assert levels.count == len(shares)
    assert are_nested([levels.masks(i) for i in range(levels.count)])


def test_fixed_levels_visit_all_of_them_every_step() -> None:
    toy, masks = Toy(), toy_masks(0.7, 0.5, 0.2)
    levels = FixedLevels(toy.masked, masks)
    assert levels.count == 3
    for step in (0, 7):
        for visit, mask in zip(levels.visits(step, step), masks, strict=True):
            assert visit is not None
            np.testing.assert_array_equal(visit["a"].numpy(), toy.masked.grids["a"].expand(mask["a"]))
    assert levels.masks(1) is masks[1]


def test_dense_only_is_one_visit_without_a_mask() -> None:
    assert DenseOnly().visits(3, 1) == [None]
    with pytest.raises(UserInputError, match="no masks for level 0"):
        DenseOnly().masks(0)


def test_no_level_is_refused() -> None:
    with pytest.raises(UserInputError, match="at least one level"):
        RankedLevels(rankings(), [])
    with pytest.raises(UserInputError, match="at least one level"):
        FixedLevels(Toy().masked, [])
