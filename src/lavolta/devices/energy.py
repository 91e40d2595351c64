"""Energy of one inference, with the accounting stated: the processor alone, or the whole board."""

from __future__ import annotations

from enum import Enum

from lavolta.devices.profile import DeviceProfile
from lavolta.errors import UserInputError


class Accounting(str, Enum):
    """Whose power counts. At board level the gain of a lower clock shrinks: results state which one was used."""

    CPU = "cpu-only"
    BOARD = "whole-board"

    @property
    def words(self) -> str:
        """What the accounting includes, for results and reports."""
        if self is Accounting.CPU:
            return "processor only: busy cores and the processor's idle power; memory and board are left out"
        return "whole board: busy cores, the processor's idle power, and the board's constant power"


def idle_mw(profile: DeviceProfile, accounting: Accounting) -> float:
    """Power that is drawn whether or not an inference runs, in mW."""
    return profile.power.idle_mw + (profile.power.board_mw if accounting is Accounting.BOARD else 0.0)


def run_mw(
    profile: DeviceProfile,
    freq_mhz: float,
    threads: int = 1,
    accounting: Accounting = Accounting.CPU,
    cluster: str | None = None,
) -> float:
    """Power while an inference runs at a step, in mW: ``active * threads + idle (+ board)``.

    Raises:
        UserInputError: a clock that is not a step (power is known only there), or too many threads.
    """
    used = profile.cluster(cluster)
    if not 1 <= threads <= used.cores:
        raise UserInputError(f"{threads} threads do not fit cluster {used.name}; give 1 to {used.cores}.")
    return used.active_mw(freq_mhz) * threads + idle_mw(profile, accounting)


def energy_mj(
    profile: DeviceProfile,
    freq_mhz: float,
    latency_ms: float,
    threads: int = 1,
    accounting: Accounting = Accounting.CPU,
    cluster: str | None = None,
) -> float:
    """Energy of one inference that takes ``latency_ms``, in mJ; idle time before and after is not in it."""
    return run_mw(profile, freq_mhz, threads, accounting, cluster) * latency_ms / 1e3


def charge_runs(
    energy_mj: list[float], power_mw: list[float], latency_ms: list[float], deadline_ms: float | None = None
) -> float:
    """Inferences of a charge: ``sum_i E_i / (P_i t_i)`` (papers sheet of RT3, 2.5; no idle power in it).

    Args:
        energy_mj: share of the charge spent at each level.
        power_mw: power at that level's clock.
        latency_ms: latency of that level's sub-model.
        deadline_ms: a level that takes longer counts as nothing.
    """
    if not len(energy_mj) == len(power_mw) == len(latency_ms):
        raise UserInputError("energy, power and latency must have one value per level each.")
    total = 0.0
    for energy, power, latency in zip(energy_mj, power_mw, latency_ms, strict=True):
        if power <= 0 or latency <= 0 or energy < 0:
            raise UserInputError(f"a level with {energy} mJ, {power} mW and {latency} ms is not possible.")
        if deadline_ms is None or latency <= deadline_ms:
            total += energy / (power * latency / 1e3)
    return total
