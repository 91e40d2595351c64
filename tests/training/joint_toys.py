"""A model small enough to train in milliseconds, for the loop that trains all levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import LayerRanking, LevelMasks, free_ranking
from lavolta.training.masking import MaskedLinears

# Odd on purpose: a ragged last band for cells of 2 rows.
OUT, IN = 5, 7
Rows = tuple[Tensor, Tensor]


class Toy:
    """One linear layer that learns to repeat another one; also the objective: `batch`, `split` and `loss`."""

    def __init__(self, dropout: float = 0.0, rows: int = 9, equal_rows: bool = False) -> None:
        generator = torch.Generator().manual_seed(3)
        self.linear = nn.Linear(IN, OUT)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(OUT, IN, generator=generator))
            self.linear.bias.copy_(torch.randn(OUT, generator=generator))
        self.target = torch.randn(OUT, IN, generator=generator)
        self.module = nn.Sequential(self.linear, nn.Dropout(dropout)).train()
        self.masked = MaskedLinears({"a": self.linear}, {"a": CellGrid(OUT, IN, 2)})
        self.rows, self.equal_rows = rows, equal_rows

    @property
    def trainable(self) -> list[Tensor]:
        return [self.masked.dense_weight("a"), self.linear.bias]

    def batch(self, step: int) -> Rows:
        x = torch.randn(self.rows, IN, generator=torch.Generator().manual_seed(step))
        if self.equal_rows:
            x = x[:1].repeat(self.rows, 1)
        return x, x @ self.target.T

    def split(self, batch: Rows, parts: int) -> Sequence[Rows]:
        return list(zip(batch[0].chunk(parts), batch[1].chunk(parts), strict=True))

    def loss(self, batch: Rows) -> Tensor:
        return functional.mse_loss(self.module(batch[0]), batch[1])


def toy_ranking(seed: int = 0) -> dict[str, LayerRanking]:
    grid = CellGrid(OUT, IN, 2)
    return {"a": free_ranking(grid, np.random.default_rng(seed).random(grid.shape))}


def toy_masks(*shares: float, seed: int = 0) -> list[LevelMasks]:
    """Independent cell masks, one per share of kept cells."""
    rng, shape = np.random.default_rng(seed), CellGrid(OUT, IN, 2).shape
    return [{"a": rng.random(shape) < share} for share in shares]
