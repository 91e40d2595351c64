"""A real Linux device: everything that sysfs shows about its battery, clock, heat and power."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lavolta.devices.sources import files, meters, supply
from lavolta.devices.sources.clocks import Clocks, Timeline
from lavolta.devices.sources.drawn import DrawnLimits
from lavolta.devices.sources.files import Findings, UnreadableError
from lavolta.devices.sources.reading import Reading
from lavolta.devices.sources.topology import ClusterCpus, policies

SYSFS = Path("/sys")
_CLOCK_FILES = ("scaling_cur_freq", "cpuinfo_cur_freq")
"""Where cpufreq shows the clock; the first file that answers counts."""


class LinuxSource:
    """Reads cpufreq, power_supply, thermal, hwmon and powercap below a root folder.

    The folders are listed anew at every look: devices come and go while a program runs.

    Args:
        root: where sysfs is mounted, or a folder that looks like it.
        clocks: where time comes from.
        clusters: names of clusters and their CPUs, such as `cluster_cpus(profile)`; others are called as in sysfs.
        drawn: of the control that sets this device's clock: a limit that it drew is not the system's.
    """

    def __init__(
        self,
        root: Path = SYSFS,
        clocks: Clocks | None = None,
        clusters: ClusterCpus | None = None,
        drawn: DrawnLimits | None = None,
    ) -> None:
        self._root = Path(root)
        self._timeline = Timeline(clocks or Clocks())
        self._clusters = clusters
        self._drawn = drawn or DrawnLimits(self._root)
        self._rapl = meters.Rapl(self._root)

    def read(self) -> Reading:
        """The device now; see `Reading`. Takes about a millisecond; a slow fuel gauge can make it take much longer."""
        moment = self._timeline.now()
        findings = Findings()
        if moment.fault is not None:
            findings.missing["time_s"] = moment.fault
        supplies = supply.find(self._root)
        power = findings.take("power_mw", lambda: self._power(supplies, moment.time_s, moment.slept_s))
        return Reading(
            time_s=moment.time_s,
            slept_s=moment.slept_s,
            charge_share=findings.take("charge_share", lambda: supply.charge_share(supplies)),
            charge_mwh=findings.take("charge_mwh", lambda: supply.charge_mwh(supplies)),
            capacity_mwh=findings.take("capacity_mwh", lambda: supply.capacity_mwh(supplies)),
            power_mw=power[0] if power else None,
            power_from=power[1] if power else None,
            on_ac=findings.take("on_ac", lambda: supply.on_ac(supplies)),
            freq_mhz=_clocks_mhz(self._root, self._clusters, "freq_mhz", _clock_mhz, findings),
            freq_limit_mhz=_clocks_mhz(
                self._root, self._clusters, "freq_limit_mhz", partial(self._limit_mhz, moment.time_s), findings
            ),
            temperature_c=findings.take("temperature_c", lambda: meters.temperature_c(self._root)),
            missing=findings.missing,
        )

    def _limit_mhz(self, time_s: float, folder: Path) -> float:
        value = self._drawn.system_khz(folder, time_s) / 1e3
        if value > 0:
            return value
        raise UnreadableError(f"{folder / 'scaling_max_freq'} claims {value:g} MHz.")

    def _power(self, supplies: supply.Supplies, time_s: float, slept_s: float) -> tuple[float, str]:
        """The battery's word, else a meter's on the board, else the processor's counters."""
        sources: tuple[Callable[[], tuple[float, str]], ...] = (
            lambda: (supply.power_mw(supplies), "battery"),
            lambda: meters.hwmon_power_mw(self._root),
            lambda: self._rapl.power_mw(time_s, slept_s),
        )
        reasons = []
        for source in sources:
            try:
                return source()
            except UnreadableError as reason:
                reasons.append(str(reason))
        raise UnreadableError(" ".join(reasons))


class LinuxClocks:
    """The present clocks alone: files of cpufreq that answer at once, for the moment right after a run.

    Args:
        root, clocks, clusters: as of `LinuxSource`.
    """

    def __init__(self, root: Path = SYSFS, clocks: Clocks | None = None, clusters: ClusterCpus | None = None) -> None:
        self._root = Path(root)
        self._timeline = Timeline(clocks or Clocks())
        self._clusters = clusters

    def read(self) -> Reading:
        """The clocks now; nothing else is looked at."""
        moment, findings = self._timeline.now(), Findings()
        found = _clocks_mhz(self._root, self._clusters, "freq_mhz", _clock_mhz, findings)
        return Reading(moment.time_s, moment.slept_s, freq_mhz=found, missing=findings.missing)


def _clocks_mhz(
    root: Path, clusters: ClusterCpus | None, field: str, look: Callable[[Path], float], findings: Findings
) -> dict[str, float]:
    """Clock by cluster: the highest where a cluster has several clocks, since the busy core is the fast one."""
    found: dict[str, float] = {}
    groups = policies(root, clusters)
    for policy in groups:
        value = findings.take(f"{field}.{policy.cluster}", partial(look, policy.folder))
        if value is not None:
            found[policy.cluster] = max(value, found.get(policy.cluster, 0.0))
    for cluster in clusters or {}:
        if cluster not in {policy.cluster for policy in groups}:
            findings.missing[f"{field}.{cluster}"] = f"cpufreq has no policy for cluster {cluster}."
    for cluster in found:
        findings.missing.pop(f"{field}.{cluster}", None)
    if not groups:
        findings.missing.setdefault(field, f"{root} has no cpufreq: the clock is not known.")
    return found


def _clock_mhz(folder: Path) -> float:
    reason = ""
    for name in _CLOCK_FILES:
        try:
            value = files.number(folder / name) / 1e3
        except UnreadableError as error:
            reason = reason or str(error)
            continue
        if value > 0:
            return value
        reason = reason or f"{folder / name} claims {value:g} MHz."
    raise UnreadableError(reason)
