"""What a program makes inside a file replaces what it made before, and nothing else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.report.generated import END, SUMMARY_BEGIN, bring_up_to_date, summary_command, with_part

BEGIN = "<!-- made -->"
WORDS = st.text(st.characters(blacklist_characters="<", blacklist_categories=("Cs",)))


@given(WORDS, WORDS, WORDS, WORDS)
def test_only_the_part_changes(before: str, old: str, part: str, after: str) -> None:
    made = with_part(f"{before}{BEGIN}{old}{END}{after}", BEGIN, part)
    assert made == f"{before}{BEGIN}\n{part}\n{END}{after}"
    assert with_part(made, BEGIN, part) == made


@pytest.mark.parametrize("text", ["", "a", f"{BEGIN} a", f"a {END}", f"{END} {BEGIN}"])
def test_a_text_without_a_place_is_refused(text: str) -> None:
    with pytest.raises(UserInputError, match="add the lines"):
        with_part(text, BEGIN, "part")


def test_only_stale_files_are_written(tmp_path: Path) -> None:
    fresh, stale, absent = (tmp_path / name for name in ("fresh", "stale", "absent"))
    fresh.write_text("a", encoding="utf-8")
    stale.write_text("b", encoding="utf-8")
    os.utime(fresh, ns=(1, 1))
    wanted = {fresh: "a", stale: "a", absent: "a"}
    assert bring_up_to_date(wanted, check=True) == [stale, absent]
    assert (stale.read_text(encoding="utf-8"), absent.exists()) == ("b", False)
    assert bring_up_to_date(wanted, check=False) == [stale, absent]
    assert bring_up_to_date(wanted, check=True) == []
    assert fresh.stat().st_mtime_ns == 1


def test_the_command_writes_checks_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "experiments" / "one" / "summarize.py"
    script.parent.mkdir(parents=True)
    readme, summary = script.with_name("README.md"), script.with_name("summary.json")
    readme.write_text(f"# One\n{SUMMARY_BEGIN}\n{END}\n", encoding="utf-8")

    def make(results: Path) -> tuple[dict[str, Any], str]:
        assert results == script.parent / "results"
        return {"score": 1.5}, "1.50"

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["summarize.py", *options])
        return summary_command(script, "One.", make)

    assert run("--check") == 1
    assert "run python experiments/one/summarize.py" in capsys.readouterr().out
    assert not summary.exists()
    assert run() == 0
    assert json.loads(summary.read_text(encoding="utf-8")) == {"score": 1.5}
    assert "1.50" in readme.read_text(encoding="utf-8")
    assert run("--check") == 0
    readme.write_text("# One\n", encoding="utf-8")
    assert run() == 2
    assert "add the lines" in capsys.readouterr().err
