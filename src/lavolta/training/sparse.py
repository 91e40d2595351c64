"""The training loop under a pruning method: resumable at any step, scored along the way, judged on held-out data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lavolta.errors import UserInputError
from lavolta.training.checkpoint import load_checkpoint, save_checkpoint
from lavolta.training.pruning import Pruning
from lavolta.training.schedules import RestartedDecay

SELECT = "held_out"
"""The score by which a state of the training is chosen: on data that was neither trained on nor reported."""


class StepObjective(Protocol):
    """What is minimised."""

    def loss(self, step: int) -> Tensor:
        """The loss of the live model on the batch of a step, a scalar; a function of the step and the weights."""


@dataclass(frozen=True)
class SparseConfig:
    """How long, how fast, how often looked at.

    Args:
        rate: learning rate by step; its last end is the length of the run.
        score_rate: learning rate of what the pruning method trains, as a factor of the weights'.
        weight_decay: decoupled weight decay of matrices.
        grad_clip: largest norm of the gradients of what is trained.
        seed: of dropout.
        evaluate_every: steps between two looks at the scores.
        checkpoint_every: steps between checkpoints.
    """

    rate: RestartedDecay
    score_rate: float = 1.0
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    seed: int = 0
    evaluate_every: int = 50
    checkpoint_every: int = 50

    @property
    def steps(self) -> int:
        return self.rate.ends[-1]


@dataclass
class SparseRun:
    """What a training leaves.

    Args:
        curve: one record for each look: ``step`` (done by then), ``loss`` (mean since the look before), ``lr``,
            ``settled`` (the masks are final), and the scores.
        chosen: the step whose weights were kept.
    """

    curve: list[dict[str, Any]] = field(default_factory=list)
    chosen: int = 0


@dataclass
class _Best:
    score: float = -math.inf
    step: int = 0
    weights: list[Tensor] = field(default_factory=list)


def train_sparse(
    objective: StepObjective,
    pruning: Pruning | None,
    trainable: Sequence[Tensor],
    config: SparseConfig,
    look: Callable[[], dict[str, float]],
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    identity: str = "",
) -> SparseRun:
    """Train, prune and keep the weights of the best look at the held-out score among those with the final masks.

    Args:
        pruning: the method; ``None`` trains the dense model.
        trainable: the parameters to update, in a stable order; the method's own come in addition.
        look: scores of the live model by name, ``held_out`` among them; it must leave no trace in the training.
        checkpoint: file to resume from and to save to; the caller removes it when the result is stored.
        identity: names what the configuration and the shapes do not tell.

    Raises:
        UserInputError: the loss or its gradient is not finite (the weights are those of the last good step); the
            method cannot prune what the training made; the checkpoint belongs to another run, is damaged, or cannot be
            written.
    """
    scores = [] if pruning is None else pruning.parameters()
    optimizer = _optimizer(trainable, scores, config)
    everything = [*trainable, *scores]
    mark = _mark(config, everything, identity)
    run, best, first, losses = SparseRun(), _Best(), 0, list[float]()
    if checkpoint is not None and checkpoint.exists():
        first, losses = _restore(load_checkpoint(checkpoint, mark), everything, optimizer, pruning, run, best)
    for step in range(first, config.steps):
        if pruning is not None:
            _prune(pruning, step, optimizer, checkpoint)
        # Seeded anew in every step: a resumed run draws the same dropout, on any device.
        torch.manual_seed((config.seed << 32) + step)
        loss = _step(objective, optimizer, everything, config, step, checkpoint)
        losses.append(loss)
        if on_step is not None:
            on_step(step, loss)
        done = step + 1
        if done % config.evaluate_every == 0 or done == config.steps:
            if pruning is not None and done == config.steps:
                _prune(pruning, done, optimizer, checkpoint)
            settled = pruning is None or pruning.settled(done if done == config.steps else step)
            record = {"step": done, "loss": sum(losses) / len(losses), "lr": config.rate.at(step), "settled": settled}
            record |= look()
            run.curve.append(record)
            losses = []
            if settled and record[SELECT] >= best.score:
                best = _Best(record[SELECT], done, [p.detach().clone() for p in trainable])
        if checkpoint is not None and (done % config.checkpoint_every == 0 or done == config.steps):
            _save(checkpoint, mark, done, everything, optimizer, pruning, run, best, losses)
    if pruning is not None:
        # Where an earlier call did the last step, nothing has set the last masks yet.
        _prune(pruning, config.steps, optimizer, checkpoint)
    with torch.no_grad():
        for parameter, kept in zip(trainable, best.weights, strict=True):
            parameter.copy_(kept)
    run.chosen = best.step
    return run


def _prune(pruning: Pruning, step: int, optimizer: torch.optim.Optimizer, checkpoint: Path | None) -> None:
    try:
        pruning.before_step(step, optimizer)
    except UserInputError as error:
        raise UserInputError(f"{str(error).rstrip('.')}{_kept(checkpoint)}.") from error


def _kept(checkpoint: Path | None) -> str:
    return "" if checkpoint is None or not checkpoint.exists() else f"; the last good checkpoint stays in {checkpoint}"


def _optimizer(trainable: Sequence[Tensor], scores: Sequence[Tensor], config: SparseConfig) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay, "factor": 1.0},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0, "factor": 1.0},
        {"params": list(scores), "weight_decay": 0.0, "factor": config.score_rate},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.rate.peak, eps=1e-8, fused=True)


def _step(
    objective: StepObjective,
    optimizer: torch.optim.Optimizer,
    everything: Sequence[Tensor],
    config: SparseConfig,
    step: int,
    checkpoint: Path | None,
) -> float:
    rate = config.rate.at(step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.zero_grad(set_to_none=True)
    loss = objective.loss(step)
    # A step whose draws leave every student layer out has nothing to learn.
    if loss.requires_grad:
        torch.autograd.backward(loss)
    total = float(loss.detach())
    norm = float(nn.utils.clip_grad_norm_(everything, config.grad_clip))
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise UserInputError(
            f"the loss became {total:g} and its gradient {norm:g} at step {step}{_kept(checkpoint)}; lower the "
            f"learning rate (now {config.rate.peak:g}) or check the data."
        )
    optimizer.step()
    return total


def _mark(config: SparseConfig, everything: Sequence[Tensor], identity: str) -> str:
    shape = json.dumps([asdict(config), [list(p.shape) for p in everything]], sort_keys=True)
    return hashlib.sha256(f"{shape}{identity}".encode()).hexdigest()


def _save(
    path: Path,
    mark: str,
    done: int,
    everything: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    pruning: Pruning | None,
    run: SparseRun,
    best: _Best,
    losses: list[float],
) -> None:
    state = {
        "step": done,
        "parameters": [p.detach() for p in everything],
        "optimizer": optimizer.state_dict(),
        "pruning": {} if pruning is None else pruning.state(),
        "curve": run.curve,
        "losses": losses,
        "best": {"score": best.score, "step": best.step, "weights": best.weights},
    }
    save_checkpoint(path, mark, state)


def _restore(
    state: dict[str, Any],
    everything: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    pruning: Pruning | None,
    run: SparseRun,
    best: _Best,
) -> tuple[int, list[float]]:
    with torch.no_grad():
        for parameter, saved in zip(everything, state["parameters"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    if pruning is not None:
        pruning.restore(state["pruning"])
    run.curve = list(state["curve"])
    best.score, best.step = float(state["best"]["score"]), int(state["best"]["step"])
    best.weights = [saved.to(p.device) for saved, p in zip(state["best"]["weights"], everything, strict=False)]
    return int(state["step"]), list(state["losses"])
