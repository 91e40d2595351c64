"""What the summary of the AE-BERT experiments computes from results, and rows run on a tiny encoder."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "models"), str(TESTS / "systems")]
SUMMARY = runpy.run_path(str(ROOT / "experiments" / "aebert" / "summarize.py"))


def row(name: str, score: float, kl: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    proxies = {"kl": kl, "loss": -kl, "ladder": 0.0, "reconstruction": kl}
    return {
        "task": "rte",
        "metric": "accuracy",
        "row": name,
        "ratio": 0.6,
        "seed": seed,
        "steps": 10,
        "dense_score": 70.0,
        "score_before": 50.0,
        "score": score,
        "proxies": proxies,
        "encoder_sparsity": 0.6,
        "whole_sparsity": 0.3,
        "fine_tuning_seconds": 100.0,
        **changes,
    }


def test_correlation_is_spearman_with_fishers_interval() -> None:
    scores = [3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 8.0, 7.0, 10.0, 9.0]
    rows = [row(f"random-{i}", score, float(i)) for i, score in enumerate(scores)]
    found = SUMMARY["correlation"](rows, "kl")
    # By hand: 1 - 6 * sum(d^2) / (n^3 - n), differences 2, -1, -1, 1, -1, 0, 1, -1, 1, -1.
    rho = 1 - 6 * 12 / 990
    half = 1.96 * math.sqrt(1.06 / 7)
    assert found["spearman"] == round(rho, 3)
    assert found["interval"] == [round(math.tanh(math.atanh(rho) + sign * half), 3) for sign in (-1, 1)]
    assert SUMMARY["correlation"](rows, "loss")["spearman"] == -found["spearman"]
    assert SUMMARY["correlation"](rows[:9], "kl") is None
    # Rows of another length are no candidates of the same ranking.
    other = [row(f"random-{i}", -score, float(i), steps=99) for i, score in enumerate(scores[:9])]
    assert SUMMARY["correlation"](rows + other, "kl") == found


def test_gains_compare_equal_ratio_seed_and_steps() -> None:
    rows = [
        row("uniform", 60.0, 0.0),
        row("uniform", 50.0, 0.0, seed=1),
        row("uniform", 10.0, 0.0, ratio=0.7),
        row("random-1", 40.0, 0.0),
        row("random-2", 50.0, 0.0),
        row("chosen-kl", 62.0, 1.0, search={"seconds": 5.0}),
        row("chosen-kl", 55.0, 1.0, seed=1, search={"seconds": 15.0}),
        row("chosen-loss", 61.0, 1.0, seed=2),
    ]
    assert SUMMARY["gains"](rows, "uniform") == {"kl": [2.0, 5.0]}
    assert SUMMARY["gains"](rows, "random-") == {"kl": [17.0]}
    summary = SUMMARY["summarize"](rows)
    assert summary["gain_over_uniform"] == 3.5
    # Student's t for one degree of freedom: 12.706 standard errors of 1.5.
    assert summary["interval"] == pytest.approx([3.5 - 12.706 * 1.5, 3.5 + 12.706 * 1.5], abs=1e-2)
    # The larger of 5 and 15 seconds in 100.
    assert summary["search_cost_share"] == pytest.approx(0.15)
    assert "+3.50 points" in SUMMARY["render"](summary, rows)
    # After a longer training a seed counts once, and its search is held against that training.
    longer = [*rows, row("chosen-kl", 90.0, 1.0, steps=99, search={"seconds": 5.0}, fine_tuning_seconds=500.0)]
    assert SUMMARY["gains"](longer, "uniform") == {"kl": [2.0, 5.0]}
    longer.insert(0, row("uniform", 89.0, 1.0, steps=99))
    assert sorted(SUMMARY["gains"](longer, "uniform")["kl"]) == [1.0, 5.0]
    assert SUMMARY["search_cost_share"](longer) == 0.01


def test_nothing_measured_is_said_so() -> None:
    summary = SUMMARY["summarize"]([])
    assert summary["gain_over_uniform"] is None
    assert "not measured yet" in SUMMARY["render"](summary, [])


def test_rows_run_on_a_tiny_encoder_and_are_not_run_again(tmp_path: Path) -> None:
    from tiny_files import save_model, sentences

    save_model(tmp_path / "model")
    folder = tmp_path / "data" / "glue" / "STS-B"
    folder.mkdir(parents=True)
    scores = np.random.default_rng(0).random(160) * 5
    for name, count, seed in (("train", 160, 1), ("dev", 12, 2)):
        pairs = zip(sentences(count, seed), sentences(count, seed + 10), scores[:count], strict=True)
        rows = [f"{i}\t{a}\t{b}\t{s:.3f}" for i, (a, b, s) in enumerate(pairs)]
        content = "\n".join(["index\tsentence1\tsentence2\tscore", *rows]) + "\n"
        (folder / f"{name}.tsv").write_text(content, encoding="utf-8")
    command = [sys.executable, str(ROOT / "experiments" / "aebert" / "run.py"), "--task", "stsb", "--steps", "2"]
    for option, value in (("source", "model"), ("data", "data"), ("work", "work"), ("results", "results")):
        command += [f"--{option}", str(tmp_path / value)]
    command += ["--candidates", "4", "--row", "uniform", "random-1", "chosen-reconstruction"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    names = ("uniform-2", "random-1-2", "chosen-reconstruction-2")
    assert set(results) == {f"stsb-0.6-{name}-0" for name in names}
    uniform, chosen = results["stsb-0.6-uniform-2-0"], results["stsb-0.6-chosen-reconstruction-2-0"]
    assert uniform["encoder_sparsity"] == pytest.approx(0.6, abs=1e-3)
    assert set(uniform["per_linear"].values()) != set(chosen["per_linear"].values())
    assert chosen["proxies"]["reconstruction"] >= uniform["proxies"]["reconstruction"]
    assert chosen["search"]["origin"] in ("uniform", "global-magnitude", "sensitivity", "searched")
    SUMMARY["summarize"](list(results.values()))
    again_on_slices = [sys.executable, str(ROOT / "experiments" / "aebert" / "slices.py"), *command[2:4]]
    for option in ("source", "data", "work", "results"):
        again_on_slices += command[command.index(f"--{option}") :][:2]
    again_on_slices += ["--out", str(tmp_path / "slices")]
    few = subprocess.run(again_on_slices, capture_output=True, text=True, check=False)
    assert (few.returncode, "has 0 rows of stsb with 120 steps" in few.stderr) == (2, True)
    done = subprocess.run([*again_on_slices, "--steps", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "slices" / "stsb-kl-0.json").read_text())
    assert found["candidates"] == 3
    # Sixteen rows are held out: no slice of 24, one of 16.
    assert [(size["rows"], len(size["spearman"])) for size in found["slices"]] == [(8, 2), (16, 1)]
    longer = subprocess.run([*command, "--row", "uniform", "--steps", "3"], capture_output=True, text=True, check=False)
    assert "stsb-0.6-uniform-3-0.json" in longer.stdout, longer.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "all of these rows are there already" in again.stdout
    wrong = subprocess.run([*command, "--row", "luck"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "'luck' is unknown" in wrong.stderr) == (2, True)
