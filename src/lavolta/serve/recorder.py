"""What happened since the start: counts, the last answers, the device over time; for status, metrics and monitors."""

from __future__ import annotations

import bisect
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from lavolta.devices.sources import Reading
from lavolta.runtime.governor_loop import Served

RECENT = 100
"""Answers that medians and means of the status are about."""
ANSWERS_KEPT = 240
POINTS_KEPT = 480
BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Upper bounds of the histograms, as shares of the deadline."""
REFUSALS = ("busy", "invalid", "cancelled", "failed")
_MJ_PER_MWH = 3600.0


class Histogram:
    """Counts below rising bounds, and their sum.

    Args:
        bounds: the unit is the caller's.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[int]:
        """How many are at most each bound, and how many there are."""
        found, count = [], 0
        for each in self.counts:
            count += each
            found.append(count)
        return found


class Series:
    """Points over time that never grow beyond a size: when full, every second one goes, and the rhythm halves.

    Args:
        limit: most points, an even number.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._every, self._seen = limit, 1, 0
        self.points: list[dict[str, Any]] = []

    def add(self, point: dict[str, Any]) -> None:
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        self.points.append(point)
        if len(self.points) >= self._limit:
            del self.points[1::2]
            self._every *= 2


@dataclass(frozen=True)
class Totals:
    """Counts since the start; a snapshot."""

    answers: int
    late: int
    cut_short: int
    energy_mj: float
    levels: dict[str, int]
    refused: dict[str, int]


class Recorder:
    """Keeps what happened; one thread writes answers and readings, any thread reads.

    Args:
        deadline_ms: of the server.
        levels: names, densest first.
        clock: seconds, for the time since the start.
    """

    def __init__(self, deadline_ms: float, levels: Sequence[str], clock: Callable[[], float]) -> None:
        self._clock, self._start_s = clock, clock()
        self._lock = threading.Lock()
        self._levels: Counter[str] = Counter(dict.fromkeys(levels, 0))
        self._refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        bounds = [share * deadline_ms for share in BUCKETS]
        self.response_ms, self.run_ms = Histogram(bounds), Histogram(bounds)
        self._answers = self._late = self._cut_short = 0
        self._energy_mj = 0.0
        self._recent: deque[Served] = deque(maxlen=RECENT)
        self._points: deque[dict[str, Any]] = deque(maxlen=ANSWERS_KEPT)
        self._device = Series(POINTS_KEPT)
        self._reading: Reading | None = None
        self._energy_factor = 1.0
        # What the battery gave while it alone fed the device, and the answers of that time, in ended stretches.
        self._drawn_mwh, self._drawn_answers = 0.0, 0
        # The present stretch: charge and answers at its begin and at the last look.
        self._stretch: tuple[tuple[float, int], tuple[float, int]] | None = None

    def answered(self, served: Served, energy_factor: float) -> None:
        """One answer more.

        Args:
            energy_factor: what the governor has learned: measured over predicted energy.
        """
        point = {
            name: getattr(served, name)
            for name in ("index", "level", "freq_mhz", "deadline_ms", "response_ms", "run_ms", "predicted_ms", "p99_ms")
        }
        point.update(energy_mj=served.energy_mj, in_time=served.in_time, time_s=self.uptime_s)
        with self._lock:
            self._answers += 1
            self._late += not served.in_time
            self._cut_short += not served.kept_level
            self._energy_mj += served.energy_mj
            self._energy_factor = energy_factor
            self._levels[served.level] += 1
            self.response_ms.add(served.response_ms)
            self.run_ms.add(served.run_ms)
            self._recent.append(served)
            self._points.append(point)

    def refused(self, why: str) -> None:
        """One request that got no answer; `why` is one of `REFUSALS`."""
        with self._lock:
            self._refused[why] += 1

    def observed(self, reading: Reading) -> None:
        """One look at the device."""
        with self._lock:
            self._reading = reading
            self._draw(reading)
            self._device.add(
                {
                    "time_s": self.uptime_s,
                    "charge_share": reading.charge_share,
                    "temperature_c": reading.temperature_c,
                    "power_mw": reading.power_mw,
                    "freq_mhz": dict(reading.freq_mhz),
                }
            )

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start_s

    @property
    def reading(self) -> Reading | None:
        """The last look at the device."""
        return self._reading

    def totals(self) -> Totals:
        """Counts since the start."""
        with self._lock:
            return Totals(
                self._answers,
                self._late,
                self._cut_short,
                self._energy_mj,
                dict(self._levels),
                dict(self._refused),
            )

    def recent(self) -> dict[str, Any]:
        """Medians, means and tails of the last answers; all none before the first."""
        with self._lock:
            answers = list(self._recent)
            drawn_mwh, drawn_answers = self._drawn()
            factor = self._energy_factor
        drawn = _MJ_PER_MWH * drawn_mwh / drawn_answers if drawn_answers else None
        found: dict[str, Any] = {"answers": len(answers), "drawn_mj_per_answer": drawn}
        names = ("response_ms_p50", "response_ms_p99", "run_ms_p50", "energy_mj", "run_over_predicted", "within_p99")
        found.update(dict.fromkeys(names))
        if answers:
            responses = sorted(served.response_ms for served in answers)
            found["response_ms_p50"] = median(responses)
            found["response_ms_p99"] = responses[-(-99 * len(responses) // 100) - 1]
            found["run_ms_p50"] = median(served.run_ms for served in answers)
            found["energy_mj"] = fmean(served.energy_mj for served in answers)
            found["run_over_predicted"] = median(served.run_ms / served.predicted_ms for served in answers)
            found["within_p99"] = fmean(served.run_ms <= served.p99_ms for served in answers)
            found["energy_over_predicted"] = factor
        else:
            found["energy_over_predicted"] = None
        return found

    def last(self) -> dict[str, Any] | None:
        """Everything about the last answer but its output."""
        with self._lock:
            served = self._recent[-1] if self._recent else None
        return None if served is None else served.facts()

    def history(self) -> dict[str, Any]:
        """The device since the start, and the last answers, oldest first."""
        with self._lock:
            return {"device": list(self._device.points), "answers": list(self._points)}

    def answers_after(self, index: int) -> list[dict[str, Any]]:
        """The kept answers with a higher index, oldest first."""
        with self._lock:
            found = []
            for point in reversed(self._points):
                if point["index"] <= index:
                    break
                found.append(point)
        return found[::-1]

    def _draw(self, now: Reading) -> None:
        """The first and the last look of a stretch count: a count that wavers in between is no draw."""
        if now.on_ac or now.charge_mwh is None:
            self._drawn_mwh, self._drawn_answers = self._drawn()
            self._stretch = None
            return
        here = now.charge_mwh, self._answers
        self._stretch = (here if self._stretch is None else self._stretch[0]), here

    def _drawn(self) -> tuple[float, int]:
        """Energy and answers of all stretches, the present one included."""
        if self._stretch is None:
            return self._drawn_mwh, self._drawn_answers
        (first_mwh, first), (last_mwh, last) = self._stretch
        return self._drawn_mwh + max(0.0, first_mwh - last_mwh), self._drawn_answers + last - first
