"""Files of one's own tasks: what comes back, how classes are numbered, and what is refused with its line."""

from __future__ import annotations

import csv
import io
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.models.marks import task_mark
from lavolta.models.own_tasks import read_own
from lavolta.models.tasks import load_task

DEV = "text,label\nx,yes\n"


def write(folder: Path, **files: str | bytes) -> Path:
    """Files by name and suffix: ``train_csv="..."``."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        (folder / name.replace("_", ".")).write_bytes(data)
    return folder


def test_texts_with_classes(tmp_path: Path) -> None:
    # A quoted comma, a quote, a line break inside a cell, an empty line, another column, a byte order mark.
    # Columns without a name are other columns, and a blank beside a class is none of its name.
    train = '\ufeffid,text,label,,\r\n1,"a, ""b""\nc",yes,,\r\n\r\n2,d,no ,,\r\n3,e, yes,,\r\n'
    task = load_task("Classification", write(tmp_path, train_csv=train, dev_jsonl='{"text": "x", "label": "no"}\n\n'))
    assert task.train.texts == ['a, "b"\nc', "d", "e"]
    assert task.train.second is None
    assert task.labels == ["no", "yes"]
    assert task.train.labels.tolist() == [1, 0, 1]
    assert task.dev.labels.tolist() == [0]
    assert (task.metric, task.outputs, task.kind) == ("accuracy", 2, "classification")
    assert task.score(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 1])) == {
        "accuracy": 0.5,
        "macro_f1": pytest.approx(2 / 3),
    }


def test_pairs_with_scores(tmp_path: Path) -> None:
    train = '\ntext\ttext2\tscore\nHe said " no.\tNo.\t0.25\r\n\nA\u2028B\tC\t-1e1\n\n'
    dev = '{"text": "p", "text2": "q", "score": 3}\n{"text": "r", "text2": 7, "score": "0.5"}'
    task = load_task("regression", write(tmp_path, train_tsv=train, dev_jsonl=dev))
    assert task.train.texts == [('He said " no.', "No."), ("A\u2028B", "C")]
    np.testing.assert_array_equal(task.train.labels, np.array([0.25, -10.0], np.float32))
    assert task.dev.texts == [("p", "q"), ("r", "7")]
    assert task.dev.labels.tolist() == [3.0, 0.5]
    assert (task.metric, task.outputs, task.labels) == ("spearman", 1, [])


def test_classes_that_are_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "t", "label": {label}}}\n' for label in ("10", '"9"', "-1", "10.0"))
    task = load_task("classification", write(tmp_path, train_jsonl=rows, dev_jsonl='{"text": "t", "label": 9}'))
    assert task.labels == ["-1", "9", "10"]
    assert task.train.labels.tolist() == [2, 1, 0, 2]


def test_classes_are_numbered_as_a_head_numbers_them(tmp_path: Path) -> None:
    task = load_task("classification", write(tmp_path, train_csv="text,label\na,yes\nb,no\nc,yes\n", dev_csv=DEV))
    assert task.ordered_like(["no", "yes"]) is task
    assert task.ordered_like(["LABEL_0", "LABEL_1"]) is task
    assert task.ordered_like(["0", "1"]) is task
    other = task.ordered_like(["yes", "no"])
    assert other.labels == ["yes", "no"]
    assert [other.labels[place] for place in other.train.labels] == ["yes", "no", "yes"]
    assert other.dev.labels.tolist() == [0]
    assert task.ordered_like(["YES", "No"]).dev.labels.tolist() == [0]
    with pytest.raises(
        UserInputError, match=r"the files have the classes no that the model has not, and the model maybe"
    ):
        task.ordered_like(["maybe", "yes"])


def test_numbers_are_names_where_the_files_have_them(tmp_path: Path) -> None:
    # Sorted as text, as many a label map is.
    rows = "text,label\n" + "".join(f"t,{label}\n" for label in (1, 2, 10))
    task = load_task("classification", write(tmp_path, train_csv=rows, dev_csv=rows))
    assert task.ordered_like(["1", "10", "2"]).train.labels.tolist() == [0, 2, 1]
    assert task.ordered_like(["0", "1", "2"]) is task


def test_classes_that_differ_in_case_alone_stay_apart(tmp_path: Path) -> None:
    rows = "text,label\na,us\nb,US\n"
    task = load_task("classification", write(tmp_path, train_csv=rows, dev_csv=rows))
    assert task.labels == ["US", "us"]
    assert task.ordered_like(["us", "US"]).train.labels.tolist() == [0, 1]


def test_names_of_classes_are_part_of_the_mark(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train = "text,label\na,yes\nb,no\n"
    ours = load_task("classification", write(tmp_path / "a", train_csv=train, dev_csv=DEV))
    theirs = write(tmp_path / "b", train_csv=train.replace("yes", "yea"), dev_csv=DEV.replace("yes", "yea"))
    assert task_mark(ours) != task_mark(load_task("classification", theirs))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8).filter(str.strip)


@given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=5), quoting=st.sampled_from(["csv", "jsonl"]))
def test_every_text_comes_back(
    rows: list[tuple[str, str, str]], quoting: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    names = ("text", "text2", "label")
    if quoting == "csv":
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([names, *rows])
        content = buffer.getvalue()
    else:
        content = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    (folder / f"train.{quoting}").write_bytes(content.encode())
    found = read_own(folder, "train", "classification")
    assert found.second is not None
    assert list(zip(found.first, found.second, found.labels, strict=True)) == [(a, b, c.strip()) for a, b, c in rows]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, r"none of train\.csv, train\.tsv, train\.jsonl"),
        ({"train_csv": DEV, "train_tsv": "text\tlabel\n"}, "has several of train"),
        ({"train_csv": b""}, "no rows"),
        ({"train_csv": "text,label\n"}, "no rows"),
        ({"train_csv": b"text,label\n\xff,yes\n"}, "not UTF-8 text"),
        ({"train_csv": "sentence,label\na,yes\n"}, "line 2 has no 'text'; every row needs 'text' and 'label'"),
        ({"train_csv": "text,score\na,1\n"}, "line 2 has no 'label'"),
        ({"train_csv": "text,label\na,yes\nb\n"}, "line 3 has 1 columns, and its first line 2"),
        ({"train_csv": 'text,label\n"a\nb",yes\n"c,no\n'}, "line 4 is not CSV"),
        ({"train_csv": "text,text,label\na,b,yes\n"}, "has two columns 'text'"),
        ({"train_csv": f'text,label\n"{"a" * 200_000}",yes\n'}, "line 2 is not CSV .*JSON lines"),
        ({"train_csv": f"text,label\na,no\nb,{'l' * 50}\n", "dev_csv": f"text,label\nx,{'m' * 999}\n"}, "'m{40}...'"),
        ({"train_csv": "text,label\na,yes\n  ,no\n"}, "line 3 has an empty 'text'"),
        ({"train_csv": "text,label\na,yes\nb,yes\n"}, "has one class, 'yes'"),
        ({"train_csv": "text,label\na,no\nb,maybe\n"}, "dev.csv line 2 has the label 'yes', which no training row has"),
        ({"train_csv": "text,text2,label\na,b,yes\nc,d,no\n"}, "has pairs of texts and the other none"),
        ({"train_jsonl": '{"text": "a", "label": "yes"}\n{"text": "a"'}, "line 2 is not JSON"),
        ({"train_jsonl": '{"text": "a", "label": null}'}, "line 1 has no 'label'"),
        ({"train_jsonl": '{"text": ["a"], "label": "yes"}'}, "line 1 has no 'text'"),
        (
            {"train_jsonl": '{"text": "a", "label": "yes"}\n{"text": "a", "text2": "b", "label": "no"}'},
            "rows before it",
        ),
        ({"train_jsonl": "[1]"}, "line 1 is no object"),
        ({"train_jsonl": '{"text": "\\ud800", "label": "yes"}'}, "line 1 is not JSON"),
        ({"train_jsonl": "[" * 100_000}, "line 1 is not JSON"),
    ],
)
def test_broken_files_are_refused_with_the_line(files: dict[str, str | bytes], words: str, tmp_path: Path) -> None:
    write(tmp_path, **{"dev_csv": DEV, **files})
    with pytest.raises(UserInputError, match=words):
        load_task("classification", tmp_path)


@pytest.mark.parametrize(
    ("score", "words"),
    [(score, "which is no number") for score in ("x", "nan", "inf", "1_0", "\u0663", "0x1")]
    + [(score, "within -10 and 10") for score in ("10.5", "-1e999")],
)
def test_impossible_scores_are_refused(score: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, train_csv=f"text,score\na,1\nb,{score}\n", dev_csv="text,score\na,1\n")
    with pytest.raises(UserInputError, match=rf"train\.csv line 3 has the score .*{words}"):
        load_task("regression", tmp_path)


def test_real_intents(shared_data: Path, tmp_path: Path) -> None:
    # 7 intents of Snips with their official counts, see the data's own page.
    for ours, theirs in (("train", "train"), ("dev", "valid")):
        packed = (shared_data / "snips-intents" / f"{theirs}.tsv.xz").read_bytes()
        content = lzma.decompress(packed).decode().replace("intent\ttext", "label\ttext", 1)
        (tmp_path / f"{ours}.tsv").write_text(content, encoding="utf-8")
    task = load_task("classification", tmp_path)
    assert (len(task.train), len(task.dev), task.outputs) == (13784, 700, 7)
    assert "PlayMusic" in task.labels
