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
    from tiny_files import write_rte

    return write_rte(tmp_path_factory.mktemp("glue") / "RTE", 24, 10).parent


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of a language model in its three files."""
    from tiny_files import sentences

    folder = tmp_path_factory.mktemp("corpus")
    for name, count, seed in (("train", 80, 3), ("valid", 12, 4), ("test", 12, 5)):
        (folder / f"{name}.txt").write_text("\n".join(sentences(count, seed)) + "\n", encoding="utf-8")
    return folder
