"""Numbers and sentences as people read them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.report.schema import parse_result
from lavolta.report.words import column, duration, findings, headline, number, percent, short_title


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (1, "1"),
        (0.61, "0.61"),
        (0.00001, "0.00001"),
        (9.999, "10"),
        (95.0, "95"),
        (99.96, "100"),
        (12.345, "12.3"),
        (123.456, "123"),
        (1391200, "1,391,200"),
        (-2.5, "-2.5"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_a_number_keeps_three_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.01e-3)


@given(st.lists(st.floats(min_value=0, max_value=1e6) | st.none(), min_size=1))
def test_a_column_lines_up(values: list[float | None]) -> None:
    decimals = {len(text.partition(".")[2]) for text in column(values) if text != "–"}
    assert len(decimals) <= 1


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (100 / 3600, "100 s"),
        (0.5, "30 min"),
        (11.2, "11 h 12 min"),
        (47.999, "2 d 0 h"),
        (76.0, "3 d 4 h"),
    ],
)
def test_duration(hours: float | None, text: str) -> None:
    assert duration(hours) == text


@pytest.mark.parametrize(
    ("title", "short"),
    [("dial", "Dial"), ("hardware only (E2): " + "x" * 60, "Hardware only (E2)"), ("", "")],
)
def test_short_title(title: str, short: str) -> None:
    assert short_title(title) == short


def test_percent() -> None:
    assert percent(0.7512) == "75.1 %"
    assert percent(None) == "–"


def test_without_a_simulation_the_headline_speaks_of_the_levels(sample_result: dict[str, Any]) -> None:
    del sample_result["policies"], sample_result["our_policy"], sample_result["baseline_policy"]
    result = parse_result(sample_result)
    assert headline(result) == "all-MiniLM-L6-v2 with a dial of 6 levels, from 0 % to 78 % sparsity."
    assert not any("policy" in sentence for sentence in findings(result))


@pytest.mark.parametrize(
    ("misses", "sentence"),
    [
        (0, "No deadline of 95 ms was missed under our policy."),
        (1, "One deadline of 95 ms was missed under our policy."),
        (1200, "1,200 deadlines of 95 ms were missed under our policy."),
    ],
)
def test_misses_are_told(misses: int, sentence: str, sample_result: dict[str, Any]) -> None:
    sample_result["policies"]["dial"]["misses"] = misses
    assert sentence in findings(parse_result(sample_result))


def test_as_many_answers_are_no_multiple(sample_result: dict[str, Any]) -> None:
    """A day that both finish: the same answers in the same time, and what is left tells them apart."""
    ours, base = sample_result["our_policy"], sample_result["baseline_policy"]
    for name, left in ((ours, 0.4), (base, 0.25)):
        policy = sample_result["policies"][name]
        policy.update(inferences=1466, misses=0, time_h=24.0, curve=[(0.0, 0.5), (24.0, left)])
    sample_result["improvement"] = 1.0
    result = parse_result(sample_result)
    assert "answers as many requests in time as without reconfiguration: 1,466." in headline(result)
    words = findings(result)
    assert "After 24 h 0 min 40.00 % of the full charge are left, 25.00 % without reconfiguration." in words
    assert not any("lasts" in sentence for sentence in words)
