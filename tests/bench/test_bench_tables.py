"""The numbers in the benchmarks' README are those of the stored results, and nothing else."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lavolta.errors import UserInputError

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_the_readme_is_made_from_the_results() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "all.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_script_with_a_table_has_a_row_in_the_run_of_all() -> None:
    """A table that nobody shows would go stale."""
    scripts = set(runpy.run_path(str(FOLDER / "all.py"))["SCRIPTS"])
    with_table = {path.stem for path in FOLDER.glob("*.py") if "\ndef table(" in path.read_text(encoding="utf-8")}
    assert with_table == scripts


def test_a_changed_result_makes_the_readme_stale(tmp_path: Path) -> None:
    for path in (FOLDER / "results").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, str(FOLDER / "all.py"), "--check", "--results", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
    changed = tmp_path / "engine_levels.json"
    result = json.loads(changed.read_text(encoding="utf-8"))
    result["rows"][0]["median_ms"] += 1.0
    changed.write_text(json.dumps(result), encoding="utf-8")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "all.py --tables" in done.stderr


def test_a_readme_without_a_place_for_a_script_is_refused() -> None:
    with pytest.raises(UserInputError, match="encoder_latency: made by"):
        runpy.run_path(str(FOLDER / "all.py"))["render"]("# Benchmarks", FOLDER / "results")
