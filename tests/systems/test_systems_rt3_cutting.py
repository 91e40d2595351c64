"""Cuts: how much each group of layers hurts, and what a level takes from each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta.errors import InfeasibleError
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import LayerRanking, LevelMasks, are_nested, free_ranking, level_masks, model_sparsity
from lavolta.systems.rt3.cutting import GRID, choose_cuts, layer_groups, measure_groups
from lavolta.systems.rt3.levels import MOST_SPARSITY

SHAPES = {
    f"layers.{i}.{part}": shape
    for i in range(2)
    for part, shape in {"attention.query": (24, 24), "attention.output": (24, 24), "ffn.up": (47, 24)}.items()
}
PRICES = {"layers.0.attention": 50.0, "layers.0.ffn": 1.0, "layers.1.attention": 5.0, "layers.1.ffn": 1.0}


def rankings_of(cell_rows: int, seed: int) -> dict[str, LayerRanking]:
    rng = np.random.default_rng(seed)
    grids = {name: CellGrid(*shape, cell_rows) for name, shape in SHAPES.items()}
    return {name: free_ranking(grid, rng.random(grid.shape)) for name, grid in grids.items()}


def kept_share(masks: LevelMasks, names: Sequence[str]) -> float:
    return sum(int(masks[n].sum()) for n in names) / sum(masks[n].size for n in names)


class FakeProbe:
    """A model whose loss is known: a price of its group for the square of what is missing, and a base."""

    def __init__(self, loss: Callable[[str, float], float]) -> None:
        self._loss = loss
        self._masks: LevelMasks = {}

    def prepare(self, masks: LevelMasks) -> None:
        self._masks = masks

    def loss(self, members: Sequence[str]) -> float:
        return self._loss(members[0].rpartition(".")[0], kept_share(self._masks, members))


def test_groups_are_the_parts_of_layers() -> None:
    assert layer_groups(list(SHAPES)) == {
        "layers.0.attention": ("layers.0.attention.query", "layers.0.attention.output"),
        "layers.0.ffn": ("layers.0.ffn.up",),
        "layers.1.attention": ("layers.1.attention.query", "layers.1.attention.output"),
        "layers.1.ffn": ("layers.1.ffn.up",),
    }


@pytest.mark.parametrize("cell_rows", [1, 4, 16])
def test_the_sparsest_level_that_may_be_asked_for_can_be_cut(cell_rows: int) -> None:
    rankings = rankings_of(cell_rows, 1)
    tables = measure_groups(rankings, FakeProbe(lambda group, kept: PRICES[group] * (1.0 - kept) ** 2))
    (cuts,) = choose_cuts(tables, [MOST_SPARSITY])
    kept = sum(int(rankings[name].keep(cut).sum()) for name, cut in cuts.items())
    assert kept <= (1.0 - MOST_SPARSITY) * sum(ranking.grid.cells for ranking in rankings.values())


def test_groups_that_hurt_more_are_cut_less() -> None:
    rankings = rankings_of(4, 3)
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    tables = measure_groups(rankings, FakeProbe(lambda group, kept: 7.0 + PRICES[group] * (1 - kept) ** 2), count)
    assert steps == 4 * (len(GRID) - 1)
    for group, table in tables.items():
        assert table.losses[0] == 0.0
        assert table.kept[0] == table.cells
        for kept, loss, sparsity in zip(table.kept, table.losses, GRID, strict=True):
            assert loss == pytest.approx(PRICES[group] * (1 - kept / table.cells) ** 2)
            assert kept / table.cells == pytest.approx(1 - sparsity, abs=0.03)
    masks = level_masks(rankings, choose_cuts(tables, [0.5])[0])
    shares = {group: kept_share(masks, members) for group, members in layer_groups(list(SHAPES)).items()}
    assert shares["layers.0.attention"] > shares["layers.1.attention"] > shares["layers.0.ffn"]


def test_a_loss_that_falls_by_chance_is_flattened() -> None:
    noise = np.random.default_rng(0)
    for table in measure_groups(rankings_of(2, 5), FakeProbe(lambda *_: float(noise.normal(1, 0.5)))).values():
        assert list(table.losses) == sorted(table.losses)


@given(
    st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**31), st.lists(st.floats(0.0, 0.9), min_size=1, max_size=6)
)  # fmt: skip
@settings(max_examples=60)
def test_chosen_cuts_reach_their_sparsities_and_are_nested(cell_rows: int, seed: int, wanted: list[float]) -> None:
    rankings = rankings_of(cell_rows, seed)
    # Any rising losses: the best plan of a sparsity alone is often not nested in that of another.
    rng = np.random.default_rng(seed)
    tables = {
        group: replace(table, losses=(0.0, *np.cumsum(rng.exponential(1.0, len(GRID) - 1)).tolist()))
        for group, table in measure_groups(rankings, FakeProbe(lambda *_: 0.0)).items()
    }
    wanted.sort()
    levels = [level_masks(rankings, cuts) for cuts in choose_cuts(tables, wanted)]
    assert are_nested(levels)
    cells = sum(r.grid.cells for r in rankings.values())
    for sparsity, masks in zip(wanted, levels, strict=True):
        # Kept cells are what the predicted time is made of.
        assert sum(int(m.sum()) for m in masks.values()) <= (1.0 - sparsity) * cells + 1e-6
    found = [model_sparsity({n: r.grid for n, r in rankings.items()}, masks) for masks in levels]
    assert found == sorted(found)
    if wanted[0] == 0.0:
        assert all(mask.all() for mask in levels[0].values())


def test_a_level_is_the_best_plan_of_all() -> None:
    # Two groups of one layer each and three cuts that matter: every plan can be tried.
    rankings = {n: r for n, r in rankings_of(1, 1).items() if n.endswith("ffn.up")}
    tables = measure_groups(rankings, FakeProbe(lambda group, kept: PRICES[group] * (1 - kept)))
    tables = {g: replace(t, losses=tuple(x * (1 + i) for x in t.losses)) for i, (g, t) in enumerate(tables.items())}
    total = sum(t.cells for t in tables.values())
    first, second = tables.values()
    best = min(
        first.losses[i] + second.losses[j]
        for i in range(len(GRID))
        for j in range(len(GRID))
        if first.kept[i] + second.kept[j] <= 0.45 * total
    )
    cuts = choose_cuts(tables, [0.55])[0]
    reached = sum(t.losses[next(i for i, c in enumerate(t.cuts) if c.items() <= cuts.items())] for t in tables.values())
    assert reached == pytest.approx(best)


def test_a_sparsity_beyond_the_grid_is_refused() -> None:
    tables = measure_groups(rankings_of(1, 1), FakeProbe(lambda *_: 0.0))
    with pytest.raises(InfeasibleError):
        choose_cuts(tables, [0.99])
