"""What `compress` refuses: in one sentence, and leaving every folder as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_files import save_model

from lavolta.errors import BundleError, InfeasibleError, LavoltaError, UserInputError
from lavolta.systems.rt3.recipe import compress

SMALL = {"tokens": 16, "levels": 3, "steps": 11, "batch_size": 4, "lr": 1e-3, "precision": "fp32"}


def refuse(kind: type[LavoltaError], words: str, folder: Path, call: Callable[[], object]) -> None:
    """The call fails with one sentence and leaves the folder as it was."""
    before = {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")} == before


def test_a_deadline_that_no_level_meets_is_found_out_before_the_fine_tuning(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path
) -> None:
    def call() -> object:
        out = tmp_path / "rte.lavolta"
        return compress(str(tiny_folder), out=out, task="rte", data=tiny_glue, **SMALL, deadline_ms=1e-3)

    # Fine-tuning would leave its folder behind.
    refuse(InfeasibleError, r"no level meets 0\.001 ms", tmp_path, call)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"device": "odroid-xu9"}, UserInputError, "unknown device 'odroid-xu9'"),
        ({"source": "no-such/model"}, UserInputError, "'no-such/model' is no folder"),
        ({"deadline_ms": 1e-3}, InfeasibleError, r"no level meets 0\.001 ms on odroid-xu3-a7: .*; allow at least"),
        ({"deadline_ms": float("nan")}, UserInputError, "a deadline of nan ms"),
        ({"deadline_ms": -5.0}, UserInputError, r"a deadline of -5\.0 ms"),
        ({"mode": "magic"}, UserInputError, "the mode 'magic' is unknown; choose one of distill, one-shot"),
        ({"steps": 0}, UserInputError, "steps is 0"),
        ({"batch_size": 0}, UserInputError, "batch_size 0"),
        ({"lr": -1.0}, UserInputError, r"the learning rate is -1\.0"),
        ({"lr": float("nan")}, UserInputError, "the learning rate is nan"),
        ({"lr": 1e30}, UserInputError, r"at step 1; lower the learning rate \(now 1e\+30\)"),
        ({"seed": -1}, UserInputError, "the seed is -1"),
        ({"levels": 0}, UserInputError, "0 levels were asked for"),
        # Before the model is looked for.
        ({"source": "no-such/model", "max_sparsity": 0.97}, UserInputError, r"may drop 0 to 0\.93, not 0\.97"),
        ({"cell_rows": 3}, UserInputError, "cell_rows is 3; choose one of 1, 2, 4, 8, 16"),
        ({"tokens": 0}, UserInputError, "0 tokens do not fit"),
        ({"tokens": 129}, UserInputError, "129 tokens do not fit"),
        ({"threads": 9}, UserInputError, "9 threads do not fit"),
        ({"task": "rte"}, UserInputError, "a text and a task were both given"),
        ({"task": "rte", "text": None}, UserInputError, "the task 'rte' needs its data"),
        ({"task": "cola", "text": None, "data": "."}, UserInputError, "the task 'cola' is unknown"),
        ({"task": "rte", "text": None, "data": "."}, UserInputError, r"train\.tsv cannot be read"),
    ],
)
def test_wrong_options_are_one_sentence(
    change: dict[str, Any], kind: type[LavoltaError], words: str, tiny_folder: Path, tiny_text: Path, tmp_path: Path
) -> None:
    options = {"source": str(tiny_folder), "text": tiny_text, **SMALL, **change}
    diverged = "lr" in change and change["lr"] > 1
    if diverged:
        # The work is begun before the training can diverge; its folder stays, no bundle does.
        (tmp_path / "in").mkdir()
        with pytest.raises(kind, match=words):
            compress(out=tmp_path / "in" / "m.lavolta", **options)
        assert [p.name for p in (tmp_path / "in").iterdir()] == ["m.lavolta.work"]
        return
    refuse(kind, words, tmp_path, lambda: compress(out=tmp_path / "m.lavolta", **options))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"has no words"),
        (b" \n\n\t\n", r"has no words"),
        ("naïve".encode("latin-1"), r"is not UTF-8 text \(byte 2 is 0xef\)"),
        (None, "cannot be read"),
    ],
)
def test_text_that_cannot_be_used_is_one_sentence(
    content: bytes | None, words: str, tiny_folder: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    refuse(UserInputError, words, tmp_path, lambda: compress(str(tiny_folder), out=tmp_path / "m", text=text, **SMALL))


def test_a_single_sentence_is_enough(tiny_folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("bari bea", encoding="utf-8")
    result = compress(str(tiny_folder), out=tmp_path / "m.lavolta", text=text, **{**SMALL, "steps": 2})
    assert len(result["levels"]) == 3


def test_damaged_models_are_one_sentence(tiny_text: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", seed=1)
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.attention.self.query.weight"

    def call() -> object:
        return compress(str(folder), out=tmp_path / "m.lavolta", text=tiny_text, **SMALL)

    save_file({**weights, name: torch.full_like(weights[name], float("nan"))}, folder / "model.safetensors")
    refuse(UserInputError, r"layers\.1\.attention\.query\.weight of model contains NaN or infinity", tmp_path, call)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").unlink()
    refuse(UserInputError, "model has no tokenizer", tmp_path, call)


def test_places_that_cannot_be_written_are_one_sentence(tiny_folder: Path, tiny_text: Path, tmp_path: Path) -> None:
    def to(out: Path) -> Callable[[], object]:
        return lambda: compress(str(tiny_folder), out=out, text=tiny_text, **SMALL)

    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "busy.work").mkdir()
    (tmp_path / "busy.work" / "thesis.txt").write_text("mine", encoding="utf-8")
    refuse(UserInputError, "there is no folder", tmp_path, to(tmp_path / "none" / "m.lavolta"))
    refuse(UserInputError, "there is no folder", tmp_path, to(tmp_path / "file" / "m.lavolta"))
    refuse(UserInputError, "cannot be written; choose a file", tmp_path, to(tmp_path / "folder"))
    # Nobody can make a file there, not even root.
    refuse(UserInputError, "cannot be", tmp_path, to(Path("/proc/m.lavolta")))
    # A file that is no bundle is somebody's: it is not overwritten.
    refuse(BundleError, "file", tmp_path, to(tmp_path / "file"))
    refuse(UserInputError, r"busy\.work holds files that this program did not make", tmp_path, to(tmp_path / "busy"))
