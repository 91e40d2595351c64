"""`lavolta bench`: one record a contestant, tables for people, refusals in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lavolta.bench import lineup, running

if TYPE_CHECKING:
    from .conftest import Invoke


@pytest.fixture(autouse=True)
def few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "QUICK", (1, 2))


def test_a_bundle_at_all_its_levels(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("bench", bundle, "--quick", "--json")
    assert outcome.code == 0, outcome.err
    data = outcome.data
    assert {"bundle", "machine", "model", "tokens", "threads", "rounds", "repeat", "contestants"} == set(data)
    assert (data["tokens"], data["threads"]) == (16, 1)
    assert [record["name"] for record in data["contestants"]] == ["lavolta L0", "lavolta L1", "lavolta L2"]
    for record in data["contestants"]:
        assert record["median_ms"] > 0
        assert record["repetitions"] == 2
        assert record["precision"] == "fp32"
        assert record["times_faster_than_peer"] is None
        assert "linear" in record["instruction_set"]
        assert isinstance(record["over_threads"], bool)


def test_chosen_levels_and_a_table(invoke: Invoke, classifier: Path) -> None:
    outcome = invoke("bench", classifier, "--quick", "--levels", "L2", "--levels", "0", "--tokens", "7")
    assert outcome.code == 0, outcome.err
    assert "7 tokens" in outcome.out
    assert "lavolta L0" in outcome.out
    assert "lavolta L2" in outcome.out
    assert "lavolta L1" not in outcome.out


def test_peers_that_are_missing_are_named(
    invoke: Invoke, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "onnxruntime.py").write_text("raise ModuleNotFoundError('gone', name='onnxruntime')")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(lineup, "PEERS", (("onnxruntime", "int8"),))
    outcome = invoke("bench", bundle, "--quick", "--peers")
    assert outcome.code == 0, outcome.err
    assert "onnxruntime int8 did not run: onnxruntime is not installed; `pip install 'lavolta[bench]'`" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--levels", "L9"], "there is no level 'L9'; the bundle has L0, L1, L2."),
        (["--levels", "3"], "there is no level '3'"),
        (["--tokens", "17"], "tokens is 17; this model takes 1 to 16."),
        (["--tokens", "0"], "--tokens"),
        (["--threads", "256"], "this process may use 1 to"),
    ],
)
def test_wrong_arguments_are_refused(invoke: Invoke, bundle: Path, arguments: list[str], words: str) -> None:
    outcome = invoke("bench", bundle, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.out == ""


def test_sparsities_of_the_random_model_are_checked(invoke: Invoke) -> None:
    for wrong in ("L0", "1.0", "-0.5", "nan"):
        outcome = invoke("bench", f"--levels={wrong}")
        assert outcome.code == 2
        assert "without a bundle give sparsities from 0 to below 1" in outcome.err


def test_peers_do_not_run_a_language_model(invoke: Invoke, language_model: Path) -> None:
    outcome = invoke("bench", language_model, "--peers")
    assert outcome.code == 2
    assert "leave --peers out" in outcome.err


def test_a_bundle_that_is_none_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke("bench", tmp_path / "absent.lavolta")
    assert outcome.code == 2
    assert "absent.lavolta" in outcome.err


def test_a_language_model_runs_without_peers(invoke: Invoke, language_model: Path) -> None:
    assert len(invoke("bench", language_model, "--quick", "--json").data["contestants"]) == 3


def test_a_contestant_that_takes_more_threads_is_named(
    invoke: Invoke, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineup, "BUSY_LIMIT", 0.0)
    outcome = invoke("bench", bundle, "--quick", "--levels", "0")
    assert "lavolta L0 kept " in outcome.out
    assert "more than it was given" in outcome.out
