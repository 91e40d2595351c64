"""Progress in words: the time that is left follows from a clock that the test turns."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.cli.progress import BarProgress, Forecast, LineProgress, left, open_progress
from lavolta.progress import Progress, SilentProgress


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "about 1 s"),
        (59.6, "about 60 s"),
        (120, "about 2 min"),
        (5399, "about 1 h 30 min"),
        (9000, "about 2 h 30 min"),
    ],
)
def test_time_left_in_words(seconds: float, words: str) -> None:
    assert left(seconds) == words


@given(total=st.integers(1, 1000), done=st.integers(1, 1000), taken_s=st.floats(0, 1e6))
def test_the_forecast_is_the_pace_so_far(total: int, done: int, taken_s: float) -> None:
    clock = Clock()
    forecast = Forecast(clock)
    forecast.begin("train", total)
    start_s = clock.now_s
    clock.now_s += taken_s
    forecast.advance(done)
    left_s = forecast.stage_left_s()
    assert left_s is not None
    assert left_s == pytest.approx(max(0, total - done) * (clock.now_s - start_s) / done)


def test_the_plan_fills_in_until_there_is_a_pace() -> None:
    clock = Clock()
    forecast = Forecast(clock)
    forecast.plan({"read": 10.0, "train": 100.0, "search": 50.0})
    forecast.begin("read", None)
    clock.now_s += 4
    assert forecast.stage_left_s() == 6.0
    assert forecast.all_left_s() == 156.0
    assert forecast.end() == 4.0
    forecast.begin("train", 10)
    clock.now_s += 30
    forecast.advance(1)
    assert forecast.all_left_s() == 270.0 + 50.0


def test_without_plan_and_pace_nothing_is_promised() -> None:
    forecast = Forecast(Clock())
    forecast.begin("read", None)
    assert forecast.stage_left_s() is None
    assert forecast.all_left_s() is None


def test_lines_say_what_is_going_on() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, clock)
    progress.plan({"train": 40.0, "search": 80.0})
    with progress.stage("train", total=4) as stage:
        for _ in range(4):
            clock.now_s += 10
            stage.note("loss 0.5")
            stage.advance()
    progress.say("the sparsest level keeps 24 %")
    assert stream.getvalue().splitlines() == [
        "2 steps, about 2 min",
        "train ...",
        "train: 2 of 4, loss 0.5, about 20 s left (about 2 min for everything)",
        "train: 4 of 4, loss 0.5, about 1 s left (about 80 s for everything)",
        "train: done in 40.0 s, loss 0.5",
        "the sparsest level keeps 24 %",
    ]


def test_an_error_in_a_stage_passes_through() -> None:
    for progress in (LineProgress(io.StringIO(), Clock()), BarProgress(Terminal(), Clock()), SilentProgress()):
        with pytest.raises(KeyError), progress.stage("train"):
            raise KeyError


def test_bars_keep_finished_stages_and_read_no_markup() -> None:
    clock, stream = Clock(), Terminal()
    progress = BarProgress(stream, clock)
    progress.plan({"[red]train": 30.0})
    with progress.stage("[red]train", total=3) as stage:
        clock.now_s += 12.5
        stage.advance(3)
        stage.note("loss [b]1")
    progress.say("[i]done")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "[red]train  12.5 s  loss [b]1" in shown
    assert shown.rstrip().endswith("[i]done")


@pytest.mark.parametrize(("stream", "kind"), [(io.StringIO(), LineProgress), (Terminal(), BarProgress)])
def test_bars_are_for_terminals(stream: io.StringIO, kind: type) -> None:
    assert isinstance(open_progress(stream), kind)


def test_silence_is_a_progress_too() -> None:
    progress: Progress = SilentProgress()
    progress.plan({"train": 1.0})
    with progress.stage("train", total=2) as stage:
        stage.advance(2)
        stage.note("nothing")
    progress.say("nothing")
