"""A device profile in the plain numbers that tables and pages show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lavolta.devices import Cluster, DeviceProfile, LatencyCoefficients
    from lavolta.report.devices import ClusterFacts, DeviceFacts

SPEED_ROWS = 8
"""Cell height that speeds are stated for, where a profile has it; else its tallest."""


def facts(profile: DeviceProfile) -> DeviceFacts:
    """What a page about the device shows."""
    from lavolta.report.devices import DeviceFacts

    return DeviceFacts(
        name=profile.name,
        title=profile.title,
        clusters=tuple(_cluster(profile, cluster) for cluster in profile.clusters),
        idle_mw=profile.power.idle_mw,
        board_mw=profile.power.board_mw,
        battery_mwh=profile.battery.energy_mwh,
        sources=tuple(sources(profile)),
    )


def sources(profile: DeviceProfile) -> list[tuple[str, str, str]]:
    """Part, label and text of every source in a profile."""
    found = [
        ("power", profile.power.source),
        ("switching", profile.switching.source),
        ("battery", profile.battery.source),
    ]
    if profile.thermal is not None:
        found.append(("heat", profile.thermal.source))
    for cluster in profile.clusters:
        found += [(f"{cluster.name}, steps", cluster.steps_source), (f"{cluster.name}, power", cluster.power_source)]
        found += [(f"{cluster.name}, {entry.isa}", entry.source) for entry in cluster.latency]
    return [(part, source.label, source.text) for part, source in found]


def _cluster(profile: DeviceProfile, cluster: Cluster) -> ClusterFacts:
    from lavolta.report.devices import ClusterFacts, StepFacts

    entry = cluster.coefficients()
    rows = SPEED_ROWS if str(SPEED_ROWS) in entry.cycles_per_kept_mac else max(map(int, entry.cycles_per_kept_mac))
    cycles = entry.kept_cycles(rows)
    steps = []
    for step in cluster.steps:
        power_mw = cluster.active_mw(step.freq_mhz)
        speed_gmac_s = step.freq_mhz / cycles / 1e3
        everything_mw = power_mw + profile.power.idle_mw + profile.power.board_mw
        steps.append(
            StepFacts(
                step.freq_mhz,
                power_mw,
                step.voltage_mv,
                speed_gmac_s,
                core_mj=power_mw / speed_gmac_s,
                board_mj=everything_mw / speed_gmac_s,
            )
        )
    return ClusterFacts(cluster.name, cluster.cores, _int8_speedup(entry, rows), tuple(steps))


def _int8_speedup(entry: LatencyCoefficients, rows: int) -> float | None:
    if str(rows) not in (entry.cycles_per_kept_mac_int8 or {}):
        return None
    return entry.kept_cycles(rows) / entry.kept_cycles(rows, int8=True)
