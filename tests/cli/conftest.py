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

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from lavolta.cli import main
from tiny_bundles import LM_WORDS, write_tiny


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
