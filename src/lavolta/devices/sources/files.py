"""Read and write the small files of sysfs: what goes wrong becomes a sentence, never a crash."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lavolta.errors import LavoltaError

_MAX_BYTES = 4096
"""What the kernel shows in one attribute at most."""
_WORDS = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is not there",
    errno.ENODEV: "belongs to a device that is gone",
    errno.ENXIO: "belongs to a device that is gone",
    errno.EACCES: "may not be used by this user",
    errno.EPERM: "may not be used by this user",
    errno.EROFS: "is on a file system that cannot be written",
}

_Value = TypeVar("_Value")


class UnreadableError(LavoltaError):
    """A file that does not give what it should; the message is one sentence. It never leaves the sources."""


@dataclass
class Findings:
    """Why values are missing, filled while a reading is put together."""

    missing: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, get: Callable[[], _Value]) -> _Value | None:
        """The value of a field; None, with the reason noted, where it cannot be had."""
        try:
            return get()
        except UnreadableError as reason:
            self.missing[name] = str(reason)
            return None


def text(path: Path, max_bytes: int = _MAX_BYTES) -> str:
    """The stripped text of a file, at most its first bytes.

    Raises:
        UnreadableError: for every failure.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes)
    except OSError as error:
        raise UnreadableError(_sentence(path, error)) from error
    return content.decode("utf-8", errors="replace").strip()


def number(path: Path) -> float:
    """The finite number in a file, in the file's own unit.

    Raises:
        UnreadableError: for every failure, and for anything else than a number.
    """
    found = text(path)
    try:
        value = float(found)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnreadableError(f"{path} holds {found[:40]!r}, not a number.")
    return value


def numbers(path: Path) -> list[float]:
    """The finite numbers in a file; words between them (as some drivers have) are passed over."""
    found = []
    for word in text(path).split():
        try:
            value = float(word)
        except ValueError:
            continue
        if math.isfinite(value):
            found.append(value)
    return found


def write(path: Path, content: str) -> None:
    """Write a file that exists; one that is gone is not made anew.

    Raises:
        UnreadableError: for every failure.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(handle, content.encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise UnreadableError(_sentence(path, error)) from error


def folders(path: Path, prefix: str = "") -> list[Path]:
    """Folders below a path whose names start with ``prefix``, numbers in their order; none where the path is absent."""
    try:
        found = [entry for entry in path.iterdir() if entry.name.startswith(prefix) and entry.is_dir()]
    except OSError:
        return []
    return sorted(found, key=lambda entry: (len(entry.name), entry.name))


def _sentence(path: Path, error: OSError) -> str:
    return f"{path} {_WORDS.get(error.errno or 0, 'cannot be used: ' + (error.strerror or str(error)).lower())}."
