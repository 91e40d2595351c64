"""A lithium-ion cell that sags, ages and is cut off: a compact model with numbers fitted to measured discharges.

Terminal voltage = ``ocv(s) - I R0(s) - u``, with the share of charge ``s`` (1 full, 0 empty at no load), and a slow
voltage ``u`` that follows ``I R1(s)`` with a time constant. Both resistances rise steeply towards empty::

    R0(s) = r0_full + (r0_empty - r0_full) (1 - s)^24        R1(s) = r1_empty (1 - s)^24

The measurements show resistances of the full and the empty cell only; of the exponents 4, 8, 12, 16 and 24, the last
is the only one with a voltage at rest that falls with the charge for all cells, as it must.

Age counts in full cycles: the capacity falls and the resistances grow linearly, within the range that was measured.
"""

from __future__ import annotations

import itertools
import math
import sys
from functools import lru_cache
from importlib import resources
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lavolta.devices.profile import Name, NonNegative, Positive, Source
from lavolta.errors import UserInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = "nasa-b0005"
_STEP_SHARE = 0.002
"""Largest change of the charge in one step of the integration; the table of voltages is ten times coarser."""
_SMALLEST_SHARE = 1e-9
"""A change of the charge that does not matter any more."""
BEND = 24
_S_PER_H = 3600.0


