"""The report: one HTML file that needs no network, made from the plain data of `result.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

from lavolta.report.charts import Chart, charts
from lavolta.report.schema import Result, parse_result
from lavolta.report.shell import frame, plot, table, write_page
from lavolta.report.words import (
    MISSING,
    column,
    device_title,
    duration,
    findings,
    fixed,
    headline,
    model_title,
    number,
    percent,
    short_title,
    span,
)

_GROUPS = {
    "quality": "What a level costs in quality",
    "cost": "What a level costs in time and energy",
    "battery": "What a battery charge gives",
    "ours": "How our policy used the dial",
    "kept": "Where the pruning happened",
}


def write_report(result: Mapping[str, Any], path: str | PathLike[str]) -> Path:
    """Write the report of one run.

    Args:
        result: the content of `result.json`; `docs/reference/result.md` has the fields. Absent parts are left out.
        path: the HTML file to write. It appears whole or not at all.

    Returns:
        `path`.

    Raises:
        UserInputError: the result does not follow the schema; the message has the path of the field.
        OSError: the file cannot be written.
    """
    path = Path(path)
    write_page(path, render(parse_result(result)))
    return path


def render(result: Result) -> str:
    """The whole page as one string."""
    drawn = charts(result)
    figures = {chart.key: chart.figure for chart in drawn}
    body = "\n".join([_head(result), _levels(result), *_sections(result, drawn), _words(result), _details(result)])
    return frame(f"La Volta: {model_title(result)} on {device_title(result)}", body, figures)


def _head(result: Result) -> str:
    when = result.environment.get("date")
    kicker = " · ".join(str(part) for part in ("La Volta", model_title(result), device_title(result), when) if part)
    points = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in findings(result))
    return (
        f'<header>\n<p class="kicker">{escape(kicker)}</p>\n<h1>{escape(headline(result))}</h1>\n'
        f"{_tiles(result)}\n"
        f'<ul class="findings">\n{points}\n</ul>\n</header>'
    )


def _tiles(result: Result) -> str:
    ours = result.ours()
    tiles: list[tuple[str, str]] = []
    if result.improvement is not None:
        tiles.append((f"{number(result.improvement)} ×", f"answers in time in {span(result)}"))
    if ours is not None and ours[1].mean_fidelity is not None:
        tiles.append((fixed(ours[1].mean_fidelity, 3), "mean fidelity of the answers"))
    if ours is not None:
        tiles.append((number(ours[1].misses, 9), "deadlines missed by our policy"))
    if result.switch_us_p99 is not None:
        tiles.append((f"{number(result.switch_us_p99)} µs", "to switch the level (99th percentile)"))
    tiles.append((percent(result.levels[-1].sparsity, 0), f"of the weights left out by {result.levels[-1].name}"))
    inside = "\n".join(
        f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles
    )
    return f'<div class="tiles">\n{inside}\n</div>'


def _levels(result: Result) -> str:
    has_score = any(level.score is not None for level in result.levels)
    has_clock = any(level.freq_mhz is not None for level in result.levels)
    heads = ["Level", "Sparsity", "Fidelity"]
    heads += [escape(result.score_name or "Score")] if has_score else []
    heads += ["Here<br>(ms)", "Against<br>dense"]
    heads += ["Device clock<br>(MHz)"] if has_clock else []
    heads += ["Device<br>(ms)", "Device energy<br>(mJ)"]
    heads += [f"Within<br>{number(result.deadline_ms)} ms"] if result.deadline_ms is not None else []

    levels = result.levels
    columns = [
        [escape(level.name) for level in levels],
        [percent(level.sparsity) for level in levels],
        [fixed(level.fidelity, 3) for level in levels],
    ]
    if has_score:
        columns.append(column([level.score for level in levels]))
    columns.append(column([level.latency_ms for level in levels]))
    columns.append([_times(level.dense_latency_ms, level.latency_ms) for level in levels])
    if has_clock:
        columns.append([number(level.freq_mhz, 4) for level in levels])
    columns.append(column([level.device_latency_ms for level in levels]))
    columns.append(column([level.device_energy_mj for level in levels]))
    if result.deadline_ms is not None:
        deadline_ms = result.deadline_ms
        columns.append([_within(level.device_latency_ms, deadline_ms) for level in levels])

    return "<h2>The levels of the dial</h2>\n" + table(
        heads,
        [("", row) for row in zip(*columns, strict=True)],
        caption="How to read this: one row for each level, densest first. “Here” was measured on this computer, "
        f"“device” is predicted for {escape(device_title(result))} at the clock of the level. "
        "“Against dense” is how many times as fast as the dense model the level is here.",
    )


def _times(slow: float | None, quick: float | None) -> str:
    return MISSING if slow is None or not quick else f"{fixed(slow / quick, 2)} ×"


def _within(latency_ms: float | None, deadline_ms: float) -> str:
    if latency_ms is None:
        return MISSING
    return '<span class="good">yes</span>' if latency_ms <= deadline_ms else '<span class="bad">no</span>'


def _sections(result: Result, drawn: Sequence[Chart]) -> list[str]:
    sections = []
    for group, members in groupby(drawn, key=lambda chart: chart.group):
        parts = [plot(chart.key, chart.title, chart.how_to_read, chart.height_px) for chart in members]
        if len(parts) > 1:
            wide = " wide" if len(parts) == 2 else ""
            parts = [f'<div class="grid{wide}">', *parts, "</div>"]
        sections.append("\n".join([f"<h2>{_GROUPS[group]}</h2>", *parts]))
        if group == "battery":
            sections.append(_policies(result))
    if result.policies and not any(chart.group == "battery" for chart in drawn):
        sections.append(f"<h2>{_GROUPS['battery']}</h2>\n{_policies(result)}")
    return sections


def _policies(result: Result) -> str:
    ours, base = result.ours(), result.base()
    most = base[1].on_time if base is not None else 0

    def cells(name: str) -> list[str]:
        policy = result.policies[name]
        share = policy.misses / policy.inferences if policy.inferences else None
        css = "bad" if policy.misses else "good"
        return [
            escape(short_title(policy.title or name)),
            number(policy.inferences, 9),
            f'<span class="{css}">{number(policy.misses, 9)}</span>',
            _times(policy.on_time, most),
            percent(share),
            duration(policy.time_h),
            fixed(policy.mean_fidelity, 3),
        ]

    listed = "\n".join(f"<li>{escape(policy.title)}</li>" for policy in result.policies.values() if policy.title)
    return table(
        [
            "Policy",
            "Answers",
            "Deadlines<br>missed",
            "In time,<br>against baseline",
            "Missed",
            "Battery<br>lasts",
            "Mean<br>fidelity",
        ],
        [("ours" if ours is not None and name == ours[0] else "", cells(name)) for name in result.policies],
        caption=f"How to read this: {escape(span(result))}. {_request_words(result)}"
        + (f" The baseline: {escape(result.baseline.rstrip('.'))}." if result.baseline else ""),
    ) + (f'<div class="card"><h3>The policies in words</h3>\n<ul>\n{listed}\n</ul></div>' if listed else "")


def _request_words(result: Result) -> str:
    words = f"A request arrives every {number(result.period_ms)} ms." if result.period_ms is not None else ""
    if result.deadline_ms is not None:
        words += f" An answer after more than {number(result.deadline_ms)} ms is a missed deadline."
    return words.strip()


def _words(result: Result) -> str:
    power = result.device.get("power")
    words = [
        ("Level", "one position of the dial: which weights take part. All levels share one set of weights in memory."),
        ("Sparsity", "the share of the weights in the prunable linear layers that the level leaves out."),
        (
            "Fidelity",
            "the mean cosine between the level's answers and the dense model's on text that was not used "
            "for the compression; 1 is the same answer.",
        ),
    ]
    if result.ours() is not None and result.base() is not None:
        words += [
            ("Improvement", f"answers in time in {span(result)} under our policy, divided by those of the baseline."),
            ("Baseline", f"{result.baseline.rstrip('.')}." if result.baseline else "the first policy of the table."),
        ]
    if result.deadline_ms is not None:
        words.append(("Deadline", f"{number(result.deadline_ms)} ms from the arrival of a request to its answer."))
    if power:
        words.append(("Power", f"{str(power).rstrip('.')} is what the battery pays for in these numbers."))
    listed = "\n".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in words)
    return f'<h2>Words on this page</h2>\n<div class="card"><dl>\n{listed}\n</dl></div>'


def _details(result: Result) -> str:
    parts = []
    if result.assumptions:
        items = "\n".join(
            f'<li>{escape(item.text)} <span class="label">{escape(item.label)}</span></li>'
            for item in result.assumptions
        )
        parts.append(f'<h2>What the numbers rest on</h2>\n<div class="card"><ul>\n{items}\n</ul></div>')
    for title, facts in (
        ("Device", result.device),
        ("Model", result.model),
        ("Where this was made", result.environment),
        ("How long it took", {stage: duration(seconds / 3600) for stage, seconds in result.seconds.items()}),
    ):
        if facts:
            listed = "\n".join(
                f"<dt>{escape(_label(name))}</dt><dd>{escape(_fact(value))}</dd>" for name, value in facts.items()
            )
            parts.append(f'<h2>{title}</h2>\n<div class="card"><dl>\n{listed}\n</dl></div>')
    parts.append(
        "<footer>Made by La Volta. This page is one file and loads nothing from the network; "
        "the same numbers are in <code>result.json</code> beside it.</footer>"
    )
    return "\n".join(parts)


def _label(name: str) -> str:
    return name.replace("_", " ")


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 5)
    if isinstance(value, Mapping):
        return ", ".join(f"{_label(str(name))}: {_fact(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_fact(item) for item in value)
    return MISSING if value is None else str(value)
