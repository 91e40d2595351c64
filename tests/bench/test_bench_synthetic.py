"""Random models: nested levels of the asked sparsity, the same for a seed, the same weights for engine and peers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.bench.synthetic import (
    PRECISIONS,
    SHAPES,
    level_name,
    peer_spec,
    random_ids,
    random_weights,
    shape_spec,
    weights_of,
    write_random_bundle,
)
from lavolta.errors import UserInputError
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.spec import ModelSpec

# Neither rows nor columns fill whole cells or quads.
SPEC = ModelSpec("odd", layers=1, hidden=6, heads=3, ffn=11, vocab=13, max_tokens=9)
SPARSITIES = (0.0, 0.3, 0.9)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell_rows", [1, 4])
def test_levels_are_nested_and_as_sparse_as_asked(tmp_path: Path, precision: str, cell_rows: int) -> None:
    path = tmp_path / "random.lavolta"
    write_random_bundle(path, SPEC, SPARSITIES, cell_rows=cell_rows, precision=precision)
    bundle = BundleFile.open(path)
    assert [level["name"] for level in bundle.levels] == ["s0", "s30", "s90"]
    assert bundle.manifest["sparsity"]["kind"] == "ranked"
    for name in SPEC.linear_shapes():
        cells = bundle.packed(name).grid.cells
        kept = [level["kept_cells"][name] for level in bundle.levels]
        assert kept == [round(cells * (1 - sparsity)) for sparsity in SPARSITIES]
        assert bundle.precision(name) == precision
        dense = [bundle.dense_weight(name, level) != 0 for level in range(3)]
        assert not (dense[1] & ~dense[0]).any()
        assert not (dense[2] & ~dense[1]).any()


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.lavolta" for index in range(3)]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write_random_bundle(path, SPEC, SPARSITIES, seed=seed)
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again
    assert first != other
    assert (random_ids(SPEC, 9, 1) == random_ids(SPEC, 9, 1)).all()


def test_peers_get_the_weights_of_the_densest_level(tmp_path: Path) -> None:
    weights = random_weights(SPEC, 3)
    path = tmp_path / "random.lavolta"
    write_random_bundle(path, SPEC, SPARSITIES, weights=weights)
    found = weights_of(BundleFile.open(path))
    assert found.keys() == weights.keys()
    assert all((found[name] == weights[name]).all() for name in weights)


def test_token_types_are_folded_into_the_positions(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, types=2)
    path = tmp_path / "random.lavolta"
    weights = random_weights(spec)
    write_random_bundle(path, spec, (0.0,), weights=weights)
    expected = weights["embeddings.position"] + weights["embeddings.type"][0]
    assert (weights_of(BundleFile.open(path))["embeddings.position"] == expected).all()
    assert peer_spec(spec).types == 0


@pytest.mark.parametrize("sparsities", [(), (0.5, 0.5), (0.5, 0.2), (-0.1,), (0.0, 1.0)])
def test_wrong_sparsities_are_refused(tmp_path: Path, sparsities: tuple[float, ...]) -> None:
    with pytest.raises(UserInputError, match="rising numbers from 0 to below 1"):
        write_random_bundle(tmp_path / "x", SPEC, sparsities)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="'int4'; choose one of fp32, int8"):
        write_random_bundle(tmp_path / "x", SPEC, (0.0,), precision="int4")
    with pytest.raises(UserInputError, match="'huge'; choose one of tiny"):
        shape_spec("huge")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("causal", True),
        ("position", "rope"),
        ("norm", "rms"),
        ("norm_first", True),
        ("ffn_gate", True),
        ("kv_heads", 1),
    ],
)
def test_peers_refuse_what_they_cannot_compute(field: str, value: Any) -> None:
    with pytest.raises(UserInputError, match=f"{field} {value!r}.*leave --peers out"):
        peer_spec(dataclasses.replace(SPEC, **{field: value}))


def test_peers_drop_the_head_and_keep_the_shape() -> None:
    spec = dataclasses.replace(SPEC, pooling="cls", head_dense="tanh", outputs=3, kv_heads=3, activation="gelu_tanh")
    assert peer_spec(spec) == dataclasses.replace(SPEC, activation="gelu_tanh")


def test_shapes_are_those_of_published_models() -> None:
    """DistilBERT: Sanh et al. 2019; MiniLM-L6-H384: the model card of all-MiniLM-L6-v2."""
    assert SHAPES["distilbert"] == (6, 768, 12, 3072)
    assert SHAPES["minilm"] == (6, 384, 12, 1536)
    assert level_name(0.75) == "s75"
    assert np.isclose(random_weights(SPEC)["embeddings.norm.weight"].mean(), 1.0, atol=0.1)
