"""A pruned toy whose training can be stopped anywhere: one linear layer that learns to repeat another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lavolta.sparsity.cells import CellGrid
from lavolta.training.compensated import GradualSecondOrder
from lavolta.training.masking import MaskedLinears
from lavolta.training.movement import MovementPruning
from lavolta.training.pruning import GradualMagnitude, Pruning
from lavolta.training.saliency import LinearStats, collect_stats
from lavolta.training.schedules import CubicSparsity, RestartedDecay
from lavolta.training.sparse import SparseConfig, SparseRun, train_sparse

OUT, IN = 5, 7
CONFIG = SparseConfig(RestartedDecay(0.05, (5, 11)), score_rate=2.0, seed=3, evaluate_every=2, checkpoint_every=3)


class Toy:
    """The layer with dropout behind it; also the objective, and what looks at it."""

    def __init__(self, kind: str = "gradual") -> None:
        generator = torch.Generator().manual_seed(3)
        self.linear = nn.Linear(IN, OUT)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(OUT, IN, generator=generator))
            self.linear.bias.copy_(torch.randn(OUT, generator=generator))
        self.target = torch.randn(OUT, IN, generator=generator)
        self.module = nn.Sequential(self.linear, nn.Dropout(0.3)).train()
        masked = MaskedLinears({"a": self.linear}, {"a": CellGrid(OUT, IN, 2)})
        targets, schedule = {"a": 0.6}, CubicSparsity(5, 3)
        self.pruning: Pruning
        if kind == "compensated":
            self.pruning = GradualSecondOrder(masked, targets, schedule, self.statistics)
        elif kind == "movement":
            self.pruning = MovementPruning(masked, targets, schedule)
        else:
            self.pruning = GradualMagnitude(masked, targets, schedule)
        self.trainable: list[Tensor] = [masked.dense_weight("a"), self.linear.bias]
        self.looked: list[float] | None = None

    def loss(self, step: int) -> Tensor:
        x = torch.randn(9, IN, generator=torch.Generator().manual_seed(step))
        return functional.mse_loss(self.module(x), x @ self.target.T)

    def statistics(self) -> dict[str, LinearStats]:
        x = torch.randn(30, IN, generator=torch.Generator().manual_seed(99))
        return collect_stats({"a": self.linear}, [x], self.linear, hessians=True)

    def look(self) -> dict[str, float]:
        """Scores; with ``looked``, those that the test wants."""
        if self.looked is not None:
            return {"held_out": self.looked.pop(0)}
        return {"held_out": -float((self.linear.weight.detach() - self.target).square().mean())}

    def train(self, checkpoint: Path | None = None, config: SparseConfig = CONFIG, **more: Any) -> SparseRun:
        return train_sparse(self, self.pruning, self.trainable, config, self.look, checkpoint, **more)

    def weights(self) -> list[Tensor]:
        """Everything that the training leaves."""
        found = [p.detach().clone() for p in (*self.trainable, *self.pruning.parameters())]
        return [*found, torch.from_numpy(self.pruning.masks()["a"].copy())]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
