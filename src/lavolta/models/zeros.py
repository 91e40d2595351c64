"""Sparse checkpoints of other tools: the zeros in their weights become the one level of a bundle."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lavolta.errors import UserInputError
from lavolta.models.hf import load_encoder
from lavolta.models.hf_files import find_model
from lavolta.models.loaded import LoadedModel
from lavolta.sparsity.ranking import LevelMasks, model_sparsity

_WEIGHT, _MASK = "_orig", "_mask"
"""Endings by which `torch.nn.utils.prune` stores a weight apart from its mask."""
_FILE = "model.safetensors"
LEAST_ZEROS = 0.01
"""Share of zeros below which nobody pruned the model."""


@dataclass(frozen=True)
class Imported:
    """A sparse checkpoint.

    Args:
        loaded: the model, its zeros in place.
        masks: cells that are not all zero, ``(bands, in_features)`` for each linear.
        sparsity: share of the weights that the masks remove, 0 to 1.
        zeros: share of the weights that are zero; above ``sparsity`` where cells are taller than one row.
        stored_masks: how many weights had a mask of their own in the file.
    """

    loaded: LoadedModel
    masks: LevelMasks
    sparsity: float
    zeros: float
    stored_masks: int


def load_sparse(source: str, cell_rows: int = 1, task: str | None = None) -> Imported:
    """Load a pruned Hugging Face folder, as SparseML, `torch.nn.utils.prune` and others leave it.

    Args:
        source: a folder; zeros in its weights count, and so do ``..._mask`` tensors beside ``..._orig`` ones in its
            ``model.safetensors``.
        cell_rows: height of the cells; 1 keeps every single zero.
        task: as in `load_encoder`.

    Raises:
        UserInputError: what `load_encoder` refuses, masks without weights or with values other than 0 and 1, and a
            model without zeros.
    """
    folder = find_model(source)
    with _masks_applied(folder) as (used, stored):
        loaded = load_encoder(str(used), task)
    loaded.provenance["source"] = source
    grids, weights = loaded.grids(cell_rows), loaded.weights()
    masks = {name: (grid.to_bands(weights[name]) != 0).any(axis=1) for name, grid in grids.items()}
    total = sum(weight.size for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values()) / total
    if zeros < LEAST_ZEROS:
        raise UserInputError(
            f"{source} has no sparsity to import ({100 * zeros:.2g} % zeros); prune it with `lavolta compress`."
        )
    return Imported(loaded, masks, model_sparsity(grids, masks), zeros, stored)


@contextmanager
def _masks_applied(folder: str) -> Iterator[tuple[Path, int]]:
    """The folder itself, or a copy in which stored masks are multiplied in; and how many there were."""
    file = Path(folder) / _FILE
    try:
        tensors = load_file(file) if file.is_file() else {}
    except (OSError, SafetensorError) as error:
        raise UserInputError(f"{file} cannot be read ({error}); copy the model again.") from error
    masked = [name for name in tensors if name.endswith(_MASK)]
    if not masked:
        yield Path(folder), 0
        return
    for name in masked:
        stem = name.removesuffix(_MASK)
        mask, weight = tensors.pop(name), tensors.pop(stem + _WEIGHT, None)
        if weight is None or weight.shape != mask.shape:
            raise UserInputError(f"{file} has {name} without a {stem + _WEIGHT} of its shape; copy the model again.")
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise UserInputError(f"{file} has values other than 0 and 1 in {name}; it is no mask.")
        tensors[stem] = torch.where(mask == 0, torch.zeros_like(weight), weight)
    with tempfile.TemporaryDirectory(prefix="lavolta-import-") as temporary:
        copied = Path(temporary) / Path(folder).resolve().name
        shutil.copytree(folder, copied, ignore=shutil.ignore_patterns(_FILE, "*.bin", "*.onnx", "*.h5", "*.msgpack"))
        save_file(tensors, copied / _FILE, {"format": "pt"})
        yield copied, len(masked)
