"""What a training step sees: which levels, in which order, with which random cuts between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.sparsity.ranking import LayerRanking, LevelMasks, level_masks
from lavolta.training.masking import MaskedLinears, expanded_rank

WeightMasks = dict[str, Tensor]


class LevelSet(Protocol):
    """The levels of one model, and how a training step walks over them."""

    @property
    def count(self) -> int:
        """Named levels, densest first."""

    def masks(self, level: int) -> LevelMasks:
        """Cell masks of a named level."""

    def visits(self, step: int, seed: int) -> list[WeightMasks | None]:
        """The masks ``(out_features, in_features)`` of each visit of one step; ``None`` is the dense model."""


class DenseOnly:
    """No mask: dense training through the same loop."""

    count = 1

    def masks(self, level: int) -> LevelMasks:
        raise UserInputError(f"a dense model has no masks for level {level}; rank its cells first.")

    def visits(self, step: int, seed: int) -> list[WeightMasks | None]:
        del step, seed
        return [None]


class FixedLevels:
    """Independent masks, one per level: RT3 as published. Every step visits every level with equal weight."""

    def __init__(self, masked: MaskedLinears, masks: Sequence[LevelMasks]) -> None:
        if not masks:
            raise UserInputError("joint training needs at least one level; none was given.")
        self._masks = list(masks)
        self._expanded = [_expand(masked, m) for m in masks]

    @property
    def count(self) -> int:
        return len(self._masks)

    def masks(self, level: int) -> LevelMasks:
        return self._masks[level]

    def visits(self, step: int, seed: int) -> list[WeightMasks | None]:
        del step, seed
        return list(self._expanded)


class RankedLevels:
    """Cuts of one ranking per layer, trained with the sandwich rule (Yu and Huang 2019, slimmable networks).

    Every step visits the densest level, the sparsest, and ``random_visits`` levels whose cut is drawn for each layer by
    itself, uniformly in kept share between the two: levels may then change between two layers of one inference.

    Args:
        rankings: canonical name to ranking.
        cuts: one cut per layer for each named level, densest first.
    """

    def __init__(
        self, rankings: Mapping[str, LayerRanking], cuts: Sequence[Mapping[str, int]], random_visits: int = 1
    ) -> None:
        if not cuts:
            raise UserInputError("joint training needs at least one level; none was given.")
        self.rankings = dict(rankings)
        self.cuts = [dict(c) for c in cuts]
        self.random_visits = random_visits
        self._ranks = {name: expanded_rank(r) for name, r in self.rankings.items()}

    def move_to(self, device: torch.device | str) -> None:
        """Make the masks of the visits on this device, where the weights are."""
        self._ranks = {name: rank.to(device) for name, rank in self._ranks.items()}

    @property
    def count(self) -> int:
        return len(self.cuts)

    def masks(self, level: int) -> LevelMasks:
        return level_masks(self.rankings, self.cuts[level])

    def visits(self, step: int, seed: int) -> list[WeightMasks | None]:
        if self.count == 1:
            return [self._expanded(self.cuts[0])]
        rng = np.random.default_rng((seed, step))
        chosen = [self.cuts[0], self.cuts[-1]]
        for _ in range(self.random_visits):
            chosen.append({n: self._between(n, float(rng.random())) for n in self.rankings})
        return [self._expanded(c) for c in chosen]

    def _between(self, name: str, position: float) -> int:
        low, high = sorted((self.cuts[0][name], self.cuts[-1][name]))
        return round(low + position * (high - low))

    def _expanded(self, cuts: Mapping[str, int]) -> WeightMasks:
        return {name: rank < cuts[name] for name, rank in self._ranks.items()}


def _expand(masked: MaskedLinears, masks: LevelMasks) -> WeightMasks:
    return {name: torch.from_numpy(masked.grids[name].expand(mask)) for name, mask in masks.items()}
