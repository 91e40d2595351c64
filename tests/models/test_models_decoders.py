"""Decoders of every supported family: our module, the engine and its sessions give what transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_families import random_masks, randomize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lavolta.errors import UserInputError
from lavolta.models.export import export_bundle
from lavolta.models.hf_decoders import decoder_from_transformers, load_decoder
from lavolta.models.loaded import LoadedModel, with_packed_head
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.engine import open_bundle

EPS = float(np.finfo(np.float32).eps)
VOCAB, POSITIONS = 61, 40
LLAMA_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 35,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 7,
    "pad_token_id": None,
}
GPT2_SIZES = {
    "n_embd": 20,
    "n_layer": 2,
    "n_head": 5,
    "n_inner": 33,
    "n_positions": POSITIONS,
    "vocab_size": VOCAB,
    "bos_token_id": None,
    "eos_token_id": 7,
}
# original_max_position_embeddings below the model's length, so that every scaling is in force.
SCALED = {"rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {}),
    "gpt2-gelu-wide": ("GPT2", {"activation_function": "gelu", "n_inner": None, "n_head": 1}),
    "gpt2-untied": ("GPT2", {"tie_word_embeddings": False, "activation_function": "relu"}),
    "llama": ("Llama", {}),
    "llama-own-keys": ("Llama", {"num_key_value_heads": 4, "hidden_size": 40, "head_dim": 10}),
    "llama-one-key": ("Llama", {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 18, "head_dim": 6}),
    "llama-tied-biased": ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", **SCALED}}),
    "llama-llama3": (
        "Llama",
        {"rope_parameters": {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **SCALED}},
    ),
    "llama-yarn": ("Llama", {"rope_parameters": {"rope_type": "yarn", **SCALED}}),
    "mistral": ("Mistral", {"sliding_window": None, "num_attention_heads": 6, "num_key_value_heads": 3}),
    "qwen2": ("Qwen2", {}),
}


def tiny(variant: str, seed: int = 0, **changes: Any) -> Any:
    family, options = VARIANTS[variant]
    sizes = GPT2_SIZES if family == "GPT2" else LLAMA_SIZES
    config = getattr(transformers, f"{family}Config")(**{**sizes, **options, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    randomize(model, seed)
    return model


def tolerance(loaded: LoadedModel, logits: np.ndarray) -> float:
    """About n eps of the largest number for each product of n terms, in every layer and in both implementations."""
    spec = loaded.spec
    return float(4 * spec.layers * (5 * spec.hidden + spec.ffn + POSITIONS) * EPS * max(1.0, np.abs(logits).max()))


def logits_of(model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids])).logits[0].numpy())


def ids_of(count: int = 33) -> list[int]:
    ids: list[int] = np.random.default_rng(2).integers(0, VOCAB, count).tolist()
    return ids


def export(loaded: LoadedModel, path: Path, cell_rows: int = 4) -> Path:
    """A dense level and one of random cells."""
    masks = random_masks(loaded, cell_rows, (1.0, 0.5))
    export_bundle(loaded, masks, [{"name": "dense"}, {"name": "half"}], cell_rows, path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_equals_transformers(variant: str, tmp_path: Path) -> None:
    model = tiny(variant)
    loaded = decoder_from_transformers(model, name=variant)
    ids = ids_of()
    expected = logits_of(model, ids)
    limit = tolerance(loaded, expected)
    with torch.no_grad():
        ours = loaded.module.logits(loaded.module.hidden(torch.tensor([ids])))[0].numpy()
    assert np.abs(ours - expected).max() <= limit
    with open_bundle(export(loaded, tmp_path / "m.lavolta")) as engine:
        assert np.abs(engine.run([ids]) - expected).max() <= limit
        with engine.session() as session:
            for begin, end in ((0, 17), (17, 18), (18, 19), (19, 33)):
                assert np.abs(session.append(ids[begin:end]) - expected[end - 1]).max() <= limit


@pytest.mark.parametrize("variant", ["gpt2", "llama", "qwen2"])
def test_greedy_generation_equals_transformers(variant: str, tmp_path: Path) -> None:
    model = tiny(variant, eos_token_id=None)
    loaded = decoder_from_transformers(model, name=variant)
    prompt = ids_of(5)
    wanted = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0, 5:].tolist()
    with open_bundle(export(loaded, tmp_path / "m.lavolta")) as engine:
        assert [token.id for token in engine.generate(prompt, 12)] == wanted


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_pruned_levels_equal_the_masked_module(variant: str, tmp_path: Path) -> None:
    loaded = with_packed_head(decoder_from_transformers(tiny(variant), name=variant))
    path = export(loaded, tmp_path / "m.lavolta")
    bundle = BundleFile.open(path)
    assert list(bundle.linears)[-1] == "head.out"
    ids = ids_of()
    with torch.no_grad():
        for name, linear in loaded.linears.items():
            linear.weight.copy_(torch.from_numpy(bundle.dense_weight(name, 1).copy()))
        expected = loaded.module.logits(loaded.module.hidden(torch.tensor([ids])))[0].numpy()
    with open_bundle(path) as engine:
        engine.switch("half")
        assert np.abs(engine.run([ids]) - expected).max() <= tolerance(loaded, expected)


def test_a_packed_head_is_its_own() -> None:
    loaded = decoder_from_transformers(tiny("gpt2"), name="gpt2")
    assert loaded.module.head.out is not None
    assert loaded.module.head.out.weight is loaded.module.embeddings.word.weight
    assert "head.out" not in loaded.linears
    packed = with_packed_head(loaded)
    assert list(packed.linears)[-1] == "head.out"
    assert packed.grids(4)["head.out"].out_features == VOCAB
    with torch.no_grad():
        packed.linears["head.out"].weight.zero_()
    assert bool((packed.module.embeddings.word.weight != 0).any())
    assert bool((loaded.module.head.out.weight != 0).any())


def byte_level_tokenizer() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:VOCAB]
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("variant", ["gpt2", "llama-tied-biased", "mistral"])
def test_a_saved_folder(variant: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = tiny(variant)
    model.save_pretrained(folder)
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    loaded = load_decoder(str(folder))
    assert loaded.tokenizer is not None
    assert loaded.provenance["stop_token_ids"] == [7]
    ids = ids_of()
    with torch.no_grad():
        ours = loaded.module.logits(loaded.module.hidden(torch.tensor([ids])))[0].numpy()
    assert np.abs(ours - logits_of(model, ids)).max() <= tolerance(loaded, ours)
    with open_bundle(export(loaded, tmp_path / "m.lavolta")) as engine:
        assert engine.manifest["provenance"]["stop_token_ids"] == [7]
        assert len(list(engine.generate("ABC", 4))) >= 1


def test_a_window_bounds_the_length() -> None:
    assert decoder_from_transformers(tiny("mistral", sliding_window=16), name="m").spec.max_tokens == 16
    assert decoder_from_transformers(tiny("qwen2", sliding_window=16), name="m").spec.max_tokens == POSITIONS


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scales its attention in its own way"),
        ("gpt2", {"activation_function": "mish"}, "uses the activation 'mish'"),
        ("llama", {"head_dim": 8}, "heads of 8 features"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", **SCALED}}, "scales its positions by 'dynamic'"),
    ],
)
def test_what_is_not_supported(variant: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        decoder_from_transformers(tiny(variant, **changes), name="tiny")


def test_other_families_and_damage(tmp_path: Path) -> None:
    other = transformers.AutoModelForCausalLM.from_config(
        transformers.OPTConfig(hidden_size=8, num_hidden_layers=1, ffn_dim=8, num_attention_heads=2, vocab_size=9)
    )
    with pytest.raises(UserInputError, match="is a opt model; the supported decoders are gpt2, llama"):
        decoder_from_transformers(other, name="other")
    other.save_pretrained(tmp_path / "opt")
    with pytest.raises(UserInputError, match="the supported decoders"):
        load_decoder(str(tmp_path / "opt"))
    broken = tiny("llama")
    with torch.no_grad():
        broken.model.layers[1].mlp.gate_proj.weight[0, 0] = float("nan")
    with pytest.raises(UserInputError, match=r"ffn\.gate\.weight of broken contains NaN"):
        decoder_from_transformers(broken, name="broken")
    missing = frozenset({"model.layers.0.mlp.up_proj.weight"})
    with pytest.raises(UserInputError, match=r"has no model\.layers\.0\.mlp\.up_proj\.weight"):
        decoder_from_transformers(tiny("llama"), name="tiny", missing=missing)
