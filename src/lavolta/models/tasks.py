"""The GLUE tasks RTE, STS-B and MRPC in their official TSV layout, and the scores that belong to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.models import metrics


@dataclass(frozen=True)
class Split:
    """Sentence pairs with their labels.

    Args:
        first, second: ``n`` sentences each.
        labels: ``(n,)``, int64 classes or float32 scores.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class TaskData:
    """One task.

    Args:
        name: ``"rte"``, ``"stsb"`` or ``"mrpc"``.
        test: labelled test pairs, ``None`` where the folder has none.
        metric: the score that the paper reports for the task: ``"accuracy"``, ``"spearman"`` or ``"f1"``.
        outputs: of the model's head.
        kind: ``"classification"`` or ``"regression"``.
        labels: names of the classes in order; empty for a regression.
    """

    name: str
    train: Split
    dev: Split
    test: Split | None
    metric: str
    outputs: int
    kind: str
    labels: list[str]

    def score(self, outputs: NDArray[np.floating], truth: NDArray[np.generic]) -> dict[str, float]:
        """Every metric of the task for a model's ``outputs (n, outputs)`` and labels ``(n,)``; values are 0 to 1."""
        if outputs.ndim != 2 or outputs.shape[1] != self.outputs:
            raise UserInputError(
                f"{self.name} needs outputs of shape (n, {self.outputs}), not {outputs.shape}; use a head that fits."
            )
        if self.kind == "regression":
            scores = outputs[:, 0]
            return {"spearman": metrics.spearman(scores, truth), "pearson": metrics.pearson(scores, truth)}
        if not np.isfinite(outputs).all():
            raise UserInputError("the outputs contain NaN or infinity; the training diverged, lower the learning rate.")
        predicted = outputs.argmax(axis=1)
        found = {"accuracy": metrics.accuracy(predicted, truth)}
        if self.metric == "f1":
            found["f1"] = metrics.f1(predicted, truth)
        return found


@dataclass(frozen=True)
class _Layout:
    """Columns of a task's files by header name, and by position for a labelled test file without header."""

    folder: str
    first: str
    second: str
    label: str
    metric: str
    classes: tuple[str, ...]
    """Class names as the files write them; empty for a score."""
    names: tuple[str, ...]
    headerless_test: tuple[int, int, int] | None = None
    """Positions of first, second, label."""


LAYOUTS = {
    "rte": _Layout(
        "RTE",
        "sentence1",
        "sentence2",
        "label",
        "accuracy",
        ("entailment", "not_entailment"),
        ("entailment", "not_entailment"),
    ),
    # The labelled test file is that of the STS benchmark itself: no header, the score before the sentences, and some
    # rows with two more columns for the sources.
    "stsb": _Layout("STS-B", "sentence1", "sentence2", "score", "spearman", (), (), (5, 6, 4)),
    "mrpc": _Layout("MRPC", "#1 String", "#2 String", "Quality", "f1", ("0", "1"), ("not_equivalent", "equivalent")),
}
ALIASES = {"sts-b": "stsb"}


def load_task(name: str, folder: str | Path) -> TaskData:
    """Read one task.

    Args:
        name: ``rte``, ``stsb`` (or ``sts-b``) or ``mrpc``, in any case.
        folder: the task's own folder, or the folder above it (then ``RTE``, ``STS-B`` or ``MRPC`` inside it is read).

    Raises:
        UserInputError: an unknown task, a missing file or column, a row that does not fit, a label outside its set.
    """
    key = ALIASES.get(name.lower(), name.lower())
    if key not in LAYOUTS:
        raise UserInputError(f"the task {name!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    layout, root = LAYOUTS[key], Path(folder)
    if (root / layout.folder).is_dir():
        root = root / layout.folder
    test_file = root / "test_labelled.tsv"
    test = None
    if test_file.is_file():
        test = _read(test_file, layout, header=layout.headerless_test is None)
    return TaskData(
        key,
        _read(root / "train.tsv", layout),
        _read(root / "dev.tsv", layout),
        test,
        layout.metric,
        len(layout.names) or 1,
        "classification" if layout.names else "regression",
        list(layout.names),
    )


def _read(path: Path, layout: _Layout, header: bool = True) -> Split:
    # The files do not quote: a quotation mark is a character of the sentence, and only a newline ends a row.
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserInputError(f"{path} cannot be read: {error.strerror}; give the folder of the task.") from error
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path} is not UTF-8 text (byte {error.start}); copy it again.") from error
    rows = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
    if header or layout.headerless_test is None:
        columns = tuple(_column(path, rows[0], name) for name in (layout.first, layout.second, layout.label))
        width, exact, start = len(rows[0]), True, 1
    else:
        columns = layout.headerless_test
        width, exact, start = max(columns) + 1, False, 0
    if len(rows) == start:
        raise UserInputError(f"{path} has no rows; copy it again.")
    convert = _class_reader(layout) if layout.classes else float
    first: list[str] = []
    second: list[str] = []
    labels: list[float] = []
    for number, row in enumerate(rows[start:], start=start + 1):
        if len(row) < width or (exact and len(row) > width):
            raise UserInputError(f"{path} line {number} has {len(row)} columns, not {width}; copy the file again.")
        try:
            label = convert(row[columns[2]])
        except (KeyError, ValueError) as error:
            wanted = " or ".join(layout.classes) or "a number from 0 to 5"
            raise UserInputError(f"{path} line {number} has the label {row[columns[2]]!r}, not {wanted}.") from error
        if not layout.classes and not 0.0 <= label <= 5.0:
            raise UserInputError(f"{path} line {number} has the score {label}, outside 0 to 5; copy the file again.")
        first.append(row[columns[0]])
        second.append(row[columns[1]])
        labels.append(label)
    array = np.array(labels, dtype=np.int64) if layout.classes else np.array(labels, dtype=np.float32)
    return Split(tuple(first), tuple(second), array)


def _class_reader(layout: _Layout) -> Callable[[str], float]:
    place = {name: float(index) for index, name in enumerate(layout.classes)}
    return place.__getitem__


def _column(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise UserInputError(f"{path} has no column {name!r} in its first line; use the official GLUE file.")
    return header.index(name)
