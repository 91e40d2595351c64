"""Runs within a deadline, driven by a scripted clock: the level of each layer, and that its bits are that level's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lavolta.errors import CancelledError, UserInputError
from lavolta.runtime.engine import Model, open_bundle
from reference_model import RandomModel, random_ids, random_model

LAYERS = 5
LEVELS = 4
EMBED_NS, FINISH_NS = 300, 700
NOT_YET = np.iinfo(np.uint32).max
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Costs = NDArray[np.int64]
"""``(layers, levels)`` nanoseconds."""


class Subject:
    """What the runs are compared with; a plain class, so that no failing property prints all weights."""

    def __init__(self, model: RandomModel) -> None:
        self.model = model

    def ids(self, seed: int, lengths: Sequence[int]) -> list[list[int]]:
        return random_ids(np.random.default_rng(seed), self.model.spec, lengths)

    def mixed(self, levels: Sequence[int], ids: list[list[int]], folder: Path) -> NDArray[np.float32]:
        """What a bundle with one level gives, in which layer i has the groups of level l_i."""
        packed = {}
        for name, linear in self.model.packed.items():
            kept = linear.groups.keeps(levels[int(name.split(".")[1])])
            packed[name] = replace(linear, groups=replace(linear.groups, kept_by=kept.astype(np.uint64), levels=1))
        with open_bundle(replace(self.model, packed=packed, levels=1).write(folder / "mixed.lavolta")) as reference:
            return reference.run(ids)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(random_model(layers=LAYERS, max_tokens=600))


@pytest.fixture(scope="module")
def engine(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with open_bundle(subject.model.write(tmp_path_factory.mktemp("deadline") / "model.lavolta")) as opened:
        # A clock that stands still: the plan has the marks of this model, and costs that every test replaces.
        opened.calibrate([1], 1, clock=lambda: 0)
        yield opened


def plan_of(engine: Model, costs: Costs, margin: float = 0.0) -> None:
    plan = engine.plan
    assert plan is not None
    plan["margin"] = margin
    plan["embed_ns"] = [EMBED_NS, 0, 0]
    plan["finish_per_token_ns"] = [FINISH_NS, 0, 0]
    plan["finish_ns"] = [plan["finish_per_token_ns"]] * LEVELS
    plan["layers_ns"] = [[[int(cost), 0, 0] for cost in layer] for layer in costs]
    engine._open().set_plan(json.dumps(plan))


class ScriptedClock:
    """Time passes as scripted: embeddings, each layer by the level that it got, the end; pass after pass.

    Args:
        levels: ``(sequences, layers)`` that the engine writes before each layer.
        passes: sequences of each pass.
        costs: what a layer of a pass takes: (unit, layer, level) to nanoseconds.
    """

    def __init__(
        self, levels: NDArray[np.uint32], passes: Sequence[int], costs: Callable[[int, int, int], int]
    ) -> None:
        self.now_ns = 10**9
        self.reads = 0
        self._script = self._steps(levels, passes, costs)

    def __call__(self) -> int:
        self.now_ns += next(self._script)
        self.reads += 1
        return self.now_ns

    @staticmethod
    def _steps(
        levels: NDArray[np.uint32], passes: Sequence[int], costs: Callable[[int, int, int], int]
    ) -> Iterator[int]:
        yield 0
        first = unit = 0
        for sequences in passes:
            yield EMBED_NS
            for layer in range(levels.shape[1]):
                together = set(levels[first : first + sequences, layer].tolist())
                assert len(together) == 1
                assert NOT_YET not in together
                yield costs(unit, layer, together.pop())
                unit += 1
            yield FINISH_NS
            first += sequences
        raise AssertionError("the clock was read more often than it is documented to be")


def run_scripted(
    engine: Model,
    ids: list[list[int]],
    deadline_ns: float,
    costs: Callable[[int, int, int], int],
    passes: Sequence[int] = (1,),
) -> tuple[NDArray[np.float32], NDArray[np.uint32], int, bool]:
    lengths = np.array([len(row) for row in ids], dtype=np.uint32)
    levels = np.full((len(ids), LAYERS), NOT_YET, dtype=np.uint32)
    clock = ScriptedClock(levels, passes, costs)
    flat = np.concatenate([np.array(row, dtype=np.int32) for row in ids])
    output, elapsed_ms, met = engine._open().run_within(flat, None, lengths, False, deadline_ns / 1e6, levels, clock)
    return output, levels, round(elapsed_ms * 1e6), met


def as_predicted(costs: Costs) -> Callable[[int, int, int], int]:
    return lambda _unit, layer, level: int(costs[layer, level])


def densest_choice(costs: Costs, cap: int, budget_ns: float) -> list[int]:
    """Every layer's level by trying all: first k layers one level denser than the rest, the densest that fits."""
    chain = [[cap] * LAYERS]
    for level in range(cap + 1, LEVELS):
        chain += [[level - 1] * k + [level] * (LAYERS - k) for k in range(LAYERS - 1, -1, -1)]
    for levels in chain:
        if EMBED_NS + FINISH_NS + sum(costs[layer, level] for layer, level in enumerate(levels)) <= budget_ns:
            return levels
    return chain[-1]


