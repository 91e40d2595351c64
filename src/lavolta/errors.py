"""The one exception family of La Volta: a message is one sentence with the cause and the way out."""

from __future__ import annotations


class LavoltaError(Exception):
    """Anything La Volta refuses to do; the command line prints it in one line and exits with 2."""


class UserInputError(LavoltaError):
    """A value that the caller gave is wrong; the message names it and the way out."""


class InfeasibleError(LavoltaError):
    """No level meets what was asked; the message names the closest one and what would be needed."""


class EngineError(LavoltaError):
    """The native engine refused a call."""


class CancelledError(LavoltaError):
    """Another thread cancelled the run."""


class BundleError(LavoltaError):
    """A bundle file is broken, truncated or hostile.

    Args:
        kind: a short stable name of the defect, such as ``"truncated"``.
        message: one sentence with the file, the defect and the way out.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
