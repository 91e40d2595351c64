"""The native engine as the governor's runner: it switches the level, and keeps the deadline inside the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lavolta.runtime.engine import Model
from lavolta.runtime.governor_loop import Answer


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
        tokens: length of the sequences to measure the plan with; one that the model has already is kept.
    """

    def __init__(self, model: Model, tokens: int) -> None:
        self._model = model
        if model.plan is None:
            model.calibrate([tokens])

    def __call__(self, request: Any, level: str, within_ms: float, /) -> Answer:
        """One run; the request is a text, a pair of texts, a sequence of token ids, or a `Tokenized`."""
        self._model.switch(level)
        if isinstance(request, (str, tuple)):
            run = self._model.encode_within([request], within_ms)
        elif isinstance(request, Tokenized):
            types = None if request.type_ids is None else [request.type_ids]
            run = self._model.run_within([request.token_ids], within_ms, types)
        else:
            run = self._model.run_within([request], within_ms)
        kept = bool((run.levels == self._model.level).all())
        return Answer(run.output, kept_level=kept)
