"""Texts that become ids: the tokenizer or the vocabulary in a bundle, pairs, truncation, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.errors import BundleError, UserInputError
from lavolta.runtime.engine import Model, open_bundle
from lavolta.runtime.tokens import read_codec
from reference_model import LANGUAGE_MODEL, random_model, rounding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture
def engine(folder: Path) -> Iterator[Model]:
    with open_bundle(random_model().write(folder / "small.lavolta")) as model:
        yield model


def word_tokenizer(words: Sequence[str]) -> bytes:
    """A tokenizer with one id a word, [CLS] text [SEP] and [CLS] a [SEP] b [SEP] with types 0 and 1."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(name, words.index(name)) for name in ("[CLS]", "[SEP]")]
    single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    tokenizer.enable_padding(length=100)
    text: str = tokenizer.to_str()
    return text.encode()


WORDS = ["[UNK]", "[CLS]", "[SEP]", "the", "dance", "turns", *(f"w{i}" for i in range(44))]


def test_encode_tokenizes_pairs_and_truncates(folder: Path) -> None:
    model = random_model(max_tokens=6)
    path = model.write(folder / "words.lavolta", tokenizer_json=word_tokenizer(WORDS))
    with open_bundle(path) as engine:
        texts = ["the dance", ("the dance", "turns"), "", "turns " * 100, "unheard"]
        ids, types = engine.tokenize(texts)
        assert ids == [[1, 3, 4, 2], [1, 3, 4, 2, 5, 2], [1, 2], [1, 5, 5, 5, 5, 2], [1, 0, 2]]
        assert types[1] == [0, 0, 0, 0, 1, 1]
        assert (engine.encode(texts) == engine.run(ids, types)).all()
        assert np.abs(engine.encode(texts) - model.run(0, ids, types)).max() <= rounding(model, 6)


def test_a_text_is_cut_where_the_bundles_tokenizer_truncates(folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(word_tokenizer(WORDS))
    tokenizer.enable_truncation(4)
    path = random_model(max_tokens=6).write(folder / "short.lavolta", tokenizer_json=tokenizer.to_str().encode())
    text = "the dance turns the dance turns"
    with open_bundle(path) as engine:
        assert engine.tokenize([text])[0] == [[1, 3, 4, 2]]
        assert (engine.encode([text]) == engine.encode(["the dance"])).all()
        assert (engine.codec().limit, engine.codec().count(text)) == (4, 8)
        # Ids are the caller's own: as many as the model has positions for.
        assert engine.run([[1, 3, 4, 5, 3, 2]]).shape[0] == 1


def test_a_tokenizer_that_truncates_later_than_the_model_is_cut_to_the_model(folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(word_tokenizer(WORDS))
    tokenizer.enable_truncation(100)
    path = random_model(max_tokens=6).write(folder / "long.lavolta", tokenizer_json=tokenizer.to_str().encode())
    with open_bundle(path) as engine:
        assert len(engine.tokenize(["turns " * 100])[0][0]) == engine.codec().limit == 6


def test_word_level_language_model(folder: Path) -> None:
    words = ["<unk>", "<eos>", "the", "dance", *(f"w{i}" for i in range(46))]
    model = random_model(max_tokens=4, **LANGUAGE_MODEL)
    path = model.write(folder / "lm.lavolta", vocab="".join(f"{word}\n" for word in words).encode())
    with open_bundle(path) as engine:
        ids, _ = engine.tokenize(["the  dance\n", "", "the the the the the", "volta"])
        assert ids == [[2, 3, 1], [1], [2, 2, 2, 2], [0, 1]]
        assert engine.encode(["the dance", ""]).shape == (4, 37)
        with pytest.raises(UserInputError, match="text 0 is a pair"):
            engine.encode([("the", "dance")])


@pytest.mark.parametrize(
    ("texts", "message"),
    [("one text", "takes a list"), ([], "no text"), ([3], "text 0 is neither"), ([("a",)], "text 0 is neither")],
)
def test_wrong_texts(engine: Model, texts: Any, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        engine.encode(texts)


def test_a_bundle_without_vocabulary(engine: Model) -> None:
    with pytest.raises(UserInputError, match="neither tokenizer nor vocabulary"):
        engine.encode(["text"])


@pytest.mark.parametrize("blobs", [{"tokenizer_json": b"{}"}, {"vocab": b"word\n" * 50}])
def test_a_broken_vocabulary(folder: Path, blobs: dict[str, bytes]) -> None:
    path = random_model(layers=1).write(folder / "broken.lavolta", **blobs)
    with open_bundle(path) as engine, pytest.raises(BundleError, match="bundle's"):
        engine.encode(["text"])


def test_words_that_are_not_utf8() -> None:
    with pytest.raises(BundleError, match="vocab is not UTF-8 at byte 12") as caught:
        read_codec(None, b"<unk>\n<eos>\n\xff\n", 4)
    assert caught.value.kind == "manifest-invalid"
