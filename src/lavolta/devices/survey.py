"""What sysfs says about a device before anything is timed: clusters, clocks, caches, heat, battery."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lavolta.devices.identity import PROC, nominal_mhz
from lavolta.devices.sources import files, meters, supply
from lavolta.devices.sources.cpufreq import LinuxFrequencyControl
from lavolta.devices.sources.files import UnreadableError
from lavolta.devices.sources.linux import SYSFS
from lavolta.devices.sources.reading import Degree
from lavolta.devices.sources.topology import online_cpus, policies
from lavolta.errors import UserInputError

DEFAULT_CACHE_BYTES = 32 * 1024
_ETERNAL_NS = 1e9
"""Drivers that do not know their latency report numbers of this order."""


@dataclass(frozen=True)
class ClusterSurvey:
    """Cores that share a clock.

    Args:
        steps_mhz: clocks to measure at; the present one where none can be set.
        known_mhz: every clock that the cluster has.
    """

    name: str
    cpus: tuple[int, ...]
    steps_mhz: tuple[float, ...]
    known_mhz: tuple[float, ...]


@dataclass(frozen=True)
class Survey:
    """A device as sysfs shows it; ``notes`` are sentences about what it does not show."""

    clusters: tuple[ClusterSurvey, ...]
    degree: Degree
    near_cache_bytes: int
    transition_us: float | None
    limit_c: float | None
    battery_mwh: float | None
    battery_mv: float | None
    board: str
    notes: tuple[str, ...] = field(default=())


def survey(
    root: Path = SYSFS, proc: Path = PROC, quick: bool = False, allowed: Collection[int] | None = None
) -> Survey:
    """Look at a device.

    Args:
        root, proc: where sysfs and procfs are mounted, or folders that look like them.
        quick: of the clocks that can be set, only the lowest, the middle and the highest are measured.
        allowed: CPUs that may be used; clusters without any are left out. None: all.
    """
    notes: list[str] = []
    names = _names(root)
    control = LinuxFrequencyControl(root, names)
    if control.degree is Degree.NONE:
        mhz = nominal_mhz(proc)
        notes.append(control.why)
        notes.append(
            f"{mhz:g} MHz, the clock that procfs shows, stands for the only one."
            if mhz
            else "1000 MHz stands for the only clock, so cycles in this profile are not real cycles."
        )
        cpus = online_cpus(root) or (0,)
        clusters = [ClusterSurvey("cpu", cpus, (mhz or 1000.0,), (mhz or 1000.0,))]
    else:
        if control.degree is Degree.FOLLOWS:
            why = control.why.rstrip(".")
            notes.append(f"the clock cannot be set ({why}): times are those of the clock that the system chose.")
        clusters = []
        for name, steps in control.clusters.items():
            used = steps
            if control.degree is not Degree.SETS:
                # The clock that really ran is read beside each timing.
                used = (steps[-1],) if steps else (_present_mhz(root, names, name) or 1000.0,)
            elif quick and len(steps) > 3:
                used = (steps[0], steps[len(steps) // 2], steps[-1])
            clusters.append(ClusterSurvey(name, names[name], used, tuple(sorted({*steps, *used}))))
    clusters = _allowed(clusters, allowed, notes)
    return Survey(
        clusters=tuple(clusters),
        degree=control.degree,
        near_cache_bytes=_first_cache_bytes(root) // 2,
        transition_us=_transition_us(root, notes),
        limit_c=_limit_c(root, notes),
        **_battery(root, notes),
        board=_board(proc),
        notes=tuple(notes),
    )


def _allowed(clusters: list[ClusterSurvey], allowed: Collection[int] | None, notes: list[str]) -> list[ClusterSurvey]:
    if allowed is None:
        return clusters
    kept = [replace(cluster, cpus=tuple(cpu for cpu in cluster.cpus if cpu in allowed)) for cluster in clusters]
    lost = sorted({cpu for cluster in clusters for cpu in cluster.cpus} - set(allowed))
    if lost:
        notes.append(f"this program may not use CPU {', '.join(map(str, lost))}: not timed.")
    usable = [cluster for cluster in kept if cluster.cpus]
    if not usable:
        raise UserInputError("this program may use none of the CPUs that sysfs names; give --root the right folder.")
    return usable


def _names(root: Path) -> Mapping[str, tuple[int, ...]]:
    """Clusters: policies of the same clocks and kind of core are one, named by their order."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for policy in policies(root):
        groups.setdefault(_kind(root, policy.folder, policy.cpus), []).extend(policy.cpus)
    if len(groups) == 1:
        return {"cpu": tuple(sorted(next(iter(groups.values()))))}
    return {f"cluster{place}": tuple(sorted(cpus)) for place, cpus in enumerate(groups.values())}


