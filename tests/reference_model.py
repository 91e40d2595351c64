"""The canonical model in float64 NumPy, and small random bundles: what the native engine is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.packed_tensors import Packed, unpack
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.packing import pack_linear
from lavolta.sparsity.packing_int8 import PackedInt8, pack_int8, unpack_int8

Array = NDArray[np.float64]

erf = np.vectorize(math.erf, otypes=[np.float64])
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x / math.sqrt(2.0))),
    "gelu_tanh": lambda x: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    # x times the sigmoid; the second form of the sigmoid does not overflow.
    "silu": lambda x: x * 0.5 * (1.0 + np.tanh(0.5 * x)),
    "tanh": np.tanh,
}
_DECODER: dict[str, Any] = {
    "causal": True,
    "types": 0,
    "embedding_norm": False,
    "pooling": "none",
    "outputs": 50,
    "normalize": False,
    "norm_first": True,
    "task": "language-model",
}
LANGUAGE_MODEL: dict[str, Any] = {
    "causal": True,
    "activation": "relu",
    "types": 0,
    "embedding_norm": False,
    "pooling": "none",
    "outputs": 37,
    "normalize": False,
}
"""The paper's language model, small."""
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {**_DECODER, "activation": "gelu_tanh"},
    "llama": {
        **_DECODER,
        "hidden": 36,
        "heads": 6,
        "kv_heads": 2,
        "norm": "rms",
        "position": "rope",
        "ffn_gate": True,
        "activation": "silu",
        "packed_head": True,
    },
    "one-key-head": {**_DECODER, "hidden": 24, "heads": 3, "kv_heads": 1, "position": "rope", "activation": "relu"},
    "post-norm": {**_DECODER, "norm_first": False, "norm": "rms", "ffn_gate": True, "activation": "gelu"},
}
"""Options of `random_model` for decoders: GPT-2 and Llama styles, and mixtures that no family has."""


