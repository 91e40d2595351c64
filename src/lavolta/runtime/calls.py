"""What goes into the native engine, and what its refusals become."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import BundleError, CancelledError, EngineError, LavoltaError, UserInputError

Tokens = Sequence[int] | NDArray[np.integer]
Text = str | tuple[str, str]

_USER_INPUT = {
    "invalid-argument",
    "no-such-level",
    "token-out-of-range",
    "too-long",
    "empty-input",
    "no-plan",
    "plan-invalid",
    "not-causal",
    "cache-full",
}
_ENGINE = {"output-too-small", "out-of-memory", "internal", "model-closed"}


def batch_of(
    token_ids: Sequence[Tokens], type_ids: Sequence[Tokens] | None
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None, NDArray[np.uint32]]:
    """Token ids and type ids ``(tokens,)``, the sequences one after another, and the ``(sequences,)`` lengths.

    Raises:
        UserInputError: no sequence, an empty one, something else than integers, types that do not fit.
    """
    if len(token_ids) == 0:
        raise UserInputError("the batch is empty; give at least one sequence.")
    ids, lengths = _flatten(token_ids, "token")
    if type_ids is None:
        return ids, None, lengths
    types, type_lengths = _flatten(type_ids, "type")
    if not np.array_equal(lengths, type_lengths):
        raise UserInputError("type_ids do not have the lengths of token_ids; give one type per token.")
    return ids, types, lengths


def _flatten(rows: Sequence[Tokens], what: str) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Rows of ids one after another, and their lengths."""
    arrays = []
    for index, row in enumerate(rows):
        array = np.asarray(row)
        if array.size == 0:
            raise UserInputError(f"sequence {index} has no tokens; leave it out.")
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise UserInputError(
                f"the {what} ids of sequence {index} are {array.dtype} of shape {array.shape}; "
                "give a flat list of integers."
            )
        # Clipping keeps a number that 32 bits cannot hold out of every range, so that the engine names it.
        arrays.append(np.clip(array, -1, np.iinfo(np.int32).max).astype(np.int32))
    lengths = np.array([len(array) for array in arrays], dtype=np.uint32)
    return np.concatenate(arrays), lengths


def translate(error: Exception, path: str = "") -> LavoltaError:
    """The engine's status and sentence as an exception with the same words."""
    kind, message = error.args
    if kind == "cancelled":
        return CancelledError(message)
    if kind in _USER_INPUT:
        return UserInputError(message)
    if kind in _ENGINE:
        return EngineError(message)
    return BundleError(kind, f"{path}: {message}" if path else message)