costs_strategy = st.lists(
    st.lists(st.integers(0, 10_000), min_size=LEVELS, max_size=LEVELS), min_size=LAYERS, max_size=LAYERS
).map(lambda rows: -np.sort(-np.array(rows, dtype=np.int64), axis=1))
deadlines = st.integers(0, 60_000)
IDS = [[1, 2, 3]]


@SLOW
@given(costs_strategy, deadlines, st.sampled_from([0.0, 0.02, 0.25]), st.integers(0, LEVELS - 1))
def test_costs_as_predicted(engine: Model, costs: Costs, deadline_ns: int, margin: float, cap: int) -> None:
    """The levels are the densest of the chain, the deadline is kept whenever the sparsest level can keep it."""
    plan_of(engine, costs, margin)
    engine.switch(cap)
    _, levels, elapsed_ns, met = run_scripted(engine, IDS, deadline_ns, as_predicted(costs))
    engine.switch(0)
    aim_ns = math.floor(deadline_ns / 1e6 * 1e6 / (1.0 + margin))
    assert levels[0].tolist() == densest_choice(costs, cap, aim_ns)
    assert levels.min() >= cap
    assert elapsed_ns == EMBED_NS + FINISH_NS + sum(costs[layer, level] for layer, level in enumerate(levels[0]))
    assert met == (elapsed_ns <= deadline_ns)
    if EMBED_NS + FINISH_NS + costs[:, -1].sum() <= aim_ns:
        assert met


@SLOW
@given(costs_strategy, deadlines, deadlines)
def test_a_longer_deadline_never_gives_a_sparser_layer(engine: Model, costs: Costs, one: int, other: int) -> None:
    plan_of(engine, costs)
    _, tight, _, _ = run_scripted(engine, IDS, min(one, other), as_predicted(costs))
    _, loose, _, _ = run_scripted(engine, IDS, max(one, other), as_predicted(costs))
    assert (loose <= tight).all()


def test_a_level_that_is_planned_slower_than_a_denser_one(engine: Model) -> None:
    """Independent pattern sets, or noise: the denser level counts as slow as the sparser one, so nothing is late."""
    costs = np.tile(np.array([5, 9, 8, 1], dtype=np.int64) * 1000, (LAYERS, 1))
    plan_of(engine, costs)
    for deadline_ns in range(0, 50_000, 500):
        _, levels, elapsed_ns, met = run_scripted(engine, IDS, deadline_ns, as_predicted(costs))
        assert met == (elapsed_ns <= deadline_ns)
        assert met == (deadline_ns >= 1000 * LAYERS + EMBED_NS + FINISH_NS), levels


@SLOW
@given(
    st.lists(st.integers(0, LEVELS - 1), min_size=LAYERS, max_size=LAYERS),
    st.lists(st.integers(1, 40), min_size=1, max_size=9),
)
def test_bits_are_those_of_each_layers_level(
    subject: Subject, engine: Model, tmp_path: Path, wanted: list[int], lengths: list[int]
) -> None:
    """The script holds time back or lets it jump so that levels vary; the result is that of a bundle made of them."""
    plan_of(engine, np.tile(np.array([8, 4, 2, 1], dtype=np.int64) * 1000, (LAYERS, 1)))
    ids = subject.ids(len(lengths), lengths)
    output, levels, _, _ = run_scripted(
        engine, ids, 41_000, lambda unit, _layer, _level: 2500 * wanted[unit], [len(ids)]
    )
    assert (levels == levels[0]).all()
    assert (output == subject.mixed(levels[0].tolist(), ids, tmp_path)).all()


