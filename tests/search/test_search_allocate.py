"""The allocator against brute force over all plans of small cases."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta.errors import InfeasibleError, UserInputError
from lavolta.search import Option, allocate

values = st.floats(0.0, 100.0).map(lambda v: round(v, 3))
option_lists = st.lists(st.tuples(values, values), min_size=1, max_size=4)
tables = st.lists(option_lists, max_size=4).map(
    lambda layers: {
        f"layer{i}": [Option(cut, loss, cost) for cut, (loss, cost) in enumerate(options)]
        for i, options in enumerate(layers)
    }
)


def brute_force(table: dict[str, list[Option]], budget_ms: float, fixed_ms: float) -> float:
    """Least loss of all plans within the budget; infinity where there is none."""
    plans = product(*table.values())
    fitting = [p for p in plans if math.fsum([fixed_ms, *(o.cost_ms for o in p)]) <= budget_ms]
    return min((math.fsum(o.loss for o in plan) for plan in fitting), default=math.inf)


@given(tables, st.floats(0.0, 500.0), st.floats(0.0, 20.0))
@settings(max_examples=200, deadline=None)
def test_it_is_feasible_and_as_good_as_brute_force_up_to_its_slack(table, budget_ms, fixed_ms):
    best = brute_force(table, budget_ms, fixed_ms)
    try:
        plan = allocate(table, budget_ms, fixed_ms)
    except InfeasibleError:
        assert best == math.inf
        return
    assert list(plan.cuts) == list(table)
    chosen = [table[name][cut] for name, cut in plan.cuts.items()]
    assert plan.loss == math.fsum(o.loss for o in chosen)
    assert plan.cost_ms == math.fsum([fixed_ms, *(o.cost_ms for o in chosen)]) <= budget_ms
    # The table adds in another order than brute force: at most 4 roundings of sums up to 400.
    assert best <= plan.loss <= brute_force(table, budget_ms - plan.slack_ms, fixed_ms) + 1e-12


@given(tables, st.floats(0.0, 500.0), st.floats(0.0, 100.0))
@settings(max_examples=100, deadline=None)
def test_a_larger_budget_never_gives_a_larger_loss(table, budget_ms, more_ms):
    try:
        small = allocate(table, budget_ms)
    except InfeasibleError:
        return
    assert allocate(table, budget_ms + more_ms).loss <= small.loss + 1e-12


def test_the_dearest_plan_is_found_with_a_huge_budget_and_the_cheapest_with_the_least():
    table = {f"l{i}": [Option(9, 0.0, 0.1 * i + 3.7), Option(4, 1.0, 1.3), Option(2, 2.5, 0.7)] for i in range(37)}
    assert set(allocate(table, 1e9).cuts.values()) == {9}
    least_ms = math.fsum([0.5, *(0.7 for _ in range(37))])
    assert set(allocate(table, least_ms, fixed_ms=0.5).cuts.values()) == {2}


def test_no_layer_costs_what_is_fixed():
    assert allocate({}, 5.0, 4.0).cost_ms == 4.0


def test_options_of_equal_cost_take_the_least_loss():
    assert allocate({"a": [Option(1, 3.0, 2.0), Option(2, 1.0, 2.0), Option(3, 2.0, 2.0)]}, 2.0).cuts == {"a": 2}


def test_a_budget_that_nothing_meets_names_what_is_needed():
    with pytest.raises(InfeasibleError, match=r"no cuts meet 3 ms: the cheapest cost 4\.5 ms"):
        allocate({"a": [Option(1, 0.0, 9.0), Option(2, 1.0, 4.0)]}, 3.0, fixed_ms=0.5)


@pytest.mark.parametrize(
    ("table", "budget_ms", "fixed_ms", "message"),
    [
        ({"a": []}, 1.0, 0.0, "layer 'a' has no option"),
        ({"a": [Option(7, math.nan, 1.0)]}, 1.0, 0.0, "cut 7 of layer 'a' has loss nan"),
        ({"a": [Option(7, 0.0, -1.0)]}, 1.0, 0.0, "cost -1.0 ms"),
        ({}, math.nan, 0.0, "budget_ms is nan"),
        ({}, 1.0, -2.0, "fixed_ms is -2.0"),
    ],
)
def test_wrong_values_are_named(table, budget_ms, fixed_ms, message):
    with pytest.raises(UserInputError, match=message):
        allocate(table, budget_ms, fixed_ms)
