"""The numbers in the experiments' READMEs are those of their result files, and nothing else."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

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


def test_summary_and_readme_of_aebert_are_made_from_the_results() -> None:
    script = ROOT / "experiments" / "aebert" / "summarize.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
