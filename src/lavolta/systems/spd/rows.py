"""What the rows of the experiments on encoders share: the dense models, the lengths of tasks, lines for a log."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lavolta.models.tasks import load_task
from lavolta.progress import Progress
from lavolta.systems.spd.options import PruneOptions
from lavolta.systems.spd.recipe import Teacher, make_teacher

SOURCE = "all-MiniLM-L6-v2"

TEACHERS = {"rte": (4.0, 1e-4), "mrpc": (3.0, 1e-4), "stsb": (3.0, 1.5e-4)}
"""Epochs and peak learning rate of the dense model."""

MAX_TOKENS = {"rte": 128, "mrpc": 96, "stsb": 64}
"""No pair of MRPC and STS-B but a handful is longer."""

EVERY = 10
"""Steps between two lines of a log."""


class Lines(Progress):
    """One line now and then."""

    def __init__(self, name: str) -> None:
        self._name, self._begun_s, self._done, self._total, self._stage = name, time.perf_counter(), 0, 0, ""

    def plan(self, expected_s: object) -> None:
        del expected_s

    def stage(self, name: str, total: int | None = None) -> Lines:
        self._stage, self._total, self._done = name, total or 0, 0
        return self

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.say(f"{self._stage}: done")

    def advance(self, steps: int = 1) -> None:
        before, self._done = self._done, self._done + steps
        if self._done // EVERY > before // EVERY:
            self.say(f"{self._stage}: {self._done} of {self._total}")

    def note(self, text: str) -> None:
        del text

    def say(self, sentence: str) -> None:
        print(f"{self._name} {time.perf_counter() - self._begun_s:.0f} s: {sentence}", flush=True)


def row_options(task: str, data: Path, source: str = SOURCE, **options: Any) -> PruneOptions:
    """Options of a row; what is not given is as in all rows."""
    epochs, lr = TEACHERS[task]
    return PruneOptions(
        source,
        task,
        str(data),
        max_tokens=MAX_TOKENS[task],
        pooling="mean",
        teacher_epochs=epochs,
        teacher_lr=lr,
        force=True,
        **options,
    )


def row_teacher(options: PruneOptions, teacher_seed: int, work: Path, progress: Progress) -> Teacher:
    """The dense model of a task and seed, trained once for all rows; each encoder's have a folder of their own."""
    folder = work / "teachers"
    if options.source != SOURCE:
        folder /= Path(options.source).name
    return make_teacher(
        replace(options, seed=teacher_seed), load_task(options.task, options.data), folder, progress=progress
    )
