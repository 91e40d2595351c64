"""A guard around any source: what cannot be true is removed, with a sentence that says why."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from lavolta.devices.sources.reading import MOST_POWER_MW, Reading, Source


@dataclass(frozen=True)
class Plausible:
    """What a battery can do.

    Args:
        jump: largest believable change of the charge between two looks that follow at once, as a share of full.
        share_per_h: fastest believable change beyond that: 6 empties a battery in ten minutes.
        settle: how many looks in a row must agree before a value that jumped is believed.
        stuck: energy that may be drawn, as a share of full, before a charge that does not move is disbelieved. Gauges
            move in steps of one percent or less.
        stuck_s: the same as time on battery, where the drawn power is not known.
        max_power_mw: no device of ours draws more.
    """

    jump: float = 0.03
    share_per_h: float = 6.0
    settle: int = 3
    stuck: float = 0.025
    stuck_s: float = 3600.0
    max_power_mw: float = MOST_POWER_MW


_DISAGREES = 0.5
"""Share by which two counts of a charge may differ, beside `Plausible.jump`: an aged battery holds less than new."""


class Checked:
    """Removes lies from the readings of another source.

    * Numbers outside their range: shares outside 0 to 1, negative energy or power, clocks that are not positive, NaN.
    * A charge that jumps; it is believed again when `Plausible.settle` looks agree (a changed battery, a gauge that
      learned).
    * A charge that does not move although energy is drawn; it is believed again when it moves.
    * A charge in energy that does all this, or is far from the share, which a device may read from another gauge.
    * Time that falls: the last time is kept.

    Args:
        source: whose readings are checked.
        plausible: the limits.
        capacity_mwh: energy of the full battery where the source does not say it, as in the device's profile.
    """

    def __init__(self, source: Source, plausible: Plausible | None = None, capacity_mwh: float | None = None) -> None:
        self._source = source
        self._limits = plausible or Plausible()
        self._capacity_mwh = capacity_mwh
        self._time_s = -math.inf
        self._share, self._energy = _Gauge(self._limits), _Gauge(self._limits)

    def read(self) -> Reading:
        """The reading of the source without what cannot be true."""
        reading = in_range(self._source.read(), self._limits.max_power_mw)
        if reading.time_s < self._time_s:
            words = f"the clock went back by {self._time_s - reading.time_s:.3g} s."
            reading = replace(reading, time_s=self._time_s, missing={**reading.missing, "time_s": words})
        passed_s = max(reading.time_s - self._time_s, 0.0) if math.isfinite(self._time_s) else 0.0
        self._time_s = reading.time_s
        capacity_mwh = reading.capacity_mwh or self._capacity_mwh
        energy = None if reading.charge_mwh is None or not capacity_mwh else reading.charge_mwh / capacity_mwh
        share = reading.charge_share
        wrong_share = None if share is None else self._share.lie(share, reading, passed_s, capacity_mwh)
        wrong_energy = None if energy is None else self._energy.lie(energy, reading, passed_s, capacity_mwh)
        if wrong_share is not None:
            return _without(reading, ("charge_share", "charge_mwh"), wrong_share)
        if wrong_energy is None and share is not None and energy is not None:
            wrong_energy = self._disagreement(share, energy)
        return reading if wrong_energy is None else _without(reading, ("charge_mwh",), wrong_energy)

    def _disagreement(self, share: float, energy: float) -> str | None:
        if abs(share - energy) <= self._limits.jump + _DISAGREES * max(share, energy):
            return None
        return f"the battery claims {100 * share:.1f} % of a charge, and {100 * energy:.1f} % in energy."


class _Gauge:
    """One count of the charge over time, as shares of a full one."""

    def __init__(self, limits: Plausible) -> None:
        self._limits = limits
        self._trusted: tuple[float, float] | None = None
        self._candidate: tuple[float, float, int] | None = None
        self._value: float | None = None
        self._unmoved_mwh = 0.0
        self._unmoved_s = 0.0

    def lie(self, share: float, reading: Reading, passed_s: float, capacity_mwh: float | None) -> str | None:
        """Why the next value is not believed; none where it is."""
        return self._jumped(share, reading.time_s) or self._stuck(share, reading, passed_s, capacity_mwh)

    def _jumped(self, share: float, time_s: float) -> str | None:
        if self._trusted is None or self._near(share, time_s, self._trusted):
            self._trusted, self._candidate = (share, time_s), None
            return None
        before = self._trusted[0]
        if self._candidate is not None and self._near(share, time_s, self._candidate[:2]):
            self._candidate = (share, time_s, self._candidate[2] + 1)
        else:
            self._candidate = (share, time_s, 1)
        if self._candidate[2] >= self._limits.settle:
            self._trusted, self._candidate = (share, time_s), None
            return None
        return f"the charge jumped from {100 * before:.1f} % to {100 * share:.1f} %, faster than a battery can."

    def _near(self, share: float, time_s: float, before: tuple[float, float]) -> bool:
        allowed = self._limits.jump + self._limits.share_per_h * (time_s - before[1]) / 3600
        return abs(share - before[0]) <= allowed

    def _stuck(self, share: float, reading: Reading, passed_s: float, capacity_mwh: float | None) -> str | None:
        # Where nothing tells of a charger, the battery counts as what feeds the device.
        if share != self._value or reading.on_ac:
            self._value, self._unmoved_mwh, self._unmoved_s = share, 0.0, 0.0
            return None
        awake_s = max(passed_s - reading.slept_s, 0.0)
        self._unmoved_s += awake_s
        self._unmoved_mwh += (reading.power_mw or 0.0) * awake_s / 3600
        percent = 100 * share
        if capacity_mwh and self._unmoved_mwh > self._limits.stuck * capacity_mwh:
            drawn = 100 * self._unmoved_mwh / capacity_mwh
            return f"the charge stays at {percent:.1f} % although {drawn:.1f} % of the battery was drawn meanwhile."
        if (reading.power_mw is None or not capacity_mwh) and self._unmoved_s > self._limits.stuck_s:
            return f"the charge stays at {percent:.1f} % for {self._unmoved_s / 60:.0f} minutes on battery."
        return None


def in_range(reading: Reading, max_power_mw: float = Plausible.max_power_mw) -> Reading:
    """The reading without numbers that are outside their range or not finite."""
    ranges = {
        "charge_share": (0.0, 1.0),
        "charge_mwh": (0.0, math.inf),
        "capacity_mwh": (math.ulp(0.0), math.inf),
        "power_mw": (0.0, max_power_mw),
        "temperature_c": (-100.0, 200.0),
    }
    for name, (low, high) in ranges.items():
        value = getattr(reading, name)
        if value is not None and not (low <= value <= high and math.isfinite(value)):
            reading = _without(reading, (name,), f"{name} was {value:g}, which cannot be.")
    for name in ("freq_mhz", "freq_limit_mhz"):
        clocks = getattr(reading, name)
        bad = [cluster for cluster, value in clocks.items() if not (value > 0 and math.isfinite(value))]
        if bad:
            reasons = {f"{name}.{cluster}": f"the clock of {cluster} was {clocks[cluster]:g} MHz." for cluster in bad}
            changed: dict[str, Any] = {
                name: {cluster: value for cluster, value in clocks.items() if cluster not in bad}
            }
            reading = replace(reading, **changed, missing={**reading.missing, **reasons})
    return reading


def _without(reading: Reading, names: tuple[str, ...], reason: str) -> Reading:
    changed: dict[str, Any] = dict.fromkeys(names)
    if "power_mw" in names:
        changed["power_from"] = None
    return replace(reading, **changed, missing={**reading.missing, **dict.fromkeys(names, reason)})
