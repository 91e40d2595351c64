"""Ratio vectors: the budget is met by every child, to a cell; first children come first; evolution keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import InfeasibleError, UserInputError
from lavolta.search import Part, RatioSpace, ScoreReward, ShortList, StudyConfig, project, ratios_of, whole_cells
from lavolta.search.ratios import thinned
from lavolta.search.study import run_study

SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=9)
SHARES = st.floats(0.0, 1.0)


@st.composite
def vectors(draw: st.DrawFn) -> tuple[list[float], list[float], float, float, float]:
    low, high = sorted([draw(st.floats(0.0, 0.99)), draw(st.floats(0.0, 0.99))])
    count = draw(st.integers(1, 9))
    ratios = draw(st.lists(st.floats(-2.0, 2.0), min_size=count, max_size=count))
    weights = draw(st.lists(st.floats(1e-3, 1e3), min_size=count, max_size=count))
    return ratios, weights, low + draw(SHARES) * (high - low), low, high


@given(vectors())
def test_projection_meets_budget_and_bounds_and_is_one_shift(
    case: tuple[list[float], list[float], float, float, float],
):
    ratios, weights, mean, low, high = case
    mean = min(max(mean, low), high)
    moved = project(ratios, weights, mean, low, high)
    assert low <= moved.min() <= moved.max() <= high
    # Sums of at most nine numbers below 3, with a rounding each.
    assert float(np.dot(weights, moved) / np.sum(weights)) == pytest.approx(mean, abs=1e-12)
    free = (moved > low) & (moved < high)
    shifts = (moved - np.asarray(ratios))[free]
    assert not shifts.size or float(np.ptp(shifts)) < 1e-12
    # Order is kept: a layer that should lose more never loses less.
    assert (np.diff(moved[np.argsort(ratios, kind="stable")]) >= -1e-12).all()


@given(SIZES, st.data())
def test_weight_budgets_are_met_to_one_cell(sizes: list[int], data: st.DataObject) -> None:
    parts = tuple(Part(f"p{i}", size, 1.0) for i, size in enumerate(sizes))
    mean = data.draw(st.floats(0.1, 0.9))
    total = sum(sizes)
    space = RatioSpace(parts, (1.0 - mean) * total, 0.0, 0.99 if mean < 0.9 else 0.995, steps_per_ratio=20)
    actions = [data.draw(st.integers(0, 20)) for _ in sizes]
    settled = space.settle(actions)
    assert space.settle(settled) == settled
    kept = space.decode(actions)
    assert kept == space.decode(settled)
    assert space.facts(actions).feasible
    assert all(0 <= kept[part.name] <= part.cells for part in parts)
    assert sum(kept.values()) == int(np.floor((1.0 - mean) * total + 1e-6))


@given(st.data())
def test_unequal_costs_never_break_the_budget_and_waste_less_than_a_cell(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    parts = tuple(Part(f"p{i}", data.draw(st.integers(1, 50)), data.draw(st.floats(0.01, 10.0))) for i in range(count))
    total = sum(part.cost for part in parts)
    space = RatioSpace(parts, total * data.draw(st.floats(0.1, 0.9)), 0.0, 0.999)
    kept = space.decode([data.draw(st.integers(0, 100)) for _ in parts])
    cost = sum(part.cell_cost * kept[part.name] for part in parts)
    dearest = max(part.cell_cost for part in parts)
    assert space.limit - dearest * (1.0 + 1e-6) <= cost <= space.limit + 1e-6 * dearest


@given(st.data())
def test_thinning_meets_the_limit_and_keeps_the_proportions(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    parts = tuple(Part(f"p{i}", data.draw(st.integers(1, 400)), data.draw(st.floats(0.01, 10.0))) for i in range(count))
    kept = {part.name: data.draw(st.integers(0, part.cells)) for part in parts}
    cost = sum(part.cell_cost * kept[part.name] for part in parts)
    limit = data.draw(st.floats(0.01, 1.5)) * max(cost, 1e-3)
    found = thinned(kept, parts, limit)
    # A budget is met but for what floating point may miss of each dearest cell.
    slack = 1e-6 * len(parts) * max(part.cell_cost for part in parts)
    assert sum(part.cell_cost * found[part.name] for part in parts) <= max(limit, 0.0) + slack
    if cost <= limit:
        assert found == kept
        return
    for part in parts:
        # To a whole cell.
        assert abs(found[part.name] - limit / cost * kept[part.name]) <= 1.0 + 1e-6
    dearest = max(part.cell_cost for part in parts)
    assert sum(part.cell_cost * found[part.name] for part in parts) > limit - dearest - slack


def test_whole_cells_give_back_where_rounding_took_most() -> None:
    parts = [Part("a", 10, 1.0), Part("b", 10, 1.0), Part("c", 3, 1.0)]
    # 3.9, 3.2 and 1.5 cells: eight fit, so the first gets one back and the last does not.
    assert whole_cells([0.61, 0.68, 0.5], parts, 8.0) == (4, 3, 1)
    assert ratios_of({"a": 4, "b": 3, "c": 1}, parts) == pytest.approx({"a": 0.6, "b": 0.7, "c": 2 / 3})


def test_a_space_without_room_has_one_child() -> None:
    space = RatioSpace((Part("a", 10, 1.0), Part("b", 10, 1.0)), 10.0, 0.5, 0.5)
    assert space.actions_of([0.1, 0.9]) == (0, 0)
    assert space.decode((3, 7)) == {"a": 5, "b": 5}


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((5.0, 0.0, 0.5), InfeasibleError, "an overall ratio of 0.75 cannot be reached with ratios from 0 to 0.5"),
        ((15.0, 0.5, 0.9), InfeasibleError, "an overall ratio of 0.25 cannot be reached"),
        ((5.0, 0.9, 0.5), UserInputError, "must rise"),
        ((5.0, 0.0, 1.0), UserInputError, "must rise"),
        ((float("nan"), 0.0, 0.5), InfeasibleError, "cannot be reached"),
    ],
)
def test_budgets_out_of_reach_are_refused(arguments: tuple[float, ...], kind: type[Exception], words: str) -> None:
    parts = (Part("a", 10, 1.0), Part("b", 10, 1.0))
    with pytest.raises(kind, match=words):
        RatioSpace(parts, *arguments)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserInputError, match="at least one layer"):
        RatioSpace((), 1.0, 0.0, 0.9)
    with pytest.raises(UserInputError, match="at least one layer"):
        RatioSpace((Part("a", 10, 0.0),), 1.0, 0.0, 0.9)
    with pytest.raises(UserInputError, match="one positive weight"):
        project([0.5, float("nan")], [1.0, 1.0], 0.5, 0.0, 0.9)
    with pytest.raises(UserInputError, match="outside the bounds"):
        project([0.5], [1.0], 0.95, 0.0, 0.9)


FIRSTS = ((0.5,) * 6, (0.9, 0.1, 0.5, 0.5, 0.5, 0.5))


def space() -> RatioSpace:
    parts = tuple(Part(f"p{i}", 40 + i, 1.0) for i in range(6))
    return RatioSpace(parts, 0.5 * sum(part.cells for part in parts), 0.1, 0.9, firsts=FIRSTS)


@dataclass(frozen=True)
class Bowl:
    """Best where the first layer keeps 30 cells and the second 10."""

    def __call__(self, kept: dict[str, int]) -> list[float]:
        return [-float((kept["p0"] - 30) ** 2 + (kept["p1"] - 10) ** 2)]


def search(folder: Path | None, sampler: str, trials: int = 24, **changes: int):
    storage = None if folder is None else folder / "s.db"
    return run_study(
        space(), Bowl(), ScoreReward(), StudyConfig(storage, "s", trials, sampler, 3, changes.get("workers", 1))
    )


@pytest.mark.parametrize("sampler", ["evolve", "random"])
def test_first_children_come_first_and_memory_equals_a_file(sampler: str, tmp_path: Path) -> None:
    found = search(tmp_path, sampler, 6)
    assert [row.actions for row in found.rows[:2]] == list(space().first_children)
    assert search(None, sampler, 6) == found
    # A study in a file goes on where it was.
    assert search(tmp_path, sampler, 8).rows == search(None, sampler, 8).rows


@dataclass(frozen=True)
class Ramp:
    """Best where the layers lose more and more, from 40 to 60 %."""

    def __call__(self, kept: dict[str, int]) -> list[float]:
        want = np.linspace(0.4, 0.6, len(kept))
        return [-float(sum((1.0 - count / 100 - w) ** 2 for count, w in zip(kept.values(), want, strict=True)))]


def test_evolution_improves_many_ratios_where_chance_does_not() -> None:
    parts = tuple(Part(f"p{i}", 100, 1.0) for i in range(24))
    many = RatioSpace(parts, 1200.0, 0.1, 0.9, firsts=((0.5,) * 24,))
    runs = {
        name: run_study(many, Ramp(), ScoreReward(), StudyConfig(None, "s", 50, name, 3))
        for name in ("evolve", "random")
    }
    uniform = runs["evolve"].rows[0].reward
    assert runs["evolve"].best.reward > uniform
    # Two dozen ratios by chance are further from the ramp than all alike are.
    assert runs["random"].best.reward == uniform


def test_a_short_list_looks_at_each_child_once() -> None:
    children = tuple(space().actions_of(r) for r in (*FIRSTS, (0.2, 0.8, 0.5, 0.5, 0.5, 0.5)))
    short = ShortList(space(), children)
    found = run_study(short, Bowl(), ScoreReward(), StudyConfig(None, "s", len(children), "random"))
    assert sorted(row.actions for row in found.rows) == [(0,), (1,), (2,)]
    for row in found.rows:
        assert row.reward == Bowl()(space().decode(children[row.actions[0]]))[0]
    with pytest.raises(UserInputError, match="share a study by its file"):
        StudyConfig(None, workers=2)
