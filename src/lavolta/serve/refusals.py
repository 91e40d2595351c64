"""What the server refuses, as a status, a short stable name, and one sentence with the way out."""

from __future__ import annotations

import math

from lavolta.errors import InfeasibleError, LavoltaError, UserInputError


class RefusedError(LavoltaError):
    """A request that is not answered.

    Args:
        status: of HTTP.
        kind: a short stable name, such as ``"busy"``.
        message: one sentence with the cause and the way out.
        retry_after_s: when it is worth asking again; none where it is not.
    """

    def __init__(self, status: int, kind: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.retry_after_s = status, kind, retry_after_s

    def body(self) -> dict[str, dict[str, str]]:
        """What the client reads, as plain data."""
        return {"error": {"kind": self.kind, "message": str(self)}}

    def headers(self) -> dict[str, str]:
        """Headers beside the body."""
        if self.retry_after_s is None:
            return {}
        # The header has whole seconds only.
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


def of_error(error: Exception) -> RefusedError:
    """The refusal for an error of ours, or for a defect."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, UserInputError):
        return RefusedError(422, "invalid-input", str(error))
    if isinstance(error, InfeasibleError):
        return RefusedError(422, "infeasible", str(error))
    if isinstance(error, LavoltaError):
        return RefusedError(500, "engine", str(error))
    return RefusedError(500, "internal", "the server made a mistake; its log has the details, please report it.")
