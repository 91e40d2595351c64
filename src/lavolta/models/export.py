"""From a trained model and its masks to one bundle file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavolta.errors import UserInputError
from lavolta.models.loaded import LoadedModel
from lavolta.runtime.bundle import write_bundle
from lavolta.runtime.packed_tensors import PRECISIONS, Packed
from lavolta.sparsity.packing import pack_linear
from lavolta.sparsity.packing_int8 import pack_int8
from lavolta.sparsity.ranking import LevelMasks, are_nested, model_sparsity


def export_bundle(
    model: LoadedModel,
    masks: Sequence[LevelMasks],
    level_info: Sequence[Mapping[str, Any]],
    cell_rows: int,
    path: str | Path,
    *,
    precision: str | Mapping[str, str] = "fp32",
    sparsity_info: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    device: Mapping[str, Any] | None = None,
) -> None:
    """Pack every prunable layer with its levels and write the bundle, atomically.

    Args:
        model: with its trained weights; it is not changed.
        masks: one cell mask ``(bands, in_features)`` per linear and level, densest level first.
        level_info: one mapping per level with at least ``name``; other plain JSON fields (fidelity, score) are kept.
            ``sparsity`` and ``kept_cells`` are computed here.
        cell_rows: height of the cells.
        precision: ``"fp32"`` or ``"int8"``, of all linears or by the linear's name (``"fp32"`` where it is not named).
        sparsity_info: ``{"kind": "ranked" | "pattern-sets", ...}``; by default ranked if the levels are nested.
        provenance: merged over the model's own.
        device: the profile that the levels were searched for, or ``None``.

    Raises:
        UserInputError: masks that do not fit the model, levels that are not densest first, NaN weights, an unknown
            precision.
        BundleError: the file cannot be written (``io``).
    """
    if len(masks) != len(level_info):
        raise UserInputError(f"{len(masks)} levels of masks have {len(level_info)} descriptions; give one for each.")
    if model.spec.head_norm:
        raise UserInputError(
            f"{model.spec.name} has a masked language model's head, which the engine does not run; load it with "
            "task='embedding', or export it as a Hugging Face folder or an ONNX graph."
        )
    model.check_finite()
    grids = model.grids(cell_rows)
    for level, level_masks in enumerate(masks):
        if set(level_masks) != set(grids):
            different = sorted(set(level_masks) ^ set(grids))
            raise UserInputError(
                f"the masks of level {level} do not fit the model: {different[0]} is on one side only."
            )
    weights = model.weights()
    precisions = linear_precisions(list(grids), precision)
    packed: dict[str, Packed] = {}
    for name in grids:
        pack = pack_int8 if precisions[name] == "int8" else pack_linear
        packed[name] = pack(weights[name], [level[name] for level in masks], cell_rows)
    sparsities = [model_sparsity(grids, level_masks) for level_masks in masks]
    if sparsities != sorted(sparsities):
        raise UserInputError(f"the levels have sparsities {sparsities}; give them densest first.")
    levels = []
    for index, info in enumerate(level_info):
        kept = {name: layer.kept_cells(index) for name, layer in packed.items()}
        levels.append({**info, "sparsity": sparsities[index], "kept_cells": kept})
    kind = "ranked" if are_nested(masks) else "pattern-sets"
    write_bundle(
        path,
        model.spec,
        model.dense_tensors(),
        packed,
        model.biases(),
        levels,
        cell_rows,
        {"kind": kind, **(sparsity_info or {})},
        tokenizer_json=model.tokenizer_json,
        vocab=None if model.vocabulary is None else model.vocabulary.to_bytes(),
        provenance={**model.provenance, **(provenance or {})},
        device=None if device is None else dict(device),
    )


def linear_precisions(names: Sequence[str], precision: str | Mapping[str, str]) -> dict[str, str]:
    """The precision of every linear: one word for all, or by name with ``"fp32"`` for the rest.

    Raises:
        UserInputError: an unknown precision or linear.
    """
    chosen = dict.fromkeys(names, precision) if isinstance(precision, str) else dict(precision)
    if unknown := sorted(set(chosen) - set(names)):
        raise UserInputError(f"the model has no linear layer {unknown[0]!r} to give a precision to.")
    for name, word in chosen.items():
        if word not in PRECISIONS:
            raise UserInputError(f"the precision of {name} is {word!r}; choose one of {', '.join(PRECISIONS)}.")
    return {name: chosen.get(name, "fp32") for name in names}