class CellModel(BaseModel):
    """The numbers of one cell; `load_cell` reads those that ship.

    Attributes:
        capacity_mah: of the new cell, from full to empty at no load.
        cutoff_mv: terminal voltage at which the cell is switched off.
        ocv_mv: voltage at rest at equally spaced shares of charge, from empty to full.
        r0_full_mohm, r0_empty_mohm: resistance that acts at once.
        r1_empty_mohm, tau_s: resistance that acts slowly, and its time constant.
        fade_per_cycle: capacity lost by a full cycle, as a share of the new one.
        growth_per_cycle: growth of the resistances by a full cycle, as a share of the new ones.
        cycles_measured: age up to which the numbers are backed by measurements.
        voltage_error_mv, time_error_percent: median error on cycles that the fit had not seen: terminal voltage (root
            mean square) and time to the cut-off.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Name
    capacity_mah: Positive
    cutoff_mv: Positive
    ocv_mv: Annotated[tuple[Positive, ...], Field(strict=False, min_length=3)]
    r0_full_mohm: Positive
    r0_empty_mohm: Positive
    r1_empty_mohm: NonNegative
    tau_s: Positive
    fade_per_cycle: NonNegative
    growth_per_cycle: NonNegative
    cycles_measured: Positive
    voltage_error_mv: NonNegative
    time_error_percent: NonNegative
    source: Source


def cell_names() -> list[str]:
    """Names of the cells that ship with the package, sorted."""
    folder = resources.files("lavolta.devices") / "cells"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


@lru_cache(maxsize=16)
def load_cell(name: str = DEFAULT) -> CellModel:
    """A cell that ships with the package.

    Raises:
        UserInputError: there is none of that name.
    """
    if name not in cell_names():
        raise UserInputError(f"unknown cell {name!r}; there are {', '.join(cell_names())}.")
    content = (resources.files("lavolta.devices") / "cells" / f"{name}.toml").read_text(encoding="utf-8")
    try:
        return CellModel.model_validate(tomllib.loads(content))
    except ValidationError as error:
        raise UserInputError(f"the file of the cell {name} is damaged: {error.errors()[0]['msg']}.") from error


class Cell:
    """A cell in use.

    Energy is conserved: what the charge lost (at the voltage at rest) equals what the load took plus `heat_mwh`.

    Args:
        model: its numbers.
        share: how full it is, 0 to 1.
        cycles: its age in full cycles.
    """

    def __init__(self, model: CellModel, share: float = 1.0, cycles: float = 0.0) -> None:
        if not (math.isfinite(share) and 0.0 <= share <= 1.0):
            raise UserInputError(f"a charge of {share} is outside 0 (empty) to 1 (full).")
        if not (math.isfinite(cycles) and cycles >= 0 and cycles * model.fade_per_cycle < 0.9):
            raise UserInputError(
                f"an age of {cycles} cycles is outside 0 to {0.9 / max(model.fade_per_cycle, 1e-9):.0f}; "
                f"measured are {model.cycles_measured:g}."
            )
        self.model = model
        self.share = share
        self.cycles = cycles
        self.load_mwh = 0.0
        self.heat_mwh = 0.0
        self._slow_mv = 0.0
        self._pieces = len(model.ocv_mv) - 1
        # Energy from empty up to each point, per unit of charge: trapezoids are exact for straight pieces.
        self._below = [0.0]
        for low, high in itertools.pairwise(model.ocv_mv):
            self._below.append(self._below[-1] + (low + high) / 2 / self._pieces)

    @property
    def capacity_mah(self) -> float:
        """Capacity at the present age."""
        return self.model.capacity_mah * (1 - self.model.fade_per_cycle * self.cycles)

    @property
    def capacity_mwh(self) -> float:
        """Energy of the full cell at rest at the present age."""
        return self.capacity_mah * self._below[-1] / 1e3

    @property
    def energy_mwh(self) -> float:
        """Energy that is left at rest; a load gets less of it."""
        return self.capacity_mah * self._energy_below(self.share) / 1e3

    @property
    def open_mv(self) -> float:
        """Voltage at rest, after all slow changes have died away."""
        return self._ocv_mv(self.share)

    def resistances_mohm(self) -> tuple[float, float]:
        """What acts at once and what acts slowly, at the present charge and age."""
        return self._resistances_mohm(self.share)

    def current_ma(self, load_mw: float) -> float | None:
        """Current of a load; None where the cell cannot give it above its cut-off."""
        return self._current_ma(load_mw, self.share)

    def terminal_mv(self, load_mw: float) -> float | None:
        """Voltage at the terminals under a load; None where it would be below the cut-off."""
        current_ma = self.current_ma(load_mw)
        if current_ma is None:
            return None
        return self.open_mv - self._slow_mv - current_ma * self.resistances_mohm()[0] / 1e3

    def draw(self, load_mw: float, time_s: float) -> float:
        """Draw a constant power; returns the seconds that it lasted, less than ``time_s`` where it was cut off."""
        if not (load_mw >= 0 and time_s >= 0 and math.isfinite(load_mw) and math.isfinite(time_s)):
            raise UserInputError(f"a load of {load_mw} mW for {time_s} s is not possible.")
        return self._run(load_mw, time_s)

    def store(self, power_mw: float, time_s: float) -> float:
        """Charge with a constant power at the terminals; returns the seconds until full, at most ``time_s``."""
        if not (power_mw >= 0 and time_s >= 0 and math.isfinite(power_mw) and math.isfinite(time_s)):
            raise UserInputError(f"charging with {power_mw} mW for {time_s} s is not possible.")
        return self._run(-power_mw, time_s) if self.share < 1.0 else 0.0

    def _run(self, load_mw: float, time_s: float) -> float:
        """Pass time under a load (negative: a charge) until it is over, or the cell is cut off or full."""
        left_s = time_s
        while left_s > 0:
            current_ma = self._current_ma(load_mw, self.share)
            if current_ma is None:
                break
            step_s = left_s
            if current_ma != 0:
                room = self.share if current_ma > 0 else 1.0 - self.share
                if room <= 0:
                    break
                per_s = current_ma / _S_PER_H / self.capacity_mah
                step_s = min(left_s, min(_STEP_SHARE, room) / abs(per_s))
                # The current in the middle of the step keeps the books exact on a straight piece of the voltage.
                middle_ma = self._current_ma(load_mw, self.share - per_s * step_s / 2)
                while middle_ma is None and abs(per_s) * step_s > _SMALLEST_SHARE:
                    # The cut-off lies inside this step: go half as far.
                    step_s /= 2
                    middle_ma = self._current_ma(load_mw, self.share - per_s * step_s / 2)
                if middle_ma is None:
                    break
                current_ma = middle_ma
                step_s = min(step_s, room * _S_PER_H * self.capacity_mah / abs(current_ma))
            self._move(current_ma, step_s, load_mw)
            left_s -= step_s
        return time_s - left_s

    def _current_ma(self, load_mw: float, share: float) -> float | None:
        """The smaller root of ``V I - I^2 R = P``, which is negative for a charge."""
        volts = (self._ocv_mv(share) - self._slow_mv) / 1e3
        ohms = self._resistances_mohm(share)[0] / 1e3
        left = volts * volts - 4 * ohms * load_mw / 1e3
        if volts <= 0 or left < 0:
            return None
        amperes = 2 * load_mw / 1e3 / (volts + math.sqrt(left))
        return 1e3 * amperes if 1e3 * (volts - amperes * ohms) >= self.model.cutoff_mv or load_mw <= 0 else None

    def _resistances_mohm(self, share: float) -> tuple[float, float]:
        model, bend = self.model, (1 - share) ** BEND
        growth = 1 + model.growth_per_cycle * self.cycles
        at_once = model.r0_full_mohm + (model.r0_empty_mohm - model.r0_full_mohm) * bend
        return growth * at_once, growth * model.r1_empty_mohm * bend

    def _move(self, current_ma: float, step_s: float, load_mw: float) -> None:
        before_mwh = self.energy_mwh
        capacity_mah = self.capacity_mah
        share = self.share - current_ma * step_s / _S_PER_H / capacity_mah
        # A step is cut so that it ends at empty or full; the last bit of rounding is not left over.
        self.share = 0.0 if share < 1e-12 else 1.0 if share > 1 - 1e-12 else share
        after_mwh = capacity_mah * self._energy_below(self.share) / 1e3
        target_mv = current_ma * self.resistances_mohm()[1] / 1e3
        self._slow_mv = target_mv + (self._slow_mv - target_mv) * math.exp(-step_s / self.model.tau_s)
        taken_mwh = load_mw * step_s / _S_PER_H
        self.load_mwh += taken_mwh
        self.heat_mwh += before_mwh - after_mwh - taken_mwh
        if current_ma > 0:
            self.cycles += current_ma * step_s / _S_PER_H / self.model.capacity_mah

    def _place(self, share: float) -> tuple[int, float]:
        """Piece of the table, and how far along it."""
        place = share * self._pieces
        index = min(int(place), self._pieces - 1)
        return index, place - index

    def _ocv_mv(self, share: float) -> float:
        index, part = self._place(share)
        low, high = self.model.ocv_mv[index], self.model.ocv_mv[index + 1]
        return low + part * (high - low)

    def _energy_below(self, share: float) -> float:
        """Integral of the voltage at rest from empty to a share, in mV."""
        index, part = self._place(share)
        low = self.model.ocv_mv[index]
        return self._below[index] + part * (low + self._ocv_mv(share)) / 2 / self._pieces
