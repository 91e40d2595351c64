"""`compress` from a model folder to a bundle: what it holds, and what survives an interruption."""

from __future__ import annotations

import copy
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny_families import tolerance
from tiny_files import sentences

import lavolta
from lavolta.devices.latency import latency_ms
from lavolta.devices.loading import load as load_device
from lavolta.errors import BundleError, UserInputError
from lavolta.models.batching import encode_texts, predict
from lavolta.models.hf import load_encoder
from lavolta.models.loaded import LoadedModel
from lavolta.models.tasks import load_task
from lavolta.models.text import user_text
from lavolta.progress import SilentProgress
from lavolta.runtime.bundle import FORMAT, BundleFile
from lavolta.runtime.engine import open_bundle
from lavolta.runtime.work import work_of
from lavolta.sparsity.ranking import LevelMasks
from lavolta.systems.rt3 import recipe
from lavolta.systems.rt3.options import CompressOptions, fingerprint
from lavolta.systems.rt3.recipe import compress
from lavolta.training.masking import MaskedLinears

STEPS, CHECKPOINT_EVERY = 11, 4
SMALL = {"tokens": 16, "levels": 3, "steps": STEPS, "batch_size": 4, "lr": 1e-3, "precision": "fp32"}
TRAINING = "distil all levels"


class InterruptedWorkError(Exception):
    pass


@dataclass
class Watch(SilentProgress):
    """Remembers what it was told; stops the work at a step of a stage."""

    stop_in: str = ""
    stop_at: int = 0
    stages: list[str] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Any]:
        self.stages.append(name)
        self.steps[name] = 0
        outer = self

        class _Stage:
            def advance(self, steps: int = 1) -> None:
                outer.steps[name] += steps
                if name == outer.stop_in and outer.steps[name] >= outer.stop_at:
                    raise InterruptedWorkError

            def note(self, text: str) -> None:
                pass

        if name == self.stop_in and self.stop_at == 0:
            raise InterruptedWorkError
        yield _Stage()
        if name == TRAINING and total is not None:
            assert self.steps[name] == total

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@dataclass
class Made:
    out: Path
    result: dict[str, Any]
    progress: Watch
    student: LoadedModel
    masks: list[LevelMasks]


