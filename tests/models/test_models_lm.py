"""Vocabulary, text files and construction of the word-level language model."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lavolta.errors import UserInputError
from lavolta.models.lm import LmConfig, Vocabulary, build_lm, find_split, load_lm_corpus, read_lines
from lavolta.models.transformer import sinusoidal_positions

words = st.text(min_size=1, max_size=6).filter(lambda word: word.split() == [word] and max(word) < "\ud800")
lines = st.lists(st.lists(words, max_size=6).map(" ".join), max_size=8)


@given(lines)
def test_every_word_of_the_text_has_its_own_index(text: list[str]) -> None:
    vocabulary = Vocabulary.build(text)
    encoded = vocabulary.encode(text)
    back = [vocabulary.words[index] for index in encoded]
    assert back == [word for line in text for word in (*line.split(), "<eos>")]
    assert Vocabulary.from_bytes(vocabulary.to_bytes()) == vocabulary


def test_order_is_special_words_then_frequency_then_code_point() -> None:
    assert Vocabulary.build(["b a c", "b c <unk> d", "é"]).words == ("<unk>", "<eos>", "b", "c", "a", "d", "é")


def test_unknown_words_become_unk() -> None:
    assert Vocabulary.build(["a"]).encode(["a zebra", ""]).tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize(
    "broken",
    [b"", b"<unk>\n", b"<eos>\n<unk>\n", b"<unk>\n<eos>\na\na\n", b"<unk>\n<eos>\n\n", b"<unk>\n<eos>\na b\n", b"\xff"],
)
def test_broken_vocabularies_are_refused(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "vocab").write_bytes(broken)
    with pytest.raises(UserInputError, match="vocabulary"):
        Vocabulary.load(tmp_path / "vocab")


def test_a_vocabulary_survives_the_disk(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(["x y", "y"])
    vocabulary.save(tmp_path / "vocab")
    assert Vocabulary.load(tmp_path / "vocab") == vocabulary
    with pytest.raises(UserInputError, match="cannot be read"):
        Vocabulary.load(tmp_path / "missing")


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    text = "one\r\ntwo\u2028still two\n\nfour\x0bstill four"
    (tmp_path / "t.txt").write_bytes(("\ufeff" + text).encode())
    (tmp_path / "t.txt.xz").write_bytes(lzma.compress(text.encode()))
    want = ["one", "two\u2028still two", "", "four\x0bstill four"]
    assert read_lines(tmp_path / "t.txt") == read_lines(tmp_path / "t.txt.xz") == want


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.txt", b"", "has no words"),
        ("t.txt", b" \n\t\n", "has no words"),
        ("t.txt", b"caf\xe9 au lait", "not UTF-8 text .byte 3 is 0xe9"),
        ("t.txt", "word".encode("utf-16"), "not UTF-8"),
        ("t.txt.xz", b"plain text", "not a whole xz file"),
        ("t.txt.xz", lzma.compress(b"word " * 100)[:-9], "not a whole xz file"),
        ("missing.txt", None, "cannot be read"),
    ],
)
def test_broken_text_is_one_sentence(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserInputError, match=words) as caught:
        read_lines(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train.txt", "train.partial.txt", "train.txt.xz", "wiki.train.tokens"])
def test_usual_file_names_are_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (tmp_path / "valid.txt").touch()
    assert find_split(tmp_path, "train").name == name


def test_missing_and_ambiguous_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"has no valid\.txt or wiki\.valid\.tokens"):
        find_split(tmp_path, "valid")
    for name in ("test.txt", "test.txt.xz"):
        (tmp_path / name).touch()
    with pytest.raises(UserInputError, match=r"test\.txt and test\.txt\.xz; keep one"):
        find_split(tmp_path, "test")
    with pytest.raises(UserInputError, match="is not a folder"):
        find_split(tmp_path / "test.txt", "test")


def test_wikitext_has_the_published_counts(shared_data: Path) -> None:
    corpus = load_lm_corpus(shared_data / "wikitext-2")
    # Merity et al. 2016 for valid and test; the training text here is 87.8 % of the original 2,088,628 tokens.
    assert (len(corpus.valid), len(corpus.test)) == (217_646, 245_569)
    assert len(corpus.train) == 1_837_299
    assert len(corpus.vocabulary) == 32_505
    assert "partial" in corpus.train_file


def test_sinusoids_have_the_published_values() -> None:
    # Vaswani et al. 2017, 3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) = cos of the same.
    table = sinusoidal_positions(30, 8).numpy()
    for position in (0, 1, 29):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            np.testing.assert_allclose(table[position, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-7)


def test_construction_is_repeatable_and_positions_stay_fixed() -> None:
    config = LmConfig(hidden=8, heads=2, ffn=6, layers=1, max_tokens=4)
    vocabulary = Vocabulary(("<unk>", "<eos>", "a"))
    one, same, other = (build_lm(config, vocabulary, seed) for seed in (0, 0, 1))
    for name, tensor in one.module.state_dict().items():
        assert torch.equal(tensor, same.module.state_dict()[name]), name
    assert not torch.equal(one.module.embeddings.word.weight, other.module.embeddings.word.weight)
    assert not one.module.embeddings.position.weight.requires_grad
    assert one.spec.task == "language-model"
    assert one.spec.causal
    with pytest.raises(UserInputError, match="5 tokens is longer than the model's 4 positions"):
        one.module.hidden(torch.zeros(1, 5, dtype=torch.int64))


def test_tied_output_trains_one_matrix() -> None:
    config = LmConfig(hidden=8, heads=2, ffn=6, layers=1, max_tokens=4, tie=True)
    module = build_lm(config, Vocabulary(("<unk>", "<eos>", "a")), 0).module
    assert module.head.out is not None
    assert module.head.out.weight is module.embeddings.word.weight


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(UserInputError, match="dropout is 1"):
        LmConfig(dropout=1.0)
    with pytest.raises(UserInputError, match="hidden is 7"):
        LmConfig(hidden=7)
    with pytest.raises(UserInputError, match="not a multiple of heads"):
        build_lm(LmConfig(hidden=10, heads=4), Vocabulary(("<unk>", "<eos>")), 0)
