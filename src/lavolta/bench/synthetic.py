"""Models with random weights: the same shape, and the same weights, for the engine and for its peers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.runtime.bundle import BundleFile, dense_shapes, write_bundle
from lavolta.runtime.packed_tensors import Packed
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.packing import pack_linear
from lavolta.sparsity.packing_int8 import pack_int8

Weights = Mapping[str, NDArray[np.float32]]

SHAPES = {
    "tiny": (2, 128, 2, 512),
    "minilm": (6, 384, 12, 1536),
    "distilbert": (6, 768, 12, 3072),
}
"""Layers, hidden, heads and ffn of encoders that people run."""
DEFAULT_SHAPE = "distilbert"
CELL_ROWS = 4
"""The height that `lavolta compress` takes by default."""
PACKERS: dict[str, Callable[[NDArray[np.float32], Sequence[BoolArray], int], Packed]] = {
    "fp32": pack_linear,
    "int8": pack_int8,
}
PRECISIONS = tuple(PACKERS)
"""Precisions of a bundle's linears."""
_DEVIATION = 0.02


def shape_spec(name: str, max_tokens: int = 512) -> ModelSpec:
    """The encoder of one of `SHAPES`, with a small vocabulary: looking up a word costs the same in any.

    Raises:
        UserInputError: an unknown name.
    """
    if name not in SHAPES:
        raise UserInputError(f"there is no shape '{name}'; choose one of {', '.join(SHAPES)}.")
    layers, hidden, heads, ffn = SHAPES[name]
    return ModelSpec(f"{name}-random", layers, hidden, heads, ffn, vocab=1000, max_tokens=max_tokens)


def peer_spec(spec: ModelSpec) -> ModelSpec:
    """The part of a model that every peer computes: embeddings, layers, mean of the tokens; no types and no head.

    Raises:
        UserInputError: a model that the peers cannot run.
    """
    kept = ("name", "layers", "hidden", "heads", "ffn", "vocab", "max_tokens", "activation", "norm_eps")
    plain = ModelSpec(**{name: getattr(spec, name) for name in kept})
    # What comes before and after the layers costs next to nothing; the rest says which computation it is.
    around = ("types", "pooling", "normalize", "head_dense", "outputs", "task", "labels")
    for name, only in dataclasses.asdict(plain).items():
        if name not in around and getattr(spec, name) != only:
            raise UserInputError(
                f"{spec.name} has {name} {getattr(spec, name)!r}, peers run encoders with {only!r} only; "
                "leave --peers out."
            )
    return plain


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """`dense_shapes` of a spec, and ``<linear>.weight (out, in)`` and ``.bias (out,)`` of its linears.

    Normal with deviation 0.02, as such models are initialized; the scales of norms are near one.
    """
    generator = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], mean: float = 0.0) -> NDArray[np.float32]:
        drawn = generator.standard_normal(shape, dtype=np.float32)
        return np.asarray(drawn * np.float32(_DEVIATION) + np.float32(mean))

    weights = {
        name: draw(shape, 1.0 if name.endswith("norm.weight") else 0.0) for name, shape in dense_shapes(spec).items()
    }
    for name, (out_features, in_features) in spec.linear_shapes().items():
        weights[f"{name}.weight"] = draw((out_features, in_features))
        weights[f"{name}.bias"] = draw((out_features,))
    return weights


def weights_of(bundle: BundleFile) -> dict[str, NDArray[np.float32]]:
    """The weights of a bundle's densest level for `peer_spec`, with the same names as `random_weights`."""
    spec = peer_spec(bundle.spec)
    weights = {name: bundle.tensors[name] for name in dense_shapes(spec)}
    if bundle.spec.types:
        weights["embeddings.position"] = weights["embeddings.position"] + bundle.tensors["embeddings.type"][0]
    for name in spec.linear_shapes():
        weights[f"{name}.weight"] = bundle.dense_weight(name, 0)
        weights[f"{name}.bias"] = bundle.bias(name)
    return weights


def random_ids(spec: ModelSpec, tokens: int, seed: int = 0) -> NDArray[np.int64]:
    """One sequence of token ids, ``(tokens,)``."""
    return np.random.default_rng(seed).integers(0, spec.vocab, tokens)


def write_random_bundle(
    path: Path,
    spec: ModelSpec,
    sparsities: Sequence[float],
    *,
    weights: Weights | None = None,
    cell_rows: int = CELL_ROWS,
    precision: str = "fp32",
    seed: int = 0,
) -> None:
    """A bundle whose levels keep random cells, nested; level names are ``s00``, ``s75`` ... for the percentage dropped.

    Time depends on how many cells are kept, hardly on which: random ones are no easier than trained ones.

    Args:
        sparsities: shares of cells to drop, rising, 0 to below 1.
        weights: `random_weights` of the spec; ``None`` draws them from ``seed``.

    Raises:
        UserInputError: sparsities that do not rise or are out of range, an unknown precision.
    """
    if not sparsities or list(sparsities) != sorted(set(sparsities)) or not 0 <= sparsities[0] <= sparsities[-1] < 1:
        raise UserInputError(f"the sparsities are {list(sparsities)}; give rising numbers from 0 to below 1.")
    if precision not in PACKERS:
        raise UserInputError(f"the precision is '{precision}'; choose one of {', '.join(PRECISIONS)}.")
    pack = PACKERS[precision]
    drawn = random_weights(spec, seed) if weights is None else weights
    generator = np.random.default_rng(seed)
    packed, total, kept_total = {}, 0, [0] * len(sparsities)
    for name, shape in spec.linear_shapes().items():
        grid = CellGrid(*shape, cell_rows)
        rank = generator.permutation(grid.cells).reshape(grid.shape)
        masks = [rank < round(grid.cells * (1 - sparsity)) for sparsity in sparsities]
        packed[name] = pack(drawn[f"{name}.weight"], masks, cell_rows)
        total += grid.cells
        kept_total = [count + int(mask.sum()) for count, mask in zip(kept_total, masks, strict=True)]
    levels = [
        {
            "name": level_name(sparsity),
            "sparsity": 1.0 - kept_total[index] / total,
            "kept_cells": {name: layer.kept_cells(index) for name, layer in packed.items()},
        }
        for index, sparsity in enumerate(sparsities)
    ]
    write_bundle(
        path,
        spec,
        {name: drawn[name] for name in dense_shapes(spec)},
        packed,
        {name: drawn[f"{name}.bias"] for name in packed},
        levels,
        cell_rows,
        {"kind": "ranked"},
        provenance={"source": "random weights", "seed": seed},
    )


def level_name(sparsity: float) -> str:
    """Name of a random bundle's level, such as ``s75``."""
    return f"s{100 * sparsity:g}"
