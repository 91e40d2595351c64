"""The native engine as the governor's runner: it switches the level, and keeps the deadline inside the run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lavolta.errors import UserInputError
from lavolta.runtime.deadline import Clock
from lavolta.runtime.engine import Model
from lavolta.runtime.runners import Answer


@dataclass(frozen=True)
class Tokenized:
    """A text whose tokens are known already.

    Args:
        token_ids: 1 to ``max_tokens`` of them.
        type_ids: one a token, for models with token types.
    """

    token_ids: Sequence[int]
    type_ids: Sequence[int] | None = None


class EngineRunner:
    """Runs texts, or rows of token ids, on a model.

    A run that falls behind its plan finishes at sparser levels, so that a deadline that the governor misjudged is kept
    all the same. The plan is measured when the runner is made, at the clock of that moment; a run that goes slower than
    planned slows the plan of its rest.

    Args:
        models: the model; for several clusters the bundle opened once for each of them, on its cores. They read the
            same file in place, so its weights are in memory once, and each has a plan and threads of its own.
        tokens: length of the sequences to measure the plan with; one that a model has already is kept.
        cpus: the CPUs of each cluster, where runs have a single thread: it is the caller's, so a run can be moved to
            another cluster before its end. Other threads are the engine's own.
    """

    def __init__(
        self,
        models: Model | Mapping[str, Model],
        tokens: int,
        cpus: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._models = dict(models) if isinstance(models, Mapping) else {"": models}
        if not self._models:
            raise UserInputError("there is no model to run; give at least one.")
        for model in self._models.values():
            if model.plan is None:
                model.calibrate([tokens])
        self._model = next(iter(self._models.values()))
        self._cpus = {} if cpus is None else dict(cpus)
        self._thread = 0

    @property
    def model(self) -> Model:
        """The model that runs, or runs next."""
        return self._model

    @property
    def moves_runs(self) -> bool:
        """Whether the cores of every cluster are known, and runs have a single thread."""
        return len(self._models) > 1 and self._models.keys() <= self._cpus.keys()

    def move_run(self, cluster: str, /) -> bool:
        """Move the thread of the run to the cores of a cluster; false where the system does not let it."""
        try:
            os.sched_setaffinity(self._thread, self._cpus[cluster])
        except OSError:
            return False
        return True

    def move(self, cluster: str, /) -> None:
        """Run on this cluster's model from now on; a runner with one model stays on it."""
        if len(self._models) > 1:
            self._model = self._models[cluster]

    def __call__(self, request: Any, level: str, within_ms: float, /) -> Answer:
        """One run; the request is a text, a pair of texts, a sequence of token ids, or a `Tokenized`."""
        return self._answer(request, level, within_ms, None)

    def run_raised(
        self,
        request: Any,
        level: str,
        within_ms: float,
        after_ms: float,
        speedup: float,
        then: Callable[[], None],
        /,
    ) -> Answer:
        """The same, and ``then`` on another thread if the run has not ended after a while; the run goes on meanwhile.

        From that moment on a unit of time is worth ``speedup`` units to the engine, which compares time with its plan.
        """
        ended, done = threading.Event(), threading.Event()

        def wait() -> None:
            try:
                if not ended.wait(after_ms / 1e3):
                    then()
            finally:
                done.set()

        turn_ns = time.monotonic_ns() + round(1e6 * after_ms)

        def clock() -> int:
            now_ns = time.monotonic_ns()
            return now_ns if now_ns <= turn_ns else turn_ns + round((now_ns - turn_ns) * speedup)

        self._thread = threading.get_native_id()
        allowed = os.sched_getaffinity(0) if self.moves_runs else set()
        threading.Thread(target=wait, daemon=True).start()
        try:
            return self._answer(request, level, after_ms + max(0.0, within_ms - after_ms) * speedup, clock)
        finally:
            ended.set()
            done.wait()
            if allowed:
                # A move that came when the engine had just given the thread its cores back.
                with suppress(OSError):
                    os.sched_setaffinity(0, allowed)

    def _answer(self, request: Any, level: str, within_ms: float, clock: Clock | None) -> Answer:
        self._model.switch(level)
        if isinstance(request, (str, tuple)):
            run = self._model.encode_within([request], within_ms, clock=clock)
        elif isinstance(request, Tokenized):
            types = None if request.type_ids is None else [request.type_ids]
            run = self._model.run_within([request.token_ids], within_ms, types, clock=clock)
        else:
            run = self._model.run_within([request], within_ms, clock=clock)
        kept = bool((run.levels == self._model.level).all())
        return Answer(run.output, kept_level=kept)
