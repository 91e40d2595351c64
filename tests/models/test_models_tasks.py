"""GLUE files: columns by header, no quoting, the STS-B test file without header, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lavolta.errors import UserInputError
from lavolta.models.tasks import load_task

RTE = "index\tsentence1\tsentence2\tlabel\n"
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        (folder / f"{name}.tsv").write_bytes(data)
    return folder


def test_rte(tmp_path: Path) -> None:
    # A lone quotation mark, a carriage return, a line separator (U+2028), a byte order mark: files have all of them.
    train = "\ufeff" + RTE + '0\tHe said " no.\tNo.\tentailment\r\n1\tA\u2028B\tC\tnot_entailment\n'
    task = load_task("RTE", write(tmp_path, train=train, dev=RTE + "0\tx\ty\tnot_entailment"))
    assert task.train.first == ('He said " no.', "A\u2028B")
    assert task.train.second == ("No.", "C")
    assert task.train.labels.tolist() == [0, 1]
    assert task.dev.labels.tolist() == [1]
    assert (task.metric, task.outputs, task.kind, task.test) == ("accuracy", 2, "classification", None)
    assert task.labels == ["entailment", "not_entailment"]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    moved = "label\tsentence2\tindex\tsentence1\nentailment\tsecond\t0\tfirst\n"
    task = load_task("rte", write(tmp_path, train=moved, dev=RTE + "0\tx\ty\tentailment\n"))
    assert (task.train.first, task.train.second) == (("first",), ("second",))


def test_stsb_with_the_headerless_test_file(tmp_path: Path) -> None:
    row = "0\tg\tf\ty\t1\tnone\tnone\tone\ttwo\t3.250\n"
    test = 'g\tf\ty\t1\t2.500\tA girl.\tA boy.\ng\tf\ty\t1\t5\tA man.\tA "dog.\tsource\tsource\n'
    task = load_task("STS-B", write(tmp_path, train=STSB + row, dev=STSB + row, test_labelled=test))
    assert task.test is not None
    assert task.test.first == ("A girl.", "A man.")
    assert task.test.second == ("A boy.", 'A "dog.')
    np.testing.assert_array_equal(task.test.labels, np.array([2.5, 5.0], dtype=np.float32))
    assert task.train.labels.dtype == np.float32
    assert (task.outputs, task.kind, task.labels, task.metric) == (1, "regression", [], "spearman")


def test_counts_of_the_official_files(shared_data: Path) -> None:
    # Published sizes of GLUE, and of the labelled test sets of the corpora themselves.
    sizes = {"rte": (2490, 277, None), "stsb": (5749, 1500, 1379), "mrpc": (3668, 408, 1725)}
    for name, (train, dev, test) in sizes.items():
        task = load_task(name, shared_data / "glue")
        assert (len(task.train), len(task.dev)) == (train, dev)
        assert (None if task.test is None else len(task.test)) == test
        assert len(task.train.second) == len(task.train.labels) == train


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (b"", "no column 'sentence1'"),
        (RTE, "no rows"),
        (RTE + "0\ta\tb\tmaybe\n", r"line 2 has the label 'maybe', not entailment or not_entailment"),
        (RTE + "0\ta\tb\tentailment\n1\ta\tentailment\n", "line 3 has 3 columns, not 4"),
        (RTE + "0\ta\tb\tc\tentailment\n", "line 2 has 5 columns, not 4"),
        (RTE + "0\ta\tb\tentailment\n\n", "line 3 has 1 columns"),
        (RTE.encode() + b"0\t\xff\tb\tentailment\n", "not UTF-8 text"),
        ("a\tb\n", "no column"),
    ],
)
def test_broken_files_are_refused_with_the_line(train: str | bytes, words: str, tmp_path: Path) -> None:
    write(tmp_path, train=train, dev=RTE + "0\tx\ty\tentailment\n")
    with pytest.raises(UserInputError, match=words):
        load_task("rte", tmp_path)


@pytest.mark.parametrize("score", ["", "x", "nan", "inf", "5.1", "-0.1"])
def test_impossible_scores_are_refused(score: str, tmp_path: Path) -> None:
    row = f"0\tg\tf\ty\t1\tnone\tnone\tone\ttwo\t{score}\n"
    with pytest.raises(UserInputError, match=r"line 2 has the (score|label)"):
        load_task("stsb", write(tmp_path, train=STSB + row, dev=STSB + row))


def test_unknown_tasks_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="'cola' is unknown; choose one of rte, stsb, mrpc"):
        load_task("cola", tmp_path)
    with pytest.raises(UserInputError, match=r"train\.tsv cannot be read"):
        load_task("rte", tmp_path)


def test_f1_is_of_the_same_class_whatever_its_number(tmp_path: Path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    rows = header + "1\t0\t0\ta\tb\n1\t0\t0\ta\tb\n0\t0\t0\ta\tb\n"
    task = load_task("mrpc", write(tmp_path, train=rows, dev=rows))
    other = task.ordered_like(["equivalent", "not_equivalent"])
    assert other.dev.labels.tolist() == [0, 0, 1]
    outputs = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    # One of two found, one false alarm.
    assert task.score(outputs, task.dev.labels)["f1"] == other.score(outputs[:, ::-1], other.dev.labels)["f1"] == 0.5
    # GLUE's order is known: other names for its classes change nothing.
    assert task.ordered_like(["different", "same"]) is task


def test_scores_of_outputs(tmp_path: Path) -> None:
    rte = load_task("rte", write(tmp_path, train=RTE + "0\ta\tb\tentailment\n", dev=RTE + "0\tx\ty\tentailment\n"))
    assert rte.score(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 0])) == {"accuracy": 0.5}
    with pytest.raises(UserInputError, match=r"outputs of shape \(n, 2\)"):
        rte.score(np.zeros((2, 3)), np.array([0, 0]))
    with pytest.raises(UserInputError, match="NaN"):
        rte.score(np.array([[np.nan, 1.0]]), np.array([0]))
