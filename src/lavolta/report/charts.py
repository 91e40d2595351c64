"""The charts as plain Plotly figures; colors that depend on light or dark are filled in by `page.js`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

from lavolta.report.schema import PolicyResult, Result
from lavolta.report.words import device_title, number, short_title, span

# Okabe and Ito's palette, told apart with the common kinds of color blindness; three to one against white and black.
OURS, DENSE, LIMIT = "#009e73", "#8a8f98", "#d55e00"
POLICY_STYLES = (("#8a8f98", "dot"), ("#d55e00", "dash"), ("#3b8fd0", "dashdot"), ("#cc79a7", "longdash"))
HERE, DEVICE = "#3b8fd0", "#cc79a7"
MAX_CURVE_POINTS = 400


@dataclass(frozen=True)
class Chart:
    """One figure with the words around it. `group` puts small charts side by side."""

    key: str
    group: str
    title: str
    how_to_read: str
    figure: dict[str, Any]
    height_px: int = 320


def charts(result: Result) -> list[Chart]:
    """Every chart that the result has numbers for, in reading order."""
    drawn = [
        *_quality(result),
        *_cost(result),
        _battery(result),
        *_our_levels(result),
        _kept(result),
    ]
    return [chart for chart in drawn if chart is not None]


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "automargin": True, **more}


def _line_at(value: float, label: str, color: str, *, upright: bool) -> dict[str, Any]:
    """A straight line across the plot with its name, as one shape and one annotation."""
    across, along = ("y", "x") if upright else ("x", "y")
    shape = {
        "type": "line",
        f"{along}0": value,
        f"{along}1": value,
        f"{across}0": 0,
        f"{across}1": 1,
        f"{across}ref": "paper",
        "line": {"color": color, "width": 2, "dash": "dash"},
    }
    note = {
        along: value,
        across: 1,
        f"{across}ref": "paper",
        "text": f"{label} {number(value)} ms",
        "showarrow": False,
        "font": {"color": color},
        "xanchor": "right",
        "yanchor": "bottom",
    }
    return {"shape": shape, "note": note}


def _around(values: Sequence[float]) -> list[float]:
    """An axis range with some air around the values."""
    low, high = min(values), max(values)
    air = 0.12 * (high - low) or 0.12 * high or 1.0
    return [max(0.0, low - air), high + air]


def _with_lines(layout: dict[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {**layout, "shapes": [line["shape"] for line in lines], "annotations": [line["note"] for line in lines]}


def _quality(result: Result) -> list[Chart | None]:
    use_score = all(level.fidelity is None for level in result.levels)
    name = (result.score_name or "task score") if use_score else "fidelity (cosine to dense)"
    what = "the task score" if use_score else "fidelity, the likeness to the dense model's answers (1 = the same)"
    drawn: list[Chart | None] = []
    for key, title, field in (
        ("quality-here", "Quality against latency on this computer", "latency_ms"),
        ("quality-device", f"Quality against latency on {device_title(result)}", "device_latency_ms"),
    ):
        points = [
            (getattr(level, field), level.score if use_score else level.fidelity, level)
            for level in result.levels
            if getattr(level, field) is not None and (level.score if use_score else level.fidelity) is not None
        ]
        if not points:
            continue
        times = [point[0] for point in points]
        mark, label, color = (
            (result.levels[0].dense_latency_ms, "dense", DENSE)
            if field == "latency_ms"
            else (result.deadline_ms, "deadline", LIMIT)
        )
        marks = [] if mark is None else [mark]
        clocks = [f" at {number(lv.freq_mhz, 4)} MHz" if lv.freq_mhz and "device" in key else "" for *_, lv in points]
        figure = {
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines+markers+text",
                    "x": times,
                    "y": [point[1] for point in points],
                    "text": [_label(point[2].name) for point in points],
                    "textposition": "top left",
                    "customdata": [
                        [f"{100 * point[2].sparsity:.1f} % sparse{clock}"]
                        for point, clock in zip(points, clocks, strict=True)
                    ],
                    "hovertemplate": "%{text}: %{x:.4g} ms, %{y:.4g}<br>%{customdata[0]}<extra></extra>",
                    "marker": {"size": 10, "color": OURS},
                    "line": {"color": OURS, "width": 1.5},
                    "cliponaxis": False,
                }
            ],
            "layout": _with_lines(
                {
                    "xaxis": _axis("latency of one inference (ms)", range=_around([*times, *marks])),
                    "yaxis": _axis(name),
                    "showlegend": False,
                },
                [_line_at(mark, label, color, upright=True) for mark in marks],
            ),
        }
        where = (
            "measured here; the dashed line is the dense model"
            if field == "latency_ms"
            else "predicted, each level at its own clock; right of the dashed line the deadline is missed"
        )
        drawn.append(
            Chart(
                key,
                "quality",
                title,
                f"How to read this: each dot is one level. Up is {what}; left is faster ({where}).",
                figure,
            )
        )
    return drawn


def _cost(result: Result) -> list[Chart | None]:
    dense = result.levels[0].dense_latency_ms
    return [
        _bars(
            result,
            "latency-here",
            "Latency on this computer",
            "latency_ms",
            "latency (ms)",
            HERE,
            None if dense is None else (dense, "dense", DENSE),
            "measured median of one inference; shorter is better, the dashed line is the dense model.",
        ),
        _bars(
            result,
            "latency-device",
            f"Latency on {device_title(result)}",
            "device_latency_ms",
            "latency (ms)",
            DEVICE,
            None if result.deadline_ms is None else (result.deadline_ms, "deadline", LIMIT),
            "predicted at the clock of each level; a bar over the dashed line misses the deadline.",
        ),
        _bars(
            result,
            "energy-device",
            f"Energy on {device_title(result)}",
            "device_energy_mj",
            "energy (mJ)",
            OURS,
            None,
            "predicted energy of one inference; half the height means twice the answers from the same charge.",
        ),
    ]


def _bars(
    result: Result,
    key: str,
    title: str,
    field: str,
    unit: str,
    color: str,
    mark: tuple[float, str, str] | None,
    reading: str,
) -> Chart | None:
    points = [
        (_label(lv.name), getattr(lv, field), lv.freq_mhz) for lv in result.levels if getattr(lv, field) is not None
    ]
    if not points:
        return None
    top = max([point[1] for point in points] + ([] if mark is None else [mark[0]]))
    figure = {
        "data": [
            {
                "type": "bar",
                "x": [point[0] for point in points],
                "y": [point[1] for point in points],
                "text": [number(point[1]) for point in points],
                "textposition": "auto",
                "textangle": 0,
                "marker": {"color": color},
                "hovertemplate": f"%{{x}}: %{{y:.4g}} {unit[unit.index('(') + 1 : -1]}<extra></extra>",
            }
        ],
        "layout": _with_lines(
            {
                "xaxis": _axis("level", type="category"),
                "yaxis": _axis(unit, range=[0, 1.05 * top or 1.0]),
                "showlegend": False,
            },
            [] if mark is None else [_line_at(*mark, upright=False)],
        ),
    }
    return Chart(key, "cost", title, f"How to read this: {reading}", figure, 280)


def _battery(result: Result) -> Chart | None:
    ours = result.ours()
    traces = []
    most = max((share for policy in result.policies.values() for _, share in policy.curve), default=1.0)
    styles = iter(POLICY_STYLES * (1 + len(result.policies) // len(POLICY_STYLES)))
    for name, policy in result.policies.items():
        if not policy.curve:
            continue
        is_ours = ours is not None and name == ours[0]
        color, dash = (OURS, "solid") if is_ours else next(styles)
        points = _thin(policy)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": _label(short_title(policy.title or name)),
                "x": [hour for hour, _ in points],
                "y": [100 * share for _, share in points],
                "line": {"color": color, "dash": dash, "width": 3 if is_ours else 2},
                "hovertemplate": "%{y:.1f} % left after %{x:.3g} h<extra>%{fullData.name}</extra>",
            }
        )
    if not traces:
        return None
    figure = {
        "data": traces,
        "layout": {
            "xaxis": _axis("time (h)", rangemode="tozero"),
            "yaxis": _axis("battery charge left (%)", range=[0, 102 * most or 1.0]),
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        },
    }
    return Chart(
        "battery",
        "battery",
        f"{short_title(span(result))} under each policy",
        "How to read this: every line starts with the same charge; where it reaches zero the device is off. "
        "The further right, the longer it lasts. The table below has the answers given and the deadlines missed.",
        figure,
        380,
    )


def _thin(policy: PolicyResult) -> list[tuple[float, float]]:
    """At most `MAX_CURVE_POINTS` points, evenly spaced, the first and the last among them."""
    count = len(policy.curve)
    if count <= MAX_CURVE_POINTS:
        return policy.curve
    step = (count - 1) / (MAX_CURVE_POINTS - 1)
    return [policy.curve[round(index * step)] for index in range(MAX_CURVE_POINTS)]


def _our_levels(result: Result) -> list[Chart | None]:
    ours = result.ours()
    if ours is None:
        return []
    names = [level.name for level in result.levels]
    policy = ours[1]
    drawn: list[Chart | None] = []
    for key, title, values, scale, unit, color, reading in (
        ("our-time", "Time spent at each level", policy.time_by_level_h, 1.0, "time (h)", HERE, "hours of one charge"),
        (
            "our-energy",
            "Energy spent at each level",
            policy.energy_by_level_mj,
            1e-3,
            "energy (J)",
            OURS,
            "joules of one charge spent in inferences",
        ),
    ):
        if not values:
            continue
        order = [name for name in names if name in values] + [name for name in values if name not in names]
        figure = {
            "data": [
                {
                    "type": "bar",
                    "x": [_label(name) for name in order],
                    "y": [scale * values[name] for name in order],
                    "text": [number(scale * values[name]) for name in order],
                    "textposition": "auto",
                    "textangle": 0,
                    "marker": {"color": color},
                    "hovertemplate": "%{x}: %{y:.4g}<extra></extra>",
                }
            ],
            "layout": {
                "xaxis": _axis("level", type="category"),
                "yaxis": _axis(unit, rangemode="tozero"),
                "showlegend": False,
            },
        }
        words = f"How to read this: {reading} by level, under {short_title(policy.title or 'our policy')}."
        drawn.append(Chart(key, "ours", title, words, figure, 280))
    return drawn


def _kept(result: Result) -> Chart | None:
    levels = [level for level in result.levels if level.kept_by_layer]
    if not levels:
        return None
    linears = list(dict.fromkeys(name for level in levels for name in level.kept_by_layer))
    shares = [[level.kept_by_layer.get(name) for level in levels] for name in linears]
    figure = {
        "data": [
            {
                "type": "heatmap",
                "x": [_label(level.name) for level in levels],
                "y": [_short(name) for name in linears],
                "z": [[None if share is None else 100 * share for share in row] for row in shares],
                "zmin": 0,
                "zmax": 100,
                "colorscale": "Cividis",
                "xgap": 1,
                "ygap": 1,
                "texttemplate": "%{z:.0f}",
                "hovertemplate": "%{y}, %{x}: %{z:.1f} % kept<extra></extra>",
                "showscale": False,
            }
        ],
        "layout": {
            "xaxis": _axis("level", type="category", side="top"),
            "yaxis": _axis("linear layer", type="category", autorange="reversed", dtick=1, tickfont={"size": 11}),
        },
    }
    return Chart(
        "kept",
        "kept",
        "Kept share of every linear layer at every level",
        "How to read this: one row for each linear layer, from the input at the top to the output at the bottom; one "
        "column for each level. The number is the share of the weights that the level keeps, in percent: bright is "
        "dense, dark is sparse.",
        figure,
        130 + 19 * len(linears),
    )


def _short(linear: str) -> str:
    return _label(linear.removeprefix("layers.").replace("attention.", "").replace(".", " "))


def _label(text: str) -> str:
    """Plotly reads a little HTML in its labels: escape it, and break lines that a phone cannot show."""
    return "<br>".join(escape(line, quote=False) for line in wrap(text, 40))
