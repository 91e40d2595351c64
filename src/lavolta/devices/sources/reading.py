"""What is known about a device at one moment, and the two small interfaces that every device, real or not, answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Protocol

MOST_POWER_MW = 1e6
"""More than a kilowatt is a counter that was reset, or a lie: no device of ours draws it."""


@dataclass(frozen=True)
class Reading:
    """One look at a device. What could not be read is None (or absent from a mapping), and `missing` says why.

    Numbers are finite. A source that cannot vouch for a value leaves it out instead of guessing.

    Args:
        time_s: the source's own clock; it never falls and it counts suspended time. Only differences mean something.
        slept_s: how much of the time since the reading before the machine was suspended.
        charge_share: what is left in the battery as a share of a full one, 0 to 1.
        charge_mwh: the same as energy; may be known where the share is not, and the other way round.
        capacity_mwh: energy of the battery when it is full, as it is now (not as it was made).
        power_mw: what the device draws: from the battery where it runs on it, else from a meter. Never negative.
        power_from: what measured `power_mw`, in words; energy reports quote it.
        on_ac: whether something else than the battery feeds the device. None: nothing says so.
        freq_mhz: present clock by cluster.
        freq_limit_mhz: the highest clock that the system allows at present by cluster (heat or a user may lower it).
        temperature_c: the hottest sensor of the processor.
        missing: name of a field (``freq_mhz.big`` for one cluster) to one sentence that says why it is not known.
    """

    time_s: float
    slept_s: float = 0.0
    charge_share: float | None = None
    charge_mwh: float | None = None
    capacity_mwh: float | None = None
    power_mw: float | None = None
    power_from: str | None = None
    on_ac: bool | None = None
    freq_mhz: Mapping[str, float] = field(default_factory=dict)
    freq_limit_mhz: Mapping[str, float] = field(default_factory=dict)
    temperature_c: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def why(self, name: str) -> str | None:
        """Why a field is not known; None where it is, or where nobody said."""
        return self.missing.get(name)

    def words(self) -> list[str]:
        """The sentences of `missing`, each once, in a fixed order: what a monitor shows."""
        return sorted(set(self.missing.values()))


MEASURED = tuple(
    item.name for item in fields(Reading) if item.name not in ("time_s", "slept_s", "power_from", "missing")
)
"""Names of the fields that a source may or may not know."""


class Source(Protocol):
    """Something that can be asked how a device is."""

    def read(self) -> Reading:
        """The device now. Never raises for anything that the device does: what fails is None, with a reason."""
        ...


class Degree(str, Enum):
    """How far the clock can be controlled."""

    SETS = "sets"
    FOLLOWS = "follows"
    NONE = "none"

    @property
    def words(self) -> str:
        """The degree as a sentence part."""
        return {
            Degree.SETS: "sets the clock",
            Degree.FOLLOWS: "follows the clock that the system chooses",
            Degree.NONE: "knows no clock and relies on measured times",
        }[self]


class FrequencyControl(Protocol):
    """The clock of a device's clusters.

    The degree may fall while a program runs (a file disappears, a permission is taken away) and never rises: whoever
    uses it asks again after each `set_mhz` that returned false.

    Attributes:
        degree: how far the clock can be controlled at present.
        why: why it is not more than that; empty where it sets the clock.
        clusters: name of each cluster whose clock is known or can be set, to its steps in MHz, rising. Empty steps:
            only the present clock is known.
    """

    @property
    def degree(self) -> Degree: ...

    @property
    def why(self) -> str: ...

    @property
    def clusters(self) -> Mapping[str, tuple[float, ...]]: ...

    def set_mhz(self, cluster: str, freq_mhz: float) -> bool:
        """Ask for a clock; true when the system took the request. Never raises for anything that the device does.

        Args:
            cluster: a name of `clusters`; any other is answered false.
            freq_mhz: one of its steps; the system may still run slower (heat), which `Reading.freq_mhz` tells.
        """
        ...

    def release(self) -> None:
        """Give the clock back to the system as it was found. May be called twice; never raises."""
        ...


class NoFrequencyControl:
    """The lowest degree: nothing is known about the clock.

    Args:
        why: the reason, one sentence.
    """

    def __init__(self, why: str = "this device offers no frequency control.") -> None:
        self._why = why

    @property
    def degree(self) -> Degree:
        return Degree.NONE

    @property
    def why(self) -> str:
        return self._why

    @property
    def clusters(self) -> Mapping[str, tuple[float, ...]]:
        return {}

    def set_mhz(self, cluster: str, freq_mhz: float) -> bool:
        return freq_mhz in self.clusters.get(cluster, ())

    def release(self) -> None:
        return None
