"""`lavolta device list`, `show` and `compare`: what the package knows about devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.device_facts import SPEED_ROWS, facts, sources
from lavolta.cli.output import JsonOption, cell, say, show, table
from lavolta.cli.profile_device import profile_device

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.devices import DeviceProfile

_BARS = "▁▂▃▄▅▆▇█"
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write the same with plots as one HTML page that needs no network.")
]


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
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one device: frequencies, power, battery, switch costs, and where the numbers come from.

    Example: `lavolta device show odroid-xu3-a7`
    """
    from lavolta.devices import load

    profile = load(name)
    _write(html, [profile])

    def draw(console: Console) -> None:
        _draw(console, profile)
        _say_page(console, html)

    show(as_json, profile, draw)


def compare_devices(
    names: Annotated[list[str], typer.Argument(help="Device names or paths of .toml profiles, two or more.")],
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare devices: clocks, power, speed and energy of their clusters side by side.

    Example: `lavolta device compare odroid-xu3-a7 freqbench-sdm845 --html devices.html`
    """
    from lavolta.devices import load

    profiles = [load(name) for name in names]
    _write(html, profiles)

    def draw(console: Console) -> None:
        _draw_comparison(console, profiles)
        _say_page(console, html)

    data = [_without_steps(facts(profile)) for profile in profiles]
    show(as_json, data, draw)


def _without_steps(found: Any) -> dict[str, Any]:
    """What a program wants to compare: the ends of each cluster; the steps are in `show`."""
    return {
        "name": found.name,
        "title": found.title,
        "idle_mw": found.idle_mw,
        "board_mw": found.board_mw,
        "battery_mwh": found.battery_mwh,
        "clusters": [
            {
                "name": cluster.name,
                "cores": cluster.cores,
                "int8_speedup": cluster.int8_speedup,
                "lowest": cluster.steps[0],
                "highest": cluster.steps[-1],
                "least_core_mj": min(step.core_mj for step in cluster.steps),
                "least_board_mj": min(step.board_mj for step in cluster.steps),
            }
            for cluster in found.clusters
        ],
    }


def _write(html: Path | None, profiles: Sequence[DeviceProfile]) -> None:
    if html is not None:
        from lavolta.report.devices import write_device_page

        write_device_page([facts(profile) for profile in profiles], html)


def _say_page(console: Console, html: Path | None) -> None:
    if html is not None:
        console.print()
        say(console, f"Wrote {html} ({html.stat().st_size / 1e6:.1f} MB); open it in any browser.")


def _draw_comparison(console: Console, profiles: Sequence[DeviceProfile]) -> None:
    rows = []
    for found in map(facts, profiles):
        for cluster in found.clusters:
            low, high = cluster.steps[0], cluster.steps[-1]
            rows.append(
                [
                    found.name,
                    cluster.name,
                    _curve([step.core_mj for step in cluster.steps]),
                    str(cluster.cores),
                    f"{low.freq_mhz:,.0f} - {high.freq_mhz:,.0f}",
                    f"{low.power_mw:,.0f} - {high.power_mw:,.0f}",
                    cell(high.speed_gmac_s, 2),
                    cell(min(step.core_mj for step in cluster.steps), 1),
                    cell(min(step.board_mj for step in cluster.steps), 1),
                    cell(found.battery_mwh, 0),
                ]
            )
    heads = ("device", "cluster", "mJ by clock", "cores", "MHz", "core (mW)", "GMAC/s", "mJ", "mJ, all", "mWh")
    table(console, "Devices side by side", heads, rows, text_columns=3)
    say(
        console,
        f"GMAC/s: one core at its highest clock, kept fp32 cells of {SPEED_ROWS} rows. mJ: least energy of a GMAC over "
        "all clocks, the core alone; all: with idle and board. mWh: the battery.",
    )
    say(console, "Speeds of the shipped devices are assumptions; `lavolta device show NAME` has every source.")


def _curve(values: Sequence[float]) -> str:
    """Values as a row of bars from 0 to the largest, at most a dozen."""
    shown = [values[round(k * (len(values) - 1) / 11)] for k in range(12)] if len(values) > 12 else list(values)
    most = max(shown) or 1.0
    return "".join(_BARS[min(int(value / most * len(_BARS)), len(_BARS) - 1)] for value in shown)


def _draw(console: Console, profile: DeviceProfile) -> None:
    say(console, f"{profile.name}: {profile.title}")
    for cluster in profile.clusters:
        console.print()
        rows = [
            [cell(step.freq_mhz, 0), cell(step.voltage_mv, 1), cell(cluster.active_mw(step.freq_mhz), 1)]
            for step in cluster.steps
        ]
        numbers = "" if cluster.cpus is None else f" (CPU {', '.join(map(str, cluster.cpus))})"
        title = f"Cluster {cluster.name}, {cluster.cores} cores{numbers}"
        table(console, title, ["clock (MHz)", "voltage (mV)", "one busy core (mW)"], rows, text_columns=0)
        for entry in cluster.latency:
            say(console, f"Latency model {entry.isa}: {_error_words(entry)}.")
    power, switching = profile.power, profile.switching
    console.print()
    say(console, f"Idle: {power.idle_mw:g} mW; the rest of the board: {power.board_mw:g} mW.")
    say(console, f"Battery: {profile.battery.energy_mwh:,.0f} mWh at {profile.battery.nominal_mv:g} mV.")
    if profile.thermal is not None:
        say(console, f"Heat: at most {profile.thermal.limit_c:g} degrees Celsius.")
    if profile.cpu is not None:
        say(console, f"Measured on: {profile.cpu.model or profile.cpu.architecture} ({', '.join(profile.cpu.parts)}).")
    say(
        console,
        f"A change of clock costs {switching.frequency_us:g} µs and {switching.frequency_uj:g} µJ, "
        f"a change of level {switching.level_us:g} µs and {switching.level_uj:g} µJ"
        + (
            f", and a move to another cluster {switching.cluster_us:g} µs and {switching.cluster_uj:g} µJ more."
            if len(profile.clusters) > 1
            else "."
        ),
    )
    console.print()
    table(
        console,
        "Where the numbers come from",
        ["part", "label", "source"],
        [list(row) for row in sources(profile)],
        text_columns=3,
    )


def _error_words(entry: Any) -> str:
    if entry.median_error_percent is None:
        return "not checked against measurements"
    words = f"median error {entry.median_error_percent:.1f} %"
    if entry.p95_error_percent is not None:
        words += f", 95th percentile {entry.p95_error_percent:.1f} %"
    return f"{words}, on shapes that the fit had not seen"


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_devices,
    "show": show_device,
    "compare": compare_devices,
    "profile": profile_device,
}
