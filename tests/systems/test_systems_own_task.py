"""Tasks of one's own files, from the files to classes that the engine gives."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_files import save_model, sentences

import lavolta
from lavolta.cli import main
from lavolta.errors import UserInputError
from lavolta.models.hf import load_encoder
from lavolta.models.tasks import load_task
from lavolta.progress import SilentProgress
from lavolta.systems.rt3.recipe import compress
from lavolta.systems.spd.options import PruneOptions
from lavolta.systems.spd.recipe import make_teacher, prune

CLASSES = ("music", "lights", "weather")


def headed(encoder: Path, folder: Path, config: dict[str, Any]) -> Path:
    """A model with a head for three classes, and its tokenizer."""
    from tiny_families import tiny_model

    save_model(folder)
    vocab = load_encoder(str(encoder), "embedding").spec.vocab
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 128}
    tiny_model("bert", 3, vocab_size=vocab, **sizes, **config).save_pretrained(folder)
    return folder


class Told(SilentProgress):
    """What a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def intents(tmp_path: Path) -> Path:
    """Single texts of three classes."""
    folder = tmp_path / "intents"
    folder.mkdir()
    for split, count, seed in (("train", 30, 1), ("dev", 12, 2)):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "text"])
            # Not as many of each: otherwise no count tells one numbering from another.
            writer.writerows(
                [CLASSES[(0, 0, 0, 1, 1, 2)[place % 6]], text] for place, text in enumerate(sentences(count, seed))
            )
    return folder


def test_classes_of_single_texts_are_pruned_and_run(
    tiny_folder: Path, intents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--task", "classification", "--data", str(intents), "--quick", "--steps", "6", "--out", str(out)]
    assert main(["prune", str(tiny_folder), *words, "--sparsity", "0.75", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["scores"]) == {"accuracy", "macro_f1"}
    dev = load_task("classification", intents).dev
    with lavolta.open(out / "model.lavolta") as model:
        assert model.spec.labels == sorted(CLASSES)
        found = model.encode(list(dev.first)).argmax(axis=1)
    assert result["score"] == pytest.approx(100.0 * float((found == dev.labels).mean()))
    (intents / "dev.csv").write_text("text,label\nhello,phone\n", encoding="utf-8")
    assert main(["prune", str(tiny_folder), *words]) == 2
    assert "dev.csv line 2 has the label 'phone', which no training row has" in capsys.readouterr().err


def test_scores_of_single_texts(tiny_folder: Path, tmp_path: Path) -> None:
    for split, count in (("train", 24), ("dev", 9)):
        rows = [json.dumps({"text": text, "score": len(text) % 5}) for text in sentences(count, count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    result = prune(str(tiny_folder), task="regression", data=tmp_path, out=tmp_path / "out", quick=True, method="spd")
    assert set(result["scores"]) == {"spearman", "pearson"}
    assert result["metric"] == "spearman"


def test_a_head_keeps_its_order_of_classes(tiny_folder: Path, intents: Path, tmp_path: Path) -> None:
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: place for place, name in enumerate(CLASSES)}}
    folder = headed(tiny_folder, tmp_path / "headed", names)
    options = PruneOptions(str(folder), "classification", str(intents), quick=True)
    task = load_task("classification", intents)
    assert task.labels != list(CLASSES)
    splits = make_teacher(options, task, tmp_path).splits
    assert splits.task.labels == list(CLASSES)
    with (intents / "dev.csv").open(encoding="utf-8") as file:
        wanted = [row["label"] for row in csv.DictReader(file)]
    labels = splits.task.dev.labels
    assert [CLASSES[place] for place in labels] == wanted
    np.testing.assert_array_equal(np.bincount(splits.dev.labels), np.bincount(labels))
    assert len(set(np.bincount(labels))) == 3


def test_a_head_without_names_takes_those_of_the_files(tiny_folder: Path, intents: Path, tmp_path: Path) -> None:
    options = PruneOptions(
        str(headed(tiny_folder, tmp_path / "headed", {})), "classification", str(intents), quick=True
    )
    teacher = make_teacher(options, load_task("classification", intents), tmp_path)
    assert teacher.loaded.spec.labels == sorted(CLASSES)
    config = {"id2label": {0: "music", 1: "lights", 2: "radio"}, "label2id": {"music": 0, "lights": 1, "radio": 2}}
    options = PruneOptions(str(headed(tiny_folder, tmp_path / "other", config)), "classification", str(intents))
    with pytest.raises(
        UserInputError, match="the files have the classes weather that the model has not, and the model radio"
    ):
        make_teacher(options, load_task("classification", intents), tmp_path)


def test_rows_that_cannot_tell_are_no_reason_to_refuse(tiny_folder: Path, tmp_path: Path) -> None:
    for split, count in (("train", 9), ("dev", 4)):
        rows = [f"{text},{'ab'[place == 0]}" for place, text in enumerate(sentences(count, count))]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    options = PruneOptions(str(tiny_folder), "classification", str(tmp_path), teacher_epochs=1.0)
    told = Told()
    assert make_teacher(options, load_task("classification", tmp_path), tmp_path, progress=told).doubt is None
    assert "1 held-out rows of classification are too few, or too uneven" in told.said[0]


def test_compress_takes_them_too(tiny_folder: Path, intents: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.lavolta"
    options = {"device": "odroid-xu3-a7", "levels": 2, "tokens": 8, "batch_size": 8, "steps": 4}
    result = compress(str(tiny_folder), out=out, task="classification", data=intents, **options)
    assert result["score_name"] == "accuracy"
    with lavolta.open(out) as model:
        assert model.spec.labels == sorted(CLASSES)
        assert model.encode(["turn it on"]).shape == (1, 3)
