"""What the terminal shows of a server or a device: one table that fits a narrow window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

KEPT = 240
_BLOCKS = "▁▂▃▄▅▆▇█"
_CLOCK = {
    "sets": "set by the governor",
    "follows": "chosen by the system",
    "none": "not seen; times are learned",
}
LOW_CHARGE = 0.1
_LABEL, _VALUE, _NOTE, _LEAST_CHART, _MOST_CHART = 13, 13, 44, 8, 48


class Seen:
    """What a monitor has heard so far.

    Attributes:
        status: the present; empty before the first word.
        lost: whether the server has gone.
    """

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.lost = False
        self._answers: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._device: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def begin(self, history: dict[str, Any]) -> None:
        """A server was found: what it remembers takes the place of what is known."""
        self._answers.clear()
        self._device.clear()
        self._answers.extend(history.get("answers", ()))
        self._device.extend(history.get("device", ()))

    def look(self, status: dict[str, Any]) -> None:
        """The present."""
        self._answers.extend(status.get("answers", ()))
        self.status = {name: value for name, value in status.items() if name != "answers"}
        self._device.append(self.status)
        self.lost = False

    def lose(self) -> None:
        """The server has gone: the last words stay."""
        self.lost = True

    def view(self, width: int, height: int | None = None) -> RenderableType:
        """All of it.

        Args:
            width, height: of the terminal, in characters.
        """
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        now = self.status
        chart = max(_LEAST_CHART, min(_MOST_CHART, width - _LABEL - _VALUE - _NOTE))
        grid = Table.grid(padding=(0, 2, 0, 0))
        for style in ("dim", "", "bold", "dim"):
            grid.add_column(style=style)
        rows = [*self._of_device(chart), *(self._of_answers(chart) if "totals" in now else ())]
        for name, drawn, value, bad, more in rows:
            grid.add_row(Text(name), Text(drawn, style="red" if bad else "green"), Text(value), Text(more))
        parts: list[RenderableType] = [self._title(), Text(), grid]
        if "totals" in now:
            parts += [Text(), self._dial(), Text(), Text(f"{_capital(now['goal'])}.", style="dim")]
        words = list(now.get("unknown", ()))
        room = len(words) if height is None else max(0, height - len(rows) - 12)
        parts += [Text(f"Not known: {sentence}", style="dim") for sentence in words[:room]]
        return Group(*parts)

    def _title(self) -> RenderableType:
        from rich.text import Text

        now = self.status
        title = Text("La Volta", style="bold")
        if "device" in now:
            device = now["device"]
            faster = f", {device['speed']:g} times as fast" if device["speed"] != 1 else ""
            title.append(
                f"  {now['model']} on {device['name']}{f' (simulated{faster})' if device['simulated'] else ''}"
            )
            title.append(f", due after {now['deadline_ms']:g} ms")
        else:
            title.append("  this device")
        state, style = ("no answer, trying again", "red") if self.lost else ("live", "green")
        if now.get("stopping"):
            state, style = "stopping", "yellow"
        return title.append(f"  {state}", style=style)

    def _of_device(self, chart: int) -> Iterable[tuple[str, str, str, bool, str]]:
        now = self.status
        charge, on_ac = now.get("charge_share"), now.get("on_ac")
        low = charge is not None and charge < LOW_CHARGE
        feed = "" if on_ac is None else "on mains" if on_ac else "on battery"
        power = _unit(_times(now.get("power_mw"), 1e-3), "W")
        drawn = bar(charge, chart)
        yield "Charge", drawn, _unit(_times(charge, 100), "%", 1), low, _join(feed, power)
        clocks = now.get("freq_mhz") or {}
        how = _CLOCK.get(now.get("clock", ""), "")
        named = now.get("device", {}).get("cluster")
        for cluster, freq_mhz in clocks.items() if named not in clocks else [(named, clocks[named])]:
            label = "Clock" if len(clocks) == 1 or cluster == named else f"Clock {cluster}"
            line = self._over_time(partial(_clock_of, cluster), chart)
            yield label, line, _unit(freq_mhz, "MHz", 0), False, how
        if not clocks:
            last = now.get("last") or {}
            yield "Clock", "", _unit(last.get("freq_mhz"), "MHz", 0), False, how
        heat = now.get("temperature_c")
        yield (
            "Temperature",
            self._over_time(lambda each: each.get("temperature_c"), chart),
            _unit(heat, "°C", 1),
            False,
            "",
        )

    def _of_answers(self, chart: int) -> Iterable[tuple[str, str, str, bool, str]]:
        now = self.status
        recent, totals, deadline_ms = now["recent"], now["totals"], now["deadline_ms"]
        last = now["last"] or {}
        yield "Level", "", now["level"] or "–", False, last.get("reason", "no answer yet")
        answers = list(self._answers)[-chart:]
        p99, median = recent["response_ms_p99"], recent["response_ms_p50"]
        late = p99 is not None and p99 > deadline_ms
        more = "" if median is None else f"p99 of {deadline_ms:g} ms; median {_unit(median, 'ms')}"
        yield "Latency", spark([a["response_ms"] for a in answers], 0, deadline_ms), _unit(p99, "ms"), late, more
        refused = sum(totals["refused"].values())
        waiting = f"{now['queue']['depth']} wait or run"
        more = f"of {totals['answers']:,}; {refused:,} without answer; {waiting}"
        yield "Late", "", f"{totals['late']:,}", totals["late"] > 0, more
        drawn = recent["drawn_mj_per_answer"]
        more = "predicted, idle time left out" if drawn is None else f"a run; {_energy(drawn)} with idle time"
        yield "Energy", spark([a["energy_mj"] for a in answers], 0), _energy(recent["energy_mj"]), False, more
        ratio, within = recent["run_over_predicted"], recent["within_p99"]
        value = "–" if ratio is None else f"{ratio:.2f} ×"
        more = "" if within is None else f"run over prediction; {100 * within:.0f} % within the expected"
        ratios = [a["run_ms"] / a["predicted_ms"] for a in answers]
        yield "Truth", spark(ratios, 0, 2), value, False, more

    def _dial(self) -> RenderableType:
        from rich.text import Text

        now = self.status
        line = Text("Dial".ljust(_LABEL + 2), style="dim")
        for name in now["levels"]:
            style = "bold reverse" if name == now["level"] else ""
            line.append(f" {name} {now['totals']['by_level'].get(name, 0):,} ", style=style)
        if now["pinned"] is not None:
            line.append(f"  held at {now['pinned']}", style="yellow")
        return line

    def _over_time(self, pick: Callable[[dict[str, Any]], float | None], chart: int) -> str:
        values = [value for each in self._device if (value := pick(each)) is not None]
        return spark(values[-chart:])


def _clock_of(cluster: str, status: dict[str, Any]) -> float | None:
    return (status.get("freq_mhz") or {}).get(cluster)


def spark(values: Sequence[float], low: float | None = None, high: float | None = None) -> str:
    """Values as a line of blocks, between their least and their greatest where no bounds are given."""
    if not values:
        return ""
    bottom = min(values) if low is None else low
    top = max(values) if high is None else high
    if top <= bottom:
        return _BLOCKS[0 if low is None else -1] * len(values)
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(last * min(1.0, max(0.0, (value - bottom) / (top - bottom))))] for value in values)


def bar(share: float | None, width: int) -> str:
    """A share of a width."""
    if share is None:
        return ""
    full = round(width * min(1.0, max(0.0, share)))
    return "█" * full + "░" * (width - full)


def _unit(value: float | None, unit: str, decimals: int | None = None) -> str:
    if value is None:
        return "–"
    if decimals is None:
        decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{decimals}f} {unit}"


def _energy(mj: float | None) -> str:
    return _unit(mj, "mJ") if mj is None or mj < 1000 else _unit(mj / 1e3, "J")


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _join(*words: str) -> str:
    return ", ".join(word for word in words if word and word != "–")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
