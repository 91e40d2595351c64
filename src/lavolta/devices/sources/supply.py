"""Batteries and chargers as Linux shows them below ``class/power_supply``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lavolta.devices.sources import files
from lavolta.devices.sources.files import UnreadableError
from lavolta.devices.sources.reading import MOST_POWER_MW

_FULL_ENOUGH = 1.1
"""A fuel gauge that has learned may show a little more than its full charge; that counts as full."""
_PAIR = ("now", "full")


@dataclass(frozen=True)
class Supplies:
    """The supplies that feed the device itself; batteries of mice and headsets are not among them."""

    batteries: tuple[Path, ...]
    chargers: tuple[Path, ...]


def find(root: Path) -> Supplies:
    """List the supplies anew: they come and go while a program runs."""
    batteries, chargers = [], []
    for folder in files.folders(root / "class/power_supply"):
        try:
            kind = files.text(folder / "type")
        except UnreadableError:
            continue
        if _text_or_none(folder / "scope") == "Device":
            continue
        if kind == "Battery":
            if _text_or_none(folder / "present") != "0":
                batteries.append(folder)
        elif kind != "UPS":
            chargers.append(folder)
    return Supplies(tuple(batteries), tuple(chargers))


def on_ac(supplies: Supplies) -> bool:
    """Whether a charger feeds the device; where none is listed, what the batteries' state says.

    Raises:
        UnreadableError: nothing says it.
    """
    seen: list[bool] = []
    reason = ""
    for charger in supplies.chargers:
        try:
            seen.append(files.number(charger / "online") > 0)
        except UnreadableError as error:
            reason = str(error)
    if any(seen):
        return True
    if seen and not reason:
        return False
    states = {_text_or_none(battery / "status") for battery in supplies.batteries}
    if "Discharging" in states:
        return False
    if states & {"Charging", "Full", "Not charging"}:
        return True
    raise UnreadableError(reason or "no charger is listed in sysfs, and no battery says whether it discharges.")


def charge_share(supplies: Supplies) -> float:
    """What is left in all batteries together as a share of full, 0 to 1.

    Raises:
        UnreadableError: there is no battery, or what it says cannot be.
    """
    batteries = _some(supplies)
    for kind in ("energy", "charge"):
        try:
            now, full = (sum(files.number(battery / f"{kind}_{which}") for battery in batteries) for which in _PAIR)
        except UnreadableError:
            continue
        return _share(now, full, batteries[0])
    shares = [_share(files.number(battery / "capacity"), 100.0, battery) for battery in supplies.batteries]
    return sum(shares) / len(shares)


def charge_mwh(supplies: Supplies) -> float:
    """Energy left in all batteries, in mWh."""
    return _energy(supplies, "now")


def capacity_mwh(supplies: Supplies) -> float:
    """Energy of all batteries when they are full, in mWh."""
    value = _energy(supplies, "full")
    if value <= 0:
        raise UnreadableError(f"{supplies.batteries[0]} claims a full charge of {value:g} mWh.")
    return value


def power_mw(supplies: Supplies) -> float:
    """Power that the batteries give, in mW.

    Raises:
        UnreadableError: there is no battery, none gives, or it does not say how much.
    """
    total, giving = 0.0, 0
    for battery in _some(supplies):
        state = _text_or_none(battery / "status")
        if state in ("Charging", "Full", "Not charging"):
            continue
        giving += 1
        # Some drivers count the current of a discharge as negative.
        total += abs(_power_of(battery))
    if not giving:
        raise UnreadableError("no battery is being discharged, so none tells what the device draws.")
    if total > MOST_POWER_MW:
        raise UnreadableError(f"the battery claims to give {total / 1e3:.3g} W, which cannot be.")
    return total


def _power_of(battery: Path) -> float:
    try:
        return files.number(battery / "power_now") / 1e3
    except UnreadableError as error:
        without = error
    try:
        return files.number(battery / "current_now") * files.number(battery / "voltage_now") / 1e9
    except UnreadableError as error:
        raise UnreadableError(f"{without} {error}") from error


def _some(supplies: Supplies) -> tuple[Path, ...]:
    if not supplies.batteries:
        raise UnreadableError("no battery is listed in sysfs.")
    return supplies.batteries


def _share(now: float, full: float, battery: Path) -> float:
    if not full > 0:
        raise UnreadableError(f"{battery} claims a full charge of {full:g}.")
    share = now / full
    if not 0.0 <= share <= _FULL_ENOUGH:
        raise UnreadableError(f"{battery} claims a charge of {100 * share:.0f} %, which cannot be.")
    return min(share, 1.0)


def _energy(supplies: Supplies, moment: str) -> float:
    return sum(_energy_of(battery, moment) for battery in _some(supplies))


def _energy_of(battery: Path, moment: str) -> float:
    try:
        value = files.number(battery / f"energy_{moment}") / 1e3
    except UnreadableError as without:
        try:
            charge_uah = files.number(battery / f"charge_{moment}")
        except UnreadableError as error:
            raise UnreadableError(f"{without} {error}") from error
        value = charge_uah * _nominal_uv(battery) / 1e9
    if value < 0:
        raise UnreadableError(f"{battery} claims an energy of {value:g} mWh, which cannot be.")
    return value


def _nominal_uv(battery: Path) -> float:
    """The voltage at which a charge counts as energy: the nominal one, else the present one."""
    reasons = []
    for name in ("voltage_min_design", "voltage_now"):
        try:
            value = files.number(battery / name)
        except UnreadableError as error:
            reasons.append(str(error))
            continue
        if value > 0:
            return value
        reasons.append(f"{battery / name} holds {value:g}.")
    raise UnreadableError(" ".join(reasons))


def _text_or_none(path: Path) -> str | None:
    try:
        return files.text(path)
    except UnreadableError:
        return None
