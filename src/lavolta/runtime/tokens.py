"""Text to token ids and back, with the vocabulary that a bundle carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from lavolta.errors import BundleError, UserInputError
from lavolta.runtime.calls import Text

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Codec(Protocol):
    """A vocabulary in both directions.

    Args:
        limit: tokens that a text or a pair of texts is cut to: the length that the bundle's tokenizer truncates to,
            which may be shorter than what the model can run.
    """

    limit: int

    def encode(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids and type ids of texts or pairs of texts, cut to ``limit``."""

    def count(self, text: Text) -> int:
        """How many tokens a text or a pair of texts has when nothing is cut."""

    def prompt(self, text: str) -> list[int]:
        """Token ids of a text that is to be continued, of any length."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens; an incomplete character at the end becomes U+FFFD."""


def read_codec(tokenizer: bytes | None, vocab: bytes | None, max_tokens: int) -> Codec:
    """The codec of a bundle's tensors ``tokenizer`` or ``vocab``.

    Raises:
        UserInputError: the bundle has neither.
        BundleError: ``manifest-invalid``, they cannot be read.
    """
    if tokenizer is not None:
        return _TokenizerCodec(tokenizer, max_tokens)
    if vocab is not None:
        return _WordCodec(vocab, max_tokens)
    raise UserInputError("the bundle has neither tokenizer nor vocabulary; tokenize yourself and give token ids.")


class _TokenizerCodec:
    """A `tokenizers` pipeline."""

    def __init__(self, data: bytes, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Tokenizer = Tokenizer.from_buffer(data)
        except ValueError as error:
            raise BundleError("manifest-invalid", f"the bundle's tokenizer cannot be read: {error}.") from None
        self._tokenizer.no_padding()
        own = self._tokenizer.truncation
        # A model trained on shorter texts than it has positions for was never given the positions behind them.
        self.limit = min(max_tokens, int(own["max_length"])) if own else max_tokens
        self._tokenizer.no_truncation()
        self._whole = Tokenizer.from_str(self._tokenizer.to_str())
        self._tokenizer.enable_truncation(self.limit)

    def encode(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]]]:
        encodings = self._tokenizer.encode_batch(list(texts))
        return [e.ids for e in encodings], [e.type_ids for e in encodings]

    def count(self, text: Text) -> int:
        first, second = text if isinstance(text, tuple) else (text, None)
        return len(self._whole.encode(first, second).ids)

    def prompt(self, text: str) -> list[int]:
        return list(self._whole.encode(text).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._whole.decode(list(token_ids)))


class _WordCodec:
    """Words between white space, and an end of sentence after each text: the paper's language model."""

    def __init__(self, data: bytes, max_tokens: int) -> None:
        try:
            self._words = data.decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise BundleError("manifest-invalid", f"the bundle's vocab is not UTF-8 at byte {error.start}.") from None
        self._ids = {word: index for index, word in enumerate(self._words) if word}
        self.limit = max_tokens
        missing = {"<unk>", "<eos>"} - set(self._ids)
        if missing:
            raise BundleError("manifest-invalid", f"the bundle's vocabulary has no {' and no '.join(sorted(missing))}.")

    def encode(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]]]:
        rows = []
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserInputError(f"text {index} is a pair; a word-level language model takes single texts.")
            rows.append([*self.prompt(text), self._ids["<eos>"]][: self.limit])
        return rows, [[0] * len(row) for row in rows]

    def count(self, text: Text) -> int:
        return sum(len(part.split()) + 1 for part in ([text] if isinstance(text, str) else text))

    def prompt(self, text: str) -> list[int]:
        unknown = self._ids["<unk>"]
        return [self._ids.get(word, unknown) for word in text.split()]

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(self._words[index] for index in token_ids)
