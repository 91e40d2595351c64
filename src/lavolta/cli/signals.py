"""End a command in order when the system asks for it, so that what was changed is put back."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What `timeout`, a service manager and a closed terminal send. Ctrl-C is an exception already."""


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """Let the signals that end a program unwind it; the exit code is 128 more than the signal's number, as of a shell.

    One that is ignored, as `nohup` does, stays ignored. Only the first one counts: what it unwinds is not interrupted.
    """
    ended = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal ended
        if not ended:
            ended = True
            raise SystemExit(128 + number)

    before = {}
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            # Another thread than the main one gets no signals, and may not ask for them.
            with contextlib.suppress(ValueError):
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
