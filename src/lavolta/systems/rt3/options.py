"""What `compress` can be asked for, and a mark that tells one piece of work from another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from lavolta import __version__
from lavolta.devices.loading import load as load_device
from lavolta.errors import UserInputError
from lavolta.models.marks import model_mark, task_mark
from lavolta.models.tasks import load_task
from lavolta.models.text import TextData, builtin_text, user_text
from lavolta.runtime.packed_tensors import PRECISIONS
from lavolta.systems.rt3 import defaults
from lavolta.systems.rt3.levels import check_wishes

MODES = ("distill", "one-shot")


@dataclass(frozen=True)
class CompressOptions:
    """What `compress` was asked for; equal options and equal files give an equal bundle.

    Args:
        source: a model folder or a packaged model.
        text: file with one sentence a line; ``None`` takes the text that comes with Python (or the task's own).
        task: what to fine-tune on and compress for, as `load_task` takes it with its folder ``data``.
        device: profile that the levels are made for.
        deadline_ms: ``None`` takes the shortest that the dense model keeps at the highest clock.
        levels: number of levels.
        max_sparsity: of the sparsest level.
        cell_rows: height of a cell; ``None`` takes the default.
        tokens: length of the inference that the deadline is for.
        threads: threads of the device that run it.
        steps: of joint distillation.
        batch_size: sentences of a step.
        lr: peak learning rate.
        mode: ``"distill"``, or ``"one-shot"``: calibration only, no training.
        precision: of the weights in the bundle, ``"fp32"`` or ``"int8"``.
        seed: of everything drawn.
    """

    source: str
    text: str | None = None
    task: str | None = None
    data: str | None = None
    device: str = defaults.DEVICE
    deadline_ms: float | None = None
    levels: int = defaults.LEVELS
    max_sparsity: float = defaults.MAX_SPARSITY
    cell_rows: int | None = None
    tokens: int = defaults.TOKENS
    threads: int = 1
    steps: int = defaults.STEPS
    batch_size: int = defaults.BATCH_SIZE
    lr: float = defaults.LR
    mode: str = "distill"
    precision: str = defaults.PRECISION
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserInputError(f"the mode {self.mode!r} is unknown; choose one of {', '.join(MODES)}.")
        if self.precision not in PRECISIONS:
            raise UserInputError(f"the precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}.")
        if self.steps < 1 or self.batch_size < 1:
            raise UserInputError(f"steps is {self.steps} and batch_size {self.batch_size}; both must be at least 1.")
        if not 0.0 < self.lr < float("inf"):
            raise UserInputError(f"the learning rate is {self.lr}; give a positive number.")
        if self.seed < 0:
            raise UserInputError(f"the seed is {self.seed}; give 0 or more.")
        check_wishes(self.deadline_ms, self.levels, self.max_sparsity)
        if self.text is not None and self.task is not None:
            raise UserInputError("a text and a task were both given; give one of them.")
        if self.task is not None and self.data is None:
            raise UserInputError(f"the task {self.task!r} needs its data; give its folder with --data.")


def text_of(options: CompressOptions) -> TextData:
    """The sentences to learn from, and those that a bundle is judged on: none of the latter was trained on."""
    return builtin_text() if options.text is None else user_text(options.text)


def fingerprint(options: CompressOptions) -> str:
    """A mark of the options and of the content of model, device, and text or task: the same work has the same mark.

    Raises:
        UserInputError: the device, the text, the task or the model folder cannot be read.
    """
    digest = hashlib.sha256(json.dumps([__version__, asdict(options)], sort_keys=True).encode())
    if options.task is not None and options.data is not None:
        learned: object = task_mark(load_task(options.task, options.data))
    else:
        text = text_of(options)
        learned = [text.train, text.held_out]
    digest.update(json.dumps(learned).encode())
    digest.update(model_mark(options.source).encode())
    digest.update(load_device(options.device).model_dump_json().encode())
    return digest.hexdigest()
