"""The numbers in the experiments' READMEs are those of their result files, and nothing else."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lavolta.systems.spd.methods import METHODS

ROOT = Path(__file__).parents[2]


def test_summary_and_readme_of_rt3_are_made_from_the_results() -> None:
    script = ROOT / "experiments" / "rt3" / "summarize.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_result_names_what_its_file_says() -> None:
    for path in (ROOT / "experiments" / "rt3" / "results").glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert path.name.startswith(f"{result['subject']}-{result['row']}-"), path
        assert path.stem.endswith(f"-{result['options']['seed']}"), path


def test_a_changed_result_makes_the_summary_stale(tmp_path: Path) -> None:
    source = ROOT / "experiments" / "rt3"
    results = tmp_path / "results"
    results.mkdir()
    for path in (source / "results").glob("*.json"):
        (results / path.name).write_bytes(path.read_bytes())
    for name in ("summary.json", "README.md"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    command = [sys.executable, str(source / "summarize.py"), "--check", "--results", str(results)]
    command += ["--out", str(tmp_path / "summary.json")]
    assert subprocess.run(command, check=False).returncode == 0
    changed = next(path for path in sorted(results.glob("*-ranked-0.json")))
    data = json.loads(changed.read_text(encoding="utf-8"))
    data["levels"][-1]["score"] += 1.0
    changed.write_text(json.dumps(data), encoding="utf-8")
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1


def test_the_cell_table_is_made_from_its_result() -> None:
    folder = ROOT / "experiments" / "cells"
    render = runpy.run_path(str(folder / "run.py"))["render"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert render(readme, result) == readme


def test_summary_and_readme_of_spd_are_made_from_the_results() -> None:
    script = ROOT / "experiments" / "spd" / "summarize.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rows_of_spd_are_at_the_rates_of_their_methods() -> None:
    for path in sorted((ROOT / "experiments" / "spd" / "results").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["method"] != "dense":
            method = result["method"].removeprefix("aebert+").replace("aebert", "magnitude")
            assert result["lr"] == METHODS[method].peak_lr(round(result["encoder_sparsity"], 3), 384), path


def test_the_words_about_spd_follow_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "experiments" / "spd"
    monkeypatch.syspath_prepend(str(folder))
    # Every experiment has a module of this name.
    monkeypatch.setitem(sys.modules, "tables", None)
    monkeypatch.delitem(sys.modules, "tables")
    module = runpy.run_path(str(folder / "summarize.py"))

    def result(
        task: str,
        method: str,
        seed: int,
        score: float,
        gap: float,
        sparsity: float = 0.9,
        steps: int = 5,
        rows: int = 32,
    ) -> dict[str, Any]:
        look = {"step": 5, "train": score + gap, "held_out": score, "dev": score}
        return {
            "task": task,
            "method": method,
            "metric": "accuracy",
            "steps": None if method == "dense" else steps,
            "score": score,
            "dense_score": 70.0,
            "teacher_doubt": None,
            "teacher_seed": seed,
            "options": {"seed": seed, "sparsity": 0.0 if method == "dense" else sparsity, "batch_size": rows},
            "curve": [look],
        }

    results = []
    for seed, gain in enumerate((1.5, 2.5, 2.0)):
        results += [
            result("rte", "dense", seed, 70.0, 8.0),
            result("rte", "gmp", seed, 55.0, 20.0 + seed),
            result("rte", "gmp-kd", seed, 60.0, 12.0 + 0.5 * seed),
            result("rte", "spd", seed, 60.0 + gain, 12.5 + (seed - 1)),
            result("rte", "spd", seed, 99.0, 0.0, sparsity=0.5),
        ]
    results.append(result("rte", "aebert+spd", 0, 63.5, 9.0))
    # A pair without its other half counts nowhere.
    results.append(result("mrpc", "spd", 0, 90.0, 0.0))
    summary = module["summarize"](results)
    # By hand: mean 2, standard deviation 0.5, t(0.975, 2) = 4.3027.
    assert summary["gain_over_gmp_kd_at_90"] == 2.0
    assert summary["interval"] == pytest.approx([2 - 4.3027 * 0.5 / 3**0.5, 2 + 4.3027 * 0.5 / 3**0.5], abs=1e-3)
    assert (summary["pairs"], summary["by_task"]["rte"]["gain"], summary["by_task"]["mrpc"]["pairs"]) == (3, 2.0, 0)
    # The best other row of its seed is SPD with 61.5; the mean over all seeds is not what it is compared with.
    assert summary["combination_at_90"] == 2.0
    assert summary["combinations_at_90"] == {
        "rte": {"method": "aebert+spd", "other": "spd", "ahead": 2.0, "seeds": [0]}
    }
    assert "* Searched ratios at 90 %, rte: `aebert+spd` is the best row, +2.00 points to `spd` (seed 0)." in (
        module["render"](summary)
    )
    two = [*results, result("rte", "aebert+gmp", 0, 58.0, 9.0), result("rte", "aebert+gmp", 1, 70.0, 9.0)]
    assert module["combinations"](two)["rte"] == {
        "method": "aebert+gmp",
        "other": "spd",
        "ahead": 2.0,
        "seeds": [0, 1],
    }
    assert summary["combinations_at_50"] == {}
    half = [*two, result("rte", "aebert+gmp", 0, 69.0, 9.0, 0.5), result("rte", "aebert+gmp", 1, 69.5, 9.0, 0.5)]
    half += [result("rte", "aebert+spd", 0, 60.0, 9.0, 0.5), result("rte", "aebert+spd", 0, 99.0, 9.0, 0.5, steps=2)]
    found = module["losses_at_half"](half)["rte"]
    assert (found["method"], found["loss_points"], found["seeds"]) == ("aebert+gmp", 0.75, [0, 1])
    # Two losses, 1.0 and 0.5: half of their distance by t(0.975, 1) = 12.706.
    assert found["interval"] == pytest.approx([0.75 - 0.25 * 12.706, 0.75 + 0.25 * 12.706], abs=1e-2)
    assert "`aebert+gmp` scores -0.75 points against the dense model (seeds 0, 1; 95 % interval -3.93 to +2.43" in (
        module["render"]({**summary, "combinations_at_50": {"rte": found}})
    )
    claims = {claim: answer["verdict"] for claim, answer in summary["claims"].items()}
    assert list(claims.values()) == ["confirmed", "confirmed", "confirmed", "undecided"]
    assert module["verdict"]([-3.0, -3.1, -2.9], 1)["verdict"] == "contradicted"
    assert module["verdict"]([5.0], 1)["verdict"] == "undecided"
    assert "+2.00 points over 3 pairs of 3 dense models, rte (95 % interval" in module["render"](summary)
    assert [twins["gain"]["points"] for twins in summary["same_masks"]] == [None, None]
    # A task whose gap is another one has a verdict of its own.
    other = module["summarize"]([*results, result("mrpc", "gmp-kd", 0, 60.0, -30.0)])
    (gap,) = (answer for claim, answer in other["claims"].items() if claim.startswith("SPD's gap"))
    assert gap["points"] == pytest.approx((-30.0 + sum(found["points"] for found in [gap["by_task"]["rte"]] * 3)) / 4)
    assert [gap["by_task"][task]["pairs"] for task in ("mrpc", "rte")] == [1, 3]
    assert "  * mrpc: undecided (-30.00 points over 1 pair of 1 dense model, too few" in module["render"](other)
    # Rows of other steps are rows of their own; a seed counts once, after the most steps that both methods have.
    results += [result("rte", "spd", 0, 80.0, 0.0, steps=9), result("rte", "gmp-kd", 0, 70.0, 4.0, steps=9)]
    results += [result("rte", "spd", 1, 99.0, 0.0, steps=9), result("rte", "gmp-kd", 2, 1.0, 0.0, steps=9)]
    # As many steps of fewer rows are another length too, and so is the same work in more steps.
    results += [result("rte", "spd", 2, 99.0, 0.0, steps=8, rows=8), result("rte", "gmp-kd", 2, 1.0, 0.0, steps=8)]
    results += [result("rte", "spd", 2, 99.0, 0.0, steps=32, rows=8)]
    results += [result("mrpc", "sparsegpt+spd", 0, 80.0, 1.0), result("mrpc", "sparsegpt", 0, 80.5, 4.0)]
    results += [result("mrpc", "sparsegpt", 1, 99.0, 0.0), result("mrpc", "sparsegpt+spd", 1, 9.0, 0.0, steps=9)]
    longer = module["summarize"](results)
    assert (longer["pairs"], longer["gain_over_gmp_kd_at_90"]) == (3, round((10.0 + 2.5 + 2.0) / 3, 3))
    # The combination has five steps, and so has what it is compared with.
    assert longer["combination_at_90"] == 2.0
    seeds = {(row["task"], row["method"], row["steps"]): row["seeds"] for row in longer["rows"]}
    assert "| spd | 32 x 8 | 2 |" in module["render"](longer)
    assert (seeds["rte", "spd", 5], seeds["rte", "spd", 9]) == ([0, 1, 2], [0, 1])
    same = longer["same_masks"][0]
    assert (same["spd"], same["gain"]["points"], same["gain"]["pairs"]) == ("sparsegpt+spd", -0.5, 1)
    assert same["gap_reduction"]["points"] == 3.0
    assert "score -0.50 points (too few for an interval), train-dev gap -3.00 points" in module["render"](longer)


def test_summary_and_readme_of_aebert_are_made_from_the_results() -> None:
    script = ROOT / "experiments" / "aebert" / "summarize.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
