"""A sequence that grows token by token, with the keys and values that attention needs."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta import _native
from lavolta.errors import EngineError, UserInputError
from lavolta.runtime.calls import Tokens, batch_of, translate


class Session:
    """The tokens of one growing sequence, with the keys and values that attention needs. Make one with `Model.session`.

    A new token costs one token's work. Tokens keep the keys and values of the level that was set when they came: after
    `Model.switch` later tokens use the new level, and nothing is computed again. Sessions of one model are independent;
    their calls queue with its runs. When the model is closed, every call is an `EngineError`.
    """

    def __init__(self, native: Any) -> None:
        self._native = native

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many tokens the session has."""
        return int(self._call("length"))

    def append(self, token_ids: Tokens) -> NDArray[np.float32]:
        """Add tokens, many at a time or one.

        Returns:
            ``(outputs,)``, the logits of the token that follows; ``(hidden,)`` for a model without outputs.

        Raises:
            UserInputError: no token, an id out of range, or more tokens than there is room for. The session is then as
                it was before.
            CancelledError: another thread called `Model.cancel`; the session is as it was before.
            EngineError: the model or the session is closed, or there is not enough memory.
        """
        ids, _, _ = batch_of([token_ids], None)
        rows: NDArray[np.float32] = self._call("append", ids, True)
        logits: NDArray[np.float32] = rows[0]
        return logits

    def extend(self, token_ids: Tokens) -> None:
        """`append` without the output layer."""
        ids, _, _ = batch_of([token_ids], None)
        self._call("append", ids, False)

    def truncate(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens.

        Raises:
            UserInputError: the session has fewer.
        """
        if tokens < 0:
            raise UserInputError(f"a session cannot be cut to {tokens} tokens; give 0 or more.")
        self._call("truncate", tokens)

    def reset(self) -> None:
        """Forget all tokens."""
        self._call("truncate", 0)

    def close(self) -> None:
        """Free the memory; closing twice is allowed."""
        self._native = None

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._native is None:
            raise EngineError("the session is closed; open another.")
        try:
            return getattr(self._native, name)(*arguments)
        except _native.NativeError as error:
            raise translate(error) from None
