"""Tiny bundles of every task, and a way to run the command line in this process."""

from __future__ import annotations

import copy
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lavolta.cli import main
from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.packing import pack_linear

WORDS = ("[UNK]", "a", "cat", "dog", "sleeps", "rests", "the", "quietly")
LM_WORDS = ("<unk>", "<eos>", "a", "cat", "dog", "sleeps")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output as JSON; fails when anything else is on it."""
        return json.loads(self.out)


Invoke = Callable[..., Outcome]


RESULT: dict[str, Any] = {
    "levels": [
        {"name": "L0", "sparsity": 0.0, "fidelity": 1.0, "latency_ms": 9.0, "dense_latency_ms": 9.5},
        {"name": "L1", "sparsity": 0.75, "fidelity": 0.9, "latency_ms": 4.0, "dense_latency_ms": 9.5},
    ],
    "policies": {"E1": {"inferences": 100, "misses": 0}, "dial": {"inferences": 400, "misses": 0}},
    "improvement": 4.0,
}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the recipes, so that these tests need no torch; `calls` keeps what it was given."""
    module = ModuleType("stand_in")
    calls: list[dict[str, Any]] = []

    def compress(source: str, **options: Any) -> dict[str, Any]:
        print("a library talks")
        with options.pop("progress").stage("train", total=1) as stage:
            stage.advance()
        calls.append({"source": source, **options})
        return RESULT

    def run_demo(out: Path, progress: Any) -> dict[str, Any]:
        progress.say("the demo talks")
        calls.append({"out": out})
        return RESULT

    module.compress, module.run_demo, module.calls = compress, run_demo, calls  # type: ignore[attr-defined]
    for name in ("recipe", "demo"):
        monkeypatch.setitem(sys.modules, f"lavolta.systems.rt3.{name}", module)
    return module


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run one command line: `invoke("device", "list", stdin=b"...")`."""

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def _tokenizer() -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(tokenizer.to_str()).encode()


def write_tiny(path: Path, **changes: Any) -> Path:
    """A bundle of three levels with random weights; `changes` go to its `ModelSpec`."""
    shape: dict[str, Any] = {"layers": 2, "hidden": 6, "heads": 2, "ffn": 7, "vocab": len(WORDS), "max_tokens": 16}
    spec = ModelSpec(name="tiny", **{**shape, **changes})
    random = np.random.default_rng(5)
    tensors = {name: random.standard_normal(s).astype(np.float32) for name, s in dense_shapes(spec).items()}
    packed = {}
    for name, (out_features, in_features) in spec.linear_shapes().items():
        rank = random.permuted(np.linspace(0, 1, CellGrid(out_features, in_features, 2).cells)).reshape(-1, in_features)
        weight = random.standard_normal((out_features, in_features)).astype(np.float32)
        packed[name] = pack_linear(weight, [rank <= cut for cut in (1.0, 0.5, 0.25)], 2)
    total = sum(layer.kept_cells(0) for layer in packed.values())
    levels = [
        {
            "name": f"L{level}",
            "sparsity": 1 - sum(layer.kept_cells(level) for layer in packed.values()) / total,
            "fidelity": 1.0 - 0.05 * level,
            "kept_cells": {name: layer.kept_cells(level) for name, layer in packed.items()},
        }
        for level in range(3)
    ]
    words_only = spec.task == "language-model"
    write_bundle(
        path,
        spec,
        tensors,
        packed,
        dict.fromkeys(packed),
        levels,
        2,
        {"kind": "ranked"},
        tokenizer_json=None if words_only else _tokenizer(),
        vocab="".join(f"{word}\n" for word in LM_WORDS).encode() if words_only else None,
    )
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A sentence encoder."""
    return write_tiny(tmp_path / "tiny.lavolta")


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Two labels, two token types."""
    return write_tiny(
        tmp_path / "classifier.lavolta",
        types=2,
        pooling="cls",
        head_dense="tanh",
        outputs=2,
        task="classification",
        labels=["no", "yes"],
    )


@pytest.fixture
def regressor(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "regressor.lavolta", outputs=1, task="regression")


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    return write_tiny(
        tmp_path / "lm.lavolta",
        vocab=len(LM_WORDS),
        causal=True,
        pooling="none",
        outputs=len(LM_WORDS),
        task="language-model",
    )


@pytest.fixture
def result() -> dict[str, Any]:
    """What the stand-in for the recipes returns."""
    return copy.deepcopy(RESULT)
