"""Runs that keep a deadline: the engine compares the clock with its plan before every layer."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta import _native
from lavolta.errors import UserInputError
from lavolta.files import write_whole
from lavolta.runtime.calls import Text, Tokens, batch_of, translate
from lavolta.runtime.spec import ModelSpec

_MAX_REPETITIONS = 1000

Clock = Callable[[], int]
"""Nanoseconds from any beginning."""


@dataclass(frozen=True)
class DeadlineRun:
    """One run within a deadline.

    Attributes:
        output: what `Model.run` gives, ``(rows, columns)``.
        levels: index of the level that each layer got, ``(sequences, layers)``.
        elapsed_ms: from the call, the wait for other runs included, to the output.
        met: whether it arrived in time.
    """

    output: NDArray[np.float32]
    levels: NDArray[np.uint32]
    elapsed_ms: float
    met: bool


class DeadlineRuns(ABC):
    """The part of `Model` that keeps deadlines."""

    spec: ModelSpec

    @abstractmethod
    def _open(self) -> Any: ...

    @abstractmethod
    def tokenize(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]]]: ...

    def calibrate(
        self, tokens: Sequence[int] | None = None, repetitions: int = 5, *, clock: Clock | None = None
    ) -> None:
        """Measure what every layer costs at every level, here and now; `run_within` needs it once per machine.

        Args:
            tokens: lengths of the sequences to measure, each 1 to ``spec.max_tokens``; None measures 8 to 256. Choose
                them around what will be run.
            repetitions: runs of each length and level, 1 to 1000; the median counts.
            clock: nanoseconds; None is the system's monotonic clock.

        Raises:
            UserInputError: a length or count out of range.
        """
        counts = np.asarray([] if tokens is None else tokens, dtype=np.int64)
        if counts.ndim != 1 or (tokens is not None and counts.size == 0):
            raise UserInputError("tokens is not a list of lengths; give some, such as [16, 128], or None.")
        if not 1 <= repetitions <= _MAX_REPETITIONS:
            raise UserInputError(f"repetitions is {repetitions}; choose 1 to {_MAX_REPETITIONS}.")
        lengths = np.clip(counts, 0, np.iinfo(np.uint32).max).astype(np.uint32)
        try:
            self._open().calibrate(lengths, repetitions, clock)
        except _native.NativeError as error:
            raise translate(error) from None

    @property
    def plan(self) -> dict[str, Any] | None:
        """The costs that `calibrate` measured or `load_plan` read, a copy; None before either.

        ``layers_ns[layer][level]``, ``embed_ns`` and ``finish_ns`` are coefficients of
        ``[1, tokens, sum of squared lengths or rows of output]``.
        """
        text = self._open().plan()
        return None if text is None else json.loads(text)

    def save_plan(self, path: str | PathLike[str]) -> None:
        """Write the plan as JSON, whole or not at all.

        Raises:
            UserInputError: there is no plan, or the file cannot be written.
        """
        text = self._open().plan()
        if text is None:
            raise UserInputError("the model has no plan of its costs; calibrate it, or load a plan, first.")
        write_whole(Path(path), (text + "\n").encode())

    def load_plan(self, path: str | PathLike[str]) -> None:
        """Take a plan that `save_plan` wrote, for the same bundle, instruction set and thread count.

        Raises:
            UserInputError: the file cannot be read, is no plan, or was made for something else.
        """
        native = self._open()
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserInputError(f"the plan {path} cannot be read: {error}; calibrate and save it again.") from error
        try:
            native.set_plan(text)
        except _native.NativeError as error:
            raise translate(error) from None

    def run_within(
        self,
        token_ids: Sequence[Tokens],
        deadline_ms: float,
        type_ids: Sequence[Tokens] | None = None,
        per_token: bool = False,
        *,
        clock: Clock | None = None,
    ) -> DeadlineRun:
        """`Model.run` within a deadline: before each layer the engine compares the clock with its plan.

        The remaining layers get the densest levels that still arrive in time, never denser than the level that is set.
        When not even the sparsest arrives, they finish at the sparsest and the answer is late. Layers that take longer
        than planned, because something else runs on the machine, slow the plan of the rest.

        Args:
            token_ids: as in `Model.run`.
            deadline_ms: from this call to its answer; 0 or less is late already, infinity is no deadline.
            type_ids: as in `Model.run`.
            per_token: as in `Model.run`.
            clock: nanoseconds; None is the system's monotonic clock. Called in this thread, before each layer.

        Raises:
            UserInputError: as `Model.run`; a deadline that is not a number; no plan (see `calibrate`).
            CancelledError: another thread called `cancel`.
            EngineError: the model is closed, or there is not enough memory.
        """
        native = self._open()
        ids, types, lengths = batch_of(token_ids, type_ids)
        levels = np.full((len(lengths), native.layer_count()), np.iinfo(np.uint32).max, dtype=np.uint32)
        try:
            output, elapsed_ms, met = native.run_within(ids, types, lengths, per_token, deadline_ms, levels, clock)
        except _native.NativeError as error:
            raise translate(error) from None
        return DeadlineRun(output, levels, elapsed_ms, met)

    def encode_within(
        self, texts: Sequence[Text], deadline_ms: float, per_token: bool = False, *, clock: Clock | None = None
    ) -> DeadlineRun:
        """`Model.encode` within a deadline that covers the tokenizer too; see `run_within`."""
        read = time.monotonic_ns if clock is None else clock
        start_ns = read()
        token_ids, type_ids = self.tokenize(texts)
        types = type_ids if self.spec.types > 1 else None
        taken_ms = max(0, read() - start_ns) / 1e6
        run = self.run_within(token_ids, deadline_ms - taken_ms, types, per_token, clock=clock)
        return DeadlineRun(run.output, run.levels, run.elapsed_ms + taken_ms, run.met)
