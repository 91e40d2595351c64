"""The clock of a real Linux device through cpufreq."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from lavolta.devices.sources import files
from lavolta.devices.sources.drawn import DrawnLimits
from lavolta.devices.sources.files import UnreadableError
from lavolta.devices.sources.linux import SYSFS
from lavolta.devices.sources.reading import Degree
from lavolta.devices.sources.topology import ClusterCpus, Policy, policies

_MADE_STEPS = 8
"""Steps between the lowest and the highest clock where the driver has no list of its own."""


class LinuxFrequencyControl:
    """Sets clocks through the userspace governor where the kernel has it, else by drawing both limits together.

    What was written is put back by `release` as it was found: the governor, or the limits as somebody set them, without
    what heat took from them at that moment. Nothing is written before the first `set_mhz`.

    Args:
        root: where sysfs is mounted, or a folder that looks like it.
        clusters: names of clusters and their CPUs; others are called as in sysfs.
        allowed: false only follows, whatever the permissions are.
        used: clusters whose clock will be set; those of ``clusters`` where not given. One without a policy of its own
            means that the clock is only followed.

    Attributes:
        drawn: the limits that it draws; a `LinuxSource` of the same device needs them to know those of the system.
    """

    def __init__(
        self,
        root: Path = SYSFS,
        clusters: ClusterCpus | None = None,
        *,
        allowed: bool = True,
        used: Collection[str] | None = None,
    ) -> None:
        self._root = Path(root)
        self.drawn = DrawnLimits(self._root)
        self._groups: dict[str, list[Policy]] = {}
        for policy in policies(self._root, clusters):
            self._groups.setdefault(policy.cluster, []).append(policy)
        self._steps = {name: _steps_of(group) for name, group in self._groups.items()}
        self._governors: dict[Path, str] = {}
        self._degree, self._why = self._find_degree(allowed, tuple(clusters or ()) if used is None else used)

    @property
    def degree(self) -> Degree:
        return self._degree

    @property
    def why(self) -> str:
        return self._why

    @property
    def clusters(self) -> Mapping[str, tuple[float, ...]]:
        return dict(self._steps)

    def set_mhz(self, cluster: str, freq_mhz: float) -> bool:
        """Ask for a clock; see `FrequencyControl`. The first refusal gives the clock back to the system for good."""
        if self._degree is not Degree.SETS or freq_mhz not in self._steps.get(cluster, ()):
            return False
        for policy in self._groups[cluster]:
            try:
                self._set(policy.folder, round(freq_mhz * 1e3))
            except UnreadableError as reason:
                self.release()
                self._degree, self._why = Degree.FOLLOWS, str(reason)
                return False
        return True

    def release(self) -> None:
        """Put back what was written, as it was found: governors or limits; what is gone by now is passed over."""
        for folder, governor in self._governors.items():
            with contextlib.suppress(UnreadableError):
                files.write(folder / "scaling_governor", governor)
        self._governors = {}
        self.drawn.put_back()

    def _find_degree(self, allowed: bool, used: Collection[str]) -> tuple[Degree, str]:
        if not self._groups:
            return Degree.NONE, f"{self._root} has no cpufreq: the clock is neither known nor set."
        if not allowed:
            return Degree.FOLLOWS, "the clock is left to the system, as was asked."
        for name in used:
            if name not in self._groups:
                return Degree.FOLLOWS, f"cpufreq has no policy for cluster {name}: its clock cannot be set."
        for name, group in self._groups.items():
            if len(self._steps[name]) < 2:
                return Degree.FOLLOWS, f"cpufreq names no clocks to choose from for cluster {name}."
            for policy in group:
                for path in _needed(policy.folder):
                    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                        return Degree.FOLLOWS, f"{path} may not be written by this user."
        return Degree.SETS, ""

    def _set(self, folder: Path, khz: int) -> None:
        if not _has_userspace(folder):
            self.drawn.draw(folder, khz)
            return
        governor = files.text(folder / "scaling_governor")
        if governor != "userspace":
            self._governors.setdefault(folder, governor)
            files.write(folder / "scaling_governor", "userspace")
        files.write(folder / "scaling_setspeed", str(khz))


def _needed(folder: Path) -> tuple[Path, ...]:
    if _has_userspace(folder):
        return folder / "scaling_governor", folder / "scaling_setspeed"
    return folder / "scaling_min_freq", folder / "scaling_max_freq"


def _has_userspace(folder: Path) -> bool:
    return "userspace" in (_text(folder / "scaling_available_governors") or "").split()


def _steps_of(group: list[Policy]) -> tuple[float, ...]:
    """The clocks that every policy of a cluster has, in MHz, rising."""
    common: set[float] | None = None
    for policy in group:
        steps = set(_policy_steps(policy.folder))
        common = steps if common is None else common & steps
    return tuple(sorted(common or ()))


def _policy_steps(folder: Path) -> list[float]:
    try:
        listed = [value / 1e3 for value in files.numbers(folder / "scaling_available_frequencies") if value > 0]
    except UnreadableError:
        listed = []
    if listed:
        return listed
    try:
        low, high = files.number(folder / "cpuinfo_min_freq") / 1e3, files.number(folder / "cpuinfo_max_freq") / 1e3
    except UnreadableError:
        return []
    if not 0 < low < high:
        return []
    inner = [low + (high - low) * k / (_MADE_STEPS - 1) for k in range(1, _MADE_STEPS - 1)]
    return sorted({low, high, *(min(max(round(value / 100) * 100.0, low), high) for value in inner)})


def _text(path: Path) -> str | None:
    try:
        return files.text(path)
    except UnreadableError:
        return None
