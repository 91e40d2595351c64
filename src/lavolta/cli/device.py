"""`lavolta device list` and `show`: what the package knows about devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.output import JsonOption, cell, say, show, table

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.devices import DeviceProfile


def list_devices(as_json: JsonOption = False) -> None:
    """List the devices that ship with the package.

    Example: `lavolta device list`
    """
    from lavolta.devices import load, names

    known = [load(name) for name in names()]
    data: list[dict[str, Any]] = [
        {
            "name": profile.name,
            "title": profile.title,
            "min_mhz": profile.cluster().steps[0].freq_mhz,
            "max_mhz": profile.cluster().max_mhz,
            "battery_mwh": profile.battery.energy_mwh,
        }
        for profile in known
    ]

    def draw(console: Console) -> None:
        rows = [
            [row["name"], f"{row['min_mhz']:,.0f} - {row['max_mhz']:,.0f}", cell(row["battery_mwh"], 0), row["title"]]
            for row in data
        ]
        table(console, "Devices", ["name", "MHz", "battery (mWh)", "what it is"], rows, text_columns=4)
        say(console, "A profile of your own: give the path of a .toml file wherever a device is asked for.")

    show(as_json, data, draw)


def show_device(
    name: Annotated[str, typer.Argument(help="A device name, or the path of a .toml profile.")],
    as_json: JsonOption = False,
) -> None:
    """Show one device: frequencies, power, battery, switch costs, and where the numbers come from.

    Example: `lavolta device show odroid-xu3-a7`
    """
    from lavolta.devices import load

    profile = load(name)
    show(as_json, profile, lambda console: _draw(console, profile))


def _draw(console: Console, profile: DeviceProfile) -> None:
    say(console, f"{profile.name}: {profile.title}")
    for cluster in profile.clusters:
        console.print()
        rows = [
            [cell(step.freq_mhz, 0), cell(step.voltage_mv, 1), cell(cluster.active_mw(step.freq_mhz), 1)]
            for step in cluster.steps
        ]
        title = f"Cluster {cluster.name}, {cluster.cores} cores"
        table(console, title, ["clock (MHz)", "voltage (mV)", "one busy core (mW)"], rows, text_columns=0)
        kernels = ", ".join(entry.isa for entry in cluster.latency)
        say(console, f"Latency models: {kernels}.")
    power, switching = profile.power, profile.switching
    console.print()
    say(console, f"Idle: {power.idle_mw:g} mW; the rest of the board: {power.board_mw:g} mW.")
    say(console, f"Battery: {profile.battery.energy_mwh:,.0f} mWh at {profile.battery.nominal_mv:g} mV.")
    say(
        console,
        f"A change of clock costs {switching.frequency_us:g} µs and {switching.frequency_uj:g} µJ, "
        f"a change of level {switching.level_us:g} µs and {switching.level_uj:g} µJ.",
    )
    console.print()
    table(
        console,
        "Where the numbers come from",
        ["part", "label", "source"],
        [[part, source["label"], source["text"]] for part, source in _sources(profile)],
        text_columns=3,
    )


def _sources(profile: DeviceProfile) -> list[tuple[str, dict[str, Any]]]:
    found = [
        ("power", profile.power.source),
        ("switching", profile.switching.source),
        ("battery", profile.battery.source),
    ]
    for cluster in profile.clusters:
        found += [(f"{cluster.name}, steps", cluster.steps_source), (f"{cluster.name}, power", cluster.power_source)]
        found += [(f"{cluster.name}, {entry.isa}", entry.source) for entry in cluster.latency]
    return [(part, source.model_dump()) for part, source in found]


COMMANDS: dict[str, Callable[..., None]] = {"list": list_devices, "show": show_device}
