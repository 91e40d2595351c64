"""The canonical names and computation are right: every family equals float64 NumPy on the tensors of its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES, VOCAB, export, padded, random_masks, tiny_model, tolerance

from lavolta.models.hf import from_transformers, with_head
from lavolta.models.hf_sentence import SentenceModules
from lavolta.models.lm import END_OF_LINE, UNKNOWN, LmConfig, Vocabulary, build_lm
from lavolta.models.loaded import LoadedModel

EPS64 = float(np.finfo(np.float64).eps)
# Lengths: one token, a prime, and as many as the shortest position table has (RoBERTa's 24 less its two offset rows).
LENGTHS = (1, 7, 22)


def random_rows(seed: int, low: int, high: int) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(low, high, length).tolist() for length in LENGTHS]


def inputs(family: str) -> tuple[list[list[int]], list[list[int]] | None, dict[str, torch.Tensor]]:
    """Rows of ids (never the padding id), rows of types where the family has two, and the padded batch."""
    rows = random_rows(3, 2, VOCAB)
    ids, mask = padded(rows, 1 if family == "roberta" else 0)
    batch = {"input_ids": ids, "attention_mask": mask}
    if family != "bert":
        return rows, None, batch
    types = random_rows(4, 0, 2)
    return rows, types, {**batch, "token_type_ids": padded(types, 0)[0]}


@pytest.mark.parametrize("family", FAMILIES)
def test_encoder_hidden_states_equal_the_reference(family: str, tmp_path: Path) -> None:
    theirs = tiny_model(family)
    reference = export(from_transformers(theirs, name=family), tmp_path / "m.lavolta")
    rows, types, batch = inputs(family)
    with torch.no_grad():
        got = theirs.double()(**batch).last_hidden_state.numpy()
    for row, length in enumerate(LENGTHS):
        want = reference.run(0, [rows[row]], None if types is None else [types[row]], per_token=True)
        limit = tolerance(reference.spec, length, want, EPS64)
        np.testing.assert_allclose(got[row, :length], want, rtol=0, atol=limit)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", [1, 2, 5])
def test_classification_heads_equal_the_reference(family: str, labels: int, tmp_path: Path) -> None:
    theirs = tiny_model(family, labels)
    loaded = from_transformers(theirs, name=family)
    assert loaded.spec.task == ("regression" if labels == 1 else "classification")
    assert loaded.spec.outputs == labels
    assert loaded.spec.head_dense == ("relu" if family == "distilbert" else "tanh")
    reference = export(loaded, tmp_path / "m.lavolta")
    rows, types, batch = inputs(family)
    with torch.no_grad():
        got = theirs.double()(**batch).logits.numpy()
    want = reference.run(0, rows, types)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(reference.spec, max(LENGTHS), want, EPS64))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", [("mean", True), ("mean", False), ("cls", True)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_canonical_module_equals_the_reference_at_every_level(
    family: str, pooling: tuple[str, bool], level: int, tmp_path: Path
) -> None:
    keep = (1.0, 0.6, 0.0)
    loaded = from_transformers(tiny_model(family), name=family, modules=SentenceModules(*pooling))
    reference = export(loaded, tmp_path / "m.lavolta", keep)
    apply_masks(loaded, random_masks(loaded, 4, keep)[level], 4)
    rows, types, batch = inputs(family)
    with torch.no_grad():
        out = loaded.module.double()(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    want = reference.run(level, rows, types)
    assert out.output is not None
    np.testing.assert_allclose(
        out.output.numpy(), want, rtol=0, atol=tolerance(reference.spec, max(LENGTHS), want, EPS64)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hidden_state_equals_transformers(family: str) -> None:
    theirs = tiny_model(family)
    ours = from_transformers(theirs, name=family).module.double()
    _, _, batch = inputs(family)
    with torch.no_grad():
        want = theirs.double()(**batch, output_hidden_states=True).hidden_states
        got = ours(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids")).all_hidden
    real = batch["attention_mask"].bool()
    assert len(got) == len(want)
    for mine, other in zip(got, want, strict=True):
        limit = tolerance(ours.spec, max(LENGTHS), other.numpy(), EPS64)
        assert float((mine - other)[real].abs().max()) <= limit


def test_new_head_equals_the_reference(tmp_path: Path) -> None:
    base = from_transformers(tiny_model("bert"), name="bert")
    loaded = with_head(base, 3, "classification", seed=7, labels=["a", "b", "c"])
    reference = export(loaded, tmp_path / "m.lavolta")
    rows, types, batch = inputs("bert")
    with torch.no_grad():
        got = loaded.module.double()(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).output
    want = reference.run(0, rows, types)
    assert got is not None
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=tolerance(reference.spec, max(LENGTHS), want, EPS64))


@pytest.mark.parametrize("tie", [False, True])
def test_language_model_equals_the_reference(tie: bool, tmp_path: Path) -> None:
    words = Vocabulary((UNKNOWN, END_OF_LINE, *(f"w{i}" for i in range(11))))
    # Hidden 16: its square root is a power of two, so folding it into float32 word vectors rounds nothing.
    config = LmConfig(hidden=16, heads=4, ffn=33, layers=2, max_tokens=22, tie=tie)
    loaded = build_lm(config, words, seed=0)
    reference = export(loaded, tmp_path / "m.lavolta", (1.0, 0.6))
    apply_masks(loaded, random_masks(loaded, 4, (1.0, 0.6))[1], 4)
    rows = random_rows(5, 0, len(words))
    ids, mask = padded(rows, 0)
    module = loaded.module.double()
    with torch.no_grad():
        hidden = module.hidden(ids, mask)
        logits = module.logits(hidden).numpy()
        unmasked = module.logits(module.hidden(ids)).numpy()
    for row, length in enumerate(LENGTHS):
        want = reference.run(1, [rows[row]])
        limit = tolerance(reference.spec, length, want, EPS64)
        np.testing.assert_allclose(logits[row, :length], want, rtol=0, atol=limit)
        # What follows a word cannot matter, so padding on the right needs no mask.
        np.testing.assert_allclose(unmasked[row, :length], want, rtol=0, atol=limit)


def test_word_scale_is_folded_into_the_bundle() -> None:
    config = LmConfig(hidden=20, heads=5, ffn=4, layers=1, max_tokens=5)
    loaded = build_lm(config, Vocabulary((UNKNOWN, END_OF_LINE)), seed=0)
    word = loaded.module.embeddings.word.weight.detach().double().numpy()
    # The factor and the product are each rounded to float32 once.
    np.testing.assert_allclose(loaded.dense_tensors()["embeddings.word"], word * 20**0.5, rtol=2.0**-23)


def test_forward_of_a_language_model_computes_no_logits() -> None:
    words = Vocabulary((UNKNOWN, END_OF_LINE, "word"))
    loaded = build_lm(LmConfig(hidden=8, heads=2, ffn=4, layers=1, max_tokens=5), words, seed=0)
    out = loaded.module(torch.tensor([[0, 1, 2]]))
    assert out.output is None
    assert out.hidden.shape == (1, 3, 8)


def apply_masks(loaded: LoadedModel, masks: dict[str, Any], cell_rows: int) -> None:
    grids = loaded.grids(cell_rows)
    with torch.no_grad():
        for name, linear in loaded.linears.items():
            linear.weight *= torch.from_numpy(grids[name].expand(masks[name]))
