"""Medians, spread, ratios."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.bench.lineup import cosine
from lavolta.bench.spread import speedup, spread


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_a_spread_surrounds_its_median(samples: list[float]) -> None:
    found = spread(samples)
    assert found.min_ms <= found.quartile_1_ms <= found.median_ms <= found.quartile_3_ms <= max(samples)
    assert 0.0 <= found.mad_ms <= max(samples) - min(samples)
    assert found.repetitions == len(samples)


def test_a_spread_by_hand() -> None:
    found = spread([1.0, 2.0, 4.0, 8.0, 100.0])
    assert (found.median_ms, found.mad_ms, found.min_ms) == (4.0, 3.0, 1.0)
    assert (found.quartile_1_ms, found.quartile_3_ms) == (2.0, 8.0)


def test_a_speedup_is_above_one_where_ours_is_faster() -> None:
    assert speedup(spread([2.0]), spread([6.0])) == 3.0
    assert speedup(None, spread([6.0])) is None
    assert speedup(spread([2.0]), None) is None


def test_the_cosine_of_vectors() -> None:
    assert cosine([1.0, 0.0], [2.0, 0.0]) == pytest.approx(1.0)
    assert cosine([1.0, 0.0], [0.0, 3.0]) == 0.0
    assert cosine([0.0, 0.0], [1.0, 1.0]) == 0.0
