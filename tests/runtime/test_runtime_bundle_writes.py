"""Writing a bundle is all or nothing: a full disk, a failing flush, an interrupt and a kill leave the old file."""

from __future__ import annotations

import builtins
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.errors import BundleError
from lavolta.runtime.container import Container, write_container
from reference_model import random_model


class FailingFile:
    """A file that takes some bytes and then fails, as a full disk does, in the middle of a write."""

    def __init__(self, file: Any, room: int, error: int) -> None:
        self.file, self.room, self.error = file, room, error

    def write(self, data: Any) -> int:
        data = bytes(data)
        self.file.write(data[: self.room])
        if len(data) > self.room:
            raise OSError(self.error, os.strerror(self.error))
        self.room -= len(data)
        return len(data)

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


# Before anything, inside the length, inside the header, inside the tensors.
@pytest.mark.parametrize("room", [0, 5, 100, 9000])
@pytest.mark.parametrize(("error", "words"), [(errno.ENOSPC, "the disk is full; free"), (errno.EIO, "was not written")])
def test_a_failing_write_leaves_the_old_file(
    room: int, error: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.lavolta"
    random_model(seed=1).write(path)
    old, real_open = path.read_bytes(), builtins.open

    def failing_open(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        opened = real_open(file, mode, *rest, **options)
        return FailingFile(opened, room, error) if mode == "wb" else opened

    monkeypatch.setattr(builtins, "open", failing_open)
    with pytest.raises(BundleError, match=words) as caught:
        random_model(seed=2).write(path)
    assert caught.value.kind == "io"
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.lavolta"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_flush_or_rename_leaves_the_old_file(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.lavolta"
    random_model(seed=1).write(path)
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(BundleError, match="Input/output error"):
        random_model(seed=2).write(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.lavolta"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")

    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_container(path, {"a": np.zeros(3, np.float32)}, {}, interrupt)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.bin"]


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")
    script = """
import os, signal, sys
import numpy as np
from lavolta.runtime.container import write_container
kill = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_container(sys.argv[1], {"a": np.zeros(3, np.float32)}, {}, kill)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    write_container(path, {"a": np.zeros(3, np.float32)}, {}, lambda _: None)
    assert Container(path).tensor("a", "F32", (3,)).tolist() == [0.0, 0.0, 0.0]


def test_a_folder_that_does_not_exist_is_io(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file or directory; choose a folder that exists") as caught:
        random_model().write(tmp_path / "nowhere" / "m.lavolta")
    assert caught.value.kind == "io"
