"""Spaces hold only what meets the deadline, and say what would be needed where nothing does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import InfeasibleError, UserInputError
from lavolta.search import Facts, cut_space, pattern_set_space

GRID = [0.0, 0.2, 0.4, 0.6, 0.8]


def by_clock(sparsity: float, freq_mhz: float) -> float:
    """Latency that scales with kept work and 1/f: 100,000 kilocycles dense."""
    return 100_000.0 * (1.0 - sparsity) / freq_mhz


def test_candidates_are_the_smallest_fitting_sparsities_of_each_level():
    # At 1000 MHz: 100, 80, 60, 40, 20 ms; at 500 MHz: 200, 160, 120, 80, 40 ms.
    space = pattern_set_space(by_clock, [1000.0, 500.0], 80.0, GRID, theta=2, alternatives=3)
    assert [[(c.sparsity, c.alternative) for c in level] for level in space.candidates] == [
        [(0.2, 0), (0.2, 1), (0.2, 2), (0.4, 0), (0.4, 1), (0.4, 2)],
        [(0.6, 0), (0.6, 1), (0.6, 2), (0.8, 0), (0.8, 1), (0.8, 2)],
    ]
    assert [step.choices for step in space.steps] == [6, 6]
    facts = space.facts((5, 0))
    assert facts.latency_ms == pytest.approx((60.0, 80.0))
    assert facts.sparsity == (0.4, 0.6)
    assert facts.feasible


def test_a_sparser_set_that_is_slower_does_not_hide_a_faster_one():
    """Break-even: a little sparsity costs more than dense, so 20 % misses what 0 % meets."""
    times = {0.0: 10.0, 0.2: 13.0, 0.4: 9.0}
    space = pattern_set_space(lambda s, _: times[s], [1.0], 12.0, [0.4, 0.2, 0.0], alternatives=1)
    assert [c.sparsity for c in space.candidates[0]] == [0.0, 0.4]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True),
    st.floats(1.0, 500.0),
    st.integers(1, 6),
    st.integers(1, 3),
    st.data(),
)
def test_no_child_of_a_pattern_set_space_misses_the_deadline(clocks, deadline_ms, theta, alternatives, data):
    freqs = [100.0 * c for c in sorted(clocks, reverse=True)]
    try:
        space = pattern_set_space(by_clock, freqs, deadline_ms, GRID, theta, alternatives)
    except InfeasibleError:
        assert by_clock(GRID[-1], freqs[-1]) > deadline_ms
        return
    actions = [data.draw(st.integers(0, step.choices - 1)) for step in space.steps]
    assert space.facts(actions).feasible
    assert space.settle(actions) == tuple(actions)
    smallest = [level[0].sparsity for level in space.candidates]
    assert smallest == sorted(smallest)
    assert all(len(level) <= theta * alternatives for level in space.candidates)


def test_an_empty_level_names_the_closest_and_what_would_be_needed():
    with pytest.raises(InfeasibleError, match=r"nothing meets 30 ms at 500 MHz: the closest is .* 80 % with 40 ms"):
        pattern_set_space(by_clock, [1000.0, 500.0], 30.0, GRID)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freqs_mhz": []}, "no frequency level"),
        ({"freqs_mhz": [500.0, 500.0]}, "highest first"),
        ({"freqs_mhz": [math.nan]}, "a frequency in MHz is nan"),
        ({"deadline_ms": 0.0}, "deadline_ms is 0.0"),
        ({"deadline_ms": math.inf}, "deadline_ms is inf"),
        ({"sparsities": []}, "grid of sparsities is empty"),
        ({"sparsities": [0.5, 1.0]}, "sparsity of 1.0 is outside"),
        ({"theta": 0}, "theta is 0"),
        ({"alternatives": -1}, "alternatives is -1"),
        ({"latency_ms": lambda *_: math.nan}, "predictor gives nan ms for sparsity 0 at 1000 MHz"),
    ],
)
def test_wrong_values_of_a_pattern_set_space_are_named(change, message):
    good = {"latency_ms": by_clock, "freqs_mhz": [1000.0, 500.0], "deadline_ms": 80.0, "sparsities": GRID}
    with pytest.raises(UserInputError, match=message):
        pattern_set_space(**{**good, **change})


@pytest.mark.parametrize(("actions", "message"), [((0,), "2 actions, not 1"), ((0, 99), "action 99"), ((-1, 0), "-1")])
def test_wrong_actions_are_named(actions, message):
    space = pattern_set_space(by_clock, [1000.0, 500.0], 80.0, GRID)
    with pytest.raises(UserInputError, match=message):
        space.facts(actions)


WEIGHTS = {"attention": 4, "ffn": 8, "head": 1}


def by_group(group: str, sparsity: float, freq_mhz: float) -> float:
    return WEIGHTS[group] * (1.0 - sparsity) * 1000.0 / freq_mhz


def some_cuts(deadline_ms: float = 10.0, freqs: tuple[float, ...] = (1000.0, 500.0)):
    return cut_space(by_group, lambda freq: 1000.0 / freq, WEIGHTS, freqs, deadline_ms, GRID)


@given(st.floats(7.3, 40.0), st.data())
def test_every_child_of_a_cut_space_meets_the_budget_and_moves_no_more_than_it_must(deadline_ms, data):
    space = some_cuts(deadline_ms)
    actions = tuple(data.draw(st.integers(0, step.choices - 1)) for step in space.steps)
    child = space.settle(actions)
    assert space.facts(actions).feasible
    assert space.settle(child) == child
    for level in range(2):
        before, after = actions[3 * level : 3 * level + 3], child[3 * level : 3 * level + 3]
        shift = max(a - b for a, b in zip(after, before, strict=True))
        assert after == tuple(min(b + shift, 4) for b in before)
        if shift:
            denser = [min(b + shift - 1, 4) for b in before]
            freq = space.freqs_mhz[level]
            cost = sum(by_group(g, GRID[a], freq) for g, a in zip(WEIGHTS, denser, strict=True)) + 1000.0 / freq
            # Sums of four terms of at most 40 ms: the order of addition moves them by less than 1e-13.
            assert cost > deadline_ms - 1e-12


def test_a_cut_space_decodes_to_sparsities_and_weighs_them():
    space = some_cuts(deadline_ms=1000.0)
    assert space.decode((0, 1, 2, 4, 4, 4)) == (
        {"attention": 0.0, "ffn": 0.2, "head": 0.4},
        {"attention": 0.8, "ffn": 0.8, "head": 0.8},
    )
    facts = space.facts((0, 1, 2, 4, 4, 4))
    assert facts.sparsity == pytest.approx(((8 * 0.2 + 0.4) / 13, 0.8))
    assert facts.latency_ms == pytest.approx((1 + 4 + 8 * 0.8 + 0.6, 2 * (1 + 13 * 0.2)))
    assert [step.name for step in space.steps[:3]] == ["level0.attention", "level0.ffn", "level0.head"]


def test_a_cut_that_is_not_cheaper_is_never_in_the_space():
    times = {0.0: 5.0, 0.2: 6.0, 0.4: 5.0, 0.6: 3.0, 0.8: 3.0}
    space = cut_space(lambda _group, s, _freq: times[s], lambda _: 0.0, {"all": 1}, [1.0], 9.0, GRID)
    assert [option.sparsity for option in space.options[0][0]] == [0.0, 0.6]


def test_a_cut_space_that_cannot_meet_the_deadline_says_what_it_takes():
    with pytest.raises(InfeasibleError, match=r"nothing meets 7 ms at 500 MHz: .* with 7\.2 ms"):
        some_cuts(deadline_ms=7.0)


@pytest.mark.parametrize(
    ("groups", "rest", "message"),
    [({}, 0.0, "no layer group"), ({"a": 0}, 0.0, "group 'a' is 0"), ({"a": 1}, -1.0, "gives -1.0 ms for the rest")],
)
def test_wrong_values_of_a_cut_space_are_named(groups, rest, message):
    with pytest.raises(UserInputError, match=message):
        cut_space(lambda *_: 1.0, lambda _: rest, groups, [1.0], 9.0, GRID)


def test_equal_spaces_describe_equally_and_others_do_not():
    assert some_cuts().describe() == some_cuts().describe()
    assert some_cuts().describe() != some_cuts(deadline_ms=11.0).describe()


def test_a_latency_exactly_at_the_deadline_is_met():
    assert Facts((5.0, 5.0), (0.0, 0.5), 5.0).feasible
    assert not Facts((5.0, math.nextafter(5.0, 6.0)), (0.0, 0.5), 5.0).feasible
