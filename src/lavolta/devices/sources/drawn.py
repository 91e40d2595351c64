"""Limits of the clock that this program draws to set it, told apart from those that the system has."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from lavolta.devices.sources import files

_ROUNDING = 0.02
"""Drivers round a limit to a clock they have; a step of heat is more than this."""
_BELIEVED_S = 30.0
"""How long a lower limit of the system counts after it was last seen: below it, it cannot be seen."""


@dataclass
class _Drawn:
    """One policy.

    Args:
        found_khz: its highest clock before anything was drawn.
        khz: the clock that was drawn last.
        seen_khz, seen_s: the last limit that was lower than the drawn clock, and when.
    """

    found_khz: float
    khz: float
    seen_khz: float = float("inf")
    seen_s: float = 0.0


class DrawnLimits:
    """``scaling_min_freq`` and ``scaling_max_freq`` of each policy, written by one thread and read by any.

    The kernel shows the lowest of what was written there and what heat allows. So where a clock is set by its limits,
    what is shown is the system's own limit only where it is lower than what was written.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn: dict[Path, _Drawn] = {}

    def draw(self, folder: Path, khz: int) -> None:
        """Draw both limits of a policy together.

        Raises:
            UnreadableError: a file that cannot be used.
        """
        with self._lock:
            shown_khz = files.number(folder / "scaling_max_freq")
            order = ("scaling_min_freq", "scaling_max_freq")
            if khz > shown_khz:
                order = ("scaling_max_freq", "scaling_min_freq")
            self._drawn.setdefault(folder, _Drawn(shown_khz, khz)).khz = khz
            for name in order:
                files.write(folder / name, str(khz))

    def forget(self) -> None:
        """From now on every limit is the system's."""
        with self._lock:
            self._drawn.clear()

    def system_khz(self, folder: Path, time_s: float) -> float:
        """The highest clock of a policy that the system allows, whatever was drawn.

        Args:
            time_s: of the look, on a clock that never falls.

        Raises:
            UnreadableError: a file that cannot be used.
        """
        with self._lock:
            shown_khz = files.number(folder / "scaling_max_freq")
            drawn = self._drawn.get(folder)
            if drawn is None or shown_khz <= 0:
                return shown_khz
            if shown_khz < (1 - _ROUNDING) * drawn.khz:
                drawn.seen_khz, drawn.seen_s = shown_khz, time_s
            elif drawn.khz > drawn.seen_khz or time_s - drawn.seen_s > _BELIEVED_S:
                drawn.seen_khz = float("inf")
            return min(drawn.found_khz, drawn.seen_khz)
