"""Export: what the bundle says about levels, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import random_masks, tiny_model

from lavolta.errors import UserInputError
from lavolta.models.export import export_bundle
from lavolta.models.hf import from_transformers
from lavolta.models.lm import LmConfig, Vocabulary, build_lm
from lavolta.models.loaded import LoadedModel
from lavolta.runtime.bundle import BundleFile
from lavolta.sparsity.ranking import free_ranking, level_masks, model_sparsity, uniform_cuts


@pytest.fixture
def loaded() -> LoadedModel:
    return from_transformers(tiny_model("bert"), name="bert")


def info(levels: int) -> list[dict[str, object]]:
    return [{"name": f"L{i}", "fidelity": 1.0 - i / 10} for i in range(levels)]


@pytest.mark.parametrize("cell_rows", [1, 4, 16])
def test_ranked_levels(cell_rows: int, loaded: LoadedModel, tmp_path: Path) -> None:
    grids, weights = loaded.grids(cell_rows), loaded.weights()
    rankings = {name: free_ranking(grid, grid.cell_scores(weights[name] ** 2)) for name, grid in grids.items()}
    masks = [level_masks(rankings, uniform_cuts(rankings, sparsity)) for sparsity in (0.0, 0.5, 0.8)]
    path = tmp_path / "m.lavolta"
    export_bundle(loaded, masks, info(3), cell_rows, path, provenance={"seed": 3}, device={"name": "board"})
    bundle = BundleFile.open(path)
    assert bundle.manifest["sparsity"] == {"kind": "ranked"}
    assert bundle.manifest["provenance"] == {"architecture": "BertModel", "pad_token_id": 0, "seed": 3}
    assert bundle.manifest["device"] == {"name": "board"}
    for level, level_mask in enumerate(masks):
        entry = bundle.levels[level]
        assert entry["name"] == f"L{level}"
        assert entry["fidelity"] == 1.0 - level / 10
        assert entry["sparsity"] == model_sparsity(grids, level_mask)
        for name, mask in level_mask.items():
            assert entry["kept_cells"][name] == mask.sum()
            want = np.where(grids[name].expand(mask), weights[name], 0.0)
            np.testing.assert_array_equal(bundle.dense_weight(name, level), want)
            np.testing.assert_array_equal(bundle.bias(name), loaded.biases()[name])


def test_independent_levels_are_pattern_sets(loaded: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.lavolta"
    export_bundle(loaded, random_masks(loaded, 4, (0.9, 0.4)), info(2), 4, path, sparsity_info={"patterns": 4})
    assert BundleFile.open(path).manifest["sparsity"] == {"kind": "pattern-sets", "patterns": 4}


def test_int8_of_all_or_some_linears(loaded: LoadedModel, tmp_path: Path) -> None:
    path, masks = tmp_path / "m.lavolta", random_masks(loaded, 4, (0.9, 0.4))
    export_bundle(loaded, masks, info(2), 4, path, precision="int8")
    assert {entry["precision"] for entry in BundleFile.open(path).manifest["linears"]} == {"int8"}
    export_bundle(loaded, masks, info(2), 4, path, precision={"layers.1.ffn.up": "int8"})
    bundle = BundleFile.open(path)
    for name, grid in loaded.grids(4).items():
        assert bundle.precision(name) == ("int8" if name == "layers.1.ffn.up" else "fp32")
        for level, level_masks_ in enumerate(masks):
            kept = grid.expand(level_masks_[name])
            want = np.where(kept, loaded.weights()[name], 0.0)
            # Half a step of a row's largest weight, a little more for the rounding of the division.
            any_level = grid.expand(masks[0][name] | masks[1][name])
            step = np.abs(np.where(any_level, loaded.weights()[name], 0.0)).max(axis=1, keepdims=True) / 127
            allowed = 0.501 * step if name == "layers.1.ffn.up" else 0.0 * step
            assert (np.abs(bundle.dense_weight(name, level) - want) <= allowed).all()
            assert bundle.levels[level]["kept_cells"][name] == level_masks_[name].sum()
    with pytest.raises(UserInputError, match=r"no linear layer 'layers\.9' to give a precision"):
        export_bundle(loaded, masks, info(2), 4, path, precision={"layers.9": "int8"})
    with pytest.raises(UserInputError, match="is 'int4'; choose one of fp32, int8"):
        export_bundle(loaded, masks, info(2), 4, path, precision="int4")


def test_a_language_model_carries_its_vocabulary(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(["one two"])
    loaded = build_lm(LmConfig(hidden=8, heads=2, ffn=6, layers=1, max_tokens=4), vocabulary, 0)
    path = tmp_path / "m.lavolta"
    export_bundle(loaded, random_masks(loaded, 2, (1.0,)), info(1), 2, path)
    bundle = BundleFile.open(path)
    assert bundle.vocab is not None
    assert Vocabulary.from_bytes(bundle.vocab) == vocabulary
    assert bundle.tokenizer_json is None
    assert bundle.manifest["provenance"]["config"]["hidden"] == 8


def test_what_does_not_fit_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.lavolta"
    masks = random_masks(loaded, 4, (1.0, 0.4))
    with pytest.raises(UserInputError, match="2 levels of masks have 1 descriptions"):
        export_bundle(loaded, masks, info(1), 4, path)
    with pytest.raises(UserInputError, match="give them densest first"):
        export_bundle(loaded, masks[::-1], info(2), 4, path)
    with pytest.raises(UserInputError, match="has shape"):
        export_bundle(loaded, masks, info(2), 8, path)
    missing = [dict(masks[0]), masks[1]]
    del missing[0]["layers.1.ffn.up"]
    with pytest.raises(UserInputError, match=r"level 0 do not fit the model: layers\.1\.ffn\.up"):
        export_bundle(loaded, missing, info(2), 4, path)
    with torch.no_grad():
        loaded.linears["layers.0.ffn.up"].weight[0, 0] = float("nan")
    with pytest.raises(UserInputError, match=r"layers\.0\.ffn\.up\.weight of bert contains NaN"):
        export_bundle(loaded, masks, info(2), 4, path)
    assert list(tmp_path.iterdir()) == []
