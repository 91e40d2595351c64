"""Joint training of all levels on one set of weights, resumable at any step."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lavolta.errors import UserInputError
from lavolta.training.checkpoint import load_checkpoint, save_checkpoint
from lavolta.training.levels import LevelSet
from lavolta.training.masking import MaskedLinears

Batch = Any


class Objective(Protocol):
    """What is learned: batches, and the loss of the model as it is now against the labels and the dense teacher."""

    def batch(self, step: int) -> Batch:
        """The batch of a step; a function of the step alone, so that a resumed run sees the same data."""

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        """The batch in up to ``parts`` parts of about equal size."""

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of the live model on a batch, a scalar."""


@dataclass(frozen=True)
class JointConfig:
    """How long and how fast.

    Args:
        steps: optimizer steps.
        lr: peak learning rate of AdamW; linear warm-up, then linear decay to zero.
        warmup: share of the steps that warm up, 0 to 1.
        weight_decay: decoupled weight decay of matrices. It also shrinks a weight that no level keeps: nothing ever
            computes with that one.
        grad_clip: largest gradient norm.
        split: each visited level sees its own part of the batch: an unbiased estimate of the equal-weight joint loss at
            the cost of one dense step. False: every level sees the whole batch, as published.
        seed: of the level draws and of dropout.
        checkpoint_every: steps between checkpoints.
    """

    steps: int
    lr: float = 3e-4
    warmup: float = 0.06
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    split: bool = True
    seed: int = 0
    checkpoint_every: int = 100


def train_joint(
    masked: MaskedLinears,
    levels: LevelSet,
    objective: Objective,
    trainable: Sequence[Tensor],
    config: JointConfig,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    identity: str = "",
) -> list[float]:
    """Train the shared weights so that every level is good; returns the loss of each step run by this call.

    Each step visits levels as the `LevelSet` says and minimises the mean of their losses: RT3's joint loss with equal
    weights for independent sets, the sandwich rule for ranked levels.

    Args:
        trainable: the parameters to update, in a stable order.
        checkpoint: file to resume from and to save to (atomically); removed by the caller when the result is stored.
        on_step: called after each step with the step number and its loss.
        identity: names what the configuration and the shapes do not tell: the text, the masks, the task. A checkpoint
            of another identity is refused.

    Raises:
        UserInputError: the loss or its gradient is not finite (the weights are then those of the last good step); the
            checkpoint belongs to another run, is damaged, or cannot be written.
    """
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.lr,
        fused=True,
    )
    first = 0
    mark = _fingerprint(config, trainable, identity)
    if checkpoint is not None and checkpoint.exists():
        first = _load(checkpoint, mark, trainable, optimizer)
    history: list[float] = []
    try:
        for step in range(first, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _schedule(step, config)
            loss = _step(masked, levels, objective, optimizer, trainable, config, step)
            history.append(loss)
            if on_step is not None:
                on_step(step, loss)
            if checkpoint is not None and (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                _save(checkpoint, mark, step + 1, trainable, optimizer)
    finally:
        masked.set_masks(None)
    if checkpoint is not None and first < config.steps:
        _save(checkpoint, mark, config.steps, trainable, optimizer)
    return history


def _step(
    masked: MaskedLinears,
    levels: LevelSet,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    trainable: Sequence[Tensor],
    config: JointConfig,
    step: int,
) -> float:
    batch = objective.batch(step)
    visits = levels.visits(step, config.seed)
    parts = objective.split(batch, len(visits)) if config.split else [batch] * len(visits)
    # Rotating which level takes which part keeps a batch sorted by length from tying lengths to levels.
    turn = step % len(visits)
    visits = visits[turn:] + visits[:turn]
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for part, masks in zip(parts, visits, strict=False):
        masked.set_weight_masks(masks)
        loss = objective.loss(part) / len(parts)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    norm = float(nn.utils.clip_grad_norm_(trainable, config.grad_clip))
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise UserInputError(
            f"the loss became {total:g} and its gradient {norm:g} at step {step}; lower the learning rate (now "
            f"{config.lr:g}) or check the text."
        )
    optimizer.step()
    return total


def _schedule(step: int, config: JointConfig) -> float:
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return (step + 1) / warm
    return max(0.0, (config.steps - step) / max(1, config.steps - warm))


def _fingerprint(config: JointConfig, trainable: Sequence[Tensor], identity: str) -> str:
    shape = json.dumps([asdict(config), [list(p.shape) for p in trainable]], sort_keys=True)
    return hashlib.sha256(f"{shape}{identity}".encode()).hexdigest()


def _save(path: Path, mark: str, step: int, trainable: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    state = {
        "step": step,
        "parameters": [p.detach() for p in trainable],
        "optimizer": optimizer.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    save_checkpoint(path, mark, state)


def _load(path: Path, mark: str, trainable: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> int:
    state = load_checkpoint(path, mark)
    with torch.no_grad():
        for parameter, saved in zip(trainable, state["parameters"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch_rng"])
    return int(state["step"])
