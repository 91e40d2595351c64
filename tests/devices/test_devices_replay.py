"""Traces: what was recorded is played again, and a broken file is one sentence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.devices.sources import Reading, Replay, from_record, load_trace, to_json
from lavolta.errors import UserInputError

TRACE = [
    Reading(100.0, charge_share=0.9, on_ac=True, freq_mhz={"big": 1000.0}),
    Reading(110.0, slept_s=5.0, charge_share=0.8, on_ac=False, missing={"power_mw": "no meter."}),
    Reading(130.0, charge_share=0.7, power_mw=5.0, power_from="battery"),
]

_finite = st.floats(allow_nan=False, allow_infinity=False)
_clocks = st.dictionaries(st.text(max_size=5), _finite, max_size=2)
_readings = st.builds(
    Reading,
    time_s=_finite,
    slept_s=_finite,
    charge_share=st.none() | _finite,
    power_mw=st.none() | _finite,
    power_from=st.none() | st.text(max_size=9),
    on_ac=st.none() | st.booleans(),
    freq_mhz=_clocks,
    freq_limit_mhz=_clocks,
    temperature_c=st.none() | _finite,
    missing=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=2),
)


@given(_readings)
def test_what_is_written_is_read_again(reading: Reading) -> None:
    import json

    assert from_record(json.loads(to_json(reading))) == reading


class Clock:
    def __init__(self) -> None:
        self.now_s = 7.0

    def __call__(self) -> float:
        return self.now_s


def test_each_look_gives_the_latest_whose_time_has_come() -> None:
    clock = Clock()
    replay = Replay(TRACE, clock)
    assert replay.read() == TRACE[0]
    clock.now_s += 9.99
    assert replay.read().charge_share == 0.9
    clock.now_s += 0.01
    reading = replay.read()
    assert (reading.time_s, reading.charge_share, reading.on_ac, reading.slept_s) == (110.0, 0.8, False, 5.0)
    assert reading.why("power_mw") == "no meter."
    clock.now_s += 1
    # A suspend is told once.
    assert replay.read().slept_s == 0.0
    assert not replay.ended
    clock.now_s += 1000
    assert replay.ended
    assert replay.read().power_mw == 5.0


def test_a_loop_begins_again_and_time_goes_on() -> None:
    clock = Clock()
    replay = Replay(TRACE, clock, loop=True)
    seen = []
    for _ in range(8):
        reading = replay.read()
        seen.append((reading.time_s, reading.charge_share))
        clock.now_s += 10
    assert [share for _, share in seen] == [0.9, 0.8, 0.8, 0.9, 0.8, 0.8, 0.9, 0.8]
    assert [time for time, _ in seen] == [100.0 + 10 * k for k in range(8)]
    assert not replay.ended


def test_a_clock_that_falls_does_not_hurt() -> None:
    clock = Clock()
    replay = Replay(TRACE, clock)
    replay.read()
    clock.now_s = 0.0
    assert replay.read().charge_share == 0.9


def test_jsonl_and_csv_say_the_same(tmp_path: Path) -> None:
    lines = tmp_path / "day.jsonl"
    lines.write_text("\n".join(to_json(reading) for reading in TRACE) + "\n\n", encoding="utf-8")
    table = tmp_path / "day.csv"
    table.write_text(
        "time_s,slept_s,charge_share,on_ac,freq_mhz.big,power_mw,power_from\n"
        "100,,0.9,yes,1000,,\n"
        "110,5,0.8,no,,,\n"
        "130,,0.7,,,5,battery\n",
        encoding="utf-8",
    )
    assert load_trace(lines) == TRACE
    from_csv = load_trace(table)
    assert [reading.freq_mhz for reading in from_csv] == [{"big": 1000.0}, {}, {}]
    assert [reading.on_ac for reading in from_csv] == [True, False, None]
    assert from_csv[2] == TRACE[2]


BROKEN = {
    "day.jsonl": {
        "{": r"line 1 is not JSON",
        "[1]": r"must be an object",
        "": r"has no readings",
        '{"charge_share": 1}': r"line 1 has no time_s",
        '{"time_s": "noon"}': r"line 1: time_s is 'noon'; it must be a finite number",
        '{"time_s": NaN}': r"time_s is nan",
        '{"time_s": true}': r"time_s is True",
        '{"time_s": 1, "chrge": 1}': r"the unknown field 'chrge'",
        '{"time_s": 1, "power_mw.big": 1}': r"the unknown field 'power_mw.big'",
        '{"time_s": 1, "on_ac": 1}': r"on_ac is 1; it must be true or false",
        '{"time_s": 1, "freq_mhz": 5}': r"freq_mhz is 5; it must be an object",
        '{"time_s": 1, "freq_mhz": {"big": "fast"}}': r"freq_mhz is 'fast'",
        '{"time_s": 2}\n{"time_s": 1}': r"reading 2 is earlier than the one before",
        "[" * 100_000: r"line 1 is not JSON",
    },
    "day.csv": {
        "time_s\n": r"has no readings",
        "time_s,on_ac\n1,perhaps\n": r"line 2: on_ac is 'perhaps'",
        "time_s,power_mw\n1\n": r"line 2 has not as many cells",
        "time_s\n1,2\n": r"line 2 has not as many cells",
        "time_s,power_mw\n1,lots\n": r"line 2: power_mw is 'lots'",
        "when\n1\n": r"the unknown field 'when'",
    },
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, cases in BROKEN.items() for text in cases])
def test_each_defect_of_a_trace_is_one_sentence(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserInputError, match=BROKEN[name][text]):
        load_trace(path)


def test_files_that_are_no_trace(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="cannot read the trace"):
        load_trace(tmp_path / "absent.jsonl")
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserInputError, match="is not UTF-8"):
        load_trace(tmp_path / "x.jsonl")
    with pytest.raises(UserInputError, match="nothing to play"):
        Replay([], lambda: 0.0)