def test_every_mix_of_two_levels_is_reached_and_bit_equal(subject: Subject, engine: Model, tmp_path: Path) -> None:
    costs = np.tile(np.array([8, 4, 2, 1], dtype=np.int64) * 1000, (LAYERS, 1))
    plan_of(engine, costs)
    seen = set()
    for deadline_ns in range(5000, 42_000, 1000):
        output, levels, _, _ = run_scripted(engine, IDS, deadline_ns, as_predicted(costs))
        mix = tuple(levels[0].tolist())
        if mix in seen:
            continue
        seen.add(mix)
        assert (output == subject.mixed(mix, IDS, tmp_path)).all()
    assert len(seen) == (LEVELS - 1) * LAYERS + 1


@pytest.mark.parametrize("factor", [1.3, 1.5, 2.0])
def test_a_slow_core(engine: Model, factor: float) -> None:
    """Layers take longer than planned: the rest is planned slower, and the deadline is kept where sparse levels can."""
    costs = np.tile(np.array([8, 4, 2, 1], dtype=np.int64) * 10_000, (LAYERS, 1))
    plan_of(engine, costs)
    deadline_ns = 300_000
    _, planned, _, _ = run_scripted(engine, IDS, deadline_ns, as_predicted(costs))

    def slow(_unit: int, layer: int, level: int) -> int:
        return round(factor * costs[layer, level])

    _, levels, elapsed_ns, met = run_scripted(engine, IDS, deadline_ns, slow)
    assert met
    assert (levels >= planned).all()
    kept_ns = EMBED_NS + FINISH_NS + sum(slow(0, layer, level) for layer, level in enumerate(planned[0].tolist()))
    assert kept_ns > deadline_ns >= elapsed_ns


@pytest.mark.parametrize("at", range(LAYERS - 2))
def test_contention_that_begins_suddenly(engine: Model, at: int) -> None:
    costs = np.tile(np.array([8, 4, 2, 1], dtype=np.int64) * 10_000, (LAYERS, 1))
    plan_of(engine, costs)

    def script(unit: int, layer: int, level: int) -> int:
        return int(costs[layer, level]) * (2 if unit >= at else 1)

    _, levels, _, met = run_scripted(engine, IDS, 380_000, script)
    assert met
    assert (levels[0, : at + 1] == levels[0, 0]).all()
    assert levels[0, at + 1] > levels[0, at]


def test_one_interruption_is_made_up_and_forgotten(engine: Model) -> None:
    """After a pause the next layers are sparse; as the pace returns they grow denser within the time that is left."""
    costs = np.tile(np.array([8, 4, 2, 1], dtype=np.int64) * 10_000, (LAYERS, 1))
    plan_of(engine, costs)

    def script(unit: int, layer: int, level: int) -> int:
        return int(costs[layer, level]) + (150_000 if unit == 0 else 0)

    _, levels, _, met = run_scripted(engine, IDS, 500_000, script)
    assert met
    assert levels[0, 1] > levels[0, 0]
    assert levels[0, -1] < levels[0, 1]


@SLOW
@given(st.lists(st.integers(0, 2**64 - 1), min_size=LAYERS + 3, max_size=LAYERS + 3), st.integers(0, LEVELS - 1))
def test_a_clock_that_jumps_and_goes_backwards(
    subject: Subject, engine: Model, tmp_path: Path, readings: list[int], cap: int
) -> None:
    plan_of(engine, np.tile(np.array([8, 4, 2, 1], dtype=np.int64) * 1000, (LAYERS, 1)))
    engine.switch(cap)
    run = engine.run_within(IDS, 0.03, clock=iter(readings).__next__)
    engine.switch(0)
    forward_ns = sum(max(0, after - before) for before, after in pairwise(readings))
    assert run.elapsed_ms == pytest.approx(forward_ns / 1e6, rel=1e-12)
    assert run.met == (run.elapsed_ms <= 0.03)
    assert ((run.levels >= cap) & (run.levels < LEVELS)).all()
    assert (run.output == subject.mixed(run.levels[0].tolist(), IDS, tmp_path)).all()


