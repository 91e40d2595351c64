"""Calibration text: what is kept, and that held-out text is never trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.models.text import MAX_CHARACTERS, builtin_text, read_text, split_by_hash, user_text


def test_builtin_text_is_prose_and_the_same_every_time() -> None:
    text = builtin_text()
    assert text == builtin_text()
    # Every supported Python has over 2,000 pieces; 1 in 10 paragraphs is held out.
    assert len(text.train) > 2000
    assert 0.05 < len(text.held_out) / len(text.train) < 0.2
    for piece in (*text.train, *text.held_out):
        assert len(piece) <= MAX_CHARACTERS
        assert len(piece.split()) >= 4
        assert "\n" not in piece
    assert "Python 3." in text.source


def test_no_held_out_sentence_is_inside_a_training_text() -> None:
    text = builtin_text()
    assert not set(text.train) & set(text.held_out)
    everything = "\n".join(text.train)
    # Very short standard phrases ("See also the following:") may begin longer sentences elsewhere.
    assert sum(piece in everything for piece in text.held_out) < 0.02 * len(text.held_out)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=40))
def test_split_is_a_partition(texts: list[str]) -> None:
    train, held_out = split_by_hash(texts)
    assert train
    assert held_out
    if len(set(texts)) > 1:
        assert sorted(train + held_out) == sorted(texts)
        assert not set(train) & set(held_out)


def test_adding_a_sentence_moves_no_other() -> None:
    texts = [f"sentence number {i}" for i in range(200)]
    _, before = split_by_hash(texts)
    _, after = split_by_hash(["a new one", *texts])
    assert [text for text in after if text != "a new one"] == before


def test_blank_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("  one sentence \n\n\t\ntwo\n", encoding="utf-8")
    assert read_text(path) == ["one sentence", "two"]
    text = user_text(path)
    assert sorted(text.train + text.held_out) == ["one sentence", "two"]
    assert text.source == str(path)
    path.write_text("\n \n")
    with pytest.raises(UserInputError, match="has no words"):
        read_text(path)
