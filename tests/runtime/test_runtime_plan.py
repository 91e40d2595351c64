"""The plan of a deadline: fitted from a scripted clock, kept as JSON, refused where it does not belong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.errors import UserInputError
from lavolta.runtime.engine import Model, open_bundle
from reference_model import random_model

TOKENS = [16, 48, 96]
REPETITIONS = 3


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(outputs=3, pooling="cls", head_dense="tanh").write(
        tmp_path_factory.mktemp("plan") / "model.lavolta"
    )


@pytest.fixture
def engine(path: Path) -> Iterator[Model]:
    with open_bundle(path) as model:
        yield model


class CalibrationClock:
    """What a calibration takes when costs are linear: base + token * tokens + pair * squares, by layer and level.

    Calibration measures every length, then four sequences of a quarter of the longest (together at most the 1024 tokens
    that go through the layers in one pass), at every level; then the same with one row of output per token, at the
    sparsest level alone; all of it once more than there are repetitions.
    """

    def __init__(self, layers: int, levels: int, lengths: list[int], repetitions: int) -> None:
        self.now_ns = 0
        batches = [*([tokens] for tokens in lengths), [min(max(lengths), 1024) // 4] * 4]
        self._script = self._steps(layers, levels, batches, repetitions)

    def __call__(self) -> int:
        self.now_ns += next(self._script)
        return self.now_ns

    @staticmethod
    def layer_ns(layer: int, level: int) -> tuple[int, int, int]:
        return (1000 + 10 * layer, 300 - 50 * level + layer, 7)

    @classmethod
    def _steps(cls, layers: int, levels: int, batches: list[list[int]], repetitions: int) -> Iterator[int]:
        for repetition in range(repetitions + 1):
            for per_token in (False, True):
                for lengths in batches:
                    tokens = math.ceil(sum(lengths) / 16) * 16
                    squares = sum(length**2 for length in lengths)
                    rows = sum(lengths) if per_token else len(lengths)
                    for level in range(levels - 1 if per_token else 0, levels):
                        # What happens in the first round, and between the runs, must not count.
                        strange = 10**6 if repetition == 0 else 0
                        yield 55_555
                        yield 66_666
                        yield 40 + 3 * tokens + strange
                        for layer in range(layers):
                            base, token, pair = cls.layer_ns(layer, level)
                            yield base + token * tokens + pair * squares + strange
                        yield (20 + 11 * rows if per_token else 500 + level + 2 * tokens + 30 * rows) + strange


def clock_of(engine: Model, lengths: list[int], repetitions: int) -> CalibrationClock:
    return CalibrationClock(engine.spec.layers, len(engine.levels), lengths, repetitions)


def test_calibration_finds_the_costs(engine: Model) -> None:
    engine.calibrate(TOKENS, REPETITIONS, clock=clock_of(engine, TOKENS, REPETITIONS))
    plan = engine.plan
    assert plan is not None
    # Nine digits are written; the normal equations lose a few more of sixteen.
    near = {"rel": 1e-6, "abs": 1e-3}
    assert plan["embed_ns"] == pytest.approx([40, 3, 0], **near)
    for level, cost in enumerate(plan["finish_ns"]):
        assert cost == pytest.approx([500 + level, 2, 30], **near)
    assert plan["finish_per_token_ns"][:1] == pytest.approx([20], **near)
    for layer, levels in enumerate(plan["layers_ns"]):
        for level, cost in enumerate(levels):
            assert cost == pytest.approx(CalibrationClock.layer_ns(layer, level), **near)
    # Calm to the nanosecond: the least margin.
    assert plan["margin"] == 0.02


def test_calibration_with_more_tokens_than_pass_together_finds_the_costs(tmp_path: Path) -> None:
    model = random_model(layers=1, max_tokens=2048)
    with open_bundle(model.write(tmp_path / "long.lavolta")) as engine:
        engine.calibrate([64, 2048], 1, clock=clock_of(engine, [64, 2048], 1))
        plan = engine.plan
    assert plan is not None
    for level, cost in enumerate(plan["layers_ns"][0]):
        assert cost == pytest.approx(CalibrationClock.layer_ns(0, level), rel=1e-6, abs=1e-3)


def test_costs_are_never_negative(engine: Model) -> None:
    """Times that fall with the length would predict negative times for long inputs."""
    counter = iter(range(10**9, 0, -7919))
    now = 0

    def clock() -> int:
        nonlocal now
        now += next(counter)
        return now

    engine.calibrate(TOKENS, 1, clock=clock)
    plan = engine.plan
    assert plan is not None
    costs = [plan["embed_ns"], plan["finish_per_token_ns"], *plan["finish_ns"], *chain(*plan["layers_ns"])]
    assert np.min(costs) >= 0
    assert np.max(costs) > 0


def test_calibration_of_this_machine(engine: Model) -> None:
    engine.switch(2)
    engine.calibrate()
    assert engine.level == 2
    plan = engine.plan
    assert plan is not None
    assert 0.02 <= plan["margin"] <= 0.25
    assert np.array(plan["layers_ns"]).shape == (engine.spec.layers, len(engine.levels), 3)
    assert np.array(plan["layers_ns"]).sum(axis=2).min() > 0
    assert engine.run_within([[1, 2, 3]], math.inf).elapsed_ms > 0


@pytest.mark.parametrize(
    ("tokens", "repetitions", "message"),
    [
        ([0], 1, "a token count to calibrate with is 0; give 1 to 140"),
        ([5, 141], 1, "a token count to calibrate with is 141; give 1 to 140"),
        ([-3], 1, "a token count to calibrate with is 0; give 1 to 140"),
        ([2**40], 1, "give 1 to 140"),
        ([], 1, "tokens is not a list of lengths"),
        ([[1]], 1, "tokens is not a list of lengths"),
        ([1], 0, "repetitions is 0; choose 1 to 1000"),
        ([1], 1001, "repetitions is 1001; choose 1 to 1000"),
    ],
)
def test_wrong_calibrations(engine: Model, tokens: Any, repetitions: int, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        engine.calibrate(tokens, repetitions)
    assert engine.plan is None


def test_no_plan(engine: Model, tmp_path: Path) -> None:
    assert engine.plan is None
    for call in (
        lambda: engine.run_within([[1]], 1.0),
        lambda: engine.save_plan(tmp_path / "plan.json"),
    ):
        with pytest.raises(UserInputError, match="the model has no plan of its costs; calibrate it, or load a plan"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_plan_is_kept_for_the_next_process(engine: Model, path: Path, tmp_path: Path) -> None:
    engine.calibrate([4, 32], 2)
    kept = tmp_path / "plan.json"
    engine.save_plan(kept)
    with open_bundle(path) as other:
        other.load_plan(kept)
        assert other.plan == engine.plan == json.loads(kept.read_text())


def damaged(text: str) -> dict[str, tuple[str, str]]:
    """A file's content and what is said of it."""
    plan = json.loads(text)

    def changed(**fields: Any) -> str:
        return json.dumps({**plan, **fields})

    layers = plan["layers_ns"]
    return {
        "empty": ("", "the plan is invalid: it is not JSON"),
        "cut": (text[: len(text) // 2], "the plan is invalid: it is not JSON"),
        "nan": (text.replace('"margin": 0.', '"margin": NaN, "x": 0.'), "the plan is invalid: it is not JSON"),
        "list": ("[]", "its 'kind' is not 'lavolta-plan'"),
        "kind": (changed(kind="other"), "its 'kind' is not 'lavolta-plan'"),
        "newer": (changed(format=2), "its 'format' is not 1"),
        "bundle": (changed(bundle="0" * 16), "the plan was made for another bundle; calibrate again."),
        "isa": (changed(isa="neon"), "the plan was made with neon, the model runs with "),
        "threads": (changed(threads=3), "the plan was made with 3 threads, the model runs with 1; calibrate again."),
        "threads type": (changed(threads="1"), "'threads' is missing or of another type"),
        "margin": (changed(margin=-0.1), "'margin' is not a number between 0 and 10"),
        "margin missing": (json.dumps({k: v for k, v in plan.items() if k != "margin"}), "'margin' is missing"),
        "terms": (changed(embed_ns=[1, 2]), "'embed_ns' is not a list of three numbers"),
        "negative": (changed(finish_ns=[[1, -2, 3]]), "a cost of 'finish_ns' is not a number between 0 and 1e+15"),
        "huge": (changed(embed_ns=[1, 1e300, 3]), "'embed_ns' is not a number between 0 and 1e+15"),
        "layers": (changed(layers_ns=layers[1:]), "it does not have the model's layers"),
        "levels": (changed(layers_ns=[layers[0][1:], layers[1]]), "it does not have the model's levels"),
        "no list": (changed(layers_ns=[5, 6]), "layer 0 is not a list of costs"),
        "finish levels": (changed(finish_ns=[[1, 2, 3]]), "it does not have the model's levels"),
        "text cost": (changed(layers_ns=[layers[0], [["a", 0, 0]] * 4]), "a cost of layer 1 is not a number"),
    }


def test_damaged_plans_are_refused_and_the_old_one_stays(engine: Model, tmp_path: Path) -> None:
    engine.calibrate([4], 1)
    before = engine.plan
    file = tmp_path / "plan.json"
    for name, (text, message) in damaged(json.dumps(before)).items():
        file.write_text(text)
        with pytest.raises(UserInputError) as caught:
            engine.load_plan(file)
        assert message in str(caught.value), name
        assert str(caught.value).endswith("calibrate again."), name
        assert engine.plan == before
    file.write_bytes(b"\xff\xfe")
    for unreadable in (file, tmp_path, tmp_path / "absent.json"):
        with pytest.raises(UserInputError, match=r"cannot be read: .*; calibrate and save it again"):
            engine.load_plan(unreadable)
