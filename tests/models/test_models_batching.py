"""Batches hold every sequence once, are repeatable, and padding changes no result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import lavolta.models
from lavolta.errors import UserInputError
from lavolta.models.batching import Encoded, encode_pairs, encode_texts, predict, random_batches, sorted_batches
from lavolta.models.hf import from_transformers, with_head
from lavolta.models.loaded import LoadedModel, run_module
from lavolta.models.tasks import Split

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{i}" for i in range(20))]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.enable_truncation(24)
    model = from_transformers(tiny_model("bert"), name="bert")
    model.tokenizer = tokenizer
    return model


def encoded_of(lengths: list[int]) -> Encoded:
    ids = [np.full(length, row, dtype=np.int64) for row, length in enumerate(lengths)]
    return Encoded(ids, None, np.arange(len(lengths)), 0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=130), st.integers(1, 9), st.integers(0, 3))
def test_batches_hold_every_sequence_once(lengths: list[int], batch_size: int, seed: int) -> None:
    encoded = encoded_of(lengths)
    for batches in (list(random_batches(encoded, batch_size, seed)), list(sorted_batches(encoded, batch_size))):
        rows = torch.cat([batch.rows for batch in batches]).tolist()
        assert sorted(rows) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch.rows) <= batch_size
            assert batch.labels is not None
            assert torch.equal(batch.labels, batch.rows)
            assert batch.attention_mask.sum(dim=1).tolist() == [lengths[row] for row in batch.rows]
            assert batch.input_ids.shape[1] == max(lengths[row] for row in batch.rows)
            assert bool((batch.input_ids[~batch.attention_mask] == 0).all())


def test_the_seed_decides_the_order() -> None:
    encoded = encoded_of([1 + i % 7 for i in range(40)])

    def rows(seed: int) -> list[int]:
        return torch.cat([batch.rows for batch in random_batches(encoded, 4, seed)]).tolist()

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)


def test_random_batches_pad_little() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 640).tolist()
    encoded = encoded_of(lengths)
    padded = sum(batch.input_ids.numel() for batch in random_batches(encoded, 16, 0))
    assert padded < 1.1 * sum(lengths)


def test_pairs_have_types_and_are_truncated_longest_first(loaded: LoadedModel) -> None:
    split = Split(("w1 w2", "w3"), ("w4", "w5 " * 40), np.array([0, 1]))
    encoded = encode_pairs(loaded, split)
    assert encoded.ids[0].tolist() == [1, 5, 6, 2, 8, 2]
    assert encoded.types is not None
    assert encoded.types[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert encoded.lengths.tolist() == [6, 24]
    assert encode_pairs(loaded, split, max_tokens=10).lengths.tolist() == [6, 10]
    # The model's own tokenizer keeps its length.
    assert encode_pairs(loaded, split).lengths.tolist() == [6, 24]


def test_predictions_are_in_order_and_do_not_depend_on_the_batch(loaded: LoadedModel) -> None:
    texts = ["w1", "w2 w3 w4 w5 w6", "w7 w8", "w1 " * 15]
    encoded = encode_texts(loaded, texts)
    alone = predict(loaded, encoded, batch_size=1)
    together = predict(loaded, encoded, batch_size=4)
    # Two orders of float32 sums of at most hidden + ffn terms, over two layers, of values near one.
    np.testing.assert_allclose(together, alone, atol=4 * 2 * (20 + 33) * np.finfo(np.float32).eps)
    assert alone.shape == (4, 20)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1.0, rtol=1e-6)


def test_prediction_leaves_the_mode_as_it_was(loaded: LoadedModel) -> None:
    model = with_head(loaded, 2, "classification", 0)
    model.module.train()
    assert predict(model, encode_texts(model, ["w1 w2"])).shape == (1, 2)
    assert model.module.training


def test_run_module_takes_a_batch(loaded: LoadedModel) -> None:
    batch = encode_texts(loaded, ["w1 w2", "w3"]).batch([0, 1])
    out = run_module(loaded, batch.to("cpu"))
    assert out.hidden.shape == (2, 4, 20)
    assert len(out.all_hidden) == 3


def test_nothing_to_tokenise_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(UserInputError, match="no text"):
        encode_texts(loaded, [])
    with pytest.raises(UserInputError, match="has no tokenizer"):
        encode_texts(from_transformers(tiny_model("bert"), name="bert"), ["w1"])


def test_public_names_are_what_the_room_lists() -> None:
    for name in lavolta.models.__all__:
        assert getattr(lavolta.models, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(lavolta.models, "no" + "thing")
