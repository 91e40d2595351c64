"""Power meters and thermometers of Linux: INA chips and others in hwmon, RAPL in powercap, thermal zones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from lavolta.devices.sources import files
from lavolta.devices.sources.files import UnreadableError
from lavolta.devices.sources.reading import MOST_POWER_MW

_PROCESSOR = re.compile(r"cpu|x86_pkg|soc|core|cluster|tmu|k10temp|zenpower|tsens|big|little", re.IGNORECASE)
_SURROUNDINGS = re.compile(r"acpitz|board|ambient|skin", re.IGNORECASE)
_OTHER = re.compile(r"batt|charg|wifi|wlan|modem|gpu|usb|nvme|pmic|camera|iwl", re.IGNORECASE)
_COLDEST_C, _HOTTEST_C = -40.0, 150.0


def temperature_c(root: Path) -> float:
    """The hottest thermometer of the processor.

    Raises:
        UnreadableError: there is none, or none gives a temperature that can be.
    """
    return max(_of_processor(root).values())


def processor_zones(root: Path) -> list[Path]:
    """The thermal zones that `temperature_c` tells the hottest of; their trip points may be compared with it."""
    try:
        return [path.parent for path in _of_processor(root) if path.parent.name.startswith("thermal_zone")]
    except UnreadableError:
        return []


def _of_processor(root: Path) -> dict[Path, float]:
    """Temperatures of the thermometers that are nearest to the processor, at least one, by their files."""
    reason = f"no thermometer of the processor is listed below {root / 'class'}."
    for paths in _thermometers(root):
        values = {}
        for path in paths:
            try:
                value = files.number(path) / 1e3
            except UnreadableError as error:
                reason = str(error)
                continue
            if _COLDEST_C < value < _HOTTEST_C:
                values[path] = value
            else:
                reason = f"{path} claims {value:g} degrees Celsius, which cannot be."
        if values:
            return values
    raise UnreadableError(reason)


def _thermometers(root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Those of the processor; those of unknown place; those of its surroundings. What is elsewhere is left out."""
    sure: list[Path] = []
    unknown: list[Path] = []
    around: list[Path] = []
    found = [(zone / "type", [zone / "temp"]) for zone in files.folders(root / "class/thermal", "thermal_zone")]
    for chip in files.folders(root / "class/hwmon", "hwmon"):
        found.append((chip / "name", sorted(chip.glob("temp[0-9]*_input"))))
    for name_file, paths in found:
        try:
            name = files.text(name_file)
        except UnreadableError:
            continue
        if _OTHER.search(name):
            continue
        place = sure if _PROCESSOR.search(name) else around if _SURROUNDINGS.search(name) else unknown
        place.extend(paths)
    return sure, unknown, around


def hwmon_power_mw(root: Path) -> tuple[float, str]:
    """Power that the board's own meters show, and what they are.

    Several channels of one chip are taken as parts and added; the chip that shows most is the one at the board's input.

    Raises:
        UnreadableError: there is no such meter.
    """
    reason = f"no power meter is listed below {root / 'class/hwmon'}."
    best: tuple[float, str] | None = None
    for chip in files.folders(root / "class/hwmon", "hwmon"):
        try:
            values = _channels_mw(chip)
            name = files.text(chip / "name")
        except UnreadableError as error:
            reason = str(error)
            continue
        total_mw = sum(values)
        if values and total_mw <= MOST_POWER_MW and (best is None or total_mw > best[0]):
            best = (total_mw, f"meter {name}")
    if best is None:
        raise UnreadableError(reason)
    return best


def _channels_mw(chip: Path) -> list[float]:
    values = [files.number(path) / 1e3 for path in sorted(chip.glob("power[0-9]*_input"))]
    if not values:
        # The INA3221 shows volts and amperes only.
        for path in sorted(chip.glob("curr[0-9]*_input")):
            volts = chip / path.name.replace("curr", "in")
            if volts.exists():
                values.append(files.number(path) * files.number(volts) / 1e3)
    return [value for value in values if 0 <= value <= MOST_POWER_MW]


@dataclass
class Rapl:
    """The energy counters of Intel and AMD processors in powercap; power is the slope between two looks."""

    root: Path
    _before: dict[str, tuple[float, float]] = field(default_factory=dict)

    def power_mw(self, time_s: float, slept_s: float) -> tuple[float, str]:
        """Power since the look before, and what it covers.

        Args:
            time_s, slept_s: those of the reading; a counter is not trusted over a suspend.

        Raises:
            UnreadableError: no counter, no permission (usual without root), or the first look.
        """
        zones = self._zones()
        if not zones:
            raise UnreadableError(f"no energy counter is listed below {self.root / 'class/powercap'}.")
        whole = [(zone, name) for zone, name in zones if name == "psys"]
        used = whole or [(zone, name) for zone, name in zones if name.startswith("package")]
        if not used:
            raise UnreadableError(f"the energy counters below {self.root / 'class/powercap'} cover no whole processor.")
        total_mw, first = 0.0, False
        for zone, _ in used:
            energy_uj = files.number(zone / "energy_uj")
            before = self._before.get(zone.name)
            self._before[zone.name] = (time_s, energy_uj)
            if before is None or slept_s > 0 or time_s <= before[0]:
                first = True
                continue
            grown_uj = energy_uj - before[1]
            if grown_uj < 0:
                grown_uj += files.number(zone / "max_energy_range_uj")
            total_mw += grown_uj / (time_s - before[0]) / 1e3
        if first:
            raise UnreadableError("an energy counter tells power only from the second look on.")
        if not 0 <= total_mw <= MOST_POWER_MW:
            raise UnreadableError(f"the energy counters claim {total_mw / 1e3:.3g} W, which cannot be.")
        return total_mw, "RAPL, the whole platform" if whole else "RAPL, the processor only"

    def _zones(self) -> list[tuple[Path, str]]:
        found = []
        for zone in files.folders(self.root / "class/powercap"):
            # Deeper zones (two colons) are parts of the ones above; the MMIO twin counts the same energy again.
            if zone.name.count(":") == 1 and "mmio" not in zone.name:
                try:
                    found.append((zone, files.text(zone / "name")))
                except UnreadableError:
                    continue
        return found
