"""One page about one or several devices: what a clock costs, and what it buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lavolta.report.shell import frame, plot, table, write_page
from lavolta.report.words import fixed, number

_COLORS = ("#009e73", "#d55e00", "#3b8fd0", "#cc79a7", "#8a8f98", "#b08c00")
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class StepFacts:
    """One clock of one core.

    Args:
        speed_gmac_s: kept multiply-accumulates of fp32 weights in cells of 8 rows (else the tallest), one busy core.
        core_mj: energy of 1e9 of them, the core alone; ``board_mj`` with idle and board power.
    """

    freq_mhz: float
    power_mw: float
    voltage_mv: float | None
    speed_gmac_s: float
    core_mj: float
    board_mj: float


@dataclass(frozen=True)
class ClusterFacts:
    """Cores that share a clock; ``int8_speedup`` is the speed on int8 weights against fp32, none where not known."""

    name: str
    cores: int
    int8_speedup: float | None
    steps: tuple[StepFacts, ...]


@dataclass(frozen=True)
class DeviceFacts:
    """One device in plain numbers, with the labelled sources of them: (part, label, text)."""

    name: str
    title: str
    clusters: tuple[ClusterFacts, ...]
    idle_mw: float
    board_mw: float
    battery_mwh: float
    sources: tuple[tuple[str, str, str], ...]


def write_device_page(devices: Sequence[DeviceFacts], path: Path) -> Path:
    """Write the page, whole or not at all, and return its path.

    Raises:
        OSError: the file cannot be written.
    """
    write_page(path, render_devices(devices))
    return path


def render_devices(devices: Sequence[DeviceFacts]) -> str:
    """The whole page as one string."""
    names = ", ".join(device.name for device in devices)
    speed = "speed of one core (GMAC/s)"
    figures = {
        "power": _figure(devices, "freq_mhz", "power_mw", "clock (MHz)", "power of one busy core (mW)"),
        "core": _figure(devices, "speed_gmac_s", "core_mj", speed, "mJ per GMAC, core alone"),
        "board": _figure(devices, "speed_gmac_s", "board_mj", speed, "mJ per GMAC, whole device"),
    }
    body = "\n".join(
        [
            f'<header>\n<p class="kicker">La Volta</p>\n<h1>{escape(_headline(devices))}</h1>\n</header>',
            _table(devices),
            "<h2>What a clock costs</h2>",
            plot(
                "power",
                "Power against clock",
                "How to read this: one line for each cluster; the steeper a line, the more a lower clock saves. "
                "Power above idle.",
                380,
            ),
            "<h2>What it buys</h2>",
            '<div class="grid wide">',
            plot(
                "core",
                "Energy against speed, the core alone",
                "How to read this: lower and further right is better. Where a line falls to the left, running slower "
                "saves energy.",
                420,
            ),
            plot(
                "board",
                "Energy against speed, the whole device",
                "How to read this: the same with everything else that is on meanwhile. Where this line rises to the "
                "left, it is better to finish early and sleep.",
                420,
            ),
            "</div>",
            _sources(devices),
            "<footer>Made by La Volta. This page is one file and loads nothing from the network.</footer>",
        ]
    )
    return frame(f"La Volta: {names}", body, figures)


def _headline(devices: Sequence[DeviceFacts]) -> str:
    if len(devices) == 1:
        return devices[0].title
    return f"{len(devices)} devices side by side"


def _figure(devices: Sequence[DeviceFacts], x: str, y: str, x_title: str, y_title: str) -> dict[str, Any]:
    lines: list[Mapping[str, Any]] = []
    for place, device in enumerate(devices):
        for index, cluster in enumerate(device.clusters):
            name = cluster.name if len(devices) == 1 else f"{device.name}, {cluster.name}"
            # One device tells its clusters apart by color, several devices each have one.
            color = _COLORS[(index if len(devices) == 1 else place) % len(_COLORS)]
            lines.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": name,
                    "x": [getattr(step, x) for step in cluster.steps],
                    "y": [getattr(step, y) for step in cluster.steps],
                    "text": [f"{step.freq_mhz:g} MHz" for step in cluster.steps],
                    "hovertemplate": f"{escape(name)}, %{{text}}: %{{x:.4g}}, %{{y:.4g}}<extra></extra>",
                    "line": {"color": color, "dash": _DASHES[index % len(_DASHES)], "width": 2},
                    "marker": {"size": 5, "color": color},
                }
            )
    return {
        "data": lines,
        "layout": {
            "xaxis": {"title": {"text": x_title}, "automargin": True, "rangemode": "tozero"},
            "yaxis": {"title": {"text": y_title}, "automargin": True, "rangemode": "tozero"},
            "legend": {"orientation": "h", "y": -0.3, "yanchor": "top"},
            "showlegend": True,
        },
    }


def _table(devices: Sequence[DeviceFacts]) -> str:
    rows = []
    for device in devices:
        for cluster in device.clusters:
            low, high = cluster.steps[0], cluster.steps[-1]
            energies = [step.core_mj for step in cluster.steps]
            rows.append(
                (
                    "",
                    [
                        escape(device.name),
                        escape(cluster.name),
                        f"{cluster.cores}",
                        f"{low.freq_mhz:,.0f} - {high.freq_mhz:,.0f}",
                        f"{number(low.power_mw)} - {number(high.power_mw)}",
                        number(high.speed_gmac_s),
                        fixed(cluster.int8_speedup, 1),
                        f"{number(min(energies))} - {number(max(energies))}",
                        number(device.board_mw + device.idle_mw),
                        number(device.battery_mwh, 5),
                    ],
                )
            )
    return table(
        [
            "Device",
            "Cluster",
            "Cores",
            "Clock<br>(MHz)",
            "One busy core<br>(mW)",
            "Speed<br>(GMAC/s)",
            "int8<br>against fp32",
            "Core energy<br>(mJ/GMAC)",
            "Everything<br>else (mW)",
            "Battery<br>(mWh)",
        ],
        rows,
        caption="How to read this: one row for each cluster; speed is that of one core at its highest clock on kept "
        "fp32 cells. Which numbers were measured and which are assumptions is listed below.",
        text_columns=2,
    )


def _sources(devices: Sequence[DeviceFacts]) -> str:
    parts = ["<h2>Where the numbers come from</h2>"]
    for device in devices:
        items = "\n".join(
            f'<li><b>{escape(part)}</b>: {escape(text)} <span class="label">{escape(label)}</span></li>'
            for part, label, text in device.sources
        )
        parts.append(f'<div class="card"><h3>{escape(device.title)}</h3>\n<ul>\n{items}\n</ul></div>')
    return "\n".join(parts)
