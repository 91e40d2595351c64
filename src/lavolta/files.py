"""Write a file completely or not at all, in a folder that is made where it is missing; read a text of a user."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lavolta.errors import UserInputError


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts one after another to ``path``; an older file stays as it was until all of them are on the disk.

    Raises:
        UserInputError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = sum(len(part) for part in parts) / 1e6
            raise UserInputError(
                f"{path} was not written: the disk is full; free {max(size, 1.0):.0f} MB and run the command again."
            ) from error
        raise UserInputError(
            f"{path} was not written: {error.strerror or error}; choose a folder that exists and can be written."
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        UserInputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserInputError(f"the folder {path} cannot be made: {error.strerror}; choose another place.") from error


def read_text(path: Path, unreadable: str, damaged: str) -> str:
    """The text of a user's UTF-8 file, with or without a byte order mark, its line ends as they are.

    Args:
        unreadable, damaged: the way out where the file cannot be read, and where it is no UTF-8.

    Raises:
        UserInputError: either of them.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserInputError(f"{path} cannot be read: {error.strerror}; {unreadable}.") from error
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path} is not UTF-8 text (byte {error.start}); {damaged}.") from error
