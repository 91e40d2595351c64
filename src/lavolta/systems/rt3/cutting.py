"""The search for per-layer cuts: measure how much each group of layers hurts, then cut where it hurts least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lavolta.search.allocate import Option, allocate
from lavolta.sparsity.ranking import LayerRanking, LevelMasks, level_masks
from lavolta.systems.rt3.ranking import MIN_KEPT, CellScores, budget_cuts

GRID = (0.0, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.88, 0.94)
"""Sparsities that a group of layers may take."""

Loss = Callable[[LevelMasks], float]


@dataclass(frozen=True)
class GroupTable:
    """What cutting one group of layers alone does to the model.

    Args:
        cells: the cells of its linears together.
        losses: per sparsity of `GRID`, what the model loses when only this group is cut.
        kept: per sparsity, the cells that stay.
        cuts: per sparsity, the cut of each linear.
    """

    cells: int
    losses: tuple[float, ...]
    kept: tuple[int, ...]
    cuts: tuple[dict[str, int], ...]


def layer_groups(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Linears by layer and part: ``layers.0.attention`` and ``layers.0.ffn`` and so on."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return {group: tuple(members) for group, members in groups.items()}


def measure_groups(
    rankings: Mapping[str, LayerRanking],
    scores: CellScores,
    loss: Loss,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, GroupTable]:
    """Cut each group alone to every sparsity of the grid and measure the model's loss.

    Args:
        loss: of the whole model under cell masks, on calibration data; lower is better.
        on_step: called after each measurement.
    """
    whole = {name: ranking.max_cut for name, ranking in rankings.items()}
    base = loss(level_masks(rankings, whole))
    tables: dict[str, GroupTable] = {}
    for group, members in layer_groups(list(rankings)).items():
        own = {name: rankings[name] for name in members}
        losses: list[float] = []
        kept: list[int] = []
        cuts: list[dict[str, int]] = []
        for sparsity in GRID:
            chosen = budget_cuts(own, scores, min(sparsity, 1.0 - MIN_KEPT - 1e-9))
            cuts.append(chosen)
            kept.append(sum(int(mask.sum()) for mask in level_masks(own, chosen).values()))
            if sparsity == 0.0:
                losses.append(0.0)
                continue
            found = loss(level_masks(rankings, {**whole, **chosen}))
            on_step()
            # Measured on little text, a denser cut can look worse by chance; the plan needs the trend.
            losses.append(max(found - base, losses[-1]))
        cells = sum(ranking.grid.cells for ranking in own.values())
        tables[group] = GroupTable(cells, tuple(losses), tuple(kept), tuple(cuts))
    return tables


def choose_cuts(tables: Mapping[str, GroupTable], sparsities: Sequence[float]) -> list[dict[str, int]]:
    """The cuts of every level: least summed loss among plans that leave at most ``1 - sparsity`` of all cells.

    Kept cells are the cost, since predicted time is linear in them (`lavolta.devices.latency`). A sparser level cuts
    every group at least as much as the level before it, so that levels are nested.

    Args:
        sparsities: of the levels, densest first.

    Raises:
        InfeasibleError: a sparsity beyond that of the sparsest cut of every group.
    """
    total = float(sum(table.cells for table in tables.values()))
    least = dict.fromkeys(tables, 0)
    levels = []
    for sparsity in sparsities:
        options = {
            group: [
                Option(index, table.losses[index], table.kept[index] / total)
                for index in range(least[group], len(table.kept))
            ]
            for group, table in tables.items()
        }
        # The allocation leaves a grain of its budget unspent: it would not give back the dense model.
        if sparsity > 0.0:
            least = allocate(options, 1.0 - sparsity).cuts
        levels.append({name: cut for group, table in tables.items() for name, cut in table.cuts[least[group]].items()})
    return levels
