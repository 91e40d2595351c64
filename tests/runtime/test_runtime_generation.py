"""Generation: greedy is the argmax, sampling has the stated distribution, stops and text come out whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lavolta.errors import EngineError, UserInputError
from lavolta.runtime.calls import Text
from lavolta.runtime.engine import Model, open_bundle
from lavolta.runtime.generation import Sampling, TextStream
from lavolta.runtime.tokens import read_codec
from reference_model import DECODERS, random_model


def byte_tokenizer() -> Tokenizer:
    """One token per byte, as byte-level BPE without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_model(**{**DECODERS["llama"], "vocab": 256, "outputs": 256, "max_tokens": 40})
    file = tmp_path_factory.mktemp("generation") / "bytes.lavolta"
    return model.write(file, tokenizer_json=byte_tokenizer().to_str().encode())


@pytest.fixture
def model(path: Path) -> Iterator[Model]:
    with open_bundle(path) as opened:
        yield opened


def greedy(model: Model, ids: Sequence[int], count: int) -> list[int]:
    """The argmax of whole runs."""
    row = list(ids)
    for _ in range(count):
        row.append(int(np.argmax(model.run([row])[-1])))
    return row[len(ids) :]


def test_greedy_is_the_argmax_of_whole_runs(model: Model) -> None:
    for level in model.levels:
        model.switch(level)
        tokens = list(model.generate([1, 2, 3], 12))
        assert [token.id for token in tokens] == greedy(model, [1, 2, 3], 12)
        assert {token.level for token in tokens} == {level}


def test_the_dial_turns_while_it_generates(model: Model) -> None:
    levels = []
    for index, token in enumerate(model.generate([1, 2, 3], 8)):
        levels.append(token.level)
        model.switch(index % 2)
    assert levels == ["L0", "L0", "L1", "L0", "L1", "L0", "L1", "L0"]


def test_the_texts_of_the_tokens_are_the_text(model: Model) -> None:
    prompt = "a dog"
    tokens = list(model.generate(prompt, 30, temperature=2.0, seed=5))
    ids = byte_tokenizer().encode(prompt).ids
    whole = byte_tokenizer().decode(ids + [token.id for token in tokens])
    assert prompt + "".join(token.text for token in tokens) == whole


def test_the_same_seed_gives_the_same_tokens(model: Model) -> None:
    def ids(**options: Any) -> list[int]:
        return [token.id for token in model.generate("dance", 20, temperature=1.5, **options)]

    assert ids(seed=3) == ids(seed=3)
    assert ids(seed=3) != ids(seed=4)
    assert ids(seed=3, top_k=1) == ids(seed=4, top_p=1e-9) == [token.id for token in model.generate("dance", 20)]


def test_generation_ends_at_the_model_s_length(model: Model) -> None:
    assert len(list(model.generate([1] * 30, 100))) == 11
    assert len(list(model.generate([1] * 40, 100))) == 1
    with pytest.raises(UserInputError, match=r"the prompt has 41 tokens, the model's limit is 40; shorten it\."):
        model.generate([1] * 41, 1)


def test_stop_ids(model: Model) -> None:
    free = [token.id for token in model.generate([1, 2, 3], 20)]
    place = next(i for i in range(3, 20) if free[i] not in free[:i])
    stopped = list(model.generate([1, 2, 3], 20, stop=[free[place]]))
    assert [token.id for token in stopped] == free[: place + 1]
    assert stopped[-1].text == ""


def test_the_model_s_own_end_of_text(path: Path, tmp_path: Path) -> None:
    with open_bundle(path) as model:
        free = [token.id for token in model.generate([1, 2, 3], 20)]
    place = next(i for i in range(3, 20) if free[i] not in free[:i])
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    manifest = json.loads(header["__metadata__"]["lavolta"])
    for field, count in (([free[place], "x"], place + 1), ("no list", 20)):
        manifest["provenance"] = {"stop_token_ids": field}
        header["__metadata__"]["lavolta"] = json.dumps(manifest)
        text = json.dumps(header).encode()
        changed = tmp_path / "changed.lavolta"
        changed.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        with open_bundle(changed) as model:
            assert len(list(model.generate([1, 2, 3], 20))) == count


def test_a_stop_text_ends_the_text_before_it(model: Model) -> None:
    prompt = "la volta"
    options: dict[str, Any] = {"temperature": 2.0, "seed": 1}
    whole = "".join(token.text for token in model.generate(prompt, 30, **options))
    stop = whole[10:13]
    tokens = list(model.generate(prompt, 30, stop=["never", stop, stop + "more"], **options))
    assert "".join(token.text for token in tokens) == whole[: whole.index(stop)]


class Letters:
    """A codec of one letter a token."""

    def encode(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]]]:
        raise NotImplementedError

    def prompt(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab", max_size=12), stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_stream_gives_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    stream, given = TextStream(Letters(), [], stops), ""
    for letter in text:
        added, stopped = stream.push(ord(letter))
        given += added
        if stopped:
            break
    else:
        given += stream.flush()
    # A stop is seen when its last letter comes: the first to be complete decides, of several the one that begins first.
    ends = [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]
    seen = text[: min(ends)] if ends else text
    assert given == (seen[: min(seen.find(stop) for stop in stops if stop in seen)] if ends else text)


BYTES = byte_tokenizer()
BYTE_IDS = {
    byte: token
    for character in "\u00e9\u20ac"
    for byte, token in zip(character.encode(), BYTES.encode(character).ids, strict=True)
}


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(max_codepoint=0xD7FF), max_size=8), tail=st.sampled_from([b"", b"\xc3", b"\xe2\x82"]))
def test_characters_come_out_whole(text: str, tail: bytes) -> None:
    """Bytes of a character are held back until it is complete; what never becomes one is given at the end."""
    codec = read_codec(BYTES.to_str().encode(), None, 100)
    ids = [*BYTES.encode(text).ids, *(BYTE_IDS[byte] for byte in tail)]
    stream = TextStream(codec, [], [])
    pieces = [stream.push(token)[0] for token in ids]
    last = stream.flush()
    assert "".join(pieces) + last == codec.decode(ids)
    if not tail:
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