@pytest.mark.parametrize("deadline_ms", [0.0, -0.0, -1.0, -math.inf])
def test_late_already(engine: Model, deadline_ms: float) -> None:
    costs = np.full((LAYERS, LEVELS), 10, dtype=np.int64)
    plan_of(engine, costs)
    _, levels, _, met = run_scripted(engine, IDS, deadline_ms * 1e6, as_predicted(costs))
    assert (levels == LEVELS - 1).all()
    assert not met


def test_no_deadline(engine: Model) -> None:
    plan_of(engine, np.full((LAYERS, LEVELS), 10**9, dtype=np.int64))
    engine.switch(1)
    run = engine.run_within(IDS, math.inf)
    assert run.met
    assert (run.levels == 1).all()
    assert (run.output == engine.run(IDS)).all()
    engine.switch(0)


def test_a_deadline_that_is_not_a_number(engine: Model) -> None:
    with pytest.raises(UserInputError, match="deadline_ms is not a number; give milliseconds"):
        engine.run_within(IDS, math.nan)


def test_a_batch_of_several_passes(subject: Subject, engine: Model, tmp_path: Path) -> None:
    """1,800 tokens go through the layers in two passes; the later pass gets what the earlier one left."""
    costs = np.tile(np.array([8, 4, 2, 1], dtype=np.int64) * 10_000, (LAYERS, 1))
    plan_of(engine, costs)
    ids = subject.ids(1, [600, 400, 600, 200])
    deadline_ns = 600_000
    output, levels, elapsed_ns, met = run_scripted(engine, ids, deadline_ns, as_predicted(costs), [2, 2])
    assert met
    assert elapsed_ns > 0.9 * deadline_ns
    assert (levels[0] == levels[1]).all()
    assert (levels[2] == levels[3]).all()
    assert (levels[0] != levels[2]).any()
    for first in (0, 2):
        expected = subject.mixed(levels[first].tolist(), ids[first : first + 2], tmp_path)
        assert (output[first : first + 2] == expected).all()


def test_cancelled_by_the_clock(engine: Model) -> None:
    """The one place where it is certain before which layer a cancel arrives."""
    plan_of(engine, np.full((LAYERS, LEVELS), 10, dtype=np.int64))
    reads = 0

    def clock() -> int:
        nonlocal reads
        reads += 1
        if reads == 4:  # start, layers 0, 1, 2
            engine.cancel()
        return reads

    with pytest.raises(CancelledError, match=r"^the run was cancelled before layer 3; run it again for an answer\.$"):
        engine.run_within(IDS, 1.0, clock=clock)
    assert reads == 4
    assert np.isfinite(engine.run_within(IDS, 1.0).output).all()


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, "now"])
def test_a_clock_that_returns_no_time(engine: Model, value: Any) -> None:
    plan_of(engine, np.full((LAYERS, LEVELS), 10, dtype=np.int64))
    with pytest.raises(TypeError, match="nanoseconds"):
        engine.run_within(IDS, 1.0, clock=lambda: value)
    assert engine.run_within(IDS, math.inf).met


def test_what_a_clock_raises_arrives(engine: Model) -> None:
    plan_of(engine, np.full((LAYERS, LEVELS), 10, dtype=np.int64))

    def clock() -> int:
        raise ZeroDivisionError("of the clock")

    with pytest.raises(ZeroDivisionError, match="of the clock"):
        engine.run_within(IDS, 1.0, clock=clock)
    assert engine.run_within(IDS, math.inf).met


def test_encode_counts_the_tokenizer(tmp_path: Path) -> None:
    small = random_model(vocab=5, types=0)
    path = small.write(tmp_path / "words.lavolta", vocab=b"<unk>\n<eos>\none\ntwo\nthree\n")
    with open_bundle(path) as engine:
        engine.calibrate([1], 1, clock=lambda: 0)
        # 3 ms before the engine starts its own measurement at the third reading.
        readings = iter([0, 3_000_000, *[3_000_000] * 20])
        run = engine.encode_within(["one two"], 5.0, clock=readings.__next__)
        assert run.elapsed_ms == 3.0
        assert run.met
        assert (run.output == engine.encode(["one two"])).all()
        late = engine.encode_within(["one two"], 2.0, clock=iter([0, *[3_000_000] * 20]).__next__)
        assert not late.met
        assert (late.levels == len(engine.levels) - 1).all()
