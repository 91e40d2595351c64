"""How the time of requests and the time of the device go together: as one, or a simulated device at a chosen speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from lavolta.errors import UserInputError
from lavolta.runtime.governed import Governed


class Pace(Protocol):
    """The clock of arrivals, and what has to happen around a run."""

    @property
    def speed(self) -> float:
        """Seconds of the device in a second of this computer."""
        ...

    def now_s(self) -> float:
        """The present, on the clock of the governor; may be asked from any thread."""
        ...

    def settle(self, until_s: float | None = None, /) -> None:
        """Let the device idle: until a request came, or where none is given, until the present."""
        ...

    def hold(self) -> None:
        """Wait until the present has come to where the device is: after a run."""
        ...


class RealTime:
    """A real device: its time is ours.

    Args:
        clock: seconds.
    """

    speed = 1.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def now_s(self) -> float:
        return self._clock()

    def settle(self, _until_s: float | None = None, /) -> None:
        return None

    def hold(self) -> None:
        return None


class SimulatedTime:
    """A device in numbers that keeps up with requests from outside: an answer comes when the device would have had it.

    Args:
        governed: the device.
        speed: its seconds in a second of this computer; 60 empties a battery of eight hours in eight minutes.
        clock: this computer's seconds.
        wait: pauses for so many seconds.

    Raises:
        UserInputError: a speed that is not a positive number.
    """

    def __init__(
        self,
        governed: Governed,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise UserInputError(f"a speed of {speed:g} is not possible; give a number above 0, such as 60.")
        self._governed, self._speed, self._clock, self._wait = governed, speed, clock, wait
        self._start_s, self._began_s = governed.now_s(), clock()

    @property
    def speed(self) -> float:
        return self._speed

    def now_s(self) -> float:
        return self._start_s + self._speed * (self._clock() - self._began_s)

    def settle(self, until_s: float | None = None, /) -> None:
        # What this computer takes to hand over a request is no time of the device.
        self._governed.wait_until(self.now_s() if until_s is None else until_s)

    def hold(self) -> None:
        ahead_s = (self._governed.now_s() - self.now_s()) / self._speed
        if ahead_s > 0:
            self._wait(ahead_s)
