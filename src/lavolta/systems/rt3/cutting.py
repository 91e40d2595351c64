"""The search for per-layer cuts: measure how much each group of layers hurts, then cut where it hurts least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lavolta.search.allocate import Option, allocate
from lavolta.sparsity.ranking import LayerRanking, LevelMasks, level_masks, uniform_cuts

GRID = (0.0, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.88, 0.94)
"""Sparsities that a group of layers may take."""


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


class Probe(Protocol):
    """Measures what cuts do to a model."""

    def prepare(self, masks: LevelMasks) -> None:
        """Cells that each layer keeps when it is cut."""

    def loss(self, members: Sequence[str]) -> float:
        """Loss of the model when only these layers are cut; lower is better."""


def measure_groups(
    rankings: Mapping[str, LayerRanking], probe: Probe, on_step: Callable[[], None] = lambda: None
) -> dict[str, GroupTable]:
    """Cut each group alone to every sparsity of the grid and measure the model's loss.

    Inside a group all linears are cut alike: giving each its share by relative error measured worse than that.

    Args:
        on_step: called after each measurement.
    """
    groups = layer_groups(list(rankings))
    probe.prepare(level_masks(rankings, uniform_cuts(rankings, 0.0)))
    base = {group: probe.loss(members) for group, members in groups.items()}
    losses: dict[str, list[float]] = {group: [0.0] for group in groups}
    cuts: dict[str, list[dict[str, int]]] = {group: [] for group in groups}
    for sparsity in GRID:
        chosen = uniform_cuts(rankings, sparsity)
        for group, members in groups.items():
            cuts[group].append({name: chosen[name] for name in members})
        if sparsity == 0.0:
            continue
        probe.prepare(level_masks(rankings, chosen))
        for group, members in groups.items():
            # Measured on little text, a denser cut can look worse by chance; the plan needs the trend.
            losses[group].append(max(probe.loss(members) - base[group], losses[group][-1]))
            on_step()
    return {
        group: GroupTable(
            sum(rankings[name].grid.cells for name in members),
            tuple(losses[group]),
            tuple(sum(int(rankings[n].keep(cut[n]).sum()) for n in members) for cut in cuts[group]),
            tuple(cuts[group]),
        )
        for group, members in groups.items()
    }


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
