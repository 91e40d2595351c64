"""Sessions: a sequence fed in any pieces gives what the whole one gives, at every level, on every instruction set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta.errors import CancelledError, EngineError, UserInputError
from lavolta.runtime.engine import Model, instruction_sets, open_bundle
from reference_model import DECODERS, RandomModel, random_model, rounding

EPS = float(np.finfo(np.float32).eps)
# Around a block of keys (16) and a tile of queries (48).
TOKENS = 67


def tolerance(model: RandomModel) -> float:
    return rounding(model, TOKENS)


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RandomModel, Path]:
    model = random_model(keep=(1.0, 0.5, 0.25), max_tokens=TOKENS, **DECODERS[request.param])
    return model, model.write(tmp_path_factory.mktemp("decoders") / "decoder.lavolta")


@pytest.fixture
def llama(tmp_path: Path) -> Iterator[Model]:
    with open_bundle(random_model(**DECODERS["llama"]).write(tmp_path / "llama.lavolta")) as model:
        yield model


def ids_of(model: RandomModel, count: int = TOKENS) -> list[int]:
    ids: list[int] = np.random.default_rng(1).integers(0, model.spec.vocab, count).tolist()
    return ids


@pytest.mark.parametrize("isa", instruction_sets())
def test_pieces_equal_the_whole(decoder: tuple[RandomModel, Path], isa: str) -> None:
    model, path = decoder
    ids = ids_of(model)
    with open_bundle(path, isa=isa) as engine:
        for level in range(model.levels):
            expected = model.run(level, [ids])
            engine.switch(level)
            assert np.abs(engine.run([ids]) - expected).max() <= tolerance(model)
            for first in (1, 15, 16, 17, 49):
                session = engine.session()
                places = [first, *range(first + 1, first + 5), TOKENS]
                before = 0
                for place in places:
                    logits = session.append(ids[before:place])
                    assert len(session) == place
                    assert logits.shape == (model.spec.outputs,)
                    assert np.abs(logits - expected[place - 1]).max() <= tolerance(model), (level, first, place)
                    before = place


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_way_of_feeding(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any options, pieces, truncations and thread counts end in the logits of the tokens that are there."""
    heads = data.draw(st.sampled_from([1, 2, 3, 4, 6]))
    options: dict[str, Any] = {
        "heads": heads,
        "kv_heads": data.draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])),
        "hidden": heads * data.draw(st.sampled_from([2, 4, 18])),
        "ffn": data.draw(st.sampled_from([1, 13])),
        "norm": data.draw(st.sampled_from(["layer", "rms"])),
        "norm_first": data.draw(st.booleans()),
        "position": data.draw(st.sampled_from(["rope", "learned"])),
        "ffn_gate": data.draw(st.booleans()),
        "activation": data.draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"])),
        "packed_head": data.draw(st.booleans()),
        "cell_rows": data.draw(st.sampled_from([1, 2, 4, 8, 16])),
        "layers": data.draw(st.integers(1, 2)),
        "precision": data.draw(st.sampled_from(["fp32", "mixed", "int8"])),
    }
    model = random_model(keep=(0.8,), max_tokens=40, **{**DECODERS["gpt2"], **options})
    path = model.write(tmp_path_factory.mktemp("any") / "any.lavolta")
    ids: list[int] = []
    with open_bundle(path, threads=data.draw(st.integers(1, 3))) as engine, engine.session() as session:
        for _ in range(data.draw(st.integers(1, 4))):
            keep = data.draw(st.integers(0, len(ids)))
            session.truncate(keep)
            new = data.draw(st.lists(st.integers(0, 49), min_size=1, max_size=max(1, 40 - keep)))[: 40 - keep]
            ids = ids[:keep] + new
            if new:
                logits = session.append(new)
                assert np.abs(logits - model.run(0, [ids])[-1]).max() <= tolerance(model)


def test_threads_do_not_change_a_bit(decoder: tuple[RandomModel, Path]) -> None:
    model, path = decoder
    ids = ids_of(model)
    with open_bundle(path) as one, open_bundle(path, threads=3) as three:
        sessions = one.session(), three.session()
        for piece in (ids[:50], ids[50:51], ids[51:52]):
            first, second = (session.append(piece) for session in sessions)
            assert (first == second).all()


def test_a_level_switched_between_tokens_keeps_the_cache(decoder: tuple[RandomModel, Path]) -> None:
    """Earlier tokens keep the keys and values of their level, later ones use the new level."""
    model, path = decoder
    ids = ids_of(model, 30)
    levels = [0] * 12 + [2] + [1] * 16 + [2]
    expected = model.run_levels(levels, ids)
    with open_bundle(path) as engine, engine.session() as session:
        for begin, end in ((0, 12), (12, 13), (13, 29), (29, 30)):
            engine.switch(levels[begin])
            logits = session.append(ids[begin:end])
            assert np.abs(logits - expected[end - 1]).max() <= tolerance(model)
    # The last token ran at level 2: what tells it from a run at that level is the cache alone.
    assert np.abs(expected[-1] - model.run(2, [ids])[-1]).max() > 10 * tolerance(model)