@pytest.mark.parametrize(
    ("logits", "options", "expected"),
    [
        # Softmax by hand: e^0, e^-1, e^-2 over their sum; with temperature 2 the halves of the exponents.
        ([2.0, 1.0, 0.0], {"temperature": 1.0}, {0: 0.66524, 1: 0.24473, 2: 0.09003}),
        ([0.0, 2.0, 1.0], {"temperature": 2.0}, {1: 0.50648, 2: 0.30720, 0: 0.18632}),
        ([2.0, 1.0, 0.0], {"temperature": 1.0, "top_k": 2}, {0: 0.73106, 1: 0.26894}),
        ([2.0, 1.0, 0.0], {"temperature": 1.0, "top_p": 0.9}, {0: 0.73106, 1: 0.26894}),
        ([2.0, 1.0, 0.0], {"temperature": 1.0, "top_p": 0.92}, {0: 0.66524, 1: 0.24473, 2: 0.09003}),
        ([2.0, 1.0, 0.0], {"temperature": 1.0, "top_p": 0.1}, {0: 1.0}),
        ([5.0, 5.0], {"temperature": 0.0}, {0: 1.0}),
        ([1e4, -1e4], {"temperature": 1e-3}, {0: 1.0, 1: 0.0}),
    ],
)
def test_distribution(logits: list[float], options: dict[str, Any], expected: dict[int, float]) -> None:
    sampling = Sampling(**options)
    tokens, chances = sampling.distribution(np.array(logits, dtype=np.float32))
    assert tokens.tolist() == list(expected)
    np.testing.assert_allclose(chances, list(expected.values()), atol=5e-6)


def test_draws_follow_the_distribution() -> None:
    sampling, generator = Sampling(temperature=1.0), np.random.default_rng(0)
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    counts = np.bincount([sampling.draw(logits, generator) for _ in range(10_000)], minlength=3)
    # Five standard deviations of a share of a half among 10,000.
    np.testing.assert_allclose(counts / 10_000, [0.5, 0.3, 0.2], atol=5 * 0.5 / 100)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "the prompt is empty"),
        ("", {}, "the prompt is empty"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ([1], {"temperature": -0.5}, "temperature is -0.5"),
        ([1], {"temperature": float("nan")}, "temperature is nan"),
        ([1], {"top_k": -1}, "top_k is -1"),
        ([1], {"top_p": 0.0}, "top_p is 0"),
        ([1], {"top_p": 1.5}, "top_p is 1.5"),
        ([1], {"seed": -1}, "seed is -1"),
        ([1], {"stop": [""]}, "a stop text is empty"),
    ],
)
def test_wrong_arguments(model: Model, prompt: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        model.generate(prompt, **options)


def test_wrong_ids_and_models(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="token 0 has id 256"):
        next(model.generate([256]))
    with pytest.raises(UserInputError, match="flat list of integers"):
        next(model.generate(np.array([1.5])))
    encoder_path = random_model().write(tmp_path / "encoder.lavolta")
    with open_bundle(encoder_path) as encoder, pytest.raises(UserInputError, match="it cannot write"):
        encoder.generate([1])
    with open_bundle(random_model(**DECODERS["gpt2"]).write(tmp_path / "m.lavolta")) as silent:
        assert [token.text for token in silent.generate([1], 3)] == ["", "", ""]
        wrong: list[dict[str, Any]] = [{"prompt": "text"}, {"prompt": [1], "stop": ["x"]}]
        for options in wrong:
            with pytest.raises(UserInputError, match="neither tokenizer nor vocabulary"):
                silent.generate(**options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "logits", [[1.0, math.nan, 2.0], [math.nan] * 3, [0.0, math.inf, 1.0], [-math.inf, -math.inf, -math.inf]]
)
def test_logits_that_are_not_finite_are_no_tokens(logits: list[float], temperature: float) -> None:
    sampling, generator = Sampling(temperature=temperature), np.random.default_rng(0)
    with pytest.raises(EngineError, match=r"the largest logit is (nan|inf|-inf), so no token follows"):
        sampling.draw(np.array(logits, dtype=np.float32), generator)
    # A token that is impossible is no defect.
    assert sampling.draw(np.array([-math.inf, 3.0, -math.inf], dtype=np.float32), generator) == 1


def test_closing_the_model_ends_the_generation(path: Path) -> None:
    model = open_bundle(path)
    tokens = model.generate([1, 2], 20)
    next(tokens)
    model.close()
    with pytest.raises(EngineError, match="the model is closed"):
        next(tokens)


def test_a_word_level_model_writes_words(tmp_path: Path) -> None:
    words = ["<unk>", "<eos>", "a", "b", "c"]
    model = random_model(**{**DECODERS["gpt2"], "vocab": 5, "outputs": 5})
    path = model.write(tmp_path / "words.lavolta", vocab="".join(f"{word}\n" for word in words).encode())
    with open_bundle(path) as engine:
        tokens = list(engine.generate("a b zzz", 6))
        assert [token.id for token in tokens] == greedy(engine, [2, 3, 0], 6)
        assert "".join(token.text for token in tokens) == "".join(f" {words[token.id]}" for token in tokens)
