"""`lavolta prune`: what it hands to the recipe, what it shows, and what it refuses before any work begins."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import typer

from lavolta.cli.app import _Global, build_app

if TYPE_CHECKING:
    from .conftest import Invoke

LEVEL = {"name": "L0", "encoder_sparsity": 0.9, "model_sparsity": 0.42, "score": 58.5}
RESULT: dict[str, Any] = {"task": "rte", "metric": "accuracy", "method": "spd", "dense_score": 60.25, "levels": [LEVEL]}


@pytest.fixture
def pruner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the recipe, so that these tests need no torch; `calls` keeps what it was given."""
    module = ModuleType("stand_in")
    calls: list[dict[str, Any]] = []

    def prune(source: str, **options: Any) -> dict[str, Any]:
        print("a library talks")
        with options.pop("progress").stage("train", total=1) as stage:
            stage.advance()
        calls.append({"source": source, **options})
        return RESULT

    module.prune, module.calls = prune, calls  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lavolta.systems.spd.recipe", module)
    return module


def test_prune_hands_everything_to_the_recipe(pruner: ModuleType, invoke: Invoke, tmp_path: Path) -> None:
    ratios = tmp_path / "ratios.json"
    ratios.write_text('{"layers.0.ffn.up": 0.5, "layers.0.ffn.down": 1}', encoding="utf-8")
    words = ["--method", "gmp-kd", "--levels", "0.4,0.95", "--steps", 7, "--seed", 3, "--lr", 1e-3]
    words += ["--cell-rows", 4, "--no-dropout", "--no-mask-padding", "--quick", "--force", "--ratios", ratios]
    outcome = invoke("prune", "m", "--task", "rte", "--data", tmp_path, "--out", tmp_path / "o", *words, "--json")
    assert outcome.code == 0
    assert outcome.data == RESULT
    assert "a library talks" in outcome.err
    assert pruner.calls == [
        {
            "source": "m",
            "task": "rte",
            "data": tmp_path,
            "out": tmp_path / "o",
            "ratios": {"layers.0.ffn.up": 0.5, "layers.0.ffn.down": 1.0},
            "sparsity": None,
            "method": "gmp-kd",
            "levels": (0.4, 0.95),
            "steps": 7,
            "epochs": 12.0,
            "seed": 3,
            "batch_size": 8,
            "lr": 1e-3,
            "cell_rows": 4,
            "max_tokens": 128,
            "pooling": "cls",
            "teacher_epochs": 4.0,
            "teacher_lr": 1e-4,
            "teacher_batch_size": 32,
            "dropout": False,
            "mask_padding": False,
            "quick": True,
            "force": True,
            "accelerator": "cpu",
        }
    ]


def test_the_options_of_prune_are_those_of_the_recipe() -> None:
    from lavolta.systems.spd.options import PruneOptions

    params = typer.main.get_command(build_app(_Global())).commands["prune"].params
    given = {parameter.name: parameter.default for parameter in params}
    for option in fields(PruneOptions):
        if option.name not in ("source", "task", "data"):
            assert (given[option.name] or None) == (option.default or None), option.name


@pytest.mark.parametrize(
    ("words", "overall_ratio"),
    [(["--overall-ratio", 0.6], 0.6), (["--device", "odroid-xu3-a7", "--energy-mj", 5.5, "--deadline-ms", 40], None)],
)
def test_prune_hands_the_budget_to_the_search(
    words: list[Any],
    overall_ratio: float | None,
    pruner: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    invoke: Invoke,
    tmp_path: Path,
) -> None:
    calls: list[dict[str, Any]] = []

    class Found:
        per_linear: ClassVar = {"layers.0.ffn.up": 0.5}

        def as_dict(self) -> dict[str, Any]:
            return {"origin": "uniform"}

    def choose_ratios(dense: str, train: str, held_out: str, **options: Any) -> Found:
        calls.append({"dense": dense, "rows": [train, held_out], **options})
        return Found()

    monkeypatch.setattr("lavolta.systems.aebert.choose_ratios", choose_ratios, raising=False)
    words = [*words, "--method", "aebert+gmp-kd", "--proxy", "ladder", "--tokens", 64, "--threads", 2, "--workers", 3]
    marks = []
    for more in ([], ["--workers", 1], ["--seed", 5]):
        outcome = invoke("prune", "m", "--task", "rte", "--data", tmp_path, "--out", tmp_path / "o", *words, *more)
        assert outcome.code == 0
        search = pruner.calls[-1]["ratios"]
        assert (search.name, pruner.calls[-1]["method"]) == ("aebert", "gmp-kd")
        marks.append(search.mark)
        found = search.run("dense", SimpleNamespace(train="train", held_out="held"), tmp_path, "progress")
        assert (found.per_linear, found.facts) == (Found.per_linear, {"origin": "uniform"})
    # With several workers, chance decides which candidates come of which.
    assert len(set(marks)) == 3
    limited = overall_ratio is None
    assert calls[0] == {
        "dense": "dense",
        "rows": ["train", "held"],
        "storage": tmp_path / "ratios.db",
        "progress": "progress",
        "overall_ratio": overall_ratio,
        "device": "odroid-xu3-a7" if limited else None,
        "deadline_ms": 40.0 if limited else None,
        "energy_mj": 5.5 if limited else None,
        "tokens": 64,
        "threads": 2,
        "proxy": "ladder",
        "candidates": 100,
        "workers": 3,
        "cell_rows": 1,
        "seed": 0,
    }


