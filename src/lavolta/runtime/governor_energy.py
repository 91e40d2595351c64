"""Predicted energy against what the battery counts, over stretches in which its count says something."""

from __future__ import annotations

ENERGY_WINDOW = 0.005
"""Share of the capacity that must be predicted as spent before it is compared with the battery's own count."""
GAUGE_STEPS = 4
"""Steps of the gauge that a count must have moved by: many gauges count whole percents."""
_PATIENCE = 4
"""Multiple of what would move a right gauge so far, after which one that moved less is believed all the same."""


class EnergyWindow:
    """Compares, window after window, what was predicted as spent with how far the battery's count fell.

    A window begins and ends where the count moves: in between, nobody knows where in its step a gauge is. How large a
    step is shows in the smallest change, and how noisy a count is in the largest rise: a battery that feeds a device
    does not gain.
    """

    def __init__(self) -> None:
        self._counted: bool | None = None
        self.forget()

    def forget(self) -> None:
        """The count is not known, or something else than the predicted loads has changed it."""
        self._seen_fj: int | None = None
        self._anchor_fj: int | None = None
        self._predicted_fj = 0
        self._step_fj = 0
        self._noise_fj = 0

    def spend(self, predicted_fj: int) -> None:
        """So much is predicted as spent since the last look."""
        self._predicted_fj += predicted_fj

    def look(self, charge_fj: int, capacity_fj: int, counted: bool) -> float | None:
        """Measured over predicted energy at the end of a window, 0 or more; none before.

        Args:
            charge_fj: what the battery holds.
            counted: whether it counts energy itself; a share times a capacity is another count.
        """
        if counted != self._counted:
            self.forget()
            self._counted = counted
        seen_fj, self._seen_fj = self._seen_fj, charge_fj
        moved_fj = 0 if seen_fj is None else charge_fj - seen_fj
        if moved_fj:
            self._step_fj = min(self._step_fj or abs(moved_fj), abs(moved_fj))
            self._noise_fj = max(self._noise_fj, moved_fj)
        if self._anchor_fj is None:
            if moved_fj:
                self._anchor_fj, self._predicted_fj = charge_fj, 0
            return None
        drawn_fj = self._anchor_fj - charge_fj
        clear_fj = GAUGE_STEPS * max(self._step_fj, self._noise_fj)
        least_fj = ENERGY_WINDOW * capacity_fj
        told = moved_fj and drawn_fj >= clear_fj and self._predicted_fj >= least_fj
        if not told and self._predicted_fj < _PATIENCE * max(clear_fj, least_fj):
            return None
        share = max(0, drawn_fj) / self._predicted_fj
        self._anchor_fj, self._predicted_fj = charge_fj, 0
        return share
