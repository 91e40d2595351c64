"""Files of a task of one's own: a text or a pair of texts a row, with a class or a score, as CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavolta.errors import UserInputError
from lavolta.files import read_text

SUFFIXES = ("csv", "tsv", "jsonl")
TEXT, SECOND = "text", "text2"
COLUMNS = {"classification": "label", "regression": "score"}
"""Kind of a task to the column that is to be predicted."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MOST_SHOWN = 40
LARGEST_SCORE = 10.0
"""A head begins near zero and learns scores of about one; far larger ones it would not reach."""


@dataclass(frozen=True)
class OwnRows:
    """The rows of one file, as they are written there.

    Args:
        path: of the file, for what is said of it.
        lines: where each row begins, from 1.
        second: ``None`` where rows have one text each.
        labels: the cells of the label column.
    """

    path: Path
    lines: tuple[int, ...]
    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: tuple[str, ...]


def read_own(folder: Path, split: str, kind: str) -> OwnRows:
    """Read ``<split>.csv``, ``.tsv`` or ``.jsonl``, of which one must be there; other columns do not matter.

    CSV quotes as spreadsheets do. TSV does not quote: a row is a line, and a quotation mark a character.

    Args:
        kind: ``"classification"`` (column ``label``) or ``"regression"`` (column ``score``); texts are in ``text`` and,
            for pairs, ``text2``.

    Raises:
        UserInputError: no such file or several, a file that is damaged, a column or a text that is missing.
    """
    found = [folder / f"{split}.{suffix}" for suffix in SUFFIXES if (folder / f"{split}.{suffix}").is_file()]
    if len(found) != 1:
        names = ", ".join(f"{split}.{suffix}" for suffix in SUFFIXES)
        how_many = "several" if found else "none"
        raise UserInputError(f"{folder} has {how_many} of {names}; the task needs one of them.")
    path, label = found[0], COLUMNS[kind]
    text = read_text(path, "check the path", "save it as UTF-8")
    reader = {"csv": _csv, "tsv": _tsv, "jsonl": _jsonl}[path.suffix[1:]]
    lines: list[int] = []
    columns: dict[str, list[str]] = {}
    for line, row in reader(path, text):
        there = [name for name in (TEXT, SECOND, label) if name in row]
        missing = [name for name in (TEXT, label) if name not in row]
        if missing or (lines and there != list(columns)):
            what = f"no {missing[0]!r}" if missing else f"{', '.join(there)}, and rows before it {', '.join(columns)}"
            raise UserInputError(
                f"{path} line {line} has {what}; every row needs {TEXT!r} and {label!r}, and {SECOND!r} where all have."
            )
        for name in there:
            if not row[name].strip():
                raise UserInputError(f"{path} line {line} has an empty {name!r}; fill it in, or take the row out.")
            # A blank beside a class is none of its name.
            columns.setdefault(name, []).append(row[name].strip() if name == label else row[name])
        lines.append(line)
    if not lines:
        raise UserInputError(f"{path} has no rows; give at least one.")
    second = tuple(columns[SECOND]) if SECOND in columns else None
    return OwnRows(path, tuple(lines), tuple(columns[TEXT]), second, tuple(columns[label]))


def class_names(rows: OwnRows) -> list[str]:
    """The classes of a file: by number where all are whole numbers, else by name.

    Raises:
        UserInputError: fewer than two.
    """
    names = set(rows.labels)
    if len(names) < 2:
        raise UserInputError(
            f"{rows.path} has one class, {shortened(rows.labels[0])!r}; give rows of another one to tell it from."
        )
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


def class_places(rows: OwnRows, names: list[str]) -> list[int]:
    """Each row's class as its place among ``names``.

    Raises:
        UserInputError: a class that is not there.
    """
    places = {name: place for place, name in enumerate(names)}
    for line, label in zip(rows.lines, rows.labels, strict=True):
        if label not in places:
            raise UserInputError(
                f"{rows.path} line {line} has the label {shortened(label)!r}, which no training row has; correct it, "
                "or add rows."
            )
    return [places[label] for label in rows.labels]


def scores_of(rows: OwnRows) -> list[float]:
    """Each row's score.

    Raises:
        UserInputError: what is no number, or lies outside of -10 to 10.
    """
    found = []
    for line, label in zip(rows.lines, rows.labels, strict=True):
        if not NUMBER.fullmatch(label):
            raise UserInputError(
                f"{rows.path} line {line} has the score {shortened(label)!r}, which is no number; correct it."
            )
        if not abs(float(label)) <= LARGEST_SCORE:
            raise UserInputError(
                f"{rows.path} line {line} has the score {shortened(label)}; scale the scores to lie within -10 and 10."
            )
        found.append(float(label))
    return found


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    begins = 1
    try:
        for row in reader:
            # An empty line is no row of a spreadsheet.
            if row and header is None:
                header = row
            elif row and header is not None:
                yield begins, _named(path, begins, header, row)
            begins = reader.line_num + 1
    except csv.Error as error:
        # A quotation mark that is never closed makes one cell of all the rest, too.
        raise UserInputError(
            f"{path} line {begins} is not CSV ({error}); repair its quotation marks, or write JSON lines."
        ) from error


def _tsv(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    header: list[str] | None = None
    for line, content in enumerate(text.split("\n"), start=1):
        row = content.removesuffix("\r").split("\t")
        if row == [""]:
            continue
        if header is None:
            header = row
        else:
            yield line, _named(path, line, header, row)


def _jsonl(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
            # Half of a surrogate pair passes for JSON, and is no text.
            json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise UserInputError(f"{path} line {line} is not JSON ({error}); give one object a line.") from error
        if not isinstance(row, dict):
            raise UserInputError(f'{path} line {line} is no object; give one such as {{"text": ...}} a line.')
        yield line, {name: _word(value) for name, value in row.items() if _is_cell(value)}


def _named(path: Path, line: int, header: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        raise UserInputError(f"{path} line {line} has {len(row)} columns, and its first line {len(header)}; repair it.")
    twice = [name for name in (TEXT, SECOND, *COLUMNS.values()) if header.count(name) > 1]
    if twice:
        raise UserInputError(f"{path} has two columns {twice[0]!r}; rename one.")
    return dict(zip(header, row, strict=True))


def _is_cell(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _word(value: str | float) -> str:
    if isinstance(value, str):
        return value
    # 1.0 is the class 1. The words of JSON for the rest: true.
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def shortened(cell: str) -> str:
    """A cell as a message shows it: swapped columns would show a document."""
    return cell if len(cell) <= MOST_SHOWN else f"{cell[:MOST_SHOWN]}..."
