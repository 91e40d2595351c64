"""Record readings, and play a recorded trace again as a source."""

from __future__ import annotations

import bisect
import csv
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lavolta.devices.sources.reading import Reading
from lavolta.errors import UserInputError

MAX_BYTES = 256 << 20
"""A year of readings, one a minute, has half of this."""
_KINDS = {item.name: item.type for item in fields(Reading)}
_NUMBERS = ("time_s", "slept_s", "charge_share", "charge_mwh", "capacity_mwh", "power_mw", "temperature_c")
_CLOCKS = ("freq_mhz", "freq_limit_mhz")


def to_json(reading: Reading) -> str:
    """One line of a JSONL trace; what is not known is left out."""
    record = {name: value for name, value in asdict(reading).items() if value is not None and value != {}}
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def from_record(record: Mapping[str, Any], where: str = "the record") -> Reading:
    """A reading from plain data.

    Args:
        record: fields of `Reading`; clocks also flat, as ``freq_mhz.big``. Absent or None: not known.
        where: how messages call it.

    Raises:
        UserInputError: no time, an unknown field, or a value that is not of its kind.
    """
    found: dict[str, Any] = {name: {} for name in (*_CLOCKS, "missing")}
    for name, value in record.items():
        field, _, cluster = name.partition(".")
        if field in _CLOCKS and cluster:
            value = {cluster: value}
        elif cluster or field not in _KINDS:
            raise UserInputError(f"{where} has the unknown field {name!r}; known are {', '.join(_KINDS)}.")
        if value is None:
            continue
        if field in _NUMBERS:
            found[field] = _number(value, where, name)
        elif field in _CLOCKS:
            entries = _mapping(value, where, name)
            found[field].update({k: _number(v, where, name) for k, v in entries.items() if v is not None})
        elif field == "missing":
            found[field].update({str(k): str(v) for k, v in _mapping(value, where, name).items()})
        elif field == "on_ac":
            if not isinstance(value, bool):
                raise UserInputError(f"{where}: on_ac is {value!r}; it must be true or false.")
            found[field] = value
        else:
            found[field] = str(value)
    if "time_s" not in found:
        raise UserInputError(f"{where} has no time_s; every reading needs one.")
    return Reading(**found)


def load_trace(path: Path) -> list[Reading]:
    """Read a trace: JSONL (one object a line, as `to_json` writes) or CSV (a line of names first, empty cells unknown).

    Raises:
        UserInputError: the file cannot be read, or a line of it is wrong (the line is named).
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserInputError(f"{path} has {path.stat().st_size} bytes; a trace has at most {MAX_BYTES}.")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserInputError(f"cannot read the trace {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path} is not UTF-8 text; a trace is JSONL or CSV.") from error
    records = _csv_records(path, text) if path.suffix.lower() == ".csv" else _json_records(path, text)
    readings = [from_record(record, f"{path}, line {line}") for line, record in records]
    if not readings:
        raise UserInputError(f"{path} has no readings; record at least one.")
    for line, (before, after) in enumerate(itertools.pairwise(readings), start=2):
        if after.time_s < before.time_s:
            raise UserInputError(f"{path}: reading {line} is earlier than the one before it; sort the trace by time_s.")
    return readings


class Replay:
    """Plays readings again: each look gives the latest one whose time has come.

    Args:
        readings: rising in time; `load_trace` reads a file.
        clock: time in seconds since the first look; playing runs at its speed.
        loop: start again after the last reading, as a day follows a day. Time goes on rising.
    """

    def __init__(self, readings: Sequence[Reading], clock: Callable[[], float], *, loop: bool = False) -> None:
        if not readings:
            raise UserInputError("there is nothing to play; give at least one reading.")
        self._readings = list(readings)
        self._times = [reading.time_s - readings[0].time_s for reading in readings]
        self._clock = clock
        self._start_s: float | None = None
        self._loop = loop and self._times[-1] > 0
        self._slept_until = -1

    @property
    def ended(self) -> bool:
        """Whether the last reading has been reached; never for a loop."""
        return not self._loop and self._elapsed_s() >= self._times[-1]

    def read(self) -> Reading:
        """The reading of this time, with the time of the clock; `slept_s` is told once."""
        elapsed_s = self._elapsed_s()
        place_s = elapsed_s % self._times[-1] if self._loop else elapsed_s
        index = max(bisect.bisect_right(self._times, place_s) - 1, 0)
        found = self._readings[index]
        told = index == self._slept_until
        self._slept_until = index
        return Reading(
            **{
                **{name: getattr(found, name) for name in _KINDS},
                "time_s": self._readings[0].time_s + elapsed_s,
                "slept_s": 0.0 if told else found.slept_s,
            }
        )

    def _elapsed_s(self) -> float:
        now_s = self._clock()
        if self._start_s is None:
            self._start_s = now_s
        return max(now_s - self._start_s, 0.0)


def _json_records(path: Path, text: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        try:
            record = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise UserInputError(f"{path}, line {line} is not JSON: {error}.") from error
        yield line, _mapping(record, f"{path}, line {line}", "the line")


def _csv_records(path: Path, text: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    try:
        for line, row in enumerate(reader, start=2):
            if None in row or None in row.values():
                raise UserInputError(f"{path}, line {line} has not as many cells as the first line has names.")
            cells = {name.strip(): cell.strip() for name, cell in row.items()}
            yield line, {name: _cell(name, cell) for name, cell in cells.items() if cell}
    except csv.Error as error:
        raise UserInputError(f"{path} is not CSV: {error}.") from error


def _cell(name: str, cell: str) -> Any:
    if name == "on_ac":
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(cell.lower(), cell)
    if name.partition(".")[0] in (*_NUMBERS, *_CLOCKS):
        try:
            return float(cell)
        except ValueError:
            return cell
    return cell


def _number(value: Any, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserInputError(f"{where}: {name} is {value!r}; it must be a finite number.")
    return float(value)


def _mapping(value: Any, where: str, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserInputError(f"{where}: {name} is {value!r}; it must be an object with names and values.")
    return value
