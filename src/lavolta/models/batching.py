"""Token sequences of texts or sentence pairs, made once, and batches of similar length from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.models.tasks import Split

SORT_POOL = 50
"""Batches whose sequences are sorted together: long enough for little padding, short enough to stay random."""


@dataclass(frozen=True)
class Encoded:
    """Tokenised sequences; tokenise once, batch every epoch.

    Args:
        ids: one ``(tokens,) int64`` array per sequence.
        types: token types of the same shapes, ``None`` for a model without them.
        labels: ``(n,)`` or ``None``.
        pad_id: id that fills short rows (masked).
    """

    ids: list[NDArray[np.int64]]
    types: list[NDArray[np.int64]] | None
    labels: NDArray[np.generic] | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, ``(n,)``."""
        return np.array([len(sequence) for sequence in self.ids], dtype=np.int64)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Encoded:
        """The sequences of ``rows``, in that order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return Encoded(
            [self.ids[row] for row in chosen],
            None if self.types is None else [self.types[row] for row in chosen],
            None if self.labels is None else self.labels[chosen],
            self.pad_id,
        )

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The sequences of ``rows``, padded on the right to the longest of them."""
        chosen = [int(row) for row in rows]
        longest = max(len(self.ids[row]) for row in chosen)
        ids = np.full((len(chosen), longest), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(chosen), longest), dtype=bool)
        types = None if self.types is None else np.zeros((len(chosen), longest), dtype=np.int64)
        for place, row in enumerate(chosen):
            size = len(self.ids[row])
            ids[place, :size] = self.ids[row]
            mask[place, :size] = True
            if types is not None and self.types is not None:
                types[place, :size] = self.types[row]
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            None if types is None else torch.from_numpy(types),
            torch.tensor(chosen, dtype=torch.int64),
            None if self.labels is None else torch.from_numpy(self.labels[chosen]),
        )


def encode_texts(
    loaded: LoadedModel, texts: Sequence[str] | Sequence[tuple[str, str]], max_tokens: int | None = None
) -> Encoded:
    """Tokenise single texts, or pairs of texts, truncated to ``max_tokens`` or to what the model takes."""
    return _encode(loaded, texts, max_tokens, None)


def encode_pairs(loaded: LoadedModel, split: Split, max_tokens: int | None = None) -> Encoded:
    """Tokenise the texts or pairs of a task's split with their labels; the longer text of a pair is truncated first."""
    return _encode(loaded, split.texts, max_tokens, split.labels)


def random_batches(encoded: Encoded, batch_size: int, seed: int) -> Iterator[Batch]:
    """Every sequence once, in random batches of similar length; the same seed gives the same batches.

    The shuffled sequences are sorted by length in pools of `SORT_POOL` batches; then the batches are shuffled.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(encoded))
    lengths = encoded.lengths
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), batch_size * SORT_POOL):
        pool = order[start : start + batch_size * SORT_POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches.extend(pool[i : i + batch_size] for i in range(0, len(pool), batch_size))
    for place in generator.permutation(len(batches)):
        yield encoded.batch(batches[place])


class StepBatches:
    """Batches by step: every epoch in its own order, a function of the seed and the step alone."""

    def __init__(self, encoded: Encoded, batch_size: int, seed: int) -> None:
        self._encoded, self._batch_size, self._seed = encoded, batch_size, seed
        self.per_epoch = -(-len(encoded) // batch_size)
        self._epoch = -1
        self._batches: list[Batch] = []

    def __call__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._batches = list(random_batches(self._encoded, self._batch_size, self._seed * 1009 + epoch))
            self._epoch = epoch
        return self._batches[place]


def sorted_batches(encoded: Encoded, batch_size: int) -> Iterator[Batch]:
    """Every sequence once, longest first, for evaluation; ``Batch.rows`` says where each result belongs."""
    order = np.argsort(-encoded.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield encoded.batch(order[start : start + batch_size])


def predict(
    loaded: LoadedModel, encoded: Encoded, batch_size: int = 32, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Outputs ``(n, outputs)`` (or pooled vectors ``(n, hidden)``) of every sequence, in order, in evaluation mode."""
    if loaded.spec.pooling == "none":
        raise UserInputError(f"{loaded.spec.name} has one output per token; use its module directly.")
    width = loaded.spec.outputs or loaded.spec.hidden
    result = np.zeros((len(encoded), width), dtype=np.float32)
    was_training = loaded.module.training
    loaded.module.eval()
    try:
        with torch.no_grad():
            for batch in sorted_batches(encoded, batch_size):
                moved = batch.to(device)
                out = loaded.module(moved.input_ids, moved.attention_mask, moved.type_ids).output
                result[batch.rows.numpy()] = out.float().cpu().numpy()
    finally:
        loaded.module.train(was_training)
    return result


def _encode(
    loaded: LoadedModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    max_tokens: int | None,
    labels: NDArray[np.generic] | None,
) -> Encoded:
    if loaded.tokenizer is None:
        raise UserInputError(f"{loaded.spec.name} has no tokenizer; load it from a folder with a tokenizer.json.")
    if not texts:
        raise UserInputError("there is no text to tokenise; give at least one sentence.")
    tokenizer = loaded.tokenizer
    if max_tokens is not None:
        # A copy: the model's own tokenizer goes into the bundle with its full length.
        tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        tokenizer.enable_truncation(min(max_tokens, loaded.spec.max_tokens))
    pieces = tokenizer.encode_batch(list(texts))
    ids = [np.array(piece.ids, dtype=np.int64) for piece in pieces]
    if any(not len(sequence) for sequence in ids):
        raise UserInputError("a text has no tokens; remove empty sentences.")
    types = [np.array(piece.type_ids, dtype=np.int64) for piece in pieces] if loaded.spec.types > 1 else None
    return Encoded(ids, types, labels, _pad_id(tokenizer))


def _pad_id(tokenizer: Any) -> int:
    for name in ("[PAD]", "<pad>"):
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    return 0
