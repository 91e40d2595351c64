"""The settings of a controller and of a study: frozen, and readable without torch or Optuna."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from lavolta.errors import UserInputError

SAMPLERS = ("reinforce", "random", "tpe", "evolve")


@dataclass(frozen=True)
class ControllerConfig:
    """The RNN controller.

    Args:
        hidden: width of the LSTM cell and of the embeddings [related code by the same authors: 35, with a NASCell].
        learning_rate: of Adam [related code by the same authors: 0.01].
        gamma: discount in `gamma^(T-t)`, 0 < gamma <= 1 [proposed: 1].
        baseline_decay: decay of the exponential moving average of rewards, 0 <= decay < 1 [proposed: 0.9 to 0.95].
        children_per_update: children whose gradients are averaged (`m`) [related code by the same authors: 1].

    Raises:
        UserInputError: for a value outside its range.
    """

    hidden: int = 35
    learning_rate: float = 0.01
    gamma: float = 1.0
    baseline_decay: float = 0.9
    children_per_update: int = 1

    def __post_init__(self) -> None:
        for name in ("hidden", "children_per_update"):
            if getattr(self, name) < 1:
                raise UserInputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0.0 < self.learning_rate < math.inf:
            raise UserInputError(f"learning_rate is {self.learning_rate}; it must be a positive number.")
        if not 0.0 < self.gamma <= 1.0:
            raise UserInputError(f"gamma is {self.gamma}; it must be in 0 < gamma <= 1.")
        if not 0.0 <= self.baseline_decay < 1.0:
            raise UserInputError(f"baseline_decay is {self.baseline_decay}; it must be in 0 <= baseline_decay < 1.")


@dataclass(frozen=True)
class StudyConfig:
    """One search.

    Args:
        storage: SQLite file on a local disk; made where absent. `<storage>.lock` appears beside it. `None` keeps the
            study in memory, for one worker and without anything to continue: a file takes about as long for each step
            of a child as a small evaluation.
        name: of the study; one file holds several.
        trials: children to finish in all, over all calls and workers.
        sampler: "reinforce", "random", "tpe" or "evolve".
        seed: of everything by chance, 0 or more.
        workers: processes; with 1 the search runs in this process and is reproducible bit by bit.
        controller: used by "reinforce" alone.

    Raises:
        UserInputError: for a value outside its range.
    """

    storage: Path | None
    name: str = "search"
    trials: int = 100
    sampler: str = "reinforce"
    seed: int = 0
    workers: int = 1
    controller: ControllerConfig = field(default_factory=ControllerConfig)

    def __post_init__(self) -> None:
        for name in ("trials", "workers"):
            if getattr(self, name) < 1:
                raise UserInputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.storage is None and self.workers > 1:
            raise UserInputError(f"{self.workers} workers share a study by its file; give a storage, or use 1 worker.")
        if self.sampler not in SAMPLERS:
            raise UserInputError(f"sampler is {self.sampler!r}; choose one of {', '.join(SAMPLERS)}.")
        if self.seed < 0:
            raise UserInputError(f"seed is {self.seed}; it must be 0 or more.")
        if not self.name:
            raise UserInputError("the name of the study is empty; give it one.")
