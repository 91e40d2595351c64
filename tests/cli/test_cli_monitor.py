"""`monitor`: what the terminal shows of a server or a device, in any width, also when the server goes and comes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fake_sysfs import Sysfs
from lavolta.cli.monitor import AGAIN_S, follow_server
from lavolta.cli.monitor_view import Seen, bar, spark
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from .conftest import Invoke


def answer(index: int, **changes: Any) -> dict[str, Any]:
    usual = {"index": index, "response_ms": 60.0, "run_ms": 50.0, "predicted_ms": 40.0, "energy_mj": 8.0}
    return {**usual, **changes}


def status(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "model": "tiny",
        "device": {"name": "board", "simulated": False, "cluster": "big", "speed": 1.0},
        "goal": "ours: the lowest energy",
        "deadline_ms": 100.0,
        "uptime_s": 5.0,
        "stopping": False,
        "charge_share": 0.42,
        "power_mw": 1500.0,
        "on_ac": False,
        "temperature_c": 61.5,
        "freq_mhz": {"little": 600.0, "big": 1800.0},
        "unknown": [],
        "clock": "follows",
        "level": "L1",
        "levels": ["L0", "L1"],
        "pinned": None,
        "queue": {"depth": 1, "limit": 16},
        "totals": {"answers": 1234, "late": 2, "by_level": {"L0": 34, "L1": 1200}, "refused": {"busy": 3, "failed": 0}},
        "recent": {
            "response_ms_p50": 60.0,
            "response_ms_p99": 130.0,
            "energy_mj": 2345.0,
            "drawn_mj_per_answer": None,
            "run_over_predicted": 1.25,
            "within_p99": 0.97,
        },
        "last": {"reason": "best score, on mains power", "freq_mhz": 1700.0},
        "answers": [answer(index) for index in range(8)],
    }
    return {**usual, **changes}


def shown(seen: Seen, width: int = 120, height: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(seen.view(width, height))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def seen(**changes: Any) -> Seen:
    found = Seen()
    found.look(status(**changes))
    return found


def test_a_server_at_a_glance() -> None:
    text = shown(seen())
    for words in (
        "La Volta  tiny on board, due after 100 ms  live",
        "42.0 %",
        "on battery, 1.50 W",
        "1,800 MHz",
        "chosen by the system",
        "61.5 °C",
        "best score, on mains power",
        "130 ms",
        "p99 of 100 ms; median 60.0 ms",
        "of 1,234; 3 without answer; 1 wait or run",
        "2.35 J",
        "1.25 ×",
        "run over prediction; 97 % within the expected",
        "L0 34",
        "L1 1,200",
        "Ours: the lowest energy.",
    ):
        assert words in text
    assert "600 MHz" not in text


def test_nothing_is_known_yet() -> None:
    empty = dict.fromkeys(("charge_share", "power_mw", "on_ac", "temperature_c", "level", "last"))
    recent = dict.fromkeys(status()["recent"])
    text = shown(seen(**empty, recent=recent, freq_mhz={}, answers=[], unknown=["no battery is listed in sysfs."]))
    assert "no answer yet" in text
    assert "Not known: no battery is listed in sysfs." in text
    assert "None" not in text


def test_it_fits_every_window() -> None:
    for width in (40, 70, 80, 100, 200):
        assert all(len(line) <= width for line in shown(seen(), width).splitlines())
    many = [f"reason {place}." for place in range(50)]
    assert len(shown(seen(unknown=many), 120, 24).splitlines()) <= 24


def test_states_are_words() -> None:
    found = seen(pinned="L0", device={**status()["device"], "simulated": True, "speed": 60.0}, stopping=True)
    text = shown(found)
    assert "(simulated, 60 times as fast)" in text
    assert "held at L0" in text
    assert "stopping" in text
    found = seen()
    found.lose()
    assert "no answer, trying again" in shown(found)
    assert "42.0 %" in shown(found)


class Moody:
    """A server that goes away after its first words, is away once, and comes back with another past."""

    def __init__(self) -> None:
        self.calls = 0

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self.calls += 1
        if self.calls == 2:
            raise UserInputError("no server answers.")
        yield "history", {"answers": [answer(7, response_ms=99.0)], "device": []}
        yield "status", status(uptime_s=float(self.calls), answers=[])


def test_a_server_that_comes_back_is_followed_again() -> None:
    found, pauses = Seen(), []
    changes = follow_server(found, Moody(), pauses.append)  # type: ignore[arg-type]
    lost = []
    for _ in range(4):
        next(changes)
        lost.append(found.lost)
    assert lost == [False, True, True, False]
    assert pauses == [AGAIN_S, AGAIN_S]
    assert found.status["uptime_s"] == 3.0


def test_a_server_that_never_answered_is_no_reason_to_wait() -> None:
    moody = Moody()
    moody.calls = 1
    with pytest.raises(UserInputError, match="no server answers"):
        next(follow_server(Seen(), moody, lambda _: None))  # type: ignore[arg-type]


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.none() | st.floats(-10, 10))
def test_a_line_of_blocks_rises_with_its_values(values: list[float], low: float | None) -> None:
    line = spark(values, low)
    assert len(line) == len(values)
    pairs = sorted(zip(values, line, strict=True))
    assert [block for _, block in pairs] == sorted(line)


@given(st.floats(-1, 2), st.integers(1, 80))
def test_a_bar_is_as_wide_as_its_place(share: float, width: int) -> None:
    drawn = bar(share, width)
    assert len(drawn) == width
    assert drawn.count("█") == round(width * min(1.0, max(0.0, share)))


def test_a_device_without_a_server(invoke: Invoke, tmp_path: Path) -> None:
    Sysfs(tmp_path).put("class/power_supply/BAT0", type="Battery", status="Discharging", capacity=42)
    outcome = invoke("monitor", "--sysfs", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "La Volta  this device  live" in outcome.out
    assert "42.0 %" in outcome.out
    assert "on battery" in outcome.out
    assert "has no cpufreq: the clock is not known." in outcome.out
    data = invoke("monitor", "--sysfs", tmp_path, "--json").data
    assert (data["charge_share"], data["on_ac"]) == (0.42, False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--socket", "/a", "--url", "http://b"), "--socket, --url and --sysfs exclude one another; give one of them."),
        (("--socket", "/absent.sock"), "no server answers at /absent.sock: no such file or directory; start it with"),
        (("--url", "ftp://x"), "'ftp://x' is no address of a server"),
        (("--sysfs", "/absent"), "there is no folder /absent; give the one where the system shows its devices: /sys."),
    ],
)
def test_bad_options_are_one_sentence(options, sentence: str, invoke: Invoke) -> None:
    outcome = invoke("monitor", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert sentence in outcome.err
