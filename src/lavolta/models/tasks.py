"""Tasks with labels: the GLUE tasks RTE, STS-B and MRPC in their official TSV layout, or files of one's own; and the
scores that belong to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.files import read_text
from lavolta.models import metrics, own_tasks


@dataclass(frozen=True)
class Split:
    """Texts or pairs of texts with their labels.

    Args:
        first, second: ``n`` texts each; ``second`` is ``None`` where there are no pairs.
        labels: ``(n,)``, int64 classes or float32 scores.
    """

    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: NDArray[np.int64] | NDArray[np.float32]

    @property
    def texts(self) -> list[str] | list[tuple[str, str]]:
        """What a model reads: ``n`` texts, or pairs of them."""
        return list(self.first) if self.second is None else list(zip(self.first, self.second, strict=True))

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class TaskData:
    """One task.

    Args:
        name: ``"rte"``, ``"stsb"`` or ``"mrpc"``; ``"classification"`` or ``"regression"`` for files of one's own.
        test: labelled test pairs, ``None`` where the folder has none.
        metric: the score that is reported for the task: ``"accuracy"``, ``"spearman"`` or ``"f1"``.
        outputs: of the model's head.
        kind: ``"classification"`` or ``"regression"``.
        labels: names of the classes in order; empty for a regression.
        positive: the class that F1 is of.
    """

    name: str
    train: Split
    dev: Split
    test: Split | None
    metric: str
    outputs: int
    kind: str
    labels: list[str]
    positive: int = 1

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
            found["f1"] = metrics.f1(predicted, truth, self.positive)
        if self.name in own_tasks.COLUMNS:
            found["macro_f1"] = float(np.mean([metrics.f1(predicted, truth, place) for place in np.unique(truth)]))
        return found

    def ordered_like(self, names: list[str]) -> TaskData:
        """The same task with its classes numbered as a head numbers them, which may be in another order.

        Args:
            names: of the head's outputs, in any case. Where they are numbers, or what transformers gives for want of
                better ones, the order of the files stays, and that of GLUE in its tasks.

        Raises:
            UserInputError: the names are those of other classes than the files have.
        """
        ours, theirs = ([name.casefold() for name in some] for some in (self.labels, names))
        if len(set(ours)) != len(ours):
            ours, theirs = self.labels, names
        if self.kind != "classification" or names == self.labels:
            return self
        if sorted(ours) != sorted(theirs):
            # GLUE has one order of its classes, whatever a model calls them.
            if self.name not in own_tasks.COLUMNS or unnamed(names):
                return self
            strange = [name for name, folded in zip(self.labels, ours, strict=True) if folded not in theirs]
            unknown = [name for name, folded in zip(names, theirs, strict=True) if folded not in ours]
            raise UserInputError(
                f"the files have the classes {_listed(strange)} that the model has not, and the model "
                f"{_listed(unknown)} that the files have not; name them alike there, or in id2label of the model's "
                "config.json."
            )
        moved = np.array([theirs.index(label) for label in ours], dtype=np.int64)

        def renumbered(split: Split) -> Split:
            return replace(split, labels=moved[split.labels.astype(np.int64)])

        test = None if self.test is None else renumbered(self.test)
        return replace(
            self,
            train=renumbered(self.train),
            dev=renumbered(self.dev),
            test=test,
            labels=list(names),
            positive=int(moved[self.positive]),
        )


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
_UNNAMED = re.compile(r"(LABEL_)?\d+")
MOST_LISTED = 6


def unnamed(classes: list[str]) -> bool:
    """Whether names of a head's outputs say nothing: numbers, or what transformers gives for want of better ones."""
    return all(_UNNAMED.fullmatch(name) for name in classes)


def load_task(name: str, folder: str | Path) -> TaskData:
    """Read one task.

    Args:
        name: ``rte``, ``stsb`` (or ``sts-b``) or ``mrpc``; ``classification`` or ``regression`` for ``train`` and
            ``dev`` files as `own_tasks.read_own` takes them. In any case.
        folder: the task's own folder, or the folder above it (then ``RTE``, ``STS-B`` or ``MRPC`` inside it is read).

    Raises:
        UserInputError: an unknown task, a missing file or column, a row that does not fit, a label outside its set.
    """
    key = ALIASES.get(name.lower(), name.lower())
    if key in own_tasks.COLUMNS:
        return _own_task(key, Path(folder))
    if key not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        own = " or ".join(own_tasks.COLUMNS)
        raise UserInputError(f"the task {name!r} is unknown; choose one of {known}, or {own} for files of your own.")
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


def _own_task(kind: str, folder: Path) -> TaskData:
    train, dev = (own_tasks.read_own(folder, split, kind) for split in ("train", "dev"))
    if (train.second is None) != (dev.second is None):
        raise UserInputError(
            f"one of {train.path} and {dev.path} has pairs of texts and the other none; give both the same columns."
        )
    if kind == "regression":
        truths: list[NDArray[np.int64] | NDArray[np.float32]] = [
            np.array(own_tasks.scores_of(rows), dtype=np.float32) for rows in (train, dev)
        ]
        names, metric = [], "spearman"
    else:
        names, metric = own_tasks.class_names(train), "accuracy"
        truths = [np.array(own_tasks.class_places(rows, names), dtype=np.int64) for rows in (train, dev)]
    first, second = (Split(rows.first, rows.second, truth) for rows, truth in zip((train, dev), truths, strict=True))
    return TaskData(kind, first, second, None, metric, len(names) or 1, kind, names)


def _listed(names: list[str]) -> str:
    shown = ", ".join(own_tasks.shortened(name) for name in names[:MOST_LISTED]) or "none"
    return f"{shown} and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else shown


def _read(path: Path, layout: _Layout, header: bool = True) -> Split:
    # The files do not quote: a quotation mark is a character of the sentence, and only a newline ends a row.
    text = read_text(path, "give the folder of the task", "copy it again")
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
