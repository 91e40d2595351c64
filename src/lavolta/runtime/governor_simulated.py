"""A device that exists only in numbers, as the governor's runner: time and energy pass as the profile predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lavolta.devices.energy import Accounting, idle_mw, run_mw
from lavolta.devices.latency import latency_ms
from lavolta.devices.sources import SimulatedDevice
from lavolta.runtime.runners import Answer
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
        self._cluster = device.profile.cluster().name

    def move(self, cluster: str, /) -> None:
        """Run on this cluster from now on."""
        self._cluster = self.device.profile.cluster(cluster).name

    @property
    def moves_runs(self) -> bool:
        """Always: nothing has to be moved."""
        return True

    def move_run(self, cluster: str, /) -> bool:
        """Let the rest of the run take place there."""
        self.move(cluster)
        return True

    def __call__(self, request: Any, level: str, _within_ms: float, /) -> Answer:
        """One run at the device's present clock; levels stay as they are, however late it gets."""
        return self.run_raised(request, level, _within_ms, float("inf"), 1.0, lambda: None)

    def run_raised(
        self,
        request: Any,
        level: str,
        _within_ms: float,
        after_ms: float,
        _speedup: float,
        then: Callable[[], None],
        /,
    ) -> Answer:
        """The same, and ``then`` in the middle of the run where it takes longer than ``after_ms``."""
        slowdown = self._slowdowns[self._runs % len(self._slowdowns)]
        self._runs += 1
        whole_ms = slowdown * self._time_ms(level)
        self._advance(min(whole_ms, after_ms))
        if whole_ms > after_ms:
            then()
            self._advance((1 - after_ms / whole_ms) * slowdown * self._time_ms(level))
        return Answer(None if self._compute is None else self._compute(request, level))

    def _time_ms(self, level: str) -> float:
        clock = self.device.clock_mhz(self._cluster)
        work = self._works[level]
        return latency_ms(self.device.profile, work, clock, self._threads, cluster=self._cluster)

    def _advance(self, time_ms: float) -> None:
        clock = self.device.clock_mhz(self._cluster)
        load_mw = run_mw(self.device.profile, clock, self._threads, Accounting.BOARD, self._cluster)
        self.device.advance(time_ms / 1e3, load_mw)

    def now_s(self) -> float:
        """The device's clock."""
        return self.device.time_s

    def wait_until(self, time_s: float) -> None:
        """Let the device idle until a time."""
        pause_s = time_s - self.now_s()
        if pause_s > 0:
            self.device.advance(pause_s, idle_mw(self.device.profile, Accounting.BOARD))
