"""Decoders with random weights, and a turn of theirs: one token behind a context."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.bench.synthetic import CELL_ROWS, PACKERS, level_name, random_weights
from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.engine import Model
from lavolta.runtime.packed_tensors import Packed
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid

VOCAB = 32000
DECODERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "gpt2": lambda _: {"activation": "gelu_tanh"},
    # A gate is a third product: two thirds of the inner features keep the number of weights of the other shape.
    "llama": lambda hidden: {
        "activation": "silu",
        "ffn": hidden * 8 // 3,
        "norm": "rms",
        "position": "rope",
        "ffn_gate": True,
    },
}
"""What tells the kinds of decoders apart, by their width."""


def decoder_spec(name: str, max_tokens: int, vocab: int = VOCAB, layers: int = 12, hidden: int = 768) -> ModelSpec:
    """A decoder of 12 heads, of one of the kinds of `DECODERS`."""
    plain = ModelSpec(
        name=f"{name}-random",
        layers=layers,
        hidden=hidden,
        heads=12,
        ffn=4 * hidden,
        vocab=vocab,
        max_tokens=max_tokens,
        norm_first=True,
        norm_eps=1e-5,
        causal=True,
        embedding_norm=False,
        pooling="none",
        outputs=vocab,
        task="language-model",
    )
    return dataclasses.replace(plain, **DECODERS[name](hidden))


def decoder_weights(spec: ModelSpec, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """`random_weights` in which every layer has the first one's: a layer's time does not depend on its numbers."""
    weights = random_weights(spec, seed)
    for name in weights:
        kind, _, rest = name.partition(".")
        if kind == "layers":
            weights[name] = weights[f"layers.0.{rest.partition('.')[2]}"]
    # llama.cpp's output layer has no bias.
    weights["head.out.bias"] = np.zeros(spec.outputs, dtype=np.float32)
    if spec.position == "rope":
        pairs = np.arange(0, spec.head_size, 2) / spec.head_size
        weights["rope.inv_freq"] = (10000.0**-pairs).astype(np.float32)
    return weights


def write_decoder(
    path: Path,
    spec: ModelSpec,
    weights: Mapping[str, NDArray[np.float32]],
    sparsities: Sequence[float],
    *,
    cell_rows: int = CELL_ROWS,
    precision: str = "fp32",
    seed: int = 0,
) -> None:
    """A bundle whose levels keep random cells, nested, the output layer packed and pruned like the others.

    Args:
        weights: `decoder_weights` of the spec.
        sparsities: shares of cells to drop, rising.
    """
    generator = np.random.default_rng(seed)
    made: dict[str, Packed] = {}
    packed: dict[str, Packed] = {}
    for name, shape in spec.linear_shapes(packed_head=True).items():
        # Equal layers are packed once and written as often as they are.
        kind = name.split(".", 2)[2] if name.startswith("layers.") else name
        if kind not in made:
            grid = CellGrid(*shape, cell_rows)
            rank = generator.permutation(grid.cells).reshape(grid.shape)
            masks = [rank < round(grid.cells * (1 - sparsity)) for sparsity in sparsities]
            made[kind] = PACKERS[precision](weights[f"{name}.weight"], masks, cell_rows)
        packed[name] = made[kind]
    levels = [
        {
            "name": level_name(sparsity),
            "sparsity": sparsity,
            "kept_cells": {name: layer.kept_cells(index) for name, layer in packed.items()},
        }
        for index, sparsity in enumerate(sparsities)
    ]
    write_bundle(
        path,
        spec,
        {name: weights[name] for name in dense_shapes(spec, packed_head=True)},
        packed,
        {name: weights[f"{name}.bias"] for name in packed},
        levels,
        cell_rows,
        {"kind": "ranked"},
        provenance={"source": "random weights", "seed": seed},
    )


def one_token(model: Model, ids: NDArray[np.int64]) -> Callable[[], NDArray[np.float32]]:
    """A turn: the last of ``ids`` behind the others, which are read once and stay in the session's cache."""
    session = model.session(len(ids))
    session.extend(ids[:-1])

    def run() -> NDArray[np.float32]:
        session.truncate(len(ids) - 1)
        return session.append(ids[-1:])

    return run
