"""Progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from lavolta.progress import Progress, Stage

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

Clock = Callable[[], float]
LINE_EVERY_S = 15.0


def open_progress(stream: TextIO | None = None) -> Progress:
    """Bars where `stream` (standard error) is a terminal, lines where it is not."""
    stream = sys.stderr if stream is None else stream
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


def left(seconds: float) -> str:
    """How long something still takes, in words."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"


def _plan_words(expected_s: Mapping[str, float]) -> str:
    steps = "one step" if len(expected_s) == 1 else f"{len(expected_s)} steps"
    return f"{steps}, {left(sum(expected_s.values()))}"


class Forecast:
    """Seconds that are left: the running stage by its own pace, the later ones by the plan.

    Args:
        clock: seconds of any monotonic clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._plan: dict[str, float] = {}
        self._started_s = 0.0
        self._name = ""
        self._total: int | None = None
        self._done = 0

    def plan(self, expected_s: Mapping[str, float]) -> None:
        self._plan = dict(expected_s)

    def begin(self, name: str, total: int | None) -> None:
        self._expected_s = self._plan.pop(name, 0.0)
        self._started_s, self._name, self._total, self._done = self._clock(), name, total, 0

    def advance(self, steps: int) -> None:
        self._done += steps

    def end(self) -> float:
        """Close the running stage; returns the seconds it took."""
        self._name = ""
        return self._clock() - self._started_s

    def stage_left_s(self) -> float | None:
        """Seconds left of the running stage; `None` while nothing is known."""
        taken_s = self._clock() - self._started_s
        if self._total and self._done:
            return taken_s * max(0, self._total - self._done) / self._done
        return max(0.0, self._expected_s - taken_s) if self._expected_s else None

    def all_left_s(self) -> float | None:
        """Seconds left of everything planned; `None` without a plan or while nothing is known."""
        stage_s = self.stage_left_s() if self._name else 0.0
        return None if stage_s is None or not self._plan else stage_s + sum(self._plan.values())


class _Running:
    """The stage that a recipe holds; each event goes to the listener."""

    def __init__(self, advanced: Callable[[int], None], noted: Callable[[str], None]) -> None:
        self._advanced, self._noted = advanced, noted

    def advance(self, steps: int = 1) -> None:
        self._advanced(steps)

    def note(self, text: str) -> None:
        self._noted(text)


class LineProgress:
    """Lines for logs: one when a stage begins, one now and then with the time left, one when it ends."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._forecast = Forecast(clock)

    def plan(self, expected_s: Mapping[str, float]) -> None:
        self._forecast.plan(expected_s)
        self._line(_plan_words(expected_s))

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        self._forecast.begin(name, total)
        self._line(f"{name} ...")
        done, remark, told_s = 0, "", self._clock()

        def advanced(steps: int) -> None:
            nonlocal done, told_s
            done += steps
            self._forecast.advance(steps)
            now_s = self._clock()
            if now_s - told_s >= LINE_EVERY_S:
                told_s = now_s
                part = f" {done} of {total}" if total else f" {done}"
                stage_s = self._forecast.stage_left_s()
                eta = "" if stage_s is None else f", {left(stage_s)} left"
                all_s = self._forecast.all_left_s()
                together = "" if all_s is None else f" ({left(all_s)} for everything)"
                self._line(f"{name}:{part}{remark}{eta}{together}")

        def noted(text: str) -> None:
            nonlocal remark
            remark = f", {text}"

        yield _Running(advanced, noted)
        self._line(f"{name}: done in {self._forecast.end():.1f} s{remark}")

    def say(self, sentence: str) -> None:
        self._line(sentence)

    def _line(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class BarProgress:
    """Bars for a terminal: finished stages stay as lines, the running one is a bar with the time left."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._forecast = Forecast(clock)

    def plan(self, expected_s: Mapping[str, float]) -> None:
        self._forecast.plan(expected_s)
        self.say(_plan_words(expected_s))

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        from rich.text import Text

        self._forecast.begin(name, total)
        with self._bars() as bars:
            task = bars.add_task(name, total=total, left=self._left(), note="")

            def advanced(steps: int) -> None:
                self._forecast.advance(steps)
                bars.update(task, advance=steps, left=self._left())

            def noted(text: str) -> None:
                bars.update(task, note=text)

            yield _Running(advanced, noted)
            remark = bars.tasks[0].fields["note"]
        took_s = self._forecast.end()
        self._console.print(Text.assemble(("✓ ", "green"), name, (f"  {took_s:.1f} s  {remark}", "dim")))

    def say(self, sentence: str) -> None:
        from rich.text import Text

        self._console.print(Text(sentence))

    def _left(self) -> str:
        stage_s, all_s = self._forecast.stage_left_s(), self._forecast.all_left_s()
        words = "" if stage_s is None else f"{left(stage_s)} left"
        return words if all_s is None else f"{words}, {left(all_s)} for everything"

    def _bars(self) -> Bars:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        return Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="dim", markup=False),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self._console,
            transient=True,
        )
