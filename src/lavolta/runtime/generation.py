"""Continue a text with a causal language model: greedy or sampled, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import EngineError, UserInputError
from lavolta.runtime.tokens import Codec

if TYPE_CHECKING:
    from lavolta.runtime.calls import Tokens
    from lavolta.runtime.engine import Model
    from lavolta.runtime.session import Session

_CONTEXT = 8
_INCOMPLETE = "\ufffd"
STOP_IDS_FIELD = "stop_token_ids"
"""Field of the manifest's ``provenance``: ids at which a text of this model ends."""


@dataclass(frozen=True)
class GeneratedToken:
    """One token that was generated.

    Args:
        id: the token.
        text: what it adds to the text. Empty while a character or a possible stop text is incomplete; the joined texts
            of all tokens are the generated text. Always empty for a bundle without vocabulary.
        level: name of the level that computed it.
    """

    id: int
    text: str
    level: str


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from its logits.

    Args:
        temperature: divides the logits; 0 takes the most likely token (the first of equal ones).
        top_k: choose among the k most likely tokens only; 0 is all.
        top_p: choose among the most likely tokens that together have this probability (Holtzman et al. 2020), 0 to 1.
        seed: of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserInputError(f"temperature is {self.temperature:g}; choose 0 (greedy) or more.")
        if self.top_k < 0:
            raise UserInputError(f"top_k is {self.top_k}; choose 0 (all) or more.")
        if not 0.0 < self.top_p <= 1.0:
            raise UserInputError(f"top_p is {self.top_p:g}; choose above 0 and at most 1.")
        if self.seed < 0:
            raise UserInputError(f"seed is {self.seed}; choose 0 or more.")

    def distribution(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The tokens that may be drawn, most likely first, and their probabilities; one token where it is greedy."""
        if self.temperature == 0.0:
            return np.array([int(np.argmax(logits))]), np.ones(1)
        order = np.argsort(-logits, kind="stable")
        if self.top_k:
            order = order[: self.top_k]
        scaled = (logits[order].astype(np.float64) - float(logits[order[0]])) / self.temperature
        chances = np.exp(scaled)
        chances /= chances.sum()
        if self.top_p < 1.0:
            # The first token is always among them, the one that crosses the limit too.
            count = int(np.searchsorted(np.cumsum(chances), self.top_p)) + 1
            order, chances = order[:count], chances[:count] / chances[:count].sum()
        return order, chances

    def draw(self, logits: NDArray[np.float32], generator: np.random.Generator) -> int:
        """One token.

        Raises:
            EngineError: no logit is the largest, because one is NaN or the largest is infinite.
        """
        # The largest of numbers with a NaN among them is NaN.
        largest = float(np.max(logits))
        if not np.isfinite(largest):
            raise EngineError(
                f"the largest logit is {largest}, so no token follows: numbers overflowed in the model; generate at "
                "another level, or make the bundle again from a model whose outputs are finite."
            )
        tokens, chances = self.distribution(logits)
        if len(tokens) == 1:
            return int(tokens[0])
        place = int(np.searchsorted(np.cumsum(chances), generator.random(), side="right"))
        return int(tokens[min(place, len(tokens) - 1)])


def generate(
    model: Model,
    prompt: str | Tokens,
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str | int] = (),
) -> Iterator[GeneratedToken]:
    """Generate tokens one by one; all work, such as reading the prompt, is done as the tokens are taken.

    Every token uses the level that is set when it is asked for, so `Model.switch` between two tokens is the dial of a
    running generation. Generation ends after ``max_new_tokens``, at a stop, or when the model's length is reached. The
    same arguments and levels give the same tokens.

    Args:
        prompt: a text, or token ids.
        max_new_tokens: at least 1.
        temperature, top_k, top_p, seed: see `Sampling`; greedy by default.
        stop: texts and token ids that end the generation, beside the model's own end of text. A stop text and what
            follows it are left out; a stop id is the last token, without a text of its own.

    Raises:
        UserInputError: a wrong argument, an empty or too long prompt, a model that is no causal language model, or text
            where the bundle has no vocabulary.
        EngineError: the model is closed, or its logits are not finite; also while tokens are taken.
    """
    sampling = Sampling(temperature, top_k, top_p, seed)
    if max_new_tokens < 1:
        raise UserInputError(f"max_new_tokens is {max_new_tokens}; choose at least 1.")
    if model.spec.outputs != model.spec.vocab:
        raise UserInputError(
            f"the model has {model.spec.outputs} outputs for {model.spec.vocab} tokens; it cannot write."
        )
    stop_texts = [text for text in stop if isinstance(text, str)]
    if "" in stop_texts:
        raise UserInputError("a stop text is empty; leave it out.")
    provenance = model.manifest.get("provenance", {})
    stop_ids = {int(token) for token in stop if not isinstance(token, str)} | _own_stops(provenance.get(STOP_IDS_FIELD))
    codec = _codec_of(model, needed=isinstance(prompt, str) or bool(stop_texts))
    ids = codec.prompt(prompt) if codec and isinstance(prompt, str) else np.asarray(prompt).tolist()
    if not ids:
        raise UserInputError("the prompt is empty; give at least one token to continue.")
    limit = model.spec.max_tokens
    if len(ids) > limit:
        raise UserInputError(f"the prompt has {len(ids)} tokens, the model's limit is {limit}; shorten it.")
    count = min(max_new_tokens, limit - len(ids) + 1)
    # The last token is not appended: nothing follows it.
    session = model.session(len(ids) + count - 1)
    stream = TextStream(codec, ids, stop_texts)
    return _tokens(model, session, ids, count, sampling, stop_ids, stream)


class TextStream:
    """The text of tokens as they come, without half characters and up to the first stop text."""

    def __init__(self, codec: Codec | None, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._codec, self._stops = codec, stops
        # Tokens before the new ones decide on white space between them; those before `_old` have been given out.
        self._window = list(prompt[-_CONTEXT:])
        self._old = len(self._window)
        self._held = ""

    def push(self, token: int) -> tuple[str, bool]:
        """Add a token.

        Returns:
            The text that is settled by it, and whether a stop text was reached: it and what follows are left out.
        """
        self._window.append(token)
        added = self._added()
        if not added or added.endswith(_INCOMPLETE):
            return "", False
        self._window, self._old = self._window[self._old :], len(self._window) - self._old
        return self._settle(added)

    def flush(self) -> str:
        """What was held back, when no token follows."""
        text, stopped = self._settle(self._added())
        return text if stopped else text + self._held

    def _added(self) -> str:
        if self._codec is None:
            return ""
        before = self._codec.decode(self._window[: self._old])
        return self._codec.decode(self._window)[len(before) :]

    def _settle(self, added: str) -> tuple[str, bool]:
        text = self._held + added
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            return text[: min(found)], True
        # The longest end of the text that may yet become a stop.
        held = max((n for stop in self._stops for n in range(len(stop)) if text.endswith(stop[:n])), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False


def _tokens(
    model: Model,
    session: Session,
    ids: list[int],
    count: int,
    sampling: Sampling,
    stop_ids: set[int],
    stream: TextStream,
) -> Iterator[GeneratedToken]:
    generator = np.random.default_rng(sampling.seed)
    with session:
        for left in range(count, 0, -1):
            level = model.levels[model.level]
            token = sampling.draw(session.append(ids), generator)
            if token in stop_ids:
                yield GeneratedToken(token, stream.flush(), level)
                return
            text, stopped = stream.push(token)
            yield GeneratedToken(token, text + stream.flush() if left == 1 and not stopped else text, level)
            if stopped:
                return
            ids = [token]


def _codec_of(model: Model, needed: bool) -> Codec | None:
    try:
        return model.codec()
    except UserInputError:
        if needed:
            raise
        return None


def _own_stops(field: object) -> set[int]:
    """Ids of a field that anybody may have written: what is no list of ids is nothing."""
    return {token for token in field if type(token) is int} if isinstance(field, list) else set()
