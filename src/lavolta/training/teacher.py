"""The dense teacher: an encoder fine-tuned on a task through the loop that also prunes, kept for the next run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.files import make_folder, write_whole
from lavolta.models.batching import StepBatches
from lavolta.models.hf import load_encoder, with_head
from lavolta.models.loaded import LoadedModel
from lavolta.models.tasks import TaskData, unnamed
from lavolta.training.dropout import lock_dropout
from lavolta.training.grafting import GraftedModel, GraftingObjective, LossTerms
from lavolta.training.schedules import ConstantReplacing, RestartedDecay
from lavolta.training.sparse import SparseConfig, train_sparse
from lavolta.training.task_data import TaskSplits, task_score


@dataclass(frozen=True)
class TeacherTraining:
    """How a dense encoder is fine-tuned.

    Args:
        epochs: passes over the training rows.
        lr: peak learning rate.
        batch_size: rows of a step.
        dropout: probability; features of a whole sequence are dropped together.
        pooling: ``"cls"`` (BERT's own head, which transformers has a class for) or ``"mean"``.
        looks: how often scores are taken.
    """

    epochs: float = 4.0
    lr: float = 1e-4
    batch_size: int = 32
    dropout: float = 0.1
    pooling: str = "cls"
    looks: int = 4


def untrained(source: str, task: TaskData, training: TeacherTraining, seed: int) -> tuple[LoadedModel, TaskData, bool]:
    """The model for a task, the task with its classes numbered as the model's, and whether the model comes with a head
    for it: then it is the teacher as it is.

    Raises:
        UserInputError: an unknown model, or a head of another task.
    """
    loaded = load_encoder(source)
    if loaded.spec.task in ("classification", "regression"):
        if loaded.spec.task == task.kind:
            # Where names say which classes differ, their number says less.
            task = task.ordered_like(loaded.spec.labels)
        if loaded.spec.task != task.kind or loaded.spec.outputs != task.outputs:
            raise UserInputError(
                f"{source} has a head for {loaded.spec.task} with {loaded.spec.outputs} outputs, but the data of "
                f"{task.name} needs {task.kind} with {task.outputs}; give an encoder without a head, or one fine-tuned "
                "on this task."
            )
        if unnamed(loaded.spec.labels):
            loaded = replace(loaded, spec=replace(loaded.spec, labels=task.labels))
        return loaded, task, True
    loaded = load_encoder(source, "embedding") if loaded.spec.task != "embedding" else loaded
    headed = with_head(
        loaded, task.outputs, task.kind, seed, labels=task.labels, pooling=training.pooling, dropout=training.dropout
    )
    lock_dropout(headed.module, training.dropout)
    return headed, task, False


def fine_tune(
    loaded: LoadedModel,
    splits: TaskSplits,
    training: TeacherTraining,
    seed: int,
    saved: Path,
    identity: dict[str, Any],
    device: torch.device | str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> list[dict[str, Any]]:
    """Fine-tune a model in place, or take its weights from an earlier fine-tuning; returns its curve.

    Args:
        saved: file of the weights, read where it is there and written where it is not; a checkpoint lies beside it.
        identity: plain values that name the model and the data; a file of other values is refused.

    Raises:
        UserInputError: a file of another training, a damaged one, or a loss that is not finite.
    """
    mark = json.dumps([identity, asdict(training), seed], sort_keys=True)
    if saved.exists():
        return _restore(saved, loaded, mark)
    grafted = GraftedModel(loaded)
    objective = GraftingObjective(
        grafted,
        None,
        StepBatches(splits.train, training.batch_size, seed),
        LossTerms(label=1.0, soft=0.0, hidden=0.0, attention=0.0),
        ConstantReplacing(1.0),
        seed,
        device,
    )
    config = SparseConfig(
        RestartedDecay(training.lr, (teacher_steps(len(splits.train), training),)),
        weight_decay=0.01,
        seed=seed,
        evaluate_every=max(1, -(-teacher_steps(len(splits.train), training) // training.looks)),
    )
    make_folder(saved.parent)
    checkpoint = saved.with_suffix(".checkpoint")
    run = train_sparse(
        objective,
        None,
        list[Tensor](loaded.module.parameters()),
        config,
        lambda: looks(loaded, splits, device),
        checkpoint,
        on_step,
        identity=mark,
    )
    loaded.module.eval()
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in loaded.module.state_dict().items()}
    write_whole(saved, save(content, {"mark": mark, "curve": json.dumps(run.curve)}))
    checkpoint.unlink(missing_ok=True)
    return run.curve


def teacher_steps(rows: int, training: TeacherTraining) -> int:
    """Steps of a fine-tuning on so many rows."""
    return max(1, round(training.epochs * -(-rows // training.batch_size)))


def looks(loaded: LoadedModel, splits: TaskSplits, device: torch.device | str = "cpu") -> dict[str, float]:
    """The scores along the way, by part; the training goes on as if nobody had looked."""
    return {name: task_score(loaded, splits.task, part, device) for name, part in splits.looks.items()}


def _restore(saved: Path, loaded: LoadedModel, mark: str) -> list[dict[str, Any]]:
    try:
        with safe_open(saved, "pt") as file:
            found = file.metadata() or {}
        if found.get("mark") != mark:
            raise UserInputError(f"{saved} was trained from another model or in another way; delete it to train again.")
        loaded.module.load_state_dict(load_file(saved))
        curve: list[dict[str, Any]] = json.loads(found["curve"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserInputError(f"{saved} cannot be read ({reason}); delete it to train again.") from error
    loaded.module.eval()
    return curve
