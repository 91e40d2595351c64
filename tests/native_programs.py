"""Building the native programs that tests run, as a stranger would build them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def find_cmake() -> str:
    """The cmake beside this Python, or the system's; skips where there is none."""
    beside = Path(sys.executable).with_name("cmake")
    cmake = str(beside) if beside.exists() else shutil.which("cmake")
    if not cmake:
        pytest.skip("no cmake; a build from source needs it")
    return cmake


def build(folder: Path, targets: tuple[str, ...], *options: str) -> Path:
    """Configure and build in `folder`, which keeps what is up to date; skips where there is no cmake."""
    cmake = find_cmake()
    folder.mkdir(parents=True, exist_ok=True)
    # Tests that run at the same time share the folder.
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure = ["-S", str(ROOT), "-B", str(folder), *options]
        for command in (configure, ["--build", str(folder), "-j", "2", "--target", *targets]):
            done = subprocess.run([cmake, *command], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder
