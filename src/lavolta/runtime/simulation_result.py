"""What one policy made of one charge."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EnergyUse:
    """Where the charge went, in mWh; the parts add up to ``total_mwh``.

    Args:
        by_level_mwh, by_frequency_mwh: energy of runs, the same sum cut in two ways; clocks in MHz, behind the name of
            their cluster where there are several.
        idle_mwh: between requests.
        switching_mwh: changes of frequency and level.
        battery_loss_mwh: heat in the cell.
    """

    total_mwh: float
    by_level_mwh: dict[str, float]
    by_frequency_mwh: dict[str, float]
    idle_mwh: float
    switching_mwh: float
    battery_loss_mwh: float


@dataclass(frozen=True)
class SimulationResult:
    """What one policy made of one charge.

    Args:
        policy, baseline: name of the policy, and what it does in words.
        accounting: whose power counted, in words.
        inferences: finished ones; ``on_time`` and ``deadline_misses`` add up to them.
        unfinished: 1 when the charge ended during a run.
        ended: ``charge`` or ``arrivals``.
        time_h: from the start to the end.
        time_by_level_h: time during which each level was set, waiting included.
        mean_score: score of the levels, weighted by inferences; none without inferences.
        worst_response_ms: longest time from arrival to result.
        frequency_switches, level_switches, cluster_switches: how often each changed.
        curve: ``(hours, share of the capacity)``, falling.
    """

    policy: str
    baseline: str
    device: str
    accounting: str
    deadline_ms: float
    period_ms: float
    capacity_mwh: float
    remaining_mwh: float
    inferences: int
    on_time: int
    deadline_misses: int
    unfinished: int
    ended: str
    time_h: float
    energy: EnergyUse
    inferences_by_level: dict[str, int]
    time_by_level_h: dict[str, float]
    mean_score: float | None
    worst_response_ms: float
    frequency_switches: int
    level_switches: int
    cluster_switches: int
    curve: list[tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)
