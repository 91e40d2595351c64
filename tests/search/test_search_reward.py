"""Rewards: golden values by hand from the formulas of the paper sheet, bounds, monotonicity, latency first."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.search import Facts, HotNasReward, Rt3Reward
from lavolta.search.reward import disorder, weighted_score

unit = st.floats(0.0, 1.0)
LEVELS = (0.2, 0.5, 0.8)


def facts(*latency_ms: float, runs: float = 0.0) -> Facts:
    return Facts(latency_ms, LEVELS[: len(latency_ms)], 10.0, runs)


RT3 = Rt3Reward(original_score=0.9, smallest_score=0.8, weights=(0.5, 0.3, 0.2), runs_high=200.0, penalty=0.3)


def test_rt3_reward_by_hand():
    # R_runs = 50 / 200; A_w = 0.5 * 0.90 + 0.3 * 0.86 + 0.2 * 0.84 = 0.876; no level is out of order.
    assert RT3.satisfied(facts(9, 9, 9, runs=50.0), [0.90, 0.86, 0.84]) == pytest.approx(0.76 + 0.25)
    # One pair of three out of order costs a third of the penalty; A_w = 0.45 + 0.252 + 0.172 = 0.874.
    assert RT3.satisfied(facts(9, 9, 9, runs=50.0), [0.90, 0.84, 0.86]) == pytest.approx(0.74 + 0.25 - 0.1)
    assert RT3.violated(facts(11, 9, 9, runs=50.0)) == -0.75


@given(st.floats(-1e6, 1e6))
def test_rt3_violated_lies_in_minus_one_to_zero(runs):
    assert -1.0 <= RT3.violated(facts(11, runs=runs)) <= 0.0


@given(st.tuples(unit, unit, unit), st.floats(0, 300), st.integers(0, 2), unit)
def test_rt3_reward_rises_with_scores_in_order_and_with_runs(scores, runs, which, gain):
    scores = sorted(scores, reverse=True)
    reward = RT3.satisfied(facts(9, 9, 9, runs=runs), scores)
    assert RT3.satisfied(facts(9, 9, 9, runs=runs + 10), scores) >= reward
    better = list(scores)
    better[which] = min(scores[which] + gain, scores[which - 1] if which else 2.0)
    assert RT3.satisfied(facts(9, 9, 9, runs=runs), better) >= reward - 1e-12


acceptable = st.floats(RT3.smallest_score, 1.0)


@given(st.tuples(acceptable, acceptable, acceptable), st.floats(0, 200), st.floats(0, 200))
def test_rt3_never_prefers_a_missed_deadline_to_an_acceptable_child_of_equal_runs(scores, runs, other):
    """Latency first, up to what the published form promises: A_w >= A_m and a penalty of at most 1."""
    satisfied = RT3.satisfied(facts(9, 9, 9, runs=runs), scores)
    assert satisfied > RT3.violated(facts(11, 9, 9, runs=min(runs, other)))


@given(st.lists(st.tuples(unit, unit), max_size=6))
def test_disorder_is_a_share_and_zero_when_sparser_never_scores_higher(pairs):
    sparsity, scores = [p[0] for p in pairs], [p[1] for p in pairs]
    assert 0.0 <= disorder(sparsity, scores) <= 1.0
    assert disorder(sparsity, [1.0 - s for s in sparsity]) == 0.0
    if len(set(sparsity)) > 1:
        assert disorder(sparsity, sparsity) == 1.0


HOTNAS = HotNasReward(low_score=0.6, high_score=0.8, low_latency_ms=5.0)


@pytest.mark.parametrize(
    ("latency_ms", "score", "expected"),
    [
        # 0.7 * R_acc + 0.3 * R_lat, by hand.
        (4.0, 0.9, 1.0),
        (5.0, 0.7, 0.0 + 0.3),
        (7.5, 0.7, 0.0),
        (10.0, 0.5, -1.0),
        (10.0, 0.8, 0.7 - 0.3),
    ],
)
def test_hotnas_reward_by_hand(latency_ms, score, expected):
    assert HOTNAS.satisfied(facts(latency_ms), [score]) == pytest.approx(expected)


def test_hotnas_miss_as_published_and_in_order():
    published = HotNasReward(0.6, 0.8, 5.0, published_miss=True)
    assert published.violated(facts(14.0)) == pytest.approx(-0.7 + 0.3 * -4.0)
    assert published.violated(facts(math.inf)) == pytest.approx(-0.7 - 0.3)
    # The jump that the docstring tells of: a near miss above a child that just meets the deadline.
    assert published.violated(facts(10.01)) > published.satisfied(facts(10.0), [0.5])
    assert HOTNAS.violated(facts(10.01)) < HOTNAS.satisfied(facts(10.0), [0.5])
    assert HOTNAS.violated(facts(math.inf)) == pytest.approx(-0.7 - 0.6)


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0), unit, unit)
def test_hotnas_is_bounded_and_monotone(fast, slow, low, high):
    fast, slow = sorted((fast, slow))
    low, high = sorted((low, high))
    assert -1.0 <= HOTNAS.satisfied(facts(slow), [low]) <= HOTNAS.satisfied(facts(fast), [high]) + 1e-12 <= 1.0 + 1e-9


@given(st.floats(10.001, 1e6), st.floats(1.0, 1e3), st.floats(0.1, 10.0), unit)
def test_hotnas_never_prefers_a_missed_deadline(late, more, met, score):
    missed = HOTNAS.violated(facts(late))
    assert missed < HOTNAS.satisfied(facts(met), [score])
    assert -1.3 - 1e-9 <= HOTNAS.violated(facts(late + more)) <= missed


def test_equal_weights_are_the_default():
    assert weighted_score([0.5, 0.7, 0.9]) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rt3Reward(0.5, 0.5), "smallest_score 0.5 must lie below original_score 0.5"),
        (lambda: Rt3Reward(math.nan, 0.5), "smallest_score"),
        (lambda: Rt3Reward(0.9, 0.5, runs_low=1.0), "runs_low 1.0 must lie below"),
        (lambda: Rt3Reward(0.9, 0.5, penalty=-1.0), "penalty is -1.0"),
        (lambda: Rt3Reward(0.9, 0.5, weights=(0.5, 0.4)), "sum to 1"),
        (lambda: Rt3Reward(0.9, 0.5, weights=(1.5, -0.5)), "0 or more"),
        (lambda: HotNasReward(0.8, 0.6, 1.0), "low_score 0.8"),
        (lambda: HotNasReward(0.6, 0.8, math.nan), "low_latency_ms is nan"),
        (lambda: HotNasReward(0.6, 0.8, 1.0, accuracy_share=2.0), "accuracy_share is 2.0"),
        (lambda: HotNasReward(0.6, 0.8, 10.0).violated(facts(11)), "must lie below the deadline of 10 ms"),
        (lambda: RT3.satisfied(facts(9, 9), [0.5, 0.6]), "3 reward weights do not fit 2 levels"),
    ],
)
def test_wrong_values_are_named(make, message):
    with pytest.raises(UserInputError, match=message):
        make()
