"""Readings from a thread of their own: a file that blocks never delays a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from lavolta.devices.sources.reading import MEASURED, Reading, Source
from lavolta.errors import UserInputError


class Background:
    """The latest reading of another source, at once.

    A fuel gauge on a slow bus can take a second to answer, or never answer. `read` takes the latest finished look;
    where that is older than ``stale_s``, everything in it is unknown. Before the first one not even the time is known.
    A suspend that a look tells of is told by the next `read`, however many looks came since.

    Args:
        source: asked by one thread only.
        interval_s: from the end of one look to the begin of the next.
        stale_s: age from which a reading is not believed any more.
        clock: running time in seconds, only for the age.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        source: Source,
        interval_s: float = 1.0,
        stale_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (interval_s > 0 and stale_s > 0):
            raise UserInputError(f"interval_s is {interval_s} and stale_s is {stale_s}; both must be more than 0.")
        self._source = source
        self._interval_s = interval_s
        self._stale_s = stale_s
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._first = threading.Event()
        self._latest: Reading | None = None
        self._taken_s = clock()
        self._slept_s = 0.0
        self._reader = _Reader(self._look)
        self._thread = threading.Thread(target=self._loop, name="lavolta-source", daemon=True)
        self._thread.start()

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> Reading:
        """The latest reading; it never waits for the device."""
        return self._reader.read()

    def reader(self) -> Source:
        """The same looks for somebody else, who is told of every suspend as well: of each one once."""
        return _Reader(self._look)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the first reading, as a program does when it starts; false when it did not come in time."""
        return self._first.wait(timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop asking. A look that is stuck in the kernel is left behind; its thread ends with the program."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _look(self) -> tuple[Reading, float]:
        """The latest reading, and how long the device has slept since the first one."""
        with self._lock:
            latest, taken_s, slept_s = self._latest, self._taken_s, self._slept_s
        age_s = self._clock() - taken_s
        if latest is None:
            unknown = dict.fromkeys((*MEASURED, "time_s"), "the device has not answered yet.")
            return Reading(0.0, missing=unknown), slept_s
        if age_s <= self._stale_s:
            return latest, slept_s
        reason = f"the device has not answered for {age_s:.0f} s."
        return Reading(latest.time_s, missing=dict.fromkeys(MEASURED, reason)), slept_s

    def _loop(self) -> None:
        while not self._stop.is_set():
            reading = self._source.read()
            with self._lock:
                self._latest, self._taken_s = reading, self._clock()
                self._slept_s += reading.slept_s
            self._first.set()
            self._stop.wait(self._interval_s)


class _Reader:
    """One who reads: looks that nobody asked for in between are no reason to miss a suspend."""

    def __init__(self, look: Callable[[], tuple[Reading, float]]) -> None:
        self._look = look
        self._told_s = look()[1]

    def read(self) -> Reading:
        reading, slept_s = self._look()
        told_s, self._told_s = self._told_s, slept_s
        return replace(reading, slept_s=slept_s - told_s)
