"""Which processor this is, and whether a profile was measured on one like it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from lavolta.devices.profile import CpuIdentity, DeviceProfile
from lavolta.devices.sources import files
from lavolta.devices.sources.files import UnreadableError
from lavolta.errors import UserInputError

PROC = Path("/proc")
_MAX_BYTES = 1 << 22
_X86 = ("vendor_id", "cpu family", "model")
_ARM = ("CPU implementer", "CPU part")
_NAMES = ("model name", "Model", "Hardware", "cpu model")


def read_identity(
    instruction_sets: Sequence[str] = (), root: Path = PROC, architecture: str | None = None
) -> CpuIdentity:
    """The processor of this computer.

    Args:
        instruction_sets: those of the engine here, best last.
        root: where procfs is mounted, or a folder that looks like it.
        architecture: that of the running system where not named.
    """
    entries = cpuinfo(root)
    parts = {
        ":".join(entry[key] for key in keys) for entry in entries for keys in (_X86, _ARM) if set(keys) <= set(entry)
    }
    names = [entry[key] for key in _NAMES for entry in entries if key in entry]
    return CpuIdentity(
        architecture=architecture or platform.machine() or "unknown",
        parts=tuple(sorted(parts)) or ("unknown",),
        model=names[0] if names else "",
        instruction_sets=tuple(instruction_sets),
    )


def nominal_mhz(root: Path = PROC) -> float | None:
    """The highest clock that procfs shows at present; None where it shows none (Arm)."""
    found = []
    for entry in cpuinfo(root):
        try:
            found.append(float(entry.get("cpu MHz", "")))
        except ValueError:
            continue
    return max((value for value in found if 0 < value < 1e5), default=None)


def require_same_cpu(profile: DeviceProfile, identity: CpuIdentity, cpus: Sequence[int] = ()) -> None:
    """Refuse a profile whose latencies were measured elsewhere.

    Args:
        identity: of the machine that the profile is to be used on.
        cpus: numbers of the CPUs that run there; not compared where not known.

    Raises:
        UserInputError: another processor, other kernels, or numbers that were never measured; the sentence says which.
    """
    made = profile.cpu
    again = "make one here with `lavolta device profile --out FILE`."
    if made is None:
        raise UserInputError(
            f"the profile {profile.name} was not measured by this program: it is for simulations, and its times mean "
            f"nothing on this machine; {again}"
        )
    here = f"{identity.model or identity.architecture} ({', '.join(identity.parts)})"
    there = f"{made.model or made.architecture} ({', '.join(made.parts)})"
    if (made.architecture, made.parts) != (identity.architecture, identity.parts):
        raise UserInputError(
            f"the profile {profile.name} was measured on {there} of {made.architecture}; this is {here} of "
            f"{identity.architecture}: its times do not hold here; {again}"
        )
    if made.instruction_sets != identity.instruction_sets:
        raise UserInputError(
            f"the profile {profile.name} was measured with the kernels {_listed(made.instruction_sets)}; "
            f"here are {_listed(identity.instruction_sets)}: its times do not hold here; {again}"
        )
    absent = sorted({cpu for cluster in profile.clusters for cpu in cluster.cpus or ()} - set(cpus)) if cpus else []
    if absent:
        raise UserInputError(
            f"the profile {profile.name} was measured with CPU {', '.join(map(str, absent))}, "
            f"which does not run here; {again}"
        )


def _listed(instruction_sets: Sequence[str]) -> str:
    return ", ".join(instruction_sets) or "unknown"


def cpuinfo(root: Path = PROC) -> list[dict[str, str]]:
    """The entries of procfs's ``cpuinfo``, one for each CPU; none where it cannot be read."""
    try:
        text = files.text(root / "cpuinfo", _MAX_BYTES)
    except UnreadableError:
        return []
    entries = []
    for block in text.split("\n\n"):
        entry = {}
        for line in block.splitlines():
            key, colon, value = line.partition(":")
            if colon:
                entry[key.strip()] = value.strip()
        if entry:
            entries.append(entry)
    return entries
