"""The rows of the experiments on tiny subjects: each runs, resumes, and has its levels at the sparsities asked for."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_files import save_model

from lavolta.errors import UserInputError
from lavolta.models.batching import StepBatches
from lavolta.models.lm import LmConfig
from lavolta.models.tasks import load_task
from lavolta.sparsity.ranking import are_nested, model_sparsity
from lavolta.systems.rt3.backbone import BackboneOptions
from lavolta.systems.rt3.lm import LmTraining, load_trained_lm, train_lm
from lavolta.systems.rt3.published import PatternOptions
from lavolta.systems.rt3.rows import ROWS, SEARCHED, RowOptions, run_row
from lavolta.systems.rt3.subjects import GlueSubject, GlueTraining, fresh_student, glue_subject, lm_subject

TRAINING = GlueTraining(epochs=1, batch_size=8, max_tokens=16)
LM = LmTraining(LmConfig(hidden=16, heads=2, ffn=24, max_tokens=32, tie=True), 2.0, 4, 8, samples=20)
SMALL: dict[str, Any] = {
    "steps": 3,
    "lr": 1e-3,
    "backbone": BackboneOptions(band_rows=4, lasso_steps=1),
    "patterns": PatternOptions(tile=8, patterns=2, alternatives=2, trials=3),
}


class InterruptedRowError(Exception):
    pass


@pytest.fixture(scope="module")
def subject(tiny_folder: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> GlueSubject:
    return glue_subject(str(tiny_folder), "rte", tiny_glue, tmp_path_factory.mktemp("dense"), TRAINING)


@pytest.fixture(scope="module")
def trained_lm(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lm") / "dense"
    train_lm(tiny_corpus, out, LM)
    return out


@pytest.mark.parametrize("row", [row for row in ROWS if row != "ranked-upstream"])
def test_every_row_runs(row: str, subject: GlueSubject, tmp_path: Path) -> None:
    run = run_row(subject, RowOptions(row, **SMALL), tmp_path)
    result = json.loads(json.dumps(run.result))
    alone = row.startswith("upper-bound")
    expected = 1 if alone else {"dense": 0, "bp-only": 1}.get(row, 3)
    assert len(result["levels"]) == len(run.masks) == expected
    assert (result["subject"], result["row"], result["title"]) == ("rte", row, ROWS[row])
    assert result["cell_rows"] == (4 if row in ("ranked", "ranked-searched") or alone else 1)
    wanted = [0.75] if alone else {"bp-only": [0.3]}.get(row, [0.5, 0.65, 0.75])
    grids = subject.dense.grids(result["cell_rows"])
    for level, masks, sparsity in zip(result["levels"], run.masks, wanted, strict=False):
        # Tiles of 64 cells and groups of 4 move in steps; a step of every tile is 1.6 % of the weights. A search
        # leaves unspent what no group can use: its four groups of a quarter each move by 6 to 20 % of their cells.
        assert sparsity - 0.01 <= level["sparsity"] <= sparsity + (0.05 if row in SEARCHED else 1 / 64)
        assert level["sparsity"] == model_sparsity(grids, masks)
        assert level["kept_cells"] == {name: int(mask.sum()) for name, mask in masks.items()}
        assert level["loss_points"] == result["dense_score"] - level["score"]
    if row.startswith("ranked"):
        assert are_nested(run.masks)
    if row in ("rbp-pp", "rt3", "rt3-distilled"):
        assert result["search_trials"] == 3
        assert result["swap_bytes"] > 0
    assert not list(tmp_path.glob("*.pt"))
    assert type(run.student.linears["layers.0.ffn.up"]) is torch.nn.Linear


def test_a_distilled_row_sees_more_pairs_without_their_labels(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path
) -> None:
    more = glue_subject(str(tiny_folder), "rte", tiny_glue, tmp_path, TRAINING, extra_tasks=["rte"])
    assert more.extra is not None
    other = load_task("rte", tiny_glue).train
    assert len(more.extra) == len(other)
    assert more.extra.labels is None
    student = fresh_student(more)
    distilled, plain = more.objective(student, True, 0), more.objective(student, False, 0)
    assert [distilled.batch(step).labels is None for step in range(4)] == [False, True, False, True]
    assert [plain.batch(step).labels is None for step in range(4)] == [False] * 4
    assert np.array_equal(distilled.batch(2).rows, plain.batch(1).rows)
    assert np.isfinite(float(distilled.loss(distilled.batch(1)).detach()))


@pytest.mark.parametrize("row", ["ranked", "rt3"])
def test_an_interrupted_row_gives_the_same_weights(
    row: str, subject: GlueSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_step(**fields: Any) -> Any:
        return JointConfig(**{**fields, "checkpoint_every": 1})

    from lavolta.systems.rt3 import rows
    from lavolta.training.joint import JointConfig

    monkeypatch.setattr(rows, "JointConfig", every_step)
    options = RowOptions(row, **SMALL)
    straight = run_row(subject, options, tmp_path / "straight")

    def stop(step: int, _: float) -> None:
        if step == 2:
            raise InterruptedRowError

    with pytest.raises(InterruptedRowError):
        run_row(subject, options, tmp_path / "work", stop)
    # Other options of the same length do not take up this checkpoint.
    changed = dataclasses.replace(options, sparsities=(0.4, 0.65, 0.75), row="ranked")
    if row == "ranked":
        with pytest.raises(UserInputError, match="was made with another configuration"):
            run_row(subject, changed, tmp_path / "work")
    steps: list[int] = []
    resumed = run_row(subject, options, tmp_path / "work", lambda step, _: steps.append(step))
    assert steps == [2]
    for name, weight in straight.student.weights().items():
        np.testing.assert_array_equal(resumed.student.weights()[name], weight)
    assert [x["score"] for x in resumed.result["levels"]] == [x["score"] for x in straight.result["levels"]]


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(UserInputError, match="the row 'best' is unknown; choose one of dense, bp-only"):
        RowOptions("best")
    with pytest.raises(UserInputError, match="2 sparsities do not fit 3 clocks"):
        RowOptions("rt3", sparsities=(0.5, 0.6))
    with pytest.raises(UserInputError, match="must rise"):
        RowOptions("rt3", sparsities=(0.6, 0.5, 0.7))


def test_the_dense_model_is_trained_once(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    steps: list[int] = []

    def dense(source: Path = tiny_folder, **changes: Any) -> GlueSubject:
        training = dataclasses.replace(TRAINING, **changes)
        return glue_subject(str(source), "rte", tiny_glue, tmp_path, training, lambda step, _: steps.append(step))

    first = dense()
    assert steps == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["rte-dense-0.safetensors"]
    second = dense(epochs=1.0)
    assert steps == [0, 1, 2]
    for name, tensor in first.dense.module.state_dict().items():
        assert torch.equal(tensor, second.dense.module.state_dict()[name])
    assert not second.dense.module.training
    # Another way of training, or another model, is another dense model.
    with pytest.raises(UserInputError, match="was trained from another model or in another way; delete it"):
        dense(lr=2e-4)
    with pytest.raises(UserInputError, match="was trained from another model or in another way; delete it"):
        dense(save_model(tmp_path / "other", seed=3))
    saved = tmp_path / "rte-dense-0.safetensors"
    good = saved.read_bytes()
    for broken in (good[: len(good) // 2], b"", b"\x08" + 7 * b"\0" + b"not json"):
        saved.write_bytes(broken)
        with pytest.raises(UserInputError, match=r"rte-dense-0\.safetensors cannot be read \(.*delete it to train"):
            dense()


def test_step_batches_are_of_the_step_alone(subject: GlueSubject) -> None:
    batches = [StepBatches(subject.train, 7, seed=3) for _ in range(2)]
    # 24 pairs in batches of 7: four a time through the data.
    assert batches[0].per_epoch == 4
    forward = [batches[0](step).rows.tolist() for step in range(8)]
    assert [batches[1](step).rows.tolist() for step in (5, 0, 7)] == [forward[5], forward[0], forward[7]]
    for epoch in (forward[:4], forward[4:]):
        assert sorted(row for rows in epoch for row in rows) == list(range(24))
    assert forward[:4] != forward[4:]


def test_the_language_model_is_a_subject_too(tiny_corpus: Path, trained_lm: Path, tmp_path: Path) -> None:
    subject = lm_subject(tiny_corpus, trained_lm)
    assert not subject.dense.module.training
    frozen = {id(p) for p in subject.trainable(subject.dense)}
    for name, parameter in subject.dense.module.named_parameters():
        assert (id(parameter) in frozen) != name.startswith(("embeddings.", "head.out."))
    run = run_row(subject, RowOptions("ranked", **SMALL), tmp_path)
    # A level keeps whole cells of four weights in each of twelve small layers.
    assert [level["sparsity"] for level in run.result["levels"]] == pytest.approx([0.5, 0.65, 0.75], abs=0.02)
    words = subject.corpus.test[:10]
    few = lm_subject(tiny_corpus, trained_lm, score_words=10)
    assert few.score(few.dense) == pytest.approx(100 * np.round(few.score(few.dense) / 100 * (len(words) - 1)) / 9)


def test_training_the_language_model_repeats_and_resumes(tiny_corpus: Path, trained_lm: Path, tmp_path: Path) -> None:
    result = json.loads((trained_lm / "result.json").read_text(encoding="utf-8"))
    assert sorted(p.name for p in trained_lm.iterdir()) == ["model.safetensors", "result.json", "vocab.txt"]
    assert result["steps"] == 2 * ((result["train_words"] // 4 - 1) // 8)
    assert result["test"]["words"] > 0

    def never(*_: object) -> None:
        raise AssertionError("a finished training trained")

    assert train_lm(tiny_corpus, trained_lm, LM, never) == result
    with pytest.raises(UserInputError, match="holds a model of another configuration"):
        train_lm(tiny_corpus, trained_lm, dataclasses.replace(LM, tokens=4, sequences=8))
    other = shutil.copytree(tiny_corpus, tmp_path / "other")
    longer = next(other.glob("valid*"))
    longer.write_text(longer.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(UserInputError, match="or of other text"):
        train_lm(other, trained_lm, LM)

    def stop(step: int, *_: object) -> None:
        if step == 3:
            raise InterruptedRowError

    with pytest.MonkeyPatch.context() as patch:
        from lavolta.systems.rt3 import lm
        from lavolta.training.joint import JointConfig

        patch.setattr(lm, "JointConfig", lambda **fields: JointConfig(**{**fields, "checkpoint_every": 2}))
        with pytest.raises(InterruptedRowError):
            train_lm(tiny_corpus, tmp_path, LM, stop)
        # Another shape of the batches has as many steps, but is another training.
        with pytest.raises(UserInputError, match="was made with another configuration"):
            train_lm(tiny_corpus, tmp_path, dataclasses.replace(LM, samples=30))
        steps: list[int] = []
        again = train_lm(tiny_corpus, tmp_path, LM, lambda step, *_: steps.append(step))
    assert steps[0] == 2
    assert again == result
    assert (tmp_path / "model.safetensors").read_bytes() == (trained_lm / "model.safetensors").read_bytes()


def test_other_text_and_damage_are_one_sentence(tiny_corpus: Path, trained_lm: Path, tmp_path: Path) -> None:
    from lavolta.models.lm import load_lm_corpus

    with pytest.raises(UserInputError, match=r"is not the result of a language model .*train-lm"):
        load_trained_lm(tmp_path, load_lm_corpus(tiny_corpus))
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("quite other words here\n" * 30, encoding="utf-8")
    with pytest.raises(UserInputError, match="was trained on other text"):
        load_trained_lm(trained_lm, load_lm_corpus(tmp_path))
    broken = tmp_path / "broken"
    broken.mkdir()
    for content in ("{", "[]", "{}", '{"training": 3}', ""):
        (broken / "result.json").write_text(content, encoding="utf-8")
        with pytest.raises(UserInputError, match=r"result\.json is not the result of a language model"):
            train_lm(tiny_corpus, broken, LM)
    for name in ("result.json", "vocab.txt", "model.safetensors"):
        (broken / name).write_bytes((trained_lm / name).read_bytes())
    (broken / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserInputError, match="holds no trained language model"):
        load_trained_lm(broken, load_lm_corpus(tiny_corpus))
    state = load_file(trained_lm / "model.safetensors")
    del state["layers.0.ffn.up.weight"]
    save_file(state, broken / "model.safetensors")
    with pytest.raises(UserInputError, match="holds no trained language model"):
        load_trained_lm(broken, load_lm_corpus(tiny_corpus))
