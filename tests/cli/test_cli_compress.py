"""`lavolta compress`: what it hands to the recipe, what it shows, and what it refuses before any work begins."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import typer

from lavolta.cli.app import _Global, build_app

if TYPE_CHECKING:
    from .conftest import Invoke


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("One sentence.\nAnother, naïve one.\n", encoding="utf-8")
    return path


def test_compress_hands_everything_to_the_recipe(
    recipe: ModuleType, result: dict[str, Any], text: Path, invoke: Invoke, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "m.lavolta"
    options = [
        "--deadline-ms",
        200,
        "--levels",
        7,
        "--max-sparsity",
        0.9,
        "--cell-rows",
        4,
        "--mode",
        "one-shot",
        "--steps",
        3,
        "--seed",
        9,
    ]
    options += ["--precision", "int8"]
    outcome = invoke("compress", "some/model", "--text", text, "--out", out, *options, "--json")
    assert outcome.code == 0
    assert outcome.data == result
    assert "a library talks" in outcome.err
    assert "train: done in" in outcome.err
    assert recipe.calls == [
        {
            "source": "some/model",
            "text": text,
            "task": None,
            "data": None,
            "device": "odroid-xu3-a7",
            "deadline_ms": 200.0,
            "levels": 7,
            "max_sparsity": 0.9,
            "out": out,
            "cell_rows": 4,
            "tokens": 128,
            "threads": 1,
            "steps": 3,
            "batch_size": 32,
            "lr": 4e-4,
            "seed": 9,
            "mode": "one-shot",
            "precision": "int8",
        }
    ]


def test_the_options_of_compress_are_those_of_the_recipe() -> None:
    from lavolta.systems.rt3.recipe import CompressOptions

    given = {
        parameter.name: parameter.default
        for parameter in typer.main.get_command(build_app(_Global())).commands["compress"].params
    }
    for option in fields(CompressOptions):
        if option.name != "source":
            assert given[option.name] == option.default, option.name


def test_compress_shows_people_the_levels(recipe: ModuleType, text: Path, invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke("compress", "m", "--text", text, "--out", tmp_path / "m.lavolta")
    assert outcome.code == 0
    assert "75.0" in outcome.out
    assert "lavolta run" in outcome.out
    assert len(recipe.calls) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text", "{text}", "--lr", "-1"], "--lr is -1; give a number above 0."),
        (["--text", "{text}", "--task", "stsb"], "--text and --task exclude one another"),
        (["--task", "stsb"], "the task stsb needs its files; give --data DIR."),
        (["--text", "{dir}/absent.txt"], "there is no file"),
        (["--text", "{dir}"], "is a folder; give a text file."),
        (["--text", "{dir}/empty.txt"], "is empty; give text like that which the model will see."),
        (["--text", "{dir}/blank.txt"], "is empty"),
        (["--text", "{dir}/latin.txt"], "is not UTF-8 text at byte 3; save it as UTF-8."),
        (["--text", "{text}", "--device", "odroid-xu9"], "unknown device 'odroid-xu9'; the closest are odroid-xu3"),
        (["--text", "{text}", "--device", "{dir}/absent.toml"], "cannot read the device profile"),
        (["--text", "{text}", "--deadline-ms", "0"], "--deadline-ms is 0; give a number above 0."),
        (["--text", "{text}", "--deadline-ms", "nan"], "--deadline-ms is nan; give a number above 0."),
        (["--text", "{text}", "--deadline-ms", "soon"], "--deadline-ms"),
        (["--text", "{text}", "--levels", "0"], "--levels"),
        (["--text", "{text}", "--levels", "33"], "--levels"),
        (["--text", "{text}", "--cell-rows", "3"], "--cell-rows is 3; choose one of 1, 2, 4, 8, 16."),
        (["--text", "{text}", "--mode", "magic"], "--mode"),
        (["--text", "{text}", "--steps", "0"], "--steps"),
        (["--text", "{text}", "--seed", "-1"], "--seed"),
        (["--text", "{text}", "--out", "{dir}"], "is a folder; give the name of a file in it"),
        (["--text", "{text}", "--out", "{text}/m.lavolta"], "is a file, not a folder; choose another place."),
    ],
)
def test_compress_refuses_before_it_works(
    arguments: list[str], sentence: str, recipe: ModuleType, text: Path, invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.txt").write_text(" \n\t\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    before = sorted(entry.name for entry in tmp_path.iterdir())
    given = [word.replace("{text}", str(text)).replace("{dir}", str(tmp_path)) for word in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "m.lavolta")]
    outcome = invoke("compress", "m", *given, *out)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert sentence in outcome.err
    assert recipe.calls == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before
