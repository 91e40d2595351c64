"""Which CPUs a machine has, which of them share a clock, and how those groups are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavolta.devices.profile import DeviceProfile
from lavolta.devices.sources import files

ClusterCpus = Mapping[str, Sequence[int]]
"""Name of a cluster to the Linux numbers of its CPUs."""


@dataclass(frozen=True)
class Policy:
    """CPUs that share a clock, as cpufreq has them.

    Args:
        folder: its folder in sysfs.
        cluster: the cluster that it belongs to.
        cpus: their numbers, rising.
    """

    folder: Path
    cluster: str
    cpus: tuple[int, ...]


def cluster_cpus(profile: DeviceProfile) -> dict[str, tuple[int, ...]]:
    """The clusters of a profile that name their CPUs."""
    return {cluster.name: cluster.cpus for cluster in profile.clusters if cluster.cpus is not None}


def online_cpus(root: Path) -> tuple[int, ...]:
    """Numbers of the CPUs that run; none where sysfs does not say."""
    try:
        return parse_cpus(files.text(root / "devices/system/cpu/online"))
    except files.UnreadableError:
        return ()


def policies(root: Path, clusters: ClusterCpus | None = None) -> list[Policy]:
    """The groups of CPUs that share a clock, in the order of their numbers.

    A group takes the name of the cluster that has most of its CPUs, else the name of its folder (``policy0``). More
    CPUs may share a clock than a cluster has: those that a program may not use are no part of it.
    """
    found = []
    for folder in files.folders(root / "devices/system/cpu/cpufreq", "policy"):
        cpus: tuple[int, ...] = ()
        for name in ("related_cpus", "affected_cpus"):
            try:
                cpus = tuple(sorted(int(value) for value in files.numbers(folder / name)))
            except files.UnreadableError:
                continue
            if cpus:
                break
        shared = {name: len({*cpus} & {*members}) for name, members in (clusters or {}).items()}
        owner = max(shared, key=lambda name: shared[name], default="")
        found.append(Policy(folder, owner if shared.get(owner) else folder.name, cpus))
    return found


def parse_cpus(words: str) -> tuple[int, ...]:
    """CPU numbers from the kernel's lists, such as ``0-3,6``.

    Raises:
        UnreadableError: something else.
    """
    found: set[int] = set()
    for part in words.replace(",", " ").split():
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()) or int(last or first) > 65535:
            raise files.UnreadableError(f"{words[:40]!r} is not a list of CPU numbers.")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