def test_sessions_of_one_model_are_independent(decoder: tuple[RandomModel, Path]) -> None:
    model, path = decoder
    ids = ids_of(model, 40)
    expected = model.run(0, [ids])
    failures: list[BaseException] = []
    with open_bundle(path, threads=2) as engine:

        def feed(step: int) -> None:
            try:
                session = engine.session()
                for begin in range(0, 40, step):
                    place = min(begin + step, 40)
                    logits = session.append(ids[begin:place])
                    assert np.abs(logits - expected[place - 1]).max() <= tolerance(model)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=feed, args=(step,)) for step in (1, 3, 7)]
        for thread in threads:
            thread.start()
        engine.run([ids])
        for thread in threads:
            thread.join()
    assert not failures, failures


def test_more_tokens_than_one_pass(tmp_path: Path) -> None:
    """A prompt of more than 1,024 tokens goes through the layers in parts."""
    model = random_model(layers=1, max_tokens=1100, keep=(1.0,), **{**DECODERS["llama"], "outputs": 50})
    ids = ids_of(model, 1100)
    with open_bundle(model.write(tmp_path / "long.lavolta")) as engine, engine.session() as session:
        logits = session.append(ids)
        again = engine.session()
        again.extend(ids[:1024])
        # Pieces of a pass or two give the same bits.
        assert (again.append(ids[1024:]) == logits).all()
        assert np.abs(logits - engine.run([ids])[-1]).max() <= 2 * 1100 * EPS * 4


def test_reset_and_truncate(llama: Model) -> None:
    session = llama.session(8)
    first = session.append([1, 2, 3])
    session.append([4, 5])
    session.truncate(2)
    assert (session.append([3]) == session_of(llama, [1, 2], [3])).all()
    session.reset()
    assert len(session) == 0
    assert (session.append([1, 2, 3]) == first).all()
    with pytest.raises(UserInputError, match=r"the session has 3 tokens and cannot be cut to 4\."):
        session.truncate(4)
    with pytest.raises(UserInputError, match="cannot be cut to -1"):
        session.truncate(-1)
    assert len(session) == 3


def session_of(model: Model, *pieces: list[int]) -> np.ndarray:
    with model.session() as session:
        for piece in pieces[:-1]:
            session.extend(piece)
        return session.append(pieces[-1])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "no tokens"),
        ([1.5], "flat list of integers"),
        ([[1]], "flat list of integers"),
        ([0, 50], r"token 1 has id 50; ids go from 0 to 49\."),
        ([-1], "token 0 has id -1"),
        ([1 << 40], "ids go from 0 to 49"),
        ([1] * 6, r"the session has room for 5 of 6 more tokens; truncate it, or open one with more\."),
    ],
)
def test_wrong_tokens_leave_the_session_as_it_was(llama: Model, ids: Any, message: str) -> None:
    with llama.session(8) as session:
        session.extend([1, 2, 3])
        for call in (session.append, session.extend):
            with pytest.raises(UserInputError, match=message):
                call(ids)
            assert len(session) == 3
        assert (session.append([4]) == session_of(llama, [1, 2, 3], [4])).all()


def test_wrong_sessions(llama: Model, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="a session of 141 tokens is longer than the model's limit of 140"):
        llama.session(141)
    with pytest.raises(UserInputError, match="max_tokens is -1"):
        llama.session(-1)
    for name, options in (("encoder", {}), ("pooled", {"causal": True})):
        path = random_model(**options).write(tmp_path / f"{name}.lavolta")
        with open_bundle(path) as model, pytest.raises(UserInputError, match="not a causal language model"):
            model.session()


def test_a_session_of_a_closed_model(tmp_path: Path) -> None:
    model = open_bundle(random_model(**DECODERS["llama"]).write(tmp_path / "m.lavolta"))
    session, closed = model.session(), model.session()
    session.extend([1])
    closed.close()
    closed.close()
    with pytest.raises(EngineError, match="the session is closed; open another"):
        closed.append([1])
    model.close()
    for call in (lambda: session.append([1]), lambda: len(session), session.reset):
        with pytest.raises(EngineError, match=r"^the model is closed; open the bundle again\.$"):
            call()
    with pytest.raises(EngineError, match=r"^the model is closed; open the bundle again\.$"):
        model.session()
    session.close()


def test_a_model_without_outputs_gives_hidden_states(tmp_path: Path) -> None:
    model = random_model(**{**DECODERS["gpt2"], "outputs": 0, "task": "embedding"})
    with open_bundle(model.write(tmp_path / "m.lavolta")) as engine:
        hidden = session_of(engine, [1, 2], [3])
        assert np.abs(hidden - model.run(0, [[1, 2, 3]])[-1]).max() <= tolerance(model)


def test_a_cancelled_append_changes_nothing(tmp_path: Path) -> None:
    model = random_model(layers=40, max_tokens=1024, keep=(1.0,), **DECODERS["llama"])
    with open_bundle(model.write(tmp_path / "deep.lavolta")) as engine, engine.session() as session:
        session.extend([1, 2])
        stop = threading.Event()

        def work() -> None:
            # A thread that cancels all the time hits one of these calls of 40 layers.
            for _ in range(10_000):
                session.append(list(range(50)))
                session.truncate(2)

        def cancel() -> None:
            while not stop.is_set():
                engine.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            with pytest.raises(CancelledError):
                work()
        finally:
            stop.set()
            thread.join()
        assert len(session) == 2
        assert (session.append([3]) == session_of(engine, [1, 2], [3])).all()
