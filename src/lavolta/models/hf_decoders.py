"""Decoder-only language models: GPT-2, and Llama with its kin Mistral and Qwen2, from this machine only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.models.hf_files import find_model, load_config, load_model, load_tokenizer
from lavolta.models.loaded import LoadedModel, check_cuttable
from lavolta.models.transformer import Dropout, Transformer
from lavolta.runtime.generation import STOP_IDS_FIELD
from lavolta.runtime.spec import ModelSpec

DECODER_FAMILIES = ("gpt2", "llama", "mistral", "qwen2")
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Name of an activation in transformers to ours; the tanh form has several."""
FIXED_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary scalings whose frequencies do not depend on the length of the text."""
MOST_TOKENS = 1 << 20


def is_decoder(source: str) -> bool:
    """Whether a model on this machine is of one of the decoder families."""
    return load_config(find_model(source), source).model_type in DECODER_FAMILIES


def load_decoder(source: str) -> LoadedModel:
    """Load a pretrained decoder with its output layer, without the network.

    Args:
        source: a folder with ``config.json`` and weights, or a name that transformers finds in its local cache.

    Raises:
        UserInputError: an unknown model or family, an option that is not supported, a damaged checkpoint, NaN weights.
    """
    folder = find_model(source)
    config = load_config(folder, source)
    if config.model_type not in DECODER_FAMILIES:
        raise UserInputError(
            f"{source} is a {config.model_type} model; the supported decoders are {', '.join(DECODER_FAMILIES)}."
        )
    model, missing = load_model(folder, source, "causal-lm")
    loaded = decoder_from_transformers(model, name=Path(source).name, missing=missing)
    loaded.tokenizer = load_tokenizer(folder, loaded.spec.max_tokens)
    loaded.provenance |= {"source": source, "architecture": type(model).__name__}
    return loaded


def decoder_from_transformers(model: Any, *, name: str, missing: frozenset[str] = frozenset()) -> LoadedModel:
    """A canonical copy of a ``...ForCausalLM`` model of transformers, float32, without tokenizer.

    GPT-2's fused and transposed projections are split. Scaled rotary frequencies are taken as they are, and a scale of
    cosine and sine (YaRN) is folded into queries and keys. Word vectors that the output layer shares stay shared.

    Args:
        name: for the spec and for messages.
        missing: parameters that the checkpoint lacked; needing one of them is an error.

    Raises:
        UserInputError: an unsupported family or option, NaN weights, a layer that cannot be cut.
    """
    config: Any = model.config
    if config.model_type not in DECODER_FAMILIES:
        raise UserInputError(
            f"{name} is a {config.model_type} model; the supported decoders are {', '.join(DECODER_FAMILIES)}."
        )
    spec = _gpt2_spec(config, name) if config.model_type == "gpt2" else _llama_spec(config, name)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    module = Transformer(spec, _dropout(config), tie=tied)
    copier = _Copier(module, missing)
    if config.model_type == "gpt2":
        _copy_gpt2(copier, model, spec)
    else:
        _copy_llama(copier, model)
    if not tied:
        check_cuttable("head.out", model.lm_head)
        copier.put("head.out.weight", model.lm_head.weight, "lm_head.weight")
    copier.put("head.out.bias", model.lm_head.bias, "lm_head.bias")
    copier.finish()
    loaded = LoadedModel(module.eval(), spec, provenance=_stops(model))
    loaded.check_finite()
    return loaded


@dataclass
class _Copier:
    """Puts tensors under canonical names, each once, and refuses those that the checkpoint did not have."""

    module: Transformer
    missing: frozenset[str]
    done: set[str] = field(default_factory=set)

    def put(self, canonical: str, tensor: Tensor | None, path: str) -> None:
        """``tensor`` None stands for zeros: a bias that the family lacks."""
        ours = self.module.get_parameter(canonical)
        if path in self.missing:
            raise UserInputError(f"the checkpoint has no {path}; it is damaged or of another model.")
        if tensor is not None and tensor.shape != ours.shape:
            raise UserInputError(f"{path} has shape {tuple(tensor.shape)}, not {tuple(ours.shape)}.")
        with torch.no_grad():
            if tensor is None:
                ours.zero_()
            else:
                ours.copy_(tensor)
        self.done.add(canonical)

    def linear(self, canonical: str, theirs: Any, path: str, scale: float = 1.0) -> None:
        """A plain linear layer, times ``scale``."""
        check_cuttable(canonical, theirs)
        self.put(f"{canonical}.weight", theirs.weight * scale, f"{path}.weight")
        self.put(f"{canonical}.bias", None if theirs.bias is None else theirs.bias * scale, f"{path}.bias")

    def transposed(self, canonical: str, theirs: Any, path: str, part: slice = slice(None)) -> None:
        """Columns ``part`` of a Conv1D, whose weight is ``(in_features, out_features)``."""
        self.put(f"{canonical}.weight", theirs.weight[:, part].T, f"{path}.weight")
        self.put(f"{canonical}.bias", theirs.bias[part], f"{path}.bias")

    def norm(self, canonical: str, theirs: Any, path: str) -> None:
        self.put(f"{canonical}.weight", theirs.weight, f"{path}.weight")
        if getattr(theirs, "bias", None) is not None:
            self.put(f"{canonical}.bias", theirs.bias, f"{path}.bias")

    def finish(self) -> None:
        """Every parameter of ours has got its tensor."""
        left = {name for name, _ in self.module.named_parameters()} - self.done
        if left:
            raise UserInputError(f"{min(left)} has no counterpart in the model; it is not of a supported family.")


def _copy_gpt2(copier: _Copier, model: Any, spec: ModelSpec) -> None:
    base, hidden = model.transformer, spec.hidden
    copier.put("embeddings.word.weight", base.wte.weight, "transformer.wte.weight")
    copier.put("embeddings.position.weight", base.wpe.weight, "transformer.wpe.weight")
    for index, theirs in enumerate(base.h):
        ours, path = f"layers.{index}", f"transformer.h.{index}"
        for place, part in enumerate(("query", "key", "value")):
            columns = slice(place * hidden, (place + 1) * hidden)
            copier.transposed(f"{ours}.attention.{part}", theirs.attn.c_attn, f"{path}.attn.c_attn", columns)
        copier.transposed(f"{ours}.attention.output", theirs.attn.c_proj, f"{path}.attn.c_proj")
        copier.transposed(f"{ours}.ffn.up", theirs.mlp.c_fc, f"{path}.mlp.c_fc")
        copier.transposed(f"{ours}.ffn.down", theirs.mlp.c_proj, f"{path}.mlp.c_proj")
        copier.norm(f"{ours}.attention_norm", theirs.ln_1, f"{path}.ln_1")
        copier.norm(f"{ours}.ffn_norm", theirs.ln_2, f"{path}.ln_2")
    copier.norm("final_norm", base.ln_f, "transformer.ln_f")


def _copy_llama(copier: _Copier, model: Any) -> None:
    base = model.model
    copier.put("embeddings.word.weight", base.embed_tokens.weight, "model.embed_tokens.weight")
    rope = copier.module.get_submodule("rope")
    rope.get_buffer("inv_freq").copy_(base.rotary_emb.inv_freq)
    # Cosine and sine times s is the turned vector times s; queries and keys are turned alone.
    scale = float(getattr(base.rotary_emb, "attention_scaling", 1.0))
    parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    for index, theirs in enumerate(base.layers):
        ours, path = f"layers.{index}", f"model.layers.{index}"
        for part, name in parts.items():
            factor = scale if part in ("query", "key") else 1.0
            linear = theirs.self_attn.get_submodule(name)
            copier.linear(f"{ours}.attention.{part}", linear, f"{path}.self_attn.{name}", factor)
        for part in ("up", "gate", "down"):
            copier.linear(f"{ours}.ffn.{part}", theirs.mlp.get_submodule(f"{part}_proj"), f"{path}.mlp.{part}_proj")
        copier.norm(f"{ours}.attention_norm", theirs.input_layernorm, f"{path}.input_layernorm")
        copier.norm(f"{ours}.ffn_norm", theirs.post_attention_layernorm, f"{path}.post_attention_layernorm")
    copier.norm("final_norm", base.norm, "model.norm")


def _gpt2_spec(config: Any, name: str) -> ModelSpec:
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
        raise UserInputError(f"{name} scales its attention in its own way; only 1 / sqrt(head size) is supported.")
    return ModelSpec(
        name=name,
        layers=int(config.n_layer),
        hidden=int(config.n_embd),
        heads=int(config.n_head),
        ffn=int(config.n_inner or 4 * config.n_embd),
        vocab=int(config.vocab_size),
        max_tokens=int(config.n_positions),
        norm_first=True,
        activation=_activation(config.activation_function, name),
        norm_eps=float(config.layer_norm_epsilon),
        causal=True,
        embedding_norm=False,
        pooling="none",
        outputs=int(config.vocab_size),
        task="language-model",
    )


def _llama_spec(config: Any, name: str) -> ModelSpec:
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    head_size = getattr(config, "head_dim", None) or hidden // heads
    if head_size * heads != hidden:
        raise UserInputError(f"{name} has heads of {head_size} features, not hidden / heads = {hidden / heads:g}.")
    kind = config.rope_parameters["rope_type"]
    if kind not in FIXED_ROPE:
        raise UserInputError(f"{name} scales its positions by {kind!r}; supported are {', '.join(FIXED_ROPE)}.")
    max_tokens = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        # Up to the window every token sees all before it, as we compute it.
        max_tokens = min(max_tokens, int(window))
    return ModelSpec(
        name=name,
        layers=int(config.num_hidden_layers),
        hidden=hidden,
        heads=heads,
        ffn=int(config.intermediate_size),
        vocab=int(config.vocab_size),
        max_tokens=min(max_tokens, MOST_TOKENS),
        kv_heads=int(config.num_key_value_heads or heads),
        norm="rms",
        norm_first=True,
        position="rope",
        ffn_gate=True,
        activation=_activation(config.hidden_act, name),
        norm_eps=float(config.rms_norm_eps),
        causal=True,
        embedding_norm=False,
        pooling="none",
        outputs=int(config.vocab_size),
        task="language-model",
    )


def _activation(theirs: str, name: str) -> str:
    if theirs not in ACTIVATIONS:
        raise UserInputError(f"{name} uses the activation {theirs!r}; supported are {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[theirs]


def _dropout(config: Any) -> Dropout:
    if config.model_type == "gpt2":
        return Dropout(float(config.resid_pdrop), float(config.attn_pdrop), 0.0, 0.0)
    return Dropout(0.0, float(config.attention_dropout), 0.0, 0.0)


def _stops(model: Any) -> dict[str, Any]:
    """The ids at which a text ends, as the bundle carries them; the setting for generation comes first."""
    for config in (getattr(model, "generation_config", None), model.config):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return {STOP_IDS_FIELD: [int(token) for token in (ids if isinstance(ids, list) else [ids])]}
    return {}
