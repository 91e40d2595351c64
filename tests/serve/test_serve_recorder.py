"""What is counted, what is kept, and what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve_tools import ManualClock

from lavolta.devices.sources import Reading
from lavolta.runtime.governor_loop import Served
from lavolta.serve.recorder import ANSWERS_KEPT, BUCKETS, RECENT, Histogram, Recorder, Series


def served(index: int = 0, **changes: Any) -> Served:
    usual: dict[str, Any] = {
        "index": index,
        "level": "L1",
        "cluster": "little",
        "raised_mhz": None,
        "moved_to": None,
        "threads": 1,
        "freq_mhz": 800.0,
        "deadline_ms": 100.0,
        "response_ms": 60.0,
        "run_ms": 50.0,
        "predicted_ms": 40.0,
        "p99_ms": 55.0,
        "energy_mj": 8.0,
        "in_time": True,
        "kept_level": True,
        "score": 0.9,
        "reason": "lowest energy",
        "short_h": None,
        "degree": "sets",
        "charge_share": None,
        "temperature_c": None,
        "on_ac": None,
        "output": None,
    }
    return Served(**{**usual, **changes})


def recorder() -> tuple[Recorder, ManualClock]:
    clock = ManualClock()
    return Recorder(100.0, ["L0", "L1"], clock), clock


def test_counts_by_hand() -> None:
    kept, clock = recorder()
    clock.now_s += 7.0
    kept.answered(served(0), 1.0)
    kept.answered(served(1, level="L0", in_time=False, response_ms=120.0, kept_level=False, energy_mj=4.0), 1.25)
    kept.refused("busy")
    totals = kept.totals()
    assert (totals.answers, totals.late, totals.cut_short, totals.energy_mj) == (2, 1, 1, 12.0)
    assert totals.levels == {"L0": 1, "L1": 1}
    assert totals.refused == {"busy": 1, "invalid": 0, "cancelled": 0, "failed": 0}
    recent = kept.recent()
    assert (recent["answers"], recent["response_ms_p50"], recent["response_ms_p99"]) == (2, 90.0, 120.0)
    assert (recent["run_ms_p50"], recent["energy_mj"]) == (50.0, 6.0)
    assert (recent["run_over_predicted"], recent["energy_over_predicted"]) == (1.25, 1.25)
    assert recent["within_p99"] == 1.0
    assert recent["drawn_mj_per_answer"] is None
    assert kept.uptime_s == 7.0
    assert kept.last()["level"] == "L0"  # type: ignore[index]
    assert kept.history()["answers"][0]["time_s"] == 7.0


def test_recent_forgets_and_counts_do_not() -> None:
    kept, _ = recorder()
    for index in range(RECENT):
        kept.answered(served(index, in_time=False, response_ms=200.0), 1.0)
    for index in range(RECENT, 2 * RECENT + ANSWERS_KEPT):
        kept.answered(served(index), 1.0)
    assert kept.recent()["response_ms_p99"] == 60.0
    assert kept.totals().late == RECENT
    answers = kept.history()["answers"]
    assert [answer["index"] for answer in answers] == list(range(2 * RECENT, 2 * RECENT + ANSWERS_KEPT))
    last = answers[-1]["index"]
    assert [answer["index"] for answer in kept.answers_after(last - 2)] == [last - 1, last]
    assert kept.answers_after(last) == []


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (99, 99), (100, 99), (50, 50)])
def test_the_tail_is_an_answer_that_happened(count: int, rank: int) -> None:
    kept, _ = recorder()
    for index in range(count):
        kept.answered(served(index, response_ms=float(index + 1)), 1.0)
    assert kept.recent()["response_ms_p99"] == rank


def test_the_battery_pays_for_idle_time_too() -> None:
    kept, _ = recorder()

    def look(charge_mwh: float | None, on_ac: bool = False) -> None:
        kept.observed(Reading(0.0, charge_mwh=charge_mwh, on_ac=on_ac))

    look(100.0)
    for index in range(4):
        kept.answered(served(index), 1.0)
    look(99.0)
    # 1 mWh is 3.6 J.
    assert kept.recent()["drawn_mj_per_answer"] == pytest.approx(900.0)
    # Neither on mains, nor over a look that knew nothing, nor when it rises, does the battery pay.
    for charge_mwh, on_ac in ((50.0, True), (49.0, False), (None, False), (10.0, False), (20.0, False)):
        look(charge_mwh, on_ac)
    assert kept.recent()["drawn_mj_per_answer"] == pytest.approx(900.0)
    kept.answered(served(4), 1.0)
    look(20.0)
    assert kept.recent()["drawn_mj_per_answer"] == pytest.approx(720.0)


def test_a_count_that_wavers_is_no_draw() -> None:
    kept, _ = recorder()
    for index in range(100):
        kept.observed(Reading(0.0, charge_mwh=100.0 + (0.0, 2.0, -2.0)[index % 3], on_ac=False))
        kept.answered(served(index), 1.0)
    kept.observed(Reading(0.0, charge_mwh=90.0, on_ac=False))
    assert kept.recent()["drawn_mj_per_answer"] == pytest.approx(10 * 3600.0 / 100)
    # What was drawn before the charger came is kept.
    kept.observed(Reading(0.0, charge_mwh=95.0, on_ac=True))
    assert kept.recent()["drawn_mj_per_answer"] == pytest.approx(10 * 3600.0 / 100)


def test_a_histogram_by_hand() -> None:
    found = Histogram([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 9.0):
        found.add(value)
    assert found.cumulative() == [2, 3, 4]
    assert found.total == 12.0
    # The deadline itself is a bound, so that a share of misses can be read exactly.
    assert 1.0 in BUCKETS


@given(st.integers(0, 2000), st.sampled_from([4, 8, 50]))
def test_a_series_spans_all_time_in_little_room(count: int, limit: int) -> None:
    series = Series(limit)
    for number in range(count):
        series.add({"number": number})
    numbers = [point["number"] for point in series.points]
    assert len(numbers) < limit
    assert numbers == sorted(set(numbers))
    # Every so many-th point, from the first one to the last one that there was.
    step = numbers[1] - numbers[0] if len(numbers) > 1 else max(1, count)
    assert numbers == list(range(0, count, step))[: len(numbers)]
    assert count == 0 or count - numbers[-1] <= 2 * step