def _kind(root: Path, folder: Path, cpus: tuple[int, ...]) -> tuple[str, ...]:
    """What tells one kind of core from another: clocks, and the capacity that the scheduler knows."""
    paths = [folder / "cpuinfo_min_freq", folder / "cpuinfo_max_freq", folder / "scaling_available_frequencies"]
    if cpus:
        paths.append(root / f"devices/system/cpu/cpu{cpus[0]}/cpu_capacity")
    return tuple(_text(path) for path in paths)


def _present_mhz(root: Path, names: Mapping[str, tuple[int, ...]], cluster: str) -> float | None:
    found = []
    for policy in policies(root, names):
        if policy.cluster == cluster:
            try:
                found.append(files.number(policy.folder / "scaling_cur_freq") / 1e3)
            except UnreadableError:
                continue
    return max((value for value in found if value > 0), default=None)


def _first_cache_bytes(root: Path) -> int:
    for index in files.folders(root / "devices/system/cpu/cpu0/cache", "index"):
        if _text(index / "level") == "1" and _text(index / "type") in ("Data", "Unified"):
            words = _text(index / "size")
            scale = {"K": 1024, "M": 1 << 20}.get(words[-1:], 1)
            digits = words.rstrip("KM")
            if digits.isdigit() and 4096 <= int(digits) * scale <= 1 << 24:
                return int(digits) * scale
    return DEFAULT_CACHE_BYTES


def _transition_us(root: Path, notes: list[str]) -> float | None:
    found = []
    for policy in policies(root):
        try:
            found.append(files.number(policy.folder / "cpuinfo_transition_latency"))
        except UnreadableError:
            continue
    known = [value / 1e3 for value in found if 0 < value < _ETERNAL_NS]
    if not known:
        notes.append("no driver says how long a change of clock takes.")
        return None
    return max(known)


def _limit_c(root: Path, notes: list[str]) -> float | None:
    """The lowest passive trip point of the processor's thermal zones: where the system itself begins to slow down."""
    found = []
    for zone in meters.processor_zones(root):
        for kind in sorted(zone.glob("trip_point_*_type")):
            if _text(kind) == "passive":
                try:
                    found.append(files.number(kind.with_name(kind.name.replace("_type", "_temp"))) / 1e3)
                except UnreadableError:
                    continue
    usable = [value for value in found if 30 < value < 150]
    if not usable:
        notes.append("no thermal zone of the processor has a passive trip point: the thermal limit is not known.")
        return None
    return min(usable)


def _battery(root: Path, notes: list[str]) -> dict[str, float | None]:
    supplies = supply.find(root)
    try:
        capacity_mwh: float | None = supply.capacity_mwh(supplies)
    except UnreadableError as reason:
        notes.append(str(reason))
        capacity_mwh = None
    voltages = []
    for battery in supplies.batteries:
        for name in ("voltage_min_design", "voltage_now"):
            try:
                voltages.append(files.number(battery / name) / 1e3)
            except UnreadableError:
                continue
    usable = [value for value in voltages if value > 0]
    return {"battery_mwh": capacity_mwh, "battery_mv": usable[0] if usable else None}


def _board(proc: Path) -> str:
    return _text(proc / "device-tree/model").rstrip("\0")


def _text(path: Path) -> str:
    try:
        return files.text(path)
    except UnreadableError:
        return ""
