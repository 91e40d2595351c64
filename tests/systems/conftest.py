"""A tiny pretrained encoder with its tokenizer, a small text, and a small task, as files on the disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "models"), str(Path(__file__).parent)]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_files import save_model

    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_files import sentences

    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(sentences(60)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GLUE folder with RTE alone."""
    from tiny_files import sentences

    folder = tmp_path_factory.mktemp("glue")
    (folder / "RTE").mkdir()
    for name, count, seed in (("train", 24, 1), ("dev", 10, 2)):
        pairs = zip(sentences(count, seed), sentences(count, seed + 10), strict=True)
        rows = [f"{i}\t{a}\t{b}\t{'not_' * (i % 2)}entailment" for i, (a, b) in enumerate(pairs)]
        lines = ["index\tsentence1\tsentence2\tlabel", *rows]
        (folder / "RTE" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of a language model in its three files."""
    from tiny_files import sentences

    folder = tmp_path_factory.mktemp("corpus")
    for name, count, seed in (("train", 80, 3), ("valid", 12, 4), ("test", 12, 5)):
        (folder / f"{name}.txt").write_text("\n".join(sentences(count, seed)) + "\n", encoding="utf-8")
    return folder
