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
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.packing import PackedLinear, pack_linear, unpack_linear

Array = NDArray[np.float64]

erf = np.vectorize(math.erf, otypes=[np.float64])
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x / math.sqrt(2.0))),
    "tanh": np.tanh,
}


@dataclass
class RandomModel:
    """A model with random weights and one random cell mask per level and linear."""

    spec: ModelSpec
    tensors: dict[str, NDArray[np.float32]]
    packed: dict[str, PackedLinear]
    biases: dict[str, NDArray[np.float32]]
    levels: int
    cell_rows: int

    def write(self, path: Path, **blobs: bytes) -> Path:
        names = self.spec.linear_shapes()
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
        weights = {name: unpack_linear(packed, level).astype(np.float64) for name, packed in self.packed.items()}
        types = type_ids or [[0] * len(row) for row in token_ids]
        rows = [
            self._sequence(weights, np.array(ids), np.array(kinds), per_token)
            for ids, kinds in zip(token_ids, types, strict=True)
        ]
        return np.concatenate(rows)

    def _norm(self, x: Array, name: str) -> Array:
        centered = x - x.mean(axis=1, keepdims=True)
        scale = np.sqrt((centered**2).mean(axis=1, keepdims=True) + self.spec.norm_eps)
        return centered / scale * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def _sequence(
        self, weights: dict[str, Array], ids: NDArray[np.int64], types: NDArray[np.int64], raw: bool
    ) -> Array:
        spec = self.spec

        def linear(name: str, x: Array) -> Array:
            return np.asarray(x @ weights[name].T + self.biases[name])

        x = self.tensors["embeddings.word"][ids].astype(np.float64) + self.tensors["embeddings.position"][: len(ids)]
        if spec.types:
            x = x + self.tensors["embeddings.type"][types]
        if spec.embedding_norm:
            x = self._norm(x, "embeddings.norm")
        for i in range(spec.layers):
            layer = f"layers.{i}"
            parts = [linear(f"{layer}.attention.{part}", x) for part in ("query", "key", "value")]
            q, k, v = (part.reshape(len(ids), spec.heads, -1).transpose(1, 0, 2) for part in parts)
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(spec.hidden / spec.heads)
            if spec.causal:
                scores = np.where(np.tril(np.ones(scores.shape[1:], dtype=bool)), scores, -np.inf)
            p = np.exp(scores - scores.max(axis=-1, keepdims=True))
            context = (p / p.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), spec.hidden)
            x = self._norm(x + linear(f"{layer}.attention.output", context), f"{layer}.attention_norm")
            up = ACTIVATIONS[spec.activation](linear(f"{layer}.ffn.up", x))
            x = self._norm(x + linear(f"{layer}.ffn.down", up), f"{layer}.ffn_norm")
        if raw:
            return x
        if spec.pooling != "none":
            x = x[:1] if spec.pooling == "cls" else x.mean(axis=0, keepdims=True)
        if spec.head_dense is not None:
            x = x @ self.tensors["head.dense.weight"].T.astype(np.float64) + self.tensors["head.dense.bias"]
            x = ACTIVATIONS[spec.head_dense](x)
        if spec.outputs:
            x = x @ self.tensors["head.out.weight"].T.astype(np.float64) + self.tensors["head.out.bias"]
        return x / np.linalg.norm(x, axis=1, keepdims=True) if spec.normalize else x


def random_model(
    seed: int = 0,
    cell_rows: int = 4,
    keep: Sequence[float] = (1.0, 0.5, 0.25, 0.0),
    nested: bool = True,
    **changes: Any,
) -> RandomModel:
    """Weights of the size that training gives (variance one over inputs), one level per share of kept cells.

    The defaults are odd on purpose: 5 heads of 4 features, 33 inner features (a ragged last band for every cell height
    above 1), an all-true mask, an all-false mask, and a first row of zeros.
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
        for name, shape in dense_shapes(spec).items()
    }
    for name in tensors:
        if name.endswith("norm.weight"):
            tensors[name] += 1.0
    packed, biases = {}, {}
    for name, shape in spec.linear_shapes().items():
        grid = CellGrid(*shape, cell_rows)
        weight = (generator.standard_normal(shape) / math.sqrt(shape[1])).astype(np.float32)
        weight[0] = 0.0
        shared = generator.random(grid.shape)
        masks = [(shared if nested else generator.random(grid.shape)) < share for share in keep]
        packed[name] = pack_linear(weight, masks, cell_rows)
        biases[name] = (0.1 * generator.standard_normal(shape[0])).astype(np.float32)
    return RandomModel(spec, tensors, packed, biases, len(keep), cell_rows)


def random_ids(generator: np.random.Generator, spec: ModelSpec, lengths: Sequence[int]) -> list[list[int]]:
    return [generator.integers(0, spec.vocab, length).tolist() for length in lengths]
