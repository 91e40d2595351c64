"""The demo on a tiny model: its three files, and that work which is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.errors import UserInputError
from lavolta.models.batching import encode_texts, predict
from lavolta.models.hf import load_encoder
from lavolta.models.text import builtin_text
from lavolta.report.schema import parse_result
from lavolta.runtime import measure
from lavolta.runtime.engine import open_bundle
from lavolta.systems.rt3 import demo
from lavolta.systems.rt3.demo import run_demo

STEPS = 2
FILES = ["model.lavolta", "report.html", "result.json"]


@pytest.fixture(scope="module", autouse=True)
def tiny_demo(tiny_folder: Path) -> Any:
    """A tiny model, and few texts to compare on: the built-in text is read by the real thing."""
    texts = builtin_text()
    few = type(texts)(texts.train[:80], texts.held_out[:20], texts.source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "MODEL", str(tiny_folder))
        patch.setattr("lavolta.systems.rt3.options.builtin_text", lambda: few)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "new" / "demo"
    return out, run_demo(out, steps=STEPS)


def refuse_work(*_: Any, **__: Any) -> Any:
    raise AssertionError("work that was done is done again")


def test_it_writes_three_files_that_fit_each_other(run: tuple[Path, dict[str, Any]]) -> None:
    out, result = run
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert json.loads((out / "result.json").read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    parse_result(result)
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    assert result["bytes_moved_per_switch"] == 0
    assert result["model"]["bundle_bytes"] == (out / "model.lavolta").stat().st_size
    assert set(result["policies"]) == set(demo.POLICIES)
    assert result["deadline_misses"]["lavolta"] == 0
    assert result["deadline_ms"] == result["period_ms"]
    for level in result["levels"]:
        for key in ("fidelity", "latency_ms", "dense_latency_ms", "device_latency_ms", "device_energy_mj"):
            assert level[key] > 0
        assert level["device_latency_ms"] <= result["deadline_ms"]
    sparsities = [level["sparsity"] for level in result["levels"]]
    assert sparsities == sorted(sparsities)
    # The seconds of every stage, those of compress and those of the measurement.
    assert {"distil all levels", "time every level", "write the bundle"} <= set(result["seconds"])


def test_fidelity_is_the_mean_cosine_to_the_dense_model(run: tuple[Path, dict[str, Any]], tiny_folder: Path) -> None:
    out, result = run
    texts = builtin_text().held_out[:20]
    dense = load_encoder(str(tiny_folder), "embedding")
    reference = predict(dense, encode_texts(dense, texts))
    with open_bundle(out / "model.lavolta") as model:
        for index, level in enumerate(result["levels"]):
            model.switch(index)
            # Both sides are of length one.
            assert level["fidelity"] == pytest.approx(float((model.encode(texts) * reference).sum(axis=1).mean()))
            # What plans with the bundle knows it, too.
            assert model.manifest["levels"][index]["fidelity"] == level["fidelity"]


def test_a_second_call_does_no_work(run: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    out, result = run
    for name in ("compress", "measure_bundle"):
        monkeypatch.setattr(demo, name, refuse_work)
    (out / "report.html").unlink()
    assert run_demo(out, steps=STEPS) == json.loads(json.dumps(result))
    assert sorted(p.name for p in out.iterdir()) == FILES


def test_a_lost_result_is_measured_again_without_training(
    run: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result = run
    (out / "result.json").write_text("{", encoding="utf-8")
    monkeypatch.setattr("lavolta.systems.rt3.recipe.train_joint", refuse_work)
    again = run_demo(out, steps=STEPS)
    assert [x["fidelity"] for x in again["levels"]] == [x["fidelity"] for x in result["levels"]]
    assert "distil all levels" not in again["seconds"]
    assert json.loads((out / "result.json").read_text(encoding="utf-8")) == json.loads(json.dumps(again))


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_broken_bundle_is_made_again(keep: float, run: tuple[Path, dict[str, Any]]) -> None:
    out, _ = run
    bundle = out / "model.lavolta"
    good = bundle.read_bytes()
    bundle.write_bytes(good[: int(keep * len(good)) if keep < 1 else int(keep)])
    run_demo(out, steps=STEPS)
    assert bundle.read_bytes() == good
    assert sorted(p.name for p in out.iterdir()) == FILES


def test_other_options_are_other_work(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, result = run
    good = (out / "model.lavolta").read_bytes()
    (tmp_path / "model.lavolta").write_bytes(good)
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (tmp_path / "report.html").write_text("of the run before", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "write_report", refuse_work)
        with pytest.raises(AssertionError):
            run_demo(tmp_path, steps=STEPS + 1)
    # Ended before the page was written: it is written by the next call.
    other = run_demo(tmp_path, steps=STEPS + 1)
    assert "of the run before" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert other["mark"] != result["mark"]
    assert (tmp_path / "model.lavolta").read_bytes() != good


def test_an_unusable_folder_is_an_error_a_person_reads(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserInputError, match=r"the folder .*demo cannot be made: Not a directory"):
        run_demo(tmp_path / "file" / "demo", steps=STEPS)


def test_cosines_by_hand() -> None:
    left = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    right = np.array([[6.0, 8.0], [0.0, 2.0], [1.0, 1.0]], dtype=np.float32)
    assert measure.cosines(left, right) == pytest.approx([1.0, 0.0, 0.0])


def test_overlaps_by_hand() -> None:
    # 1/4, 3/4 against 1/2, 1/2; the same but for what logits may differ by; no word in common.
    left = np.log(np.array([[1.0, 3.0], [1.0, 3.0], [1.0, 1e-30]], dtype=np.float32))
    right = np.log(np.array([[1.0, 1.0], [5.0, 15.0], [1e-30, 1.0]], dtype=np.float32))
    assert measure.overlaps(left, right) == pytest.approx([0.75, 1.0, 0.0])


def test_switches_and_levels_are_timed(run: tuple[Path, dict[str, Any]]) -> None:
    out, result = run
    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += 1

    with open_bundle(out / "model.lavolta") as model:
        latencies = measure.level_latencies_ms(model, 5, 3, count)
        times = measure.switch_times(model, 500)
    assert rounds == 3
    assert len(latencies) == len(result["levels"])
    assert all(value > 0 for value in latencies)
    assert 0 < times.us_p50 <= times.us_p99
    assert measure.cpu_name()
