"""The unit file of the documentation, as systemd itself reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    blocks = re.findall(r"```ini\n# /etc/systemd/system/(\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [name for name, _ in blocks] == ["lavolta.service", "lavolta.service.d/clock.conf"]
    for name, text in blocks:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        # Where lavolta is installed is the reader's matter.
        path.write_text(text.replace("/opt/lavolta/bin/lavolta", shutil.which("true") or ""), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "lavolta.service")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    complaints = [line for line in done.stderr.splitlines() if "lavolta" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_asks_for_what_the_command_line_has() -> None:
    from lavolta.cli.app import _Global, build_app

    typer = pytest.importorskip("typer")
    command = typer.main.get_command(build_app(_Global())).commands["serve"]
    known = {option for parameter in command.params for option in parameter.opts}
    line = next(row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("ExecStart="))
    asked = set(re.findall(r"--[a-z-]+", line))
    assert asked
    assert asked <= known
