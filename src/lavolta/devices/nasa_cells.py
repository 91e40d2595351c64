"""Fit the cell model to NASA's discharge curves (B. Saha and K. Goebel, 2007, "Battery Data Set", NASA Ames).

``python -m lavolta.devices.nasa_cells DATA_FOLDER`` rewrites the shipped cells; DATA_FOLDER holds
``B0005_discharge.csv.xz`` and its siblings. Odd cycles are fitted, even ones give the errors that the files state.
"""

from __future__ import annotations

import csv
import lzma
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.devices.cell import BEND, Cell, CellModel
from lavolta.errors import UserInputError

CELLS = {"B0005": 2700.0, "B0006": 2500.0, "B0007": 2200.0, "B0018": 2500.0}
"""Cells and the voltages, in mV, at which NASA ended their discharges."""
POINTS = 21
_LOADED_MA = 1000.0
_FRESH = 20
"""Cycles from which resistances of the new cell are taken."""
_TAIL = 0.01
"""Last part of the charge whose slope carries the voltage at rest on to the cut-off."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Discharge:
    """One cycle: times (s), terminal voltages (mV) and currents (mA) under load down to the cut-off, and around it.

    Args:
        rest_mv: the last voltage before the load; NaN where it was not recorded.
        recovery: (s after the load ended, mV), empty where it was not recorded.
        last_mv, last_ma: under load, just before it ended.
    """

    cycle: int
    time_s: Array
    voltage_mv: Array
    current_ma: Array
    rest_mv: float
    recovery: Array
    last_mv: float
    last_ma: float

    @property
    def charge_mah(self) -> Array:
        """Charge drawn up to each time."""
        steps = np.diff(self.time_s) * (self.current_ma[1:] + self.current_ma[:-1]) / 2 / 3600
        return np.concatenate([[0.0], np.cumsum(steps)])


def read(path: Path, cutoff_mv: float) -> list[Discharge]:
    """The cycles of one file, down to a voltage.

    Raises:
        UserInputError: the file cannot be read or lacks a column.
    """
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            table: dict[int, list[tuple[float, float, float]]] = {}
            for row in csv.DictReader(file):
                entry = (float(row["time_s"]), 1e3 * float(row["voltage_V"]), -1e3 * float(row["current_A"]))
                table.setdefault(int(row["cycle"]), []).append(entry)
    except (OSError, lzma.LZMAError) as error:
        raise UserInputError(f"cannot read {path}: {error}; give the folder of the battery data.") from error
    except (KeyError, ValueError) as error:
        raise UserInputError(f"{path} is not a discharge table: {error}.") from error
    return [_discharge(cycle, np.array(rows), cutoff_mv) for cycle, rows in table.items()]


def _discharge(cycle: int, rows: Array, cutoff_mv: float) -> Discharge:
    loaded = np.flatnonzero(rows[:, 2] > _LOADED_MA)
    first, last = int(loaded[0]), int(loaded[-1])
    used = rows[first : last + 1]
    above = used[used[:, 1] >= cutoff_mv]
    after = rows[last + 1 :]
    recovery = np.stack([after[:, 0] - rows[last, 0], after[:, 1]], axis=1)
    return Discharge(
        cycle,
        above[:, 0] - above[0, 0],
        above[:, 1],
        above[:, 2],
        rows[first - 1, 1] if first else math.nan,
        recovery,
        float(rows[last, 1]),
        float(rows[last, 2]),
    )


def load(name: str, folder: Path) -> CellModel:
    """The fitted model of one of `CELLS`."""
    return fit(name, CELLS[name], read(folder / f"{name}_discharge.csv.xz", CELLS[name]))


def fit(name: str, cutoff_mv: float, cycles: Sequence[Discharge]) -> CellModel:
    """The model of one cell: odd cycles fitted, errors on even ones."""
    seen = [cycle for cycle in cycles if cycle.cycle % 2]
    growth, r0_full = _line([c.cycle for c in seen], [_drop_mohm(c) for c in seen])
    recovered = [c for c in seen if len(c.recovery) > _FRESH // 2]
    at_once = [_recovered_mohm(c, 0) for c in recovered]
    in_all = [_recovered_mohm(c, -1) for c in recovered]
    ages = [c.cycle for c in recovered]
    growth_empty, r0_empty = _line(ages, at_once)
    r1_empty = max(_line(ages, in_all)[1] - r0_empty, 0.0)
    tau_s = float(np.median([_tau_s(c) for c in recovered]))
    growth_per_cycle = max(0.0, float(np.mean([growth / r0_full, growth_empty / r0_empty])))
    fade, usable_mah = _line([c.cycle for c in seen], [float(c.charge_mah[-1]) for c in seen])
    numbers: dict[str, Any] = {
        "name": f"nasa-{name.lower()}",
        "cutoff_mv": cutoff_mv,
        "r0_full_mohm": r0_full,
        "r0_empty_mohm": r0_empty,
        "r1_empty_mohm": r1_empty,
        "tau_s": tau_s,
        "fade_per_cycle": max(-fade / usable_mah, 0.0),
        "growth_per_cycle": growth_per_cycle,
        "cycles_measured": float(max(c.cycle for c in cycles)),
        "voltage_error_mv": 0.0,
        "time_error_percent": 0.0,
        "source": _source(name),
    }
    ocv_mv, tail = _ocv(seen, numbers)
    numbers |= {"capacity_mah": usable_mah * (1 + tail), "ocv_mv": ocv_mv}
    model = CellModel.model_validate(_rounded(numbers))
    errors = np.array([compare(model, c) for c in cycles if c.cycle % 2 == 0])
    voltage_mv, time_percent = np.median(np.abs(errors), axis=0)
    return model.model_copy(
        update={"voltage_error_mv": round(float(voltage_mv), 1), "time_error_percent": round(float(time_percent), 2)}
    )


def compare(model: CellModel, measured: Discharge) -> tuple[float, float]:
    """Error of the model on one cycle: root mean square of the voltage in mV, and time to cut-off in percent."""
    cell = Cell(model, 1.0, float(measured.cycle))
    current_ma = float(measured.current_ma.mean())
    squares, ended_s = [], float(measured.time_s[-1])
    load_mw = current_ma * float(measured.voltage_mv[0]) / 1e3
    for before_s, time_s, voltage_mv in zip(
        measured.time_s, measured.time_s[1:], measured.voltage_mv[1:], strict=False
    ):
        if cell.draw(load_mw, time_s - before_s) < time_s - before_s:
            ended_s = float(time_s)
            break
        modelled_mv = cell.terminal_mv(load_mw) or model.cutoff_mv
        squares.append((modelled_mv - voltage_mv) ** 2)
        # The measurement held the current, the cell is asked for power.
        load_mw = current_ma * modelled_mv / 1e3
    else:
        while cell.draw(load_mw, 1.0) == 1.0:
            ended_s += 1.0
            load_mw = current_ma * (cell.terminal_mv(load_mw) or model.cutoff_mv) / 1e3
    return math.sqrt(sum(squares) / max(len(squares), 1)), 100 * (ended_s / float(measured.time_s[-1]) - 1)


def render(model: CellModel) -> str:
    """The TOML text of a cell."""
    data = model.model_dump()
    source = data.pop("source")
    lines = ["# Generated: python -m lavolta.devices.nasa_cells DATA_FOLDER."]
    for key, value in data.items():
        if isinstance(value, str):
            lines.append(f'{key} = "{value}"')
        elif isinstance(value, tuple):
            lines.append(f"{key} = [{', '.join(f'{item:.1f}' for item in value)}]")
        else:
            lines.append(f"{key} = {value!r}")
    lines.append("source = { " + ", ".join(f'{key} = "{value}"' for key, value in source.items()) + " }")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the cells of `CELLS`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        print("usage: python -m lavolta.devices.nasa_cells DATA_FOLDER", file=sys.stderr)
        return 2
    try:
        models = [load(name, Path(given[0])) for name in CELLS]
    except UserInputError as error:
        print(error, file=sys.stderr)
        return 2
    for model in models:
        path = Path(__file__).parent / "cells" / f"{model.name}.toml"
        path.write_text(render(model), encoding="utf-8")
        print(path)
    return 0


def _ocv(cycles: Sequence[Discharge], numbers: dict[str, Any]) -> tuple[tuple[float, ...], float]:
    """Voltage at rest from empty to full, and the charge that lies below the loaded cut-off as a share of the rest."""
    grid = np.linspace(0.0, 1.0, 201)
    curves = []
    for cycle in cycles:
        drawn = cycle.charge_mah
        share = 1 - drawn / drawn[-1]
        bend = (1 - share) ** BEND
        growth = 1 + numbers["growth_per_cycle"] * cycle.cycle
        r0 = growth * (numbers["r0_full_mohm"] + (numbers["r0_empty_mohm"] - numbers["r0_full_mohm"]) * bend)
        r1 = growth * numbers["r1_empty_mohm"] * bend
        slow = np.zeros(len(share))
        for k in range(1, len(share)):
            target = cycle.current_ma[k] * r1[k] / 1e3
            decay = math.exp(-(cycle.time_s[k] - cycle.time_s[k - 1]) / numbers["tau_s"])
            slow[k] = target + (slow[k - 1] - target) * decay
        curves.append(np.interp(grid, share[::-1], (cycle.voltage_mv + cycle.current_ma * r0 / 1e3 + slow)[::-1]))
    loaded = np.mean(curves, axis=0)
    slope = (np.interp(_TAIL, grid, loaded) - loaded[0]) / _TAIL
    tail = float(min(max((loaded[0] - numbers["cutoff_mv"]) / slope, 0.0), 0.05))
    whole = np.concatenate([[-tail], grid])
    places = np.linspace(-tail, 1.0, POINTS)
    voltages = np.interp(places, whole, np.concatenate([[numbers["cutoff_mv"]], loaded]))
    return tuple(float(value) for value in np.maximum.accumulate(voltages)), tail


def _drop_mohm(cycle: Discharge) -> float:
    return (cycle.rest_mv - float(cycle.voltage_mv[0])) / float(cycle.current_ma[0]) * 1e3


def _recovered_mohm(cycle: Discharge, sample: int) -> float:
    return (float(cycle.recovery[sample, 1]) - cycle.last_mv) / cycle.last_ma * 1e3


def _tau_s(cycle: Discharge) -> float:
    """Time after which the slow part of the recovery has done 1 - 1/e of its way."""
    start, end = cycle.recovery[0, 1], cycle.recovery[-1, 1]
    reached = np.flatnonzero(cycle.recovery[:, 1] >= start + (1 - math.exp(-1)) * (end - start))
    return float(cycle.recovery[int(reached[0]), 0] - cycle.recovery[0, 0]) or 20.0


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope, and value at 0, of a straight line; samples that were not recorded are left out."""
    known = np.isfinite(y)
    slope, start = np.polyfit(np.array(x, dtype=float)[known], np.array(y)[known], 1)
    return float(slope), float(start)


def _rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    """Four significant digits: more would not be meant."""
    found: dict[str, Any] = {}
    for key, value in numbers.items():
        found[key] = float(f"{value:.4g}") if isinstance(value, float) else value
    found["ocv_mv"] = tuple(round(value, 1) for value in numbers["ocv_mv"])
    return found


def _source(name: str) -> dict[str, str]:
    return {
        "text": f"fitted to the 2 A discharges of cell {name}: B. Saha and K. Goebel (2007), Battery Data Set, NASA "
        "Prognostics Data Repository, NASA Ames; one current was measured, so other loads are extrapolated",
        "licence": "work of the US government, no copyright in the United States",
        "label": "derived",
    }


if __name__ == "__main__":
    sys.exit(main())
