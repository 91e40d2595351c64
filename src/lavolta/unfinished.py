"""The folder of unfinished work: kept for the same work, begun anew for any other, removed when all is done."""

from __future__ import annotations

import shutil
from pathlib import Path

from lavolta.errors import UserInputError
from lavolta.files import write_whole

TEACHERS = "teachers"
"""Folder in it of fine-tuned dense models, by what each depends on: other options of the work need no other one."""

NOTE = "made-for"
"""File in the folder that holds the mark of the work."""


def begin_work(folder: Path, mark: str, keep: str | None = None) -> None:
    """Make the folder; what is in it stays where it has the same mark, and goes where it has another one.

    Args:
        keep: a name in the folder that stays in either case, since what lies there says itself what it is.

    Raises:
        UserInputError: the folder cannot be made, or holds files of somebody else.
    """
    note = folder / NOTE
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not note.is_file():
                raise UserInputError(f"{folder} holds files that this program did not make; move it away.")
            if note.read_text(encoding="utf-8", errors="replace") == mark:
                return
            for entry in folder.iterdir():
                # The note stays until another takes its place: a folder that is emptied only in part is still ours.
                if entry.name not in (keep, NOTE):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        folder.mkdir(exist_ok=True)
        write_whole(note, mark.encode())
    except OSError as error:
        raise UserInputError(
            f"the folder {folder} cannot be used: {error.strerror}; free space, or choose another place."
        ) from error


def remove_work(folder: Path) -> None:
    """Remove the folder. One that cannot be removed does no harm: the same work finds it, any other begins anew."""
    shutil.rmtree(folder, ignore_errors=True)