def quantized(x: Array) -> Array:
    """Inputs ``(tokens, features)`` as an int8 linear sees them: multiples of a scale per token (bundle.md)."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    inverse = np.divide(127.0, largest, out=np.zeros_like(largest), where=largest > 0.0)
    return np.asarray(np.rint(x * inverse) * (largest / 127.0))


@dataclass
class RandomModel:
    """A model with random weights and one random cell mask per level and linear."""

    spec: ModelSpec
    tensors: dict[str, NDArray[np.float32]]
    packed: dict[str, Packed]
    biases: dict[str, NDArray[np.float32]]
    levels: int
    cell_rows: int

    def write(self, path: Path, **blobs: bytes) -> Path:
        names = list(self.packed)
        levels = [
            {
                "name": f"L{level}",
                "sparsity": level / self.levels,
                "kept_cells": {name: self.packed[name].kept_cells(level) for name in names},
            }
            for level in range(self.levels)
        ]
        kind = {"kind": "ranked"}
        write_bundle(path, self.spec, self.tensors, self.packed, self.biases, levels, self.cell_rows, kind, **blobs)
        return path

    def run(
        self,
        level: int,
        token_ids: Sequence[Sequence[int]],
        type_ids: Sequence[Sequence[int]] | None = None,
        per_token: bool = False,
    ) -> Array:
        """What `Model.run` returns, in float64."""
        types = type_ids or [[0] * len(row) for row in token_ids]
        rows = [
            self._sequence([level] * len(ids), np.array(ids), np.array(kinds), per_token)
            for ids, kinds in zip(token_ids, types, strict=True)
        ]
        return np.concatenate(rows)

    def run_levels(self, levels: Sequence[int], token_ids: Sequence[int]) -> Array:
        """One sequence of which every token has its own level, as a session gives it: ``(tokens, outputs)``."""
        return self._sequence(levels, np.array(token_ids), np.zeros(len(token_ids), dtype=np.int64), False)

    def _linear(self, name: str, x: Array, levels: Sequence[int]) -> Array:
        """Each row of ``x`` with the weights of its own level."""
        out = np.empty((len(x), self.packed[name].grid.out_features))
        chosen = np.array(levels[: len(x)])
        inputs = quantized(x) if isinstance(self.packed[name], PackedInt8) else x
        for level in set(levels):
            weight = unpack(self.packed[name], level).astype(np.float64)
            out[chosen == level] = inputs[chosen == level] @ weight.T
        return np.asarray(out + self.biases[name])

    def _norm(self, x: Array, name: str) -> Array:
        rms = self.spec.norm == "rms"
        centered = x if rms else x - x.mean(axis=1, keepdims=True)
        scale = np.sqrt((centered**2).mean(axis=1, keepdims=True) + self.spec.norm_eps)
        bias = 0.0 if rms else self.tensors[f"{name}.bias"]
        return np.asarray(centered / scale * self.tensors[f"{name}.weight"] + bias)

    def _rotate(self, heads: Array) -> Array:
        """Rotary positions of ``(heads, tokens, features)``: Su et al. 2021, features i and i + half as a pair."""
        if self.spec.position != "rope":
            return heads
        angle = np.outer(np.arange(heads.shape[1]), self.tensors["rope.inv_freq"].astype(np.float64))
        first, second = np.split(heads, 2, axis=2)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=2)

    def _sequence(self, levels: Sequence[int], ids: NDArray[np.int64], types: NDArray[np.int64], raw: bool) -> Array:
        spec = self.spec

        def linear(name: str, x: Array) -> Array:
            return self._linear(name, x, levels)

        x = self.tensors["embeddings.word"][ids].astype(np.float64)
        if spec.position == "learned":
            x = x + self.tensors["embeddings.position"][: len(ids)]
        if spec.types:
            x = x + self.tensors["embeddings.type"][types]
        if spec.embedding_norm:
            x = self._norm(x, "embeddings.norm")
        for i in range(spec.layers):
            layer = f"layers.{i}"
            y = self._norm(x, f"{layer}.attention_norm") if spec.norm_first else x
            parts = [linear(f"{layer}.attention.{part}", y) for part in ("query", "key", "value")]
            q, k, v = (part.reshape(len(ids), -1, spec.head_size).transpose(1, 0, 2) for part in parts)
            shared = spec.heads // spec.kv_heads
            k, v = np.repeat(k, shared, axis=0), np.repeat(v, shared, axis=0)
            scores = self._rotate(q) @ self._rotate(k).transpose(0, 2, 1) / math.sqrt(spec.head_size)
            if spec.causal:
                scores = np.where(np.tril(np.ones(scores.shape[1:], dtype=bool)), scores, -np.inf)
            p = np.exp(scores - scores.max(axis=-1, keepdims=True))
            context = (p / p.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), spec.hidden)
            x = x + linear(f"{layer}.attention.output", context)
            if not spec.norm_first:
                x = self._norm(x, f"{layer}.attention_norm")
            y = self._norm(x, f"{layer}.ffn_norm") if spec.norm_first else x
            activation = ACTIVATIONS[spec.activation]
            up = linear(f"{layer}.ffn.up", y)
            inner = activation(linear(f"{layer}.ffn.gate", y)) * up if spec.ffn_gate else activation(up)
            x = x + linear(f"{layer}.ffn.down", inner)
            if not spec.norm_first:
                x = self._norm(x, f"{layer}.ffn_norm")
        if spec.norm_first:
            x = self._norm(x, "final_norm")
        if raw:
            return x
        if spec.pooling != "none":
            x = x[:1] if spec.pooling == "cls" else x.mean(axis=0, keepdims=True)
        if spec.head_dense is not None:
            x = x @ self.tensors["head.dense.weight"].T.astype(np.float64) + self.tensors["head.dense.bias"]
            x = ACTIVATIONS[spec.head_dense](x)
        if "head.out" in self.packed:
            x = linear("head.out", x)
        elif spec.outputs:
            x = x @ self.tensors["head.out.weight"].T.astype(np.float64) + self.tensors["head.out.bias"]
        return x / np.linalg.norm(x, axis=1, keepdims=True) if spec.normalize else x


def random_model(
    seed: int = 0,
    cell_rows: int = 4,
    keep: Sequence[float] = (1.0, 0.5, 0.25, 0.0),
    nested: bool = True,
    packed_head: bool = False,
    precision: str = "fp32",
    **changes: Any,
) -> RandomModel:
    """Weights of the size that training gives (variance one over inputs), one level per share of kept cells.

    The defaults are odd on purpose: 5 heads of 4 features, 33 inner features (a ragged last band for every cell height
    above 1), an all-true mask, an all-false mask, and a first row of zeros. The ``precision`` ``"mixed"`` is int8 for
    every other linear.
    """
    generator = np.random.default_rng(seed)
    defaults: dict[str, Any] = {
        "name": "random",
        "layers": 2,
        "hidden": 20,
        "heads": 5,
        "ffn": 33,
        "vocab": 50,
        "max_tokens": 140,
        "types": 2,
        "normalize": True,
    }
    spec = ModelSpec(**{**defaults, **changes})
    tensors = {
        name: (generator.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)
        for name, shape in dense_shapes(spec, packed_head=packed_head).items()
    }
    for name in tensors:
        if name.endswith("norm.weight"):
            tensors[name] += 1.0
    if spec.position == "rope":
        tensors["rope.inv_freq"] = (10000.0 ** -np.linspace(0.0, 0.9, spec.head_size // 2)).astype(np.float32)
    packed: dict[str, Packed] = {}
    biases = {}
    for index, (name, shape) in enumerate(spec.linear_shapes(packed_head=packed_head).items()):
        grid = CellGrid(*shape, cell_rows)
        weight = (generator.standard_normal(shape) / math.sqrt(shape[1])).astype(np.float32)
        weight[0] = 0.0
        shared = generator.random(grid.shape)
        masks = [(shared if nested else generator.random(grid.shape)) < share for share in keep]
        int8 = precision == "int8" or (precision == "mixed" and index % 2 == 1)
        packed[name] = pack_int8(weight, masks, cell_rows) if int8 else pack_linear(weight, masks, cell_rows)
        biases[name] = (0.1 * generator.standard_normal(shape[0])).astype(np.float32)
    return RandomModel(spec, tensors, packed, biases, len(keep), cell_rows)


def rounding(model: RandomModel, tokens: int) -> float:
    """Rounding error of the whole model in float32 for sequences of up to `tokens` tokens, by a count of roundings.

    Every norm brings features to size one; each layer then adds two branches whose products have at most `ffn` or
    `hidden` terms of that size. Weights have variance one over inputs, so a sum of n products carries about n eps of
    the input's size in the worst case; norms divide by a deviation of about one.

    An int8 layer may round an input to the neighboring step where the float64 model has it just across the middle: an
    output then moves by one step times a weight. A step is the largest feature over 127, at most sqrt(hidden) after a
    norm.
    """
    spec = model.spec
    terms = (4 + spec.ffn_gate) * spec.hidden + spec.ffn + tokens
    int8 = [unpack_int8(packed, 0) for packed in model.packed.values() if isinstance(packed, PackedInt8)]
    step = math.sqrt(spec.hidden) / 127 * max((float(np.abs(weight).max()) for weight in int8), default=0.0)
    return 2 * spec.layers * terms * float(np.finfo(np.float32).eps) + step


def random_ids(generator: np.random.Generator, spec: ModelSpec, lengths: Sequence[int]) -> list[list[int]]:
    return [generator.integers(0, spec.vocab, length).tolist() for length in lengths]
