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
        names: the linears of the group.
        weights: their weights together.
        losses: per sparsity of `GRID`, the loss of the model when only this group is cut.
        cuts: per sparsity, the cut of each linear.
    """

    names: tuple[str, ...]
    weights: int
    losses: tuple[float, ...]
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
        losses, cuts = [], []
        for sparsity in GRID:
            chosen = budget_cuts(own, scores, min(sparsity, 1.0 - MIN_KEPT - 1e-9))
            cuts.append(chosen)
            if sparsity == 0.0:
                losses.append(0.0)
                continue
            found = loss(level_masks(rankings, {**whole, **chosen}))
            on_step()
            # Measured on little text, a denser cut can look worse by chance; the plan needs the trend.
            losses.append(max(found - base, losses[-1]))
        weights = sum(r.grid.out_features * r.grid.in_features for r in own.values())
        tables[group] = GroupTable(members, weights, tuple(losses), tuple(cuts))
    return tables


def choose_cuts(tables: Mapping[str, GroupTable], sparsity: float) -> dict[str, int]:
    """The cuts of one level: least summed loss among plans that reach the sparsity over all groups together.

    Kept weights are the cost, since predicted time is linear in them (`lavolta.devices.latency`).
    """
    if sparsity <= 0.0:
        return {name: cut for table in tables.values() for name, cut in table.cuts[0].items()}
    total = float(sum(table.weights for table in tables.values()))
    options = {
        group: [
            Option(index, loss, table.weights * (1.0 - kept) / total)
            for index, (loss, kept) in enumerate(zip(table.losses, GRID, strict=True))
        ]
        for group, table in tables.items()
    }
    plan = allocate(options, 1.0 - sparsity)
    cuts: dict[str, int] = {}
    for group, table in tables.items():
        cuts.update(table.cuts[plan.cuts[group]])
    return cuts
