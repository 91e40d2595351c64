"""Contestants in processes of their own: what they compute, and what is said where one cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lavolta.bench import workers
from lavolta.bench.lineup import Lineup
from lavolta.bench.peers import PEERS, Job
from lavolta.bench.synthetic import random_ids, random_weights, write_random_bundle
from lavolta.bench.workers import Contestant, Worker, race
from lavolta.errors import EngineError
from lavolta.runtime.engine import open_bundle
from lavolta.runtime.spec import ModelSpec

SPEC = ModelSpec("odd", layers=2, hidden=24, heads=3, ffn=40, vocab=13, max_tokens=20)
TOKENS = 7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "odd.lavolta"
    write_random_bundle(path, SPEC, (0.0, 0.5))
    return path


def own_job(bundle: Path, **changes: object) -> Job:
    return Job("lavolta", "fp32", SPEC.as_dict(), str(bundle), TOKENS, **changes)  # type: ignore[arg-type]


def hide(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, body: str) -> None:
    """Let worker processes find `body` where they import `module`."""
    (folder / f"{module}.py").write_text(body, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_our_engine_takes_turns_at_its_levels(bundle: Path) -> None:
    with Worker(own_job(bundle)) as worker, open_bundle(bundle) as model:
        assert worker.reason is None
        assert np.allclose(worker.output, model.run([random_ids(SPEC, TOKENS)])[0])
        assert "linear" in worker.about["instruction_set"]
        found = race({"dense": Contestant(worker, 0), "sparse": Contestant(worker, 1)}, rounds=2, repeat=3)
        assert {name: times.repetitions for name, times in found.items()} == {"dense": 6, "sparse": 6}
        assert all(times.min_ms > 0 for times in found.values())
        assert worker.threads_busy > 0
        linear = worker.linear_ms()
        assert len(linear) == 2
        assert min(linear) > 0


@pytest.mark.parametrize(("engine", "precision"), PEERS)
def test_every_peer_computes_the_same_model(tmp_path: Path, bundle: Path, engine: str, precision: str) -> None:
    """The cosine that is left after rounding: bf16 has 8 bits of significand; an int8 step is 1/127 of the largest
    value, some percent of a usual one, and errors of many products cancel."""
    pytest.importorskip({"pytorch": "torch"}.get(engine, engine))
    with Lineup(tmp_path, SPEC, random_weights(SPEC), TOKENS) as lineup:
        lineup.add_own(bundle, "fp32", {"ours": (0, 0.0)})
        lineup.add_peer(engine, precision)
        records = lineup.records(lineup.race(1, 1), "ours")
    assert [record["name"] for record in records] == ["ours", f"{engine}-{precision}"]
    peer = records[1]
    assert "reason" not in peer
    assert peer["agreement"] > {"fp32": 1 - 1e-6, "bf16": 0.999, "int8": 0.99}[precision]
    assert peer["version"]
    assert peer["instruction_set"]
    assert isinstance(peer["amx"], bool)


def test_a_peer_that_is_not_installed_is_missing_with_the_way_out(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, tmp_path, "onnxruntime", "raise ModuleNotFoundError('gone', name='onnxruntime')")
    with Lineup(tmp_path, SPEC, random_weights(SPEC), TOKENS) as lineup:
        lineup.add_own(bundle, "fp32", {"ours": (1, 0.5)})
        lineup.add_peer("onnxruntime", "fp32")
        records = lineup.records(lineup.race(1, 1), "ours")
    assert list(lineup.contestants) == ["ours"]
    assert records[1]["median_ms"] is None
    assert records[1]["reason"] == "onnxruntime is not installed; `pip install 'lavolta[bench]'` brings it."
    assert records[0]["sparsity"] == 0.5


@pytest.mark.parametrize(
    ("body", "seconds", "reason"),
    [
        ("raise RuntimeError('no such instruction')", 100.0, "RuntimeError: no such instruction"),
        ("import os; os._exit(3)", 100.0, "its process ended with code 3."),
        ("import threading; threading.Event().wait()", 1.0, "it did not answer within 1 s."),
    ],
)
def test_a_peer_that_dies_or_hangs_is_missing_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, seconds: float, reason: str
) -> None:
    hide(monkeypatch, tmp_path, "onnxruntime", body)
    with Worker(Job("onnxruntime", "fp32", SPEC.as_dict(), "absent", TOKENS), start_seconds=seconds) as worker:
        assert worker.reason == reason


@pytest.mark.parametrize(
    ("engine", "precision", "isa", "words"),
    [
        ("pytorch", "int8", None, "compared in fp32 and bf16"),
        ("pytorch", "fp32", "sse9", "cannot be limited to sse9"),
        ("openvino", "int4", None, "not in int4"),
        ("openvino", "int8", "sse9", "cannot be limited to sse9"),
    ],
)
def test_what_a_peer_does_not_do_is_refused(engine: str, precision: str, isa: str | None, words: str) -> None:
    with Worker(Job(engine, precision, SPEC.as_dict(), "absent", TOKENS, isa=isa)) as worker:
        assert worker.reason is not None
        assert words in worker.reason


def test_a_bundle_that_cannot_be_opened_is_a_reason(tmp_path: Path) -> None:
    with Worker(own_job(tmp_path / "absent.lavolta")) as worker:
        assert worker.reason is not None
        assert "absent.lavolta" in worker.reason


def test_a_process_that_dies_while_it_is_measured_is_an_error(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "TURN_SECONDS", 60.0)
    with Worker(own_job(bundle)) as worker, pytest.raises(EngineError, match="lavolta fp32 stopped while"):
        worker.times_ms(1, level=99)