def test_prune_shows_people_both_sparsities(pruner: ModuleType, invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke("prune", "m", "--task", "rte", "--data", tmp_path, "--out", tmp_path / "o")
    assert outcome.code == 0
    for words in ("90.0", "42.0", "58.50", "60.25", "lavolta explain"):
        assert words in outcome.out
    assert len(pruner.calls) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sparsity", "1"], "a sparsity of 1 cannot be reached"),
        (["--sparsity", "much"], "--sparsity"),
        (["--method", "magic"], "the method 'magic' is unknown; choose one of spd"),
        (["--lr", "-1"], "--lr is -1; give a number above 0."),
        (["--levels", "0.5;0.7"], "--levels is '0.5;0.7'; give numbers with commas"),
        (["--levels", "0.95"], "do not lead to 0.9"),
        (["--steps", "0"], "--steps"),
        (["--cell-rows", "3"], "the cell height 3 is unknown"),
        (["--accelerator", "tpu"], "the accelerator 'tpu' is unknown"),
        (["--ratios", "{dir}/absent.json"], "absent.json cannot be read"),
        (["--ratios", "{dir}/list.json"], "is no object of numbers"),
        (["--ratios", "{dir}/words.json"], "is no object of numbers"),
        (["--ratios", "{dir}/broken.json"], "is not JSON"),
        (["--out", "{dir}/broken.json/out"], "is a file, not a folder"),
        (["--ratios", "{dir}/list.json", "--sparsity", "0.8"], "and --sparsity of all; leave one out"),
        (["--method", "aebert+magic"], "or aebert+METHOD."),
        (["--method", "aebert", "--ratios", "{dir}/list.json"], "leave one of them out"),
        (
            ["--workers", "2"],
            "gradual-sparsegpt has none; take --method aebert or aebert+gradual-sparsegpt.",
        ),
        (["--device", "odroid-xu3-a7", "--deadline-ms", "9"], "--device is for a search for ratios"),
        (["--method", "aebert+gmp-kd", "--proxy", "luck"], "--proxy is 'luck'; choose one of kl, hidden, loss"),
        (["--method", "aebert", "--device", "odroid-xu3-a7"], "--device with --deadline-ms, --energy-mj or both"),
        (["--method", "aebert", "--energy-mj", "5"], "--device with --deadline-ms, --energy-mj or both"),
        (
            ["--method", "aebert", "--device", "odroid-xu3-a7", "--deadline-ms", "nan"],
            "--deadline-ms is nan; give a number",
        ),
        (["--method", "aebert", "--device", "odroid-xu9", "--deadline-ms", "9"], "unknown device"),
        (
            ["--method", "aebert", "--device", "odroid-xu3-a7", "--deadline-ms", "9", "--sparsity", "0.9"],
            "--sparsity and --device are two budgets",
        ),
    ],
)
def test_prune_refuses_before_it_works(
    words: list[str], sentence: str, pruner: ModuleType, invoke: Invoke, tmp_path: Path
) -> None:
    for name, content in (("list", [0.5]), ("words", {"a": "half"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    given = [word.replace("{dir}", str(tmp_path)) for word in words]
    out = [] if "--out" in given else ["--out", str(tmp_path / "o")]
    outcome = invoke("prune", "m", "--task", "rte", "--data", tmp_path, *given, *out)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert sentence in outcome.err
    assert pruner.calls == []
