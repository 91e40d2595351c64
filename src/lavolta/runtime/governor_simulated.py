"""A device that exists only in numbers, as the governor's runner: time and energy pass as the profile predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lavolta.devices.energy import Accounting, idle_mw, run_mw
from lavolta.devices.latency import latency_ms
from lavolta.devices.sources import SimulatedDevice
from lavolta.runtime.governor_loop import Answer
from lavolta.runtime.scenario import LevelWork


class SimulatedRunner:
    """Runs requests on a `SimulatedDevice`: its clock and its battery move, nothing else does.

    Args:
        levels: the work of each level.
        threads: of a run.
        slowdowns: what to multiply each predicted time with; starts again at its end.
        compute: what gives the output of a request at a level; nothing where not given.
    """

    def __init__(
        self,
        device: SimulatedDevice,
        levels: Sequence[LevelWork],
        threads: int = 1,
        slowdowns: Sequence[float] = (1.0,),
        compute: Callable[[Any, str], Any] | None = None,
    ) -> None:
        self.device = device
        self._works = {level.name: level.work for level in levels}
        self._threads, self._slowdowns, self._compute = threads, slowdowns, compute
        self._runs = 0

    def __call__(self, request: Any, level: str, _within_ms: float, /) -> Answer:
        """One run at the device's present clock; levels stay as they are, however late it gets."""
        profile = self.device.profile
        cluster = profile.cluster()
        clock = self.device.clock_mhz(cluster.name)
        time_ms = latency_ms(profile, self._works[level], clock, self._threads)
        time_ms *= self._slowdowns[self._runs % len(self._slowdowns)]
        self._runs += 1
        self.device.advance(time_ms / 1e3, run_mw(profile, clock, self._threads, Accounting.BOARD))
        return Answer(None if self._compute is None else self._compute(request, level))

    def now_s(self) -> float:
        """The device's clock."""
        return self.device.time_s

    def wait_until(self, time_s: float) -> None:
        """Let the device idle until a time."""
        pause_s = time_s - self.now_s()
        if pause_s > 0:
            self.device.advance(pause_s, idle_mw(self.device.profile, Accounting.BOARD))
