"""What `prune` can be asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS
from lavolta.systems.spd import defaults
from lavolta.training.schedules import phase_steps

POOLINGS = ("cls", "mean")
ACCELERATORS = ("cpu", "cuda")
SEEDS = 1 << 31
"""A step's own seed is made of the run's and of the step."""


@dataclass(frozen=True)
class PruneOptions:
    """What `prune` was asked for; equal options and equal files give an equal result on one kind of processor.

    Args:
        source: a model folder or a packaged model; with a head for the task it is the teacher as it is.
        task: as `load_task` takes it, with its folder ``data``.
        sparsity: share of the encoder's linear weights that goes, 0 to below 1; ``None`` where ratios of the layers, or
            a device, say it.
        method: a name of `defaults.METHODS`; ``"auto"`` becomes the best of them, or with ``levels`` the best that
            leaves a ladder.
        steps: of the training under the method; ``None`` takes ``epochs``.
        epochs: passes over the training rows.
        seed: of everything drawn.
        batch_size: rows of a step.
        lr: peak learning rate; ``None`` takes the method's own.
        cell_rows: height of the cells; 1 prunes single weights.
        levels: sparsities of further, denser levels of the result, rising; they are trained jointly at the end.
        max_tokens: where pairs are cut.
        pooling: of a new head, ``"cls"`` or ``"mean"``.
        teacher_epochs, teacher_lr, teacher_batch_size: of the fine-tuning, for a model without a head.
        dropout: whether the student's training drops anything; the teacher's fine-tuning always does.
        mask_padding: padding does not count in the losses on layers; false counts it, as SPD was published.
        quick: a slice of the data and a few steps, to see that everything works; the score means nothing.
        force: go on with a teacher at chance.
        accelerator: ``"cpu"`` or ``"cuda"``.
    """

    source: str
    task: str
    data: str
    sparsity: float | None = defaults.SPARSITY
    method: str = defaults.METHOD
    steps: int | None = None
    epochs: float = defaults.EPOCHS
    seed: int = 0
    batch_size: int = defaults.BATCH_SIZE
    lr: float | None = None
    cell_rows: int = defaults.CELL_ROWS
    levels: tuple[float, ...] = ()
    max_tokens: int = defaults.MAX_TOKENS
    pooling: str = defaults.POOLING
    teacher_epochs: float = defaults.TEACHER_EPOCHS
    teacher_lr: float = defaults.TEACHER_LR
    teacher_batch_size: int = defaults.TEACHER_BATCH_SIZE
    dropout: bool = True
    mask_padding: bool = True
    quick: bool = False
    force: bool = False
    accelerator: str = "cpu"

    def __post_init__(self) -> None:
        if self.method == defaults.METHOD:
            object.__setattr__(self, "method", defaults.BEST_LADDER if self.levels else defaults.BEST)
        for name, value, allowed in (
            ("method", self.method, tuple(defaults.METHODS)),
            ("cell height", self.cell_rows, CELL_ROWS),
            ("pooling", self.pooling, POOLINGS),
            ("accelerator", self.accelerator, ACCELERATORS),
        ):
            if value not in allowed:
                raise UserInputError(f"the {name} {value!r} is unknown; choose one of {', '.join(map(str, allowed))}.")
        if self.sparsity is not None and not 0.0 <= self.sparsity < 1.0:
            raise UserInputError(f"a sparsity of {self.sparsity:g} cannot be reached; give a number from 0 to below 1.")
        smallest = min(self.batch_size, self.teacher_batch_size)
        if (self.steps is not None and self.steps < 1) or smallest < 1 or self.max_tokens < 8:
            raise UserInputError(
                f"steps is {self.steps}, batch size {smallest}, tokens {self.max_tokens}; give at least 1, 1, 8."
            )
        for name, number in (
            ("epochs", self.epochs),
            ("learning rate", 1.0 if self.lr is None else self.lr),
            ("teacher's epochs", self.teacher_epochs),
            ("teacher's learning rate", self.teacher_lr),
        ):
            if not 0.0 < number < float("inf"):
                raise UserInputError(f"the {name} is {number}; give a positive number.")
        if not 0 <= self.seed < SEEDS:
            raise UserInputError(f"the seed is {self.seed}; give 0 to {SEEDS - 1}.")
        last = 1.0 if self.sparsity is None else self.sparsity
        if list(self.levels) != sorted(set(self.levels)) or any(not 0.0 <= s < last for s in self.levels):
            raise UserInputError(
                f"the levels {list(self.levels)} do not lead to {last:g}; give rising sparsities below it."
            )
        if self.levels and self.method not in defaults.LADDERS:
            raise UserInputError(
                f"{self.method} leaves no order in which cells were dropped; take one of {', '.join(defaults.LADDERS)} "
                "for several levels."
            )

    def identity(self) -> dict[str, Any]:
        """The options that change the result: to insist on a teacher changes nothing."""
        return {name: value for name, value in asdict(self).items() if name != "force"}

    def step_count(self, rows: int) -> int:
        """Steps of the training on so many rows."""
        if self.quick:
            return self.steps or defaults.QUICK_STEPS
        return self.steps or max(1, round(self.epochs * -(-rows // self.batch_size)))


def rate_ends(steps: int, pruned: int, restart: bool) -> tuple[int, ...]:
    """Where the learning rate's phases end: at the end of the pruning and at the end of the run."""
    return (pruned, steps) if restart and 0 < pruned < steps else (steps,)


def pruned_steps(steps: int, share: float) -> int:
    """Steps of the pruning phase."""
    return phase_steps(steps, (share, 1.0 - share))[0]
