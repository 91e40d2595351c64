"""The time of a source: it counts suspended time, never falls, and tells how long the machine slept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_SHORTEST_SLEEP_S = 0.5
"""Two clocks that are read one after the other differ a little; a suspend takes longer than this."""


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Clocks:
    """Where time comes from: the running time of the machine without and with suspended time, in seconds."""

    running_s: Callable[[], float] = time.monotonic
    elapsed_s: Callable[[], float] = _boottime_s


@dataclass(frozen=True)
class Moment:
    """One look at the clocks: see `Reading`. ``fault`` is a sentence where the clock misbehaved."""

    time_s: float
    slept_s: float
    fault: str | None


@dataclass
class Timeline:
    """Turns what clocks show into a time that never falls."""

    clocks: Clocks
    _running_s: float | None = None
    _elapsed_s: float = 0.0
    _offset_s: float = field(default=0.0)

    def now(self) -> Moment:
        running_s, elapsed_s = self.clocks.running_s(), self.clocks.elapsed_s()
        if self._running_s is None:
            self._running_s, self._elapsed_s = running_s, elapsed_s
            return Moment(elapsed_s, 0.0, None)
        passed_s, ran_s = elapsed_s - self._elapsed_s, running_s - self._running_s
        self._running_s, self._elapsed_s = running_s, elapsed_s
        if passed_s < 0:
            # Time goes on from where it was.
            self._offset_s -= passed_s
            return Moment(elapsed_s + self._offset_s, 0.0, f"the clock went back by {-passed_s:.3g} s.")
        slept_s = passed_s - max(ran_s, 0.0)
        return Moment(elapsed_s + self._offset_s, slept_s if slept_s > _SHORTEST_SLEEP_S else 0.0, None)
