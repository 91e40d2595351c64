"""Limits of the clock that this program draws to set it, told apart from those that the system has."""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from lavolta.devices.sources import files
from lavolta.devices.sources.files import UnreadableError

_COOLS_PROCESSOR = re.compile(r"cpufreq|processor", re.IGNORECASE)
"""Types of cooling devices that slow the processor down."""
_ROUNDING = 0.02
"""Drivers round a limit to a clock they have; a step of heat is more than this."""
_BELIEVED_S = 30.0
"""How long a lower limit of the system counts after it was last seen: below it, it cannot be seen."""


@dataclass
class _Drawn:
    """One policy.

    Args:
        low_khz, high_khz: its limits before anything was drawn, as somebody set them.
        khz: the clock that was drawn last.
        seen_khz, seen_s: the last limit of the system that was lower than ``high_khz`` or the drawn clock, and when it
            was seen; none: just now.
    """

    low_khz: float
    high_khz: float
    khz: float
    seen_khz: float
    seen_s: float | None = None


class DrawnLimits:
    """``scaling_min_freq`` and ``scaling_max_freq`` of each policy, written by one thread and read by any.

    The kernel shows the lowest of what was written there and what heat allows. So where a clock is set by its limits,
    what is shown is the system's own limit only where it is lower than what was written.

    Args:
        root: where sysfs is mounted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
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
            if folder not in self._drawn:
                low_khz, high_khz = files.number(folder / "scaling_min_freq"), self._set_khz(folder, shown_khz)
                self._drawn[folder] = _Drawn(low_khz, high_khz, khz, shown_khz)
            self._drawn[folder].khz = khz
            for name in order:
                files.write(folder / name, str(khz))

    def put_back(self) -> None:
        """Put back the limits of every policy that were found; what is gone by now is passed over."""
        with self._lock:
            for folder, drawn in self._drawn.items():
                # The kernel refuses a minimum above the maximum, so the one that widens comes first.
                order = [("scaling_max_freq", drawn.high_khz), ("scaling_min_freq", drawn.low_khz)]
                if drawn.high_khz < drawn.khz:
                    order.reverse()
                for name, khz in order:
                    with contextlib.suppress(UnreadableError):
                        files.write(folder / name, f"{khz:.0f}")
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
            elif drawn.seen_s is None:
                drawn.seen_s = time_s
            elif drawn.khz > drawn.seen_khz or time_s - drawn.seen_s > _BELIEVED_S:
                drawn.seen_khz = float("inf")
            return min(drawn.high_khz, drawn.seen_khz)

    def _set_khz(self, folder: Path, shown_khz: float) -> float:
        """The highest clock that somebody allowed: not what is shown where heat or the firmware is what lowers it."""
        try:
            highest_khz = files.number(folder / "cpuinfo_max_freq")
        except UnreadableError:
            return shown_khz
        firmware_khz = _number_or(folder / "bios_limit", float("inf"))
        lowered = shown_khz >= firmware_khz or any(
            _number_or(device / "cur_state", 0.0) > 0 and _cools_processor(device)
            for device in files.folders(self._root / "class/thermal", "cooling_device")
        )
        return max(shown_khz, highest_khz) if lowered else shown_khz


def _cools_processor(device: Path) -> bool:
    try:
        return _COOLS_PROCESSOR.search(files.text(device / "type")) is not None
    except UnreadableError:
        return False


def _number_or(path: Path, value: float) -> float:
    try:
        return files.number(path)
    except UnreadableError:
        return value
