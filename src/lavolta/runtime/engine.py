"""The native engine: open a bundle, run it, turn the dial."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike, fspath
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lavolta import _native
from lavolta.errors import BundleError, EngineError, UserInputError
from lavolta.runtime.calls import Text, Tokens, batch_of, translate
from lavolta.runtime.deadline import DeadlineRuns
from lavolta.runtime.session import Session
from lavolta.runtime.spec import ModelSpec
from lavolta.runtime.tokens import Codec, read_codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lavolta.runtime.generation import GeneratedToken

_MAX_THREADS = 256
_MAX_CORES = 4096
_PROFILE_RUNS = 5


def open_bundle(
    path: str | PathLike[str],
    threads: int = 1,
    *,
    spin_us: int = 0,
    isa: str | None = None,
    cores: Sequence[int] | None = None,
) -> Model:
    """Open a bundle with the native engine.

    Args:
        path: a file that `lavolta compress` or `write_bundle` wrote.
        threads: threads of a run, the caller's included, 1 to 256.
        spin_us: how long an idle thread spins before it blocks; 0 blocks at once.
        isa: the best instruction set allowed, one of `instruction_sets()`; None takes the environment variable
            ``LAVOLTA_ISA``, else the best there is.
        cores: a run's threads, the caller's included, stay on these cores until it ends. None keeps them to the fastest
            ones of a computer with unequal cores (see `lavolta.runtime.cores`), and leaves them alone elsewhere.

    Raises:
        BundleError: the file is broken; `kind` names how.
        UserInputError: a wrong argument.
    """
    if not 1 <= threads <= _MAX_THREADS:
        raise UserInputError(f"threads is {threads}; choose 1 to {_MAX_THREADS}.")
    if spin_us < 0:
        raise UserInputError(f"spin_us is {spin_us}; it must be 0 or more.")
    if isa is not None and isa not in instruction_sets():
        raise UserInputError(f"this CPU has no '{isa}'; choose one of {', '.join(instruction_sets())}.")
    if cores is not None and len(cores) == 0:
        raise UserInputError("cores is empty; name at least one core, or give None.")
    name = fspath(path)
    for core in cores or ():
        if not 0 <= core < _MAX_CORES:
            raise UserInputError(f"cores has {core}; a core is a number from 0 to {_MAX_CORES - 1}.")
    try:
        native = _native.NativeModel(name, threads, spin_us, isa or "", list(cores or ()))
    except _native.NativeError as error:
        raise translate(error, name) from None
    return Model(native)


def instruction_sets() -> tuple[str, ...]:
    """Instruction sets that this CPU runs and this build has, best last."""
    return tuple(_native.isas().split())


class Model(DeadlineRuns):
    """One resident model with a dial. Make one with `open_bundle`.

    Runs from several threads are executed one after another; `switch` never waits for a run, and a run uses the level
    that was set when it began.

    Attributes:
        spec: what the model is.
        manifest: the bundle's manifest.
        levels: names of the levels, densest first.
    """

    def __init__(self, native: Any) -> None:
        self._native = native
        self.manifest: dict[str, Any] = json.loads(native.describe())
        try:
            self.spec = ModelSpec.from_dict(self.manifest["model"])
        except UserInputError as error:
            raise BundleError("manifest-invalid", f"the manifest is invalid: {error}") from None
        self.levels: list[str] = [level["name"] for level in self.manifest["levels"]]
        self._codec: Codec | None = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; every later call is an `EngineError`. Closing twice is allowed."""
        # The native object lives until the last run that holds it returns.
        self._native = None
        self._codec = None

    @property
    def level(self) -> int:
        """Index of the present level, 0 is the densest."""
        return int(self._open().level())

    def switch(self, level: int | str) -> int:
        """Turn the dial: the next run uses `level`, an index or a name. No weight moves.

        Returns:
            The nanoseconds that the switch took.

        Raises:
            UserInputError: the bundle has no such level.
        """
        if isinstance(level, str):
            if level not in self.levels:
                raise UserInputError(f"there is no level '{level}'; the bundle has {', '.join(self.levels)}.")
            level = self.levels.index(level)
        native = self._open()
        if not 0 <= level < len(self.levels):
            raise UserInputError(f"there is no level {level}; the bundle has levels 0 to {len(self.levels) - 1}.")
        return int(native.switch(level))

    def run(
        self, token_ids: Sequence[Tokens], type_ids: Sequence[Tokens] | None = None, per_token: bool = False
    ) -> NDArray[np.float32]:
        """Run sequences of token ids, of any lengths, at the present level; nothing is padded.

        Args:
            token_ids: one sequence of ids per row, each 1 to ``spec.max_tokens`` long.
            type_ids: the same shape, for models with token types; None is all 0.
            per_token: return the last hidden state of every token, before pooling and head.

        Returns:
            ``(sequences, outputs)``, or ``(sequences, hidden)`` for a model without outputs. One row per token, all
            sequences one after another, where the model's pooling is ``"none"``; ``(tokens, hidden)`` with
            ``per_token``.

        Raises:
            UserInputError: no sequence, an empty or too long one, an id out of range, types that do not fit.
            CancelledError: another thread called `cancel`.
            EngineError: the model is closed, or there is not enough memory.
        """
        ids, types, lengths = batch_of(token_ids, type_ids)
        try:
            output: NDArray[np.float32] = self._open().run(ids, types, lengths, per_token)
        except _native.NativeError as error:
            raise translate(error) from None
        return output

    def cancel(self) -> None:
        """End the runs that have begun, in other threads: before its next layer each raises `CancelledError`.

        Later runs are not concerned, and without a run nothing happens.
        """
        self._open().cancel()

    def encode(self, texts: Sequence[Text], per_token: bool = False) -> NDArray[np.float32]:
        """Tokenize texts (or pairs of texts, as tuples) with the bundle's own vocabulary, and run them.

        What is longer than the bundle's tokenizer truncates to, at most ``spec.max_tokens``, is cut.

        Raises:
            UserInputError: no text, something that is not text, or a bundle without tokenizer and vocabulary.
        """
        token_ids, type_ids = self.tokenize(texts)
        return self.run(token_ids, type_ids if self.spec.types > 1 else None, per_token)

    def tokenize(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids and type ids of texts (or pairs of texts), as `encode` runs them."""
        self._open()
        if isinstance(texts, str):
            raise UserInputError("encode takes a list of texts, not one text; write encode([text]).")
        if len(texts) == 0:
            raise UserInputError("there is no text; give at least one.")
        for index, text in enumerate(texts):
            pair = isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)
            if not pair and not isinstance(text, str):
                raise UserInputError(f"text {index} is neither a string nor a pair of strings.")
        return self.codec().encode(texts)

    def codec(self) -> Codec:
        """The bundle's own vocabulary: text to token ids and back.

        Raises:
            UserInputError: the bundle has none.
        """
        native = self._open()
        if self._codec is None:
            self._codec = read_codec(native.blob("tokenizer"), native.blob("vocab"), self.spec.max_tokens)
        return self._codec

    def session(self, max_tokens: int = 0) -> Session:
        """A sequence that grows token by token, of a causal language model; a model may have any number of them.

        Args:
            max_tokens: room for tokens, 1 to ``spec.max_tokens``; 0 is that limit. Memory is taken as tokens come.

        Raises:
            UserInputError: the model is not causal, or takes fewer tokens.
        """
        native = self._open()
        if max_tokens < 0:
            raise UserInputError(f"max_tokens is {max_tokens}; choose 0 to {self.spec.max_tokens}.")
        try:
            return Session(_native.NativeSession(native, max_tokens, self.spec.outputs or self.spec.hidden))
        except _native.NativeError as error:
            raise translate(error) from None

    def generate(self, prompt: str | Tokens, max_new_tokens: int = 64, **options: Any) -> Iterator[GeneratedToken]:
        """Continue a text, token by token; see `lavolta.runtime.generation.generate`."""
        from lavolta.runtime.generation import generate

        return generate(self, prompt, max_new_tokens, **options)

    def explain(self, measure_tokens: int | None = None) -> list[dict[str, Any]]:
        """What runs: one record per level and step, in the order of the computation.

        Every record has ``level``, ``layer``, ``op``, ``kernel``, ``isa``, ``reason`` (what kept a faster kernel from
        running) and ``measured_ms`` (median of five runs). Those of linear layers also have ``precision``,
        ``cell_rows``, ``cells``, ``cells_kept``, ``sparsity`` (of cells), ``runs``, ``macs_per_token``, ``expected_ms``
        (of the kept work at the measured peak of the kernel's own instructions, on all threads) and ``share_of_peak``
        (expected over measured).

        Of a causal language model, every level's steps for one token of a session follow; the ``op`` of their linear
        layers is ``token_linear``. Such a token waits for its weights, so instead of the peak these have
        ``bytes_per_token`` (weights and columns that the level streams), ``expected_ms`` (as long as all threads take
        to read so many bytes of the model's own weights, measured beside it) and ``share_of_bandwidth``.

        Args:
            measure_tokens: length of a sequence to run and time at every level, and of the context behind which one
                token is timed (one less where the model takes no more); None leaves ``measured_ms``,
                ``expected_ms`` and the shares None. Runs of other threads in that time are measured too; the level is
                put back at the end.
        """
        native = self._open()
        if measure_tokens is None:
            records: list[dict[str, Any]] = json.loads(native.explain())
            return records
        ids = [np.arange(measure_tokens) % self.spec.vocab]
        before, rounds = self.level, []
        try:
            sessions = self._contexts(ids[0][: self.spec.max_tokens - 1])
            for _ in range(_PROFILE_RUNS):
                native.profile(True)
                for level in range(len(self.levels)):
                    self.switch(level)
                    self.run(ids, per_token=self.spec.pooling == "none" and self.spec.outputs == 0)
                    if sessions:
                        sessions[level].append([0])
                        sessions[level].truncate(len(sessions[level]) - 1)
                rounds.append(json.loads(native.explain()))
        finally:
            native.profile(False)
            self.switch(before)
        return [_median_record(same) for same in zip(*rounds, strict=True)]

    def _contexts(self, token_ids: NDArray[np.integer[Any]]) -> list[Session]:
        """A session with these tokens for each level; none where the model has no sessions."""
        sessions: list[Session] = []
        if not self.spec.causal or self.spec.pooling != "none":
            return sessions
        for level in range(len(self.levels)):
            self.switch(level)
            sessions.append(self.session())
            if len(token_ids) > 0:
                sessions[level].extend(token_ids)
        return sessions

    def _open(self) -> Any:
        native = self._native
        if native is None:
            raise EngineError("the model is closed; open the bundle again.")
        return native


def _median_record(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of several measurements of a step: medians, so that an interrupted run does not count."""
    found = dict(records[0])
    found["measured_ms"] = median(record["measured_ms"] for record in records)
    if found.get("expected_ms") is not None:
        share = "share_of_bandwidth" if "share_of_bandwidth" in found else "share_of_peak"
        found[share] = found["expected_ms"] / found["measured_ms"] if found["measured_ms"] > 0 else None
    return found
