"""An append-only file of measurements: a run that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lavolta.errors import UserInputError


class Journal:
    """Measurements by key, one JSON line each, written as they are made.

    A last line that was cut is dropped. Use it as a context manager.

    Args:
        path: the file; it is made where it is absent.
        header: what the measurements belong to; a file with another header is refused.

    Raises:
        UserInputError: the file belongs to something else, is damaged, or cannot be used.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._entries: dict[str, Any] = {}
        wanted = json.loads(json.dumps(header))
        try:
            whole = self._read(wanted) if path.exists() else 0
            self._file = path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            raise UserInputError(
                f"the journal {path} cannot be used: {error.strerror}; choose another place with --out."
            ) from error
        self.resumed = len(self._entries)
        if not whole:
            self._append({"header": wanted})

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, key: str) -> Any | None:
        """What was measured under a key; None where nothing was."""
        return self._entries.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a measurement; it is in the system's hands when this returns."""
        self._entries[key] = value
        self._append({"key": key, "value": value})

    def _append(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def _read(self, wanted: Any) -> int:
        """Bytes of the whole lines."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                record = json.loads(line)
                if number == 1:
                    found = record["header"]
                else:
                    self._entries[record["key"]] = record["value"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserInputError(
                    f"line {number} of {self._path} is damaged; remove the file to measure anew."
                ) from error
            if number == 1 and found != wanted:
                different = ", ".join(sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key)))
                raise UserInputError(
                    f"{self._path} belongs to another run (its {different} differ); remove the file to measure anew."
                )
        return whole
