"""Tiny bundles with random weights, for every test that needs a real file and a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.packing import pack_linear

WORDS = ("[UNK]", "a", "cat", "dog", "sleeps", "rests", "the", "quietly")
LM_WORDS = ("<unk>", "<eos>", "a", "cat", "dog", "sleeps")


def _tokenizer(text_tokens: int | None) -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if text_tokens is not None:
        tokenizer.enable_truncation(text_tokens)
    return str(tokenizer.to_str()).encode()


def write_tiny(path: Path, text_tokens: int | None = None, **changes: Any) -> Path:
    """A bundle of three levels with random weights; `changes` go to its `ModelSpec`.

    Args:
        text_tokens: what its tokenizer truncates to; ``None`` for one that does not truncate.
    """
    shape: dict[str, Any] = {"layers": 2, "hidden": 6, "heads": 2, "ffn": 7, "vocab": len(WORDS), "max_tokens": 16}
    spec = ModelSpec(name="tiny", **{**shape, **changes})
    random = np.random.default_rng(5)
    tensors = {name: random.standard_normal(s).astype(np.float32) for name, s in dense_shapes(spec).items()}
    packed = {}
    for name, (out_features, in_features) in spec.linear_shapes().items():
        rank = random.permuted(np.linspace(0, 1, CellGrid(out_features, in_features, 2).cells)).reshape(-1, in_features)
        weight = random.standard_normal((out_features, in_features)).astype(np.float32)
        packed[name] = pack_linear(weight, [rank <= cut for cut in (1.0, 0.5, 0.25)], 2)
    total = sum(layer.kept_cells(0) for layer in packed.values())
    levels = [
        {
            "name": f"L{level}",
            "sparsity": 1 - sum(layer.kept_cells(level) for layer in packed.values()) / total,
            "fidelity": 1.0 - 0.05 * level,
            "kept_cells": {name: layer.kept_cells(level) for name, layer in packed.items()},
        }
        for level in range(3)
    ]
    words_only = spec.task == "language-model"
    write_bundle(
        path,
        spec,
        tensors,
        packed,
        dict.fromkeys(packed),
        levels,
        2,
        {"kind": "ranked"},
        tokenizer_json=None if words_only else _tokenizer(text_tokens),
        vocab="".join(f"{word}\n" for word in LM_WORDS).encode() if words_only else None,
    )
    return path
