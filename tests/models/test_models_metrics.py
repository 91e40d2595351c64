"""Metrics equal an outside implementation and hand-computed cases."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lavolta.errors import UserInputError
from lavolta.models.metrics import accuracy, average_ranks, f1, pearson, spearman

scores = st.lists(st.one_of(st.integers(-3, 3), st.floats(-1e6, 1e6)), min_size=2, max_size=40)


@given(st.data())
def test_correlations_equal_scipy(data: st.DataObject) -> None:
    a = np.array(data.draw(scores), dtype=np.float64)
    b = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(a), max_size=len(a))), dtype=np.float32)
    if (a == a[0]).all() or (b == b[0]).all():
        assert pearson(a, b) == spearman(a, b) == 0.0
        return
    # n roundings of products, in the numerator and in both norms.
    limit = 8 * len(a) * np.finfo(np.float64).eps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        want_pearson, want_spearman = stats.pearsonr(a, b)[0], stats.spearmanr(a, b)[0]
    assert spearman(a, b) == pytest.approx(want_spearman, abs=limit)
    spread = np.abs(a - a.mean()).max() / max(1.0, np.abs(a).max())
    assert pearson(a, b) == pytest.approx(want_pearson, abs=limit / max(spread, 1e-300))


def test_equal_predictions_whose_mean_is_rounded_correlate_with_nothing() -> None:
    constant = np.full(3, 8.454874977136706e-253)
    # Three of them add up to a number that a third of is another one.
    assert constant.mean() != constant[0]
    assert pearson(constant, np.array([0.0, 0.0, 1.0])) == pearson(np.array([0.0, 0.0, 1.0]), constant) == 0.0


@given(scores)
def test_average_ranks_equal_scipy(values: list[float]) -> None:
    array = np.array(values)
    np.testing.assert_array_equal(average_ranks(array), stats.rankdata(array))


def test_hand_computed_classification_scores() -> None:
    truth = np.array([1, 1, 1, 0, 0])
    predicted = np.array([1, 0, 1, 1, 0])
    assert accuracy(predicted, truth) == 3 / 5
    # Precision 2/3, recall 2/3.
    assert f1(predicted, truth) == 2 / 3
    assert f1(np.zeros(5, dtype=int), np.zeros(5, dtype=int)) == 0.0
    assert f1(np.ones(5, dtype=int), truth) == 2 * 3 / 8


@pytest.mark.parametrize("metric", [accuracy, f1, pearson, spearman])
def test_what_cannot_be_scored_is_refused(metric: Callable[..., float]) -> None:
    for predicted, truth in (
        (np.zeros(0), np.zeros(0)),
        (np.zeros(2), np.zeros(3)),
        (np.zeros((2, 1)), np.zeros((2, 1))),
        (np.array([1.0, np.nan]), np.zeros(2)),
    ):
        with pytest.raises(UserInputError):
            metric(predicted, truth)
