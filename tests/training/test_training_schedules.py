"""Schedules by step: sparsity, learning rate, grafting probability, and the traps of the published code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.training.schedules import ConstantReplacing, CubicSparsity, MixedReplacing, RestartedDecay, phase_steps


def test_the_cubic_levels_are_those_of_the_published_code() -> None:
    # Golden: shared method sheet of SPD, 1.4, computed from the authors' code: 11 events, target 0.9.
    published = [0.224, 0.407, 0.554, 0.668, 0.754, 0.815, 0.857, 0.882, 0.895, 0.899, 0.900]
    schedule = CubicSparsity(1000, events=11)
    found = [0.9 * schedule.share(schedule.event_step(event)) for event in range(1, 12)]
    assert found == pytest.approx(published, abs=5e-4)


@given(st.integers(0, 300), st.integers(1, 40), st.floats(0.0, 0.9))
def test_sparsity_rises_to_the_whole_target_in_time(steps: int, events: int, begin: float) -> None:
    schedule = CubicSparsity(steps, events, begin)
    shares = [schedule.share(step) for step in range(steps + 3)]
    assert shares == sorted(shares)
    assert shares[steps] == shares[-1] == 1.0
    if steps > events:
        assert shares[0] == begin
        assert shares[steps - 1] < 1.0
        assert len(set(shares)) == events + 1


def test_pruning_to_the_target_at_once() -> None:
    assert CubicSparsity(0).share(0) == 1.0


def test_the_rate_restarts_at_the_peak_where_a_phase_ends() -> None:
    rate = RestartedDecay(1.0, (4, 8))
    assert [rate.at(step) for step in range(9)] == [1.0, 0.75, 0.5, 0.25, 1.0, 0.75, 0.5, 0.25, 0.0]


@given(st.integers(1, 50), st.integers(1, 50))
def test_horizons_follow_the_run(first: int, second: int) -> None:
    # The published code has 30 + 30 epochs written in, whatever the options say.
    rate = RestartedDecay(0.5, (first, first + second))
    values = [rate.at(step) for step in range(first + second)]
    assert all(0.0 < value <= 0.5 for value in values)
    assert values[first] == 0.5
    assert values[-1] == pytest.approx(0.5 / second)
    assert rate.at(first + second) == 0.0


def test_three_phases_of_the_grafting_probability() -> None:
    mixed = MixedReplacing(0.8, hold=4, rise=2)
    assert [mixed.at(step) for step in range(8)] == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.8, 0.9, 1.0, 1.0])


@given(st.floats(0, 1), st.integers(0, 40), st.integers(1, 40))
def test_a_mixed_probability_never_falls_and_ends_at_one(probability: float, hold: int, rise: int) -> None:
    mixed = MixedReplacing(probability, hold, rise)
    values = [mixed.at(step) for step in range(hold + rise + 2)]
    assert values == sorted(values)
    assert values[-1] == values[hold + rise] == 1.0
    assert all(value == probability for value in values[:hold])


def test_a_slope_of_zero_is_refused() -> None:
    # The published example has a rising schedule without a slope: it stays at 0.8 to the end, without a word.
    with pytest.raises(UserInputError, match="never rises to 1 trains layers for a model that is never run"):
        MixedReplacing(0.8, hold=10, rise=0)


def test_a_constant_probability_stays() -> None:
    assert ConstantReplacing(0.3).at(10**6) == 0.3


@given(st.integers(1, 200), st.floats(0, 1))
def test_phases_fill_the_run_and_leave_a_last_step(steps: int, share: float) -> None:
    ends = phase_steps(steps, (share, 1.0 - share))
    assert ends[-1] == steps
    assert 0 <= ends[0] < steps


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: CubicSparsity(-1),
        lambda: CubicSparsity(5, 0),
        lambda: CubicSparsity(5, 3, 1.0),
        lambda: RestartedDecay(0.0, (5,)),
        lambda: RestartedDecay(1.0, ()),
        lambda: RestartedDecay(1.0, (5, 5)),
        lambda: ConstantReplacing(1.1),
        lambda: MixedReplacing(-0.1, 1, 1),
        lambda: phase_steps(0, (1.0,)),
        lambda: phase_steps(5, (0.5, 0.4)),
    ],
)
def test_what_no_schedule_can_be_is_refused(wrong: object) -> None:
    with pytest.raises(UserInputError):
        wrong()  # type: ignore[operator]