@pytest.fixture(scope="module", autouse=True)
def frequent_checkpoints() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "CHECKPOINT_EVERY", CHECKPOINT_EVERY)
        yield


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An uninterrupted run, and the student that it exported."""
    kept: list[tuple[LoadedModel, list[LevelMasks]]] = []
    export = recipe.export_bundle

    def watched(student: LoadedModel, masks: list[LevelMasks], *rest: Any, **more: Any) -> None:
        kept.append((copy.deepcopy(student), masks))
        export(student, masks, *rest, **more)

    out, progress = tmp_path_factory.mktemp("made") / "m.lavolta", Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "export_bundle", watched)
        result = compress(str(tiny_folder), out=out, text=tiny_text, progress=progress, **SMALL)
    return Made(out, result, progress, *kept[0])


def test_the_engine_computes_what_the_student_learned_at_every_level(made: Made) -> None:
    texts = sentences(20, seed=9)
    student = made.student
    masked = MaskedLinears(student.linears, student.grids(4))
    encoded = encode_texts(student, texts)
    outputs = []
    with open_bundle(made.out) as model:
        assert model.levels == [level["name"] for level in made.result["levels"]]
        for level, masks in enumerate(made.masks):
            model.switch(level)
            with masked.at(masks):
                expected = predict(student, encoded)
            allowed = tolerance(student.spec, int(encoded.lengths.max()), expected, float(np.finfo(np.float32).eps))
            outputs.append(model.encode(texts))
            np.testing.assert_allclose(outputs[-1], expected, rtol=0, atol=allowed)
    masked.detach()
    assert not np.allclose(outputs[0], outputs[-1], atol=1e-3)


def test_the_bundle_holds_the_weights_of_the_student(made: Made) -> None:
    bundle = BundleFile.open(made.out)
    assert bundle.manifest["sparsity"]["kind"] == "ranked"
    weights, grids = made.student.weights(), made.student.grids(4)
    for level, masks in enumerate(made.masks):
        for name, weight in weights.items():
            expected = np.where(grids[name].expand(masks[name]), weight, 0.0)
            np.testing.assert_array_equal(bundle.dense_weight(name, level), expected)
    for name, bias in made.student.biases().items():
        np.testing.assert_array_equal(bundle.bias(name), bias)


def test_every_level_keeps_the_deadline_on_the_device(made: Made) -> None:
    profile = load_device("odroid-xu3-a7")
    bundle = BundleFile.open(made.out)
    assert len(bundle.levels) == 3
    for level in bundle.levels:
        work = work_of(bundle.spec, level["kept_cells"], 4, SMALL["tokens"])
        assert latency_ms(profile, work, level["freq_mhz"]) <= made.result["deadline_ms"]
    assert bundle.levels[0]["sparsity"] == 0.0
    assert bundle.levels[-1]["sparsity"] > 0.5


def test_int8_is_planned_stored_and_run(tiny_folder: Path, tiny_text: Path, tmp_path: Path) -> None:
    options = {**SMALL, "mode": "one-shot"}
    plain = compress(str(tiny_folder), out=tmp_path / "fp32.lavolta", text=tiny_text, **options)
    # Without being told, weights are stored as int8.
    del options["precision"]
    int8 = compress(str(tiny_folder), out=tmp_path / "int8.lavolta", text=tiny_text, **options)
    # The dense model is faster, so the deadline that it keeps is shorter.
    assert int8["deadline_ms"] < plain["deadline_ms"]
    bundle = BundleFile.open(tmp_path / "int8.lavolta")
    assert {entry["precision"] for entry in bundle.manifest["linears"]} == {"int8"}
    with open_bundle(tmp_path / "fp32.lavolta") as one, open_bundle(tmp_path / "int8.lavolta") as other:
        texts = sentences(20, seed=9)
        cosine = (one.encode(texts) * other.encode(texts)).sum(axis=1)
        assert (cosine > 0.99).all()
    with pytest.raises(UserInputError, match="the precision 'int4' is unknown; choose one of fp32, int8"):
        CompressOptions(source="x", precision="int4")


def test_training_brings_the_levels_nearer_to_the_dense_model(made: Made, tiny_folder: Path, tmp_path: Path) -> None:
    texts = sentences(60)
    dense = predict(loaded := load_encoder(str(tiny_folder), "embedding"), encode_texts(loaded, texts))
    once = tmp_path / "once.lavolta"
    text = tmp_path / "text.txt"
    text.write_text("\n".join(texts), encoding="utf-8")
    result = compress(str(tiny_folder), out=once, text=text, **{**SMALL, "mode": "one-shot"})
    assert TRAINING not in result["seconds"]
    assert not (tmp_path / "once.lavolta.work").exists()
    fidelity = {}
    for path in (made.out, once):
        with open_bundle(path) as model:
            model.switch(len(model.levels) - 1)
            fidelity[path] = float((model.encode(texts) * dense).sum(axis=1).mean())
    assert fidelity[made.out] > fidelity[once]
    with open_bundle(once) as model:
        model.switch(0)
        # Level 0 is dense: one-shot compensation trades a little of it for the others.
        assert float((model.encode(texts) * dense).sum(axis=1).mean()) > 0.8


def test_every_level_tells_its_fidelity_on_text_that_was_not_trained_on(
    made: Made, tiny_folder: Path, tiny_text: Path
) -> None:
    held_out = user_text(tiny_text).held_out
    assert made.result["judged_texts"] == len(held_out)
    dense = predict(loaded := load_encoder(str(tiny_folder), "embedding"), encode_texts(loaded, held_out))
    with open_bundle(made.out) as model:
        for index, level in enumerate(made.result["levels"]):
            model.switch(index)
            # Vectors of length one: the product is the cosine.
            assert level["fidelity"] == pytest.approx(float((model.encode(held_out) * dense).sum(axis=1).mean()))
            assert "score" not in level
    assert made.result["levels"][0]["fidelity"] > made.result["levels"][-1]["fidelity"]


def test_the_result_tells_what_was_done(made: Made, tiny_text: Path) -> None:
    result = made.result
    assert result["out"] == str(made.out)
    assert result["bytes"] == made.out.stat().st_size
    assert result["cell_rows"] == 4
    assert result["text_source"] == str(tiny_text)
    assert set(result["seconds"]) == set(made.progress.stages)
    assert made.progress.steps[TRAINING] == STEPS
    for level, masks in zip(result["levels"], made.masks, strict=True):
        assert level["kept_by_layer"] == {name: pytest.approx(mask.mean()) for name, mask in masks.items()}
    assert not made.out.with_name("m.lavolta.work").exists()


def test_repeating_the_call_does_nothing(made: Made, tiny_folder: Path, tiny_text: Path) -> None:
    before = made.out.stat()
    progress = Watch()
    again = compress(str(tiny_folder), out=made.out, text=tiny_text, progress=progress, **SMALL)
    assert progress.stages == []
    assert progress.said == [f"{made.out} is already made with these options"]
    assert made.out.stat() == before
    assert again == {**made.result, "seconds": {}}


def test_a_bundle_of_another_version_is_made_anew(
    made: Made, tiny_folder: Path, tiny_text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.lavolta"
    now, other = rf"\"format\":{FORMAT}".encode(), rf"\"format\":{FORMAT - 1}".encode()
    whole = made.out.read_bytes()
    assert whole.count(now) == 1
    out.write_bytes(whole.replace(now, other))
    with pytest.raises(BundleError, match="an older version made it, make the bundle again"):
        open_bundle(out)
    compress(str(tiny_folder), out=out, text=tiny_text, **{**SMALL, "mode": "one-shot"})
    with open_bundle(out) as model:
        assert len(model.levels) == len(made.result["levels"])


@pytest.mark.parametrize(
    ("stage", "step"), [(TRAINING, 3), (TRAINING, 10), ("search the cuts", 5), ("write the bundle", 0)]
)
def test_an_interrupted_call_gives_the_same_bundle(
    stage: str, step: int, made: Made, tiny_folder: Path, tiny_text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.lavolta"
    with pytest.raises(InterruptedWorkError):
        compress(str(tiny_folder), out=out, text=tiny_text, progress=Watch(stage, step), **SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.lavolta.work"]
    seen: list[int] = []
    train = recipe.train_joint

    def watched(*args: Any, **kwargs: Any) -> list[float]:
        history = train(*args, **kwargs)
        seen.append(len(history))
        return history

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "train_joint", watched)
        compress(str(tiny_folder), out=out, text=tiny_text, progress=Watch(), **SMALL)
    assert seen == [{10: STEPS - 8, 0: 0}.get(step, STEPS)]
    assert out.read_bytes() == made.out.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.lavolta"]


def test_work_of_other_options_is_not_continued(made: Made, tiny_folder: Path, tiny_text: Path, tmp_path: Path) -> None:
    # Same model, same number of steps, other text: only the mark can tell that the checkpoint is of something else.
    out, other = tmp_path / "m.lavolta", tmp_path / "other.txt"
    other.write_text("\n".join(sentences(40, seed=5)), encoding="utf-8")
    with pytest.raises(InterruptedWorkError):
        compress(str(tiny_folder), out=out, text=other, progress=Watch(TRAINING, 10), **SMALL)
    assert (tmp_path / "m.lavolta.work" / "training.pt").exists()
    compress(str(tiny_folder), out=out, text=tiny_text, **SMALL)
    assert out.read_bytes() == made.out.read_bytes()


def test_the_mark_is_of_options_model_device_and_text(tiny_folder: Path, tiny_text: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    text = Path(shutil.copy(tiny_text, tmp_path / "text.txt"))
    options = CompressOptions(str(folder), text=str(text))
    marks = [fingerprint(options), fingerprint(CompressOptions(str(folder), text=str(text), seed=1))]
    text.write_text(text.read_text(encoding="utf-8") + "one more\n", encoding="utf-8")
    marks.append(fingerprint(options))
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    save_file({**weights, name: weights[name] + 1e-3}, folder / "model.safetensors", {"format": "pt"})
    marks.append(fingerprint(options))
    device = tmp_path / "mine.toml"
    profile = (resources.files("lavolta.devices") / "profiles" / "odroid-xu3-a7.toml").read_text(encoding="utf-8")
    options = CompressOptions(str(folder), text=str(text), device=str(device))
    # Measured anew, under the same name.
    for rest in ("3.333", "3.5"):
        assert "cycles_per_rest_mac = 3.333" in profile
        device.write_text(profile.replace("= 3.333", f"= {rest}"), encoding="utf-8")
        marks.append(fingerprint(options))
    assert len(set(marks)) == 6
    assert fingerprint(options) == marks[-1]


def test_a_task_is_learned_scored_and_continued(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    out = tmp_path / "rte.lavolta"
    task = {"task": "rte", "data": tiny_glue, **SMALL, "steps": 4, "precision": "int8"}
    with pytest.raises(InterruptedWorkError):
        compress(str(tiny_folder), out=out, progress=Watch("search the cuts", 1), **task)
    (dense,) = (tmp_path / "rte.lavolta.work").glob("teachers/*/rte-dense-0.safetensors")
    first = dense.stat().st_mtime_ns
    # Another option of the compression needs no other dense model.
    with pytest.raises(InterruptedWorkError):
        compress(str(tiny_folder), out=out, progress=Watch("search the cuts", 1), **{**task, "steps": 5})
    assert dense.stat().st_mtime_ns == first
    progress = Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "remove_work", lambda _: None)
        result = compress(str(tiny_folder), out=out, progress=progress, **task)
    assert dense.stat().st_mtime_ns == first
    assert result["score_name"] == "accuracy"
    assert progress.said == [f"the dense model scores {result['dense_score']:.2f} (accuracy)"]
    dev = load_task("rte", tiny_glue).dev
    with open_bundle(out) as model:
        assert model.spec.labels == ["entailment", "not_entailment"]
        for index, level in enumerate(result["levels"]):
            model.switch(index)
            found = model.encode(list(zip(dev.first, dev.second, strict=True))).argmax(axis=1)
            assert level["score"] == pytest.approx(100.0 * float((found == dev.labels).mean()))


def test_a_full_disk_leaves_no_bundle_and_the_work_is_kept(
    made: Made, tiny_folder: Path, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, flush = tmp_path / "m.lavolta", os.fsync

    def full(handle: int) -> None:
        if os.path.dirname(os.readlink(f"/proc/self/fd/{handle}")) == str(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(BundleError, match=r"m\.lavolta was not written: the disk is full; free"):
            compress(str(tiny_folder), out=out, text=tiny_text, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["m.lavolta.work"]
    progress = Watch()
    compress(str(tiny_folder), out=out, text=tiny_text, progress=progress, **SMALL)
    assert out.read_bytes() == made.out.read_bytes()


def test_five_lines_of_python_are_enough(made: Made, tiny_folder: Path, tiny_text: Path) -> None:
    lavolta.compress(str(tiny_folder), out=made.out, text=tiny_text, **SMALL)
    model = lavolta.open(made.out)
    before = model.encode(["bari bea"])
    model.switch(2)
    assert not np.array_equal(before, model.encode(["bari bea"]))
    model.close()
