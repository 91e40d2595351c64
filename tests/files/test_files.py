"""Writing a file completely or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lavolta.errors import UserInputError
from lavolta.files import make_folder, write_whole


def test_parts_follow_each_other_and_replace_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path)
    assert path.read_bytes() == b""
    write_whole(path, b"one ", memoryview(b"two"))
    write_whole(path, b"three", b"")
    assert path.read_bytes() == b"three"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full; free 3 MB"), (errno.EIO, "Input/output error; choose a folder")],
)
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(
    call: str, number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UserInputError, match=f"file was not written: {words}"):
        write_whole(path, bytes(3_000_000))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_places_that_are_none_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(UserInputError, match="was not written"):
            write_whole(path, b"x")
    with pytest.raises(UserInputError, match="cannot be made: Not a directory"):
        make_folder(tmp_path / "file" / "x")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
