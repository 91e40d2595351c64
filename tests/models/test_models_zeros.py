"""Sparse checkpoints of other tools: their zeros, or their stored masks, are the pattern of the bundle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, tiny_model
from torch.nn.utils import prune

from lavolta.errors import UserInputError
from lavolta.models.export import export_bundle
from lavolta.models.hf import load_encoder
from lavolta.models.zeros import load_sparse
from lavolta.runtime.bundle import BundleFile


def bits(weights: Iterable[np.ndarray]) -> list[bytes]:
    """Sorted contents; a zero has no sign, since a mask leaves the sign of what it removed."""
    return sorted((weight + np.float32(0.0)).tobytes() for weight in weights)


def pruned(family: str, folder: Path, *, stored: bool) -> dict[str, np.ndarray]:
    """Save a classifier of which other code pruned the encoder; its weights as it computes with them."""
    model = tiny_model(family, 3)
    linears = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "layer." in n]
    for linear in linears:
        prune.l1_unstructured(linear, "weight", amount=0.7)
        if not stored:
            prune.remove(linear, "weight")
    folder.mkdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    return {name: m.weight.detach().numpy() for name, m in model.named_modules() if m in linears}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_zeros_become_cells_that_the_level_drops(family: str, stored: bool, tmp_path: Path) -> None:
    weights = pruned(family, tmp_path / "in", stored=stored)
    found = load_sparse(str(tmp_path / "in"))
    assert found.stored_masks == (len(weights) if stored else 0)
    zeros = sum(int((w == 0).sum()) for w in weights.values()) / sum(w.size for w in weights.values())
    assert found.zeros == pytest.approx(zeros, abs=1e-12)
    assert found.sparsity == pytest.approx(zeros, abs=1e-12)
    assert found.loaded.spec.outputs == 3
    export_bundle(found.loaded, [found.masks], [{"name": "L0"}], 1, tmp_path / "m.lavolta")
    bundle = BundleFile.open(tmp_path / "m.lavolta")
    assert bits(bundle.dense_weight(name, 0) for name in bundle.linears) == bits(weights.values())
    # What was read stays as it was.
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"config.json", "model.safetensors"}


def test_taller_cells_drop_only_what_is_zero_all_through(tmp_path: Path) -> None:
    pruned("bert", tmp_path / "in", stored=False)
    single, tall = load_sparse(str(tmp_path / "in"), 1), load_sparse(str(tmp_path / "in"), 4)
    assert tall.zeros == single.zeros
    assert 0.0 < tall.sparsity < single.sparsity
    for name, grid in tall.loaded.grids(4).items():
        assert not tall.loaded.weights()[name][~grid.expand(tall.masks[name])].any()


def test_a_dense_model_has_nothing_to_import(tmp_path: Path) -> None:
    tiny_model("bert").save_pretrained(tmp_path)
    with pytest.raises(UserInputError, match=r"has no sparsity to import \(0 % zeros\)"):
        load_sparse(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [("fraction", "values other than 0 and 1"), ("alone", "without a .*weight_orig"), ("shape", "without a")],
)
def test_what_is_no_mask_is_refused(change: str, words: str, tmp_path: Path) -> None:
    pruned("bert", tmp_path / "in", stored=True)
    file = tmp_path / "in" / "model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if key.endswith("weight_mask"))
    if change == "fraction":
        tensors[name][0, 0] = 0.5
    elif change == "alone":
        del tensors[name.replace("_mask", "_orig")]
    else:
        tensors[name] = tensors[name][1:].contiguous()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserInputError, match=words):
        load_sparse(str(tmp_path / "in"))


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    pruned("bert", tmp_path / "in", stored=True)
    (tmp_path / "in" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserInputError, match="cannot be read"):
        load_sparse(str(tmp_path / "in"))


def test_other_tools_read_what_was_imported(tmp_path: Path) -> None:
    from lavolta.models.hf_out import save_pretrained

    weights = pruned("roberta", tmp_path / "in", stored=True)
    save_pretrained(load_sparse(str(tmp_path / "in")).loaded, tmp_path / "out")
    back = load_encoder(str(tmp_path / "out"))
    assert bits(back.weights().values()) == bits(weights.values())
