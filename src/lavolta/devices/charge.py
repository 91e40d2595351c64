"""A charge that is drawn down in exact integers: femtojoules, microwatts and nanoseconds.

Integers make conservation exact, and let a simulation that jumps over a million equal requests give the very same
result as one that takes them one by one.
"""

from __future__ import annotations

import math

from lavolta.devices.profile import Battery
from lavolta.errors import UserInputError

FJ_PER_MWH = 3_600_000_000_000_000


def to_ns(time_ms: float) -> int:
    """Milliseconds to whole nanoseconds."""
    return round(time_ms * 1e6)


def to_uw(power_mw: float) -> int:
    """Milliwatts to whole microwatts."""
    return round(power_mw * 1e3)


def to_fj(energy_mwh: float) -> int:
    """Milliwatt hours to whole femtojoules."""
    return round(energy_mwh * FJ_PER_MWH)


def to_mwh(energy_fj: int) -> float:
    """Femtojoules to milliwatt hours."""
    return energy_fj / FJ_PER_MWH


class Charge:
    """What is left in a battery. Always: ``initial_fj - remaining_fj == load_fj + loss_fj``.

    Args:
        battery: capacity and losses.
        share: how full it is at the start, 0 to 1.
    """

    def __init__(self, battery: Battery, share: float = 1.0) -> None:
        if not (math.isfinite(share) and 0.0 <= share <= 1.0):
            raise UserInputError(f"a charge of {share} is outside 0 (empty) to 1 (full).")
        self.capacity_fj = to_fj(battery.energy_mwh)
        self.initial_fj = to_fj(battery.energy_mwh * share)
        self.remaining_fj = self.initial_fj
        self.load_fj = 0
        self.loss_fj = 0

    def draw(self, load_uw: int, cell_uw: int, time_ns: int) -> int:
        """Draw a constant load for a time; returns the nanoseconds that the charge lasted, at most ``time_ns``.

        Args:
            load_uw: power that the load takes.
            cell_uw: power that the cell gives for it, at least ``load_uw``; the difference is lost as heat.
        """
        needed_fj = cell_uw * time_ns
        if needed_fj <= self.remaining_fj:
            self._book(load_uw * time_ns, needed_fj)
            return time_ns
        lasted_ns = self.remaining_fj // cell_uw
        # What is left is less than one nanosecond of this load: it is counted as lost.
        self._book(load_uw * lasted_ns, self.remaining_fj)
        return lasted_ns

    def draw_energy(self, energy_fj: int) -> bool:
        """Draw a fixed energy at once; false when the charge did not hold it (what was left is drawn)."""
        drawn = min(energy_fj, self.remaining_fj)
        self._book(drawn, drawn)
        return drawn == energy_fj

    def _book(self, load_fj: int, cell_fj: int) -> None:
        self.remaining_fj -= cell_fj
        self.load_fj += load_fj
        self.loss_fj += cell_fj - load_fj
