"""The smallest valid bundles, an encoder and a decoder: what every broken one is made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.packed_tensors import Packed
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.packing import pack_linear
from lavolta.sparsity.packing_int8 import pack_int8

QUERY = "linear.layers.0.attention.query"
UP = "linear.layers.0.ffn.up"
"""The one int8 linear: 5 rows, so a ragged band, of 4 columns."""
KEY = "linear.layers.0.attention.key"
"""The one linear whose levels are not nested: the second one keeps what the first one does not."""


def tiny_spec() -> ModelSpec:
    """The smallest model with every optional part; ffn 5 with cells of 2 rows has a ragged last band."""
    return ModelSpec(
        name="tiny",
        layers=1,
        hidden=4,
        heads=2,
        ffn=5,
        vocab=3,
        max_tokens=3,
        types=2,
        head_dense="tanh",
        pooling="cls",
        outputs=2,
        task="classification",
        labels=["no", "yes"],
    )


def decoder_spec() -> ModelSpec:
    """The smallest decoder with every option that an encoder lacks."""
    return ModelSpec(
        name="tiny-decoder",
        layers=1,
        hidden=8,
        heads=4,
        kv_heads=2,
        ffn=5,
        vocab=3,
        max_tokens=3,
        norm="rms",
        norm_first=True,
        position="rope",
        ffn_gate=True,
        activation="silu",
        causal=True,
        embedding_norm=False,
        pooling="none",
        outputs=3,
        task="language-model",
    )


def write_tiny(path: Path, seed: int = 0, *, decoder: bool = False) -> None:
    """A valid bundle with a dense level, a half level and one that keeps nothing of the first layer's query.

    Args:
        decoder: the tiny decoder, its output layer packed, instead of the tiny encoder.
    """
    spec, generator = decoder_spec() if decoder else tiny_spec(), np.random.default_rng(seed)
    shapes = dense_shapes(spec, packed_head=decoder)
    tensors = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    packed: dict[str, Packed] = {}
    biases = {}
    for name, shape in spec.linear_shapes(packed_head=decoder).items():
        grid = CellGrid(*shape, 2)
        dense = np.ones(grid.shape, dtype=bool)
        half = generator.random(grid.shape) < 0.5
        sparse = (
            np.zeros_like(half) if name == "layers.0.attention.query" else half & (generator.random(grid.shape) < 0.5)
        )
        weight = generator.standard_normal(shape).astype(np.float32)
        pack = pack_int8 if f"linear.{name}" == UP else pack_linear
        masks = [half, dense, sparse] if f"linear.{name}" == KEY else [dense, half, sparse]
        packed[name] = pack(weight, masks, 2)
        biases[name] = generator.standard_normal(shape[0]).astype(np.float32)
    levels = [
        {
            "name": f"L{level}",
            "sparsity": 0.4 * level,
            "kept_cells": {name: layer.kept_cells(level) for name, layer in packed.items()},
        }
        for level in range(3)
    ]
    write_bundle(path, spec, tensors, packed, biases, levels, 2, {"kind": "ranked"}, tokenizer_json=b"{}")
