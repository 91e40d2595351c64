"""`lavolta generate`: the text as the engine writes it, at the level that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lavolta.runtime.engine import open_bundle

if TYPE_CHECKING:
    from .conftest import Invoke


def test_the_answer_is_the_engine_s(language_model: Path, invoke: Invoke) -> None:
    outcome = invoke("generate", language_model, "--prompt", "a cat", "--level", "L1", "--max-new-tokens", 5, "--json")
    assert outcome.code == 0
    with open_bundle(language_model) as model:
        model.switch("L1")
        tokens = list(model.generate("a cat", 5))
    data = outcome.data
    assert data["token_ids"] == [token.id for token in tokens]
    assert data["text"] == "".join(token.text for token in tokens)
    assert (data["level"], data["prompt"], data["prompt_tokens"]) == ("L1", "a cat", 2)
    assert data["first_token_ms"] > 0
    assert data["tokens_per_s"] > 0


def test_people_see_the_text_and_the_speed(language_model: Path, invoke: Invoke) -> None:
    options = ["--max-new-tokens", 3, "--temperature", 1.5, "--seed", 4, "--top-k", 4, "--top-p", 0.9]
    outcome = invoke("generate", language_model, *options, "--json", stdin=b"the dog\n")
    shown = invoke("generate", language_model, *options, stdin=b"the dog\n")
    assert shown.code == 0
    assert shown.out.startswith("the dog" + outcome.data["text"] + "\n\nLevel L0: 2 tokens read in ")
    assert "tokens a second" in shown.out


def test_one_token_has_no_speed(language_model: Path, invoke: Invoke) -> None:
    assert (
        invoke("generate", language_model, "--prompt", "a", "--max-new-tokens", 1, "--json").data["tokens_per_s"]
        is None
    )
    assert "a second" not in invoke("generate", language_model, "--prompt", "a", "--max-new-tokens", 1).out


def test_a_stop(language_model: Path, invoke: Invoke) -> None:
    whole = invoke("generate", language_model, "--prompt", "a", "--max-new-tokens", 8, "--json").data["text"]
    word = whole.split()[1]
    cut = invoke("generate", language_model, "--prompt", "a", "--max-new-tokens", 8, "--stop", word, "--json").data[
        "text"
    ]
    assert cut == whole[: whole.index(word)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "a", "--level", "L9"], "there is no level 'L9'"),
        (["--prompt", "a", "--temperature", "-1"], "temperature is -1"),
        (["--prompt", "a", "--top-p", "0"], "top_p is 0"),
        (["--prompt", "a " * 17], "the prompt has 17 tokens, the model's limit is 16"),
    ],
)
def test_what_is_refused(language_model: Path, invoke: Invoke, options: list[str], sentence: str) -> None:
    outcome = invoke("generate", language_model, *options)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_encoder_writes_nothing(bundle: Path, invoke: Invoke) -> None:
    outcome = invoke("generate", bundle, "--prompt", "a cat")
    assert outcome.code == 2
    assert "it cannot write" in outcome.err


def test_input_that_is_not_text(language_model: Path, invoke: Invoke) -> None:
    outcome = invoke("generate", language_model, stdin=b"caf\xe9")
    assert outcome.code == 2
    assert "not UTF-8 text at byte 3" in outcome.err
