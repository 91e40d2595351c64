"""Numbers as people read them, and the sentences at the head of the report."""

from __future__ import annotations

from collections.abc import Sequence

from lavolta.report.schema import Result

MISSING = "–"
MAX_TITLE = 56


def number(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent, thousands grouped; a dash where it is absent."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    size = len(str(int(abs(value))))
    if abs(value) >= 1:
        text = f"{value:,.{max(0, digits - size)}f}"
    else:
        text = f"{value:.{digits}g}"
        if "e" in text:
            text = f"{value:.12f}".rstrip("0")
    return text.rstrip("0").rstrip(".") if "." in text else text


def fixed(value: float | None, decimals: int) -> str:
    """`value` with exactly `decimals` decimals, so that a column lines up."""
    return MISSING if value is None else f"{value:,.{decimals}f}"


def column(values: Sequence[float | None]) -> list[str]:
    """Numbers of one table column with as many decimals as the largest needs for three significant digits."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    decimals = 0 if largest >= 100 else 1 if largest >= 10 else 2 if largest >= 1 else 3
    return [fixed(value, decimals) for value in values]


def percent(share: float | None, decimals: int = 1) -> str:
    """A share 0 to 1 as a percentage."""
    return MISSING if share is None else f"{100 * share:.{decimals}f} %"


def duration(hours: float | None) -> str:
    """Hours as `3 d 4 h`, `5 h 20 min`, `12 min` or `40 s`."""
    if hours is None:
        return MISSING
    seconds = round(hours * 3600)
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    full_hours = round(minutes / 60)
    return f"{full_hours // 24} d {full_hours % 24} h"


def device_title(result: Result) -> str:
    """The device as a person calls it: of a long title, what comes before the details."""
    title = str(result.device.get("title") or result.device.get("name") or "the device")
    return title if len(title) <= MAX_TITLE else title.partition(",")[0].partition(" (")[0]


def short_title(title: str) -> str:
    """A policy in a few words: of a long title, what comes before its details."""
    short = title if len(title) <= MAX_TITLE else title.partition(":")[0]
    return short[:1].upper() + short[1:]


def model_title(result: Result) -> str:
    """The model as a person calls it."""
    return str(result.model.get("title") or result.model.get("name") or "the model")


def span(result: Result) -> str:
    """What the policies were compared over."""
    return result.span or "one battery charge"


def headline(result: Result) -> str:
    """The one sentence that a reader should remember."""
    ours, base = result.ours(), result.base()
    if ours is None or base is None or result.improvement is None:
        sparsest = result.levels[-1]
        count = len(result.levels)
        return (
            f"{model_title(result)} with a dial of {count} level{'' if count == 1 else 's'}, "
            f"from {percent(result.levels[0].sparsity, 0)} to {percent(sparsest.sparsity, 0)} sparsity."
        )
    if ours[1].on_time == base[1].on_time:
        return (
            f"On {device_title(result)}, {span(result)} answers as many requests in time as without reconfiguration: "
            f"{number(base[1].on_time, 9)}."
        )
    return (
        f"On {device_title(result)}, {span(result)} answers {number(result.improvement)} times as many requests "
        f"in time: {number(ours[1].on_time, 9)} instead of {number(base[1].on_time, 9)}."
    )


def findings(result: Result) -> list[str]:
    """The sentences under the headline; those whose numbers are absent are left out."""
    found = []
    ours, base = result.ours(), result.base()
    if result.baseline:
        found.append(f"Compared with: {result.baseline.rstrip('.')}.")
    if ours is not None and base is not None and ours[1].time_h is not None and base[1].time_h is not None:
        lasted, base_lasted = duration(ours[1].time_h), duration(base[1].time_h)
        if lasted != base_lasted:
            found.append(f"The battery lasts {lasted} instead of {base_lasted}.")
        elif ours[1].curve and base[1].curve:
            left, base_left = (percent(policy.curve[-1][1], 2) for policy in (ours[1], base[1]))
            found.append(f"After {lasted} {left} of the full charge are left, {base_left} without reconfiguration.")
    if ours is not None and ours[1].mean_fidelity is not None:
        found.append(
            f"The answers keep a mean fidelity of {fixed(ours[1].mean_fidelity, 3)}, "
            "where 1.000 is the dense model's own answer."
        )
    sparsest = result.levels[-1]
    if sparsest.fidelity is not None:
        found.append(
            f"The sparsest level, {sparsest.name}, leaves out {percent(sparsest.sparsity, 0)} of the prunable weights "
            f"at a fidelity of {fixed(sparsest.fidelity, 3)}."
        )
    if sparsest.latency_ms and sparsest.dense_latency_ms:
        ratio = sparsest.dense_latency_ms / sparsest.latency_ms
        found.append(
            f"On this computer it takes {number(sparsest.latency_ms)} ms, the dense model "
            f"{number(sparsest.dense_latency_ms)} ms: {number(ratio)} times as fast."
        )
    if result.switch_us_p50 is not None:
        tail = f" (99 of 100 within {number(result.switch_us_p99)} µs)" if result.switch_us_p99 is not None else ""
        moved = (
            f" and moves {number(result.bytes_moved_per_switch, 9)} bytes of weights"
            if result.bytes_moved_per_switch is not None
            else ""
        )
        found.append(f"Turning the dial takes {number(result.switch_us_p50)} µs{tail}{moved}.")
    if ours is not None and result.deadline_ms is not None:
        missed = "No deadline" if ours[1].misses == 0 else f"{number(ours[1].misses, 9)} deadlines"
        was = "was" if ours[1].misses <= 1 else "were"
        missed = "One deadline" if ours[1].misses == 1 else missed
        found.append(f"{missed} of {number(result.deadline_ms)} ms {was} missed under our policy.")
    return found
