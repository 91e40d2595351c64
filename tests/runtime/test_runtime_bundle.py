"""Bundles: what is written is read back, by us and by the safetensors library; what does not fit is not written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from lavolta.errors import UserInputError
from lavolta.runtime.bundle import BundleFile, dense_shapes, write_bundle
from lavolta.runtime.container import ALIGNMENT, MAX_VALUES, Container, parse_json
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.packing_int8 import PackedInt8
from reference_model import RandomModel, random_model


@st.composite
def random_models(draw: st.DrawFn) -> RandomModel:
    heads = draw(st.integers(1, 3))
    levels = draw(st.integers(1, 4))
    task = draw(st.sampled_from(["embedding", "classification"]))
    kv_heads = draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0]))
    features = draw(st.sampled_from([1, 2, 3]))
    return random_model(
        seed=draw(st.integers(0, 1000)),
        cell_rows=draw(st.sampled_from([1, 2, 4, 8, 16])),
        keep=sorted((draw(st.sampled_from([0.0, 0.3, 1.0])) for _ in range(levels)), reverse=True),
        nested=draw(st.booleans()),
        precision=draw(st.sampled_from(["fp32", "int8", "mixed"])),
        layers=draw(st.integers(1, 2)),
        hidden=heads * features,
        heads=heads,
        kv_heads=kv_heads,
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_first=draw(st.booleans()),
        position=draw(st.sampled_from(["learned", "rope"])) if features % 2 == 0 else "learned",
        ffn_gate=draw(st.booleans()),
        packed_head=task == "classification" and draw(st.booleans()),
        ffn=draw(st.sampled_from([1, 7, 17])),
        vocab=draw(st.integers(1, 5)),
        max_tokens=draw(st.integers(1, 5)),
        types=draw(st.integers(0, 2)),
        embedding_norm=draw(st.booleans()),
        outputs=draw(st.integers(1, 3)) if task == "classification" else 0,
        head_dense=draw(st.sampled_from([None, "tanh", "relu"])) if task == "classification" else None,
        task=task,
    )


@settings(max_examples=60, deadline=None)
@given(model=random_models(), tokenizer=st.none() | st.binary(max_size=9))
def test_what_is_written_is_read_back(
    model: RandomModel, tokenizer: bytes | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bundle") / "m.lavolta"
    model.write(path, **({} if tokenizer is None else {"tokenizer_json": tokenizer}))
    bundle = BundleFile.open(path)
    assert bundle.spec == model.spec
    assert bundle.tokenizer_json == tokenizer
    assert bundle.vocab is None
    assert set(bundle.tensors) == set(model.tensors)
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(bundle.tensors[name], tensor)
    for name, packed in model.packed.items():
        read = bundle.packed(name)
        assert read.grid == packed.grid
        assert read.groups.levels == packed.groups.levels
        arrays = [field.name for field in fields(packed) if field.name not in ("grid", "groups")]
        pairs = [(getattr(read, field), getattr(packed, field)) for field in arrays]
        pairs += [(getattr(read.groups, field), getattr(packed.groups, field)) for field in ("sizes", "kept_by")]
        for mine, theirs in pairs:
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(bundle.bias(name), model.biases[name])
    # The same model gives the same bytes.
    before = path.read_bytes()
    model.write(path, **({} if tokenizer is None else {"tokenizer_json": tokenizer}))
    assert path.read_bytes() == before


def test_the_safetensors_library_reads_it(tmp_path: Path) -> None:
    model = random_model()
    path = model.write(tmp_path / "m.lavolta")
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["lavolta"]) == BundleFile.open(path).manifest
        assert set(file.keys()) == set(Container(path).entries)
        for name, tensor in model.tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), tensor)
        columns = file.get_tensor("linear.layers.0.ffn.up.columns")
        np.testing.assert_array_equal(columns, model.packed["layers.0.ffn.up"].columns)


def test_every_item_is_aligned(tmp_path: Path) -> None:
    path = random_model(cell_rows=1, precision="mixed").write(tmp_path / "m.lavolta", tokenizer_json=b"odd")
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert start % ALIGNMENT == 0
    size = {"U64": 8, "F32": 4, "U16": 2, "U8": 1, "I8": 1}
    for entry in Container(path).entries.values():
        assert (start + entry.begin) % size[entry.dtype] == 0


def test_arrays_outlive_the_bundle_and_cannot_be_written(tmp_path: Path) -> None:
    model = random_model()
    path = model.write(tmp_path / "m.lavolta")
    word = BundleFile.open(path).tensors["embeddings.word"]
    path.unlink()
    np.testing.assert_array_equal(word, model.tensors["embeddings.word"])
    with pytest.raises(ValueError, match="read-only"):
        word[0, 0] = 1.0


def test_dense_weights_of_each_level(tmp_path: Path) -> None:
    bundle = BundleFile.open(random_model(keep=(1.0, 0.4, 0.0)).write(tmp_path / "m.lavolta"))
    dense, half, none = (bundle.dense_weight("layers.1.ffn.up", level) for level in range(3))
    assert np.count_nonzero(none) == 0
    kept = half != 0
    assert 0 < kept.sum() < (dense != 0).sum()
    np.testing.assert_array_equal(half[kept], dense[kept])
    for level in (-1, 3):
        with pytest.raises(UserInputError, match=f"no level {level}; the bundle has levels 0 to 2"):
            bundle.dense_weight("layers.1.ffn.up", level)
    with pytest.raises(UserInputError, match="no packed linear 'embeddings'"):
        bundle.packed("embeddings")


def test_bytes_of_levels(tmp_path: Path) -> None:
    model = random_model(keep=(1.0, 0.5, 0.0), cell_rows=4)
    path = model.write(tmp_path / "m.lavolta", tokenizer_json=b"x" * 1000)
    bundle = BundleFile.open(path)
    sizes = [bundle.level_bytes(level) for level in range(3)]
    stored = sum(tensor.nbytes for tensor in model.tensors.values())
    for name, packed in model.packed.items():
        stored += packed.values.nbytes + packed.columns.nbytes + model.biases[name].nbytes
        # Two groups, what both levels keep and what only the first one does: a mask, and a size for every band.
        stored += 2 * (8 + 2 * packed.grid.bands)
    assert [size["resident"] for size in sizes] == [stored] * 3
    assert sizes[0]["streamed"] > sizes[1]["streamed"] > sizes[2]["streamed"]
    # A level that keeps nothing streams no cell and no size.
    assert sizes[2]["streamed"] == sizes[2]["table"] == 0
    of_a_group = sum(2 * packed.grid.bands for packed in model.packed.values())
    assert [size["table"] for size in sizes[:2]] == [2 * of_a_group, of_a_group]
    cells = sum(packed.kept_cells(0) for packed in model.packed.values())
    assert sizes[0]["streamed"] - sizes[0]["table"] == cells * (4 * 4 + 2)


def test_bytes_of_int8_levels(tmp_path: Path) -> None:
    """A quarter of the values' bytes; fillers are streamed."""
    model = random_model(keep=(1.0, 0.5, 0.0), cell_rows=4, precision="int8")
    bundle = BundleFile.open(model.write(tmp_path / "m.lavolta"))
    sizes = [bundle.level_bytes(level) for level in range(3)]
    assert sizes[2]["streamed"] == sizes[2]["table"] == 0
    streamed = 0
    for packed in model.packed.values():
        assert isinstance(packed, PackedInt8)
        assert packed.kept_cells(0) == packed.grid.cells
        streamed += packed.values.nbytes + packed.columns.nbytes
    assert sizes[0]["streamed"] - sizes[0]["table"] == streamed
    assert {bundle.precision(name) for name in model.packed} == {"int8"}


def test_vocabulary_of_a_language_model(tmp_path: Path) -> None:
    model = random_model(vocab=3, pooling="none", normalize=False, causal=True, outputs=3, task="language-model")
    path = model.write(tmp_path / "m.lavolta", vocab="<unk>\n<eos>\né\n".encode())
    assert BundleFile.open(path).vocab == "<unk>\n<eos>\né\n".encode()
    with pytest.raises(UserInputError, match="2 words in 'vocab', not 3"):
        model.write(path, vocab=b"<unk>\n<eos>\n")


def write_args(model: RandomModel) -> dict[str, Any]:
    levels = [
        {"name": f"L{i}", "sparsity": i / 4, "kept_cells": {n: p.kept_cells(i) for n, p in model.packed.items()}}
        for i in range(model.levels)
    ]
    return {
        "spec": model.spec,
        "tensors": dict(model.tensors),
        "packed": dict(model.packed),
        "biases": dict(model.biases),
        "levels": levels,
        "cell_rows": model.cell_rows,
        "sparsity_info": {"kind": "ranked"},
    }


def test_free_fields_and_missing_biases(tmp_path: Path) -> None:
    args = write_args(random_model())
    args["levels"][1]["fidelity"] = 0.75
    args["biases"]["layers.0.ffn.up"] = None
    path = tmp_path / "m.lavolta"
    write_bundle(path, **args, provenance={"source": "here"}, device={"name": "board"})
    bundle = BundleFile.open(path)
    assert bundle.levels[1]["fidelity"] == 0.75
    assert not bundle.bias("layers.0.ffn.up").any()
    assert bundle.manifest["provenance"] == {"source": "here"}
    assert bundle.manifest["device"] == {"name": "board"}


def _drop_tensor(args: dict[str, Any]) -> None:
    del args["tensors"]["embeddings.word"]


def _wrong_shape(args: dict[str, Any]) -> None:
    args["tensors"]["embeddings.word"] = args["tensors"]["embeddings.word"].T


def _not_finite(args: dict[str, Any]) -> None:
    args["tensors"]["embeddings.word"] = np.full_like(args["tensors"]["embeddings.word"], np.nan)


def _drop_linear(args: dict[str, Any]) -> None:
    del args["packed"]["layers.1.ffn.down"]


def _one_level_less(args: dict[str, Any]) -> None:
    args["levels"].pop()


def _nan_in_manifest(args: dict[str, Any]) -> None:
    args["levels"][0]["score"] = float("nan")


def _object_in_manifest(args: dict[str, Any]) -> None:
    args["levels"][0]["score"] = np.float32(1.0)


def _sparsest_first(args: dict[str, Any]) -> None:
    args["levels"][0]["sparsity"] = 0.9


def _unknown_kind(args: dict[str, Any]) -> None:
    args["sparsity_info"] = {"kind": "magic"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop_tensor, "'embeddings.word' is missing or unknown"),
        (_wrong_shape, "'embeddings.word' of shape"),
        (_not_finite, "NaN or infinity in 'embeddings.word'"),
        (_drop_linear, "'layers.1.ffn.down' is missing or unknown"),
        (_one_level_less, "was packed for 4 levels, the bundle has 3"),
        (_nan_in_manifest, "not plain JSON"),
        (_object_in_manifest, "not plain JSON"),
        (_sparsest_first, "sparsities are not rising"),
        (_unknown_kind, "sparsity kind is 'magic'"),
    ],
)
def test_parts_that_do_not_fit_are_refused_and_nothing_is_written(
    change: Callable[[dict[str, Any]], None], words: str, tmp_path: Path
) -> None:
    args = write_args(random_model())
    change(args)
    with pytest.raises(UserInputError, match=words):
        write_bundle(tmp_path / "m.lavolta", **args)
    assert list(tmp_path.iterdir()) == []


def test_reading_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    path = random_model().write(tmp_path / "m.lavolta")
    script = """
import sys
from lavolta.runtime.bundle import BundleFile
BundleFile.open(sys.argv[1])
heavy = {"torch", "transformers", "safetensors", "tokenizers"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dense_shapes_follow_the_options() -> None:
    sizes = {"name": "m", "layers": 1, "hidden": 4, "heads": 2, "ffn": 3, "vocab": 5, "max_tokens": 6}
    plain = dense_shapes(ModelSpec(**sizes, embedding_norm=False))
    norms = {f"layers.0.{part}.{leaf}" for part in ("attention_norm", "ffn_norm") for leaf in ("weight", "bias")}
    assert set(plain) == {"embeddings.word", "embeddings.position"} | norms
    full = dense_shapes(ModelSpec(**sizes, types=2, head_dense="relu", outputs=3))
    assert full["embeddings.type"] == (2, 4)
    assert full["embeddings.norm.weight"] == (4,)
    assert full["head.dense.weight"] == (4, 4)
    assert full["head.out.weight"] == (3, 4)
    assert full["head.out.bias"] == (3,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":1,"a":2}', "repeats a key"),
        (b'{"a":{"b":1,"b":2}}', "repeats a key"),
        (b"[NaN]", "contains NaN"),
        (b"[Infinity]", "contains Infinity"),
        (b"\xff", "decode"),
        (b"[" * 66 + b"]" * 66, "nested too deeply"),
        (b"[" * 10**6, "nested too deeply"),
        (b"", "Expecting value"),
        (b"1" * 5000, "which no double holds"),
        (b"[1e999]", "contains 1e999, which no double holds"),
        (b"-1" + b"0" * 309, "which no double holds"),
        (b'["\\ud800"]', "half a surrogate pair"),
        (b'{"a":{"\\udc00\\ud800":1}}', "half a surrogate pair"),
    ],
)
def test_json_is_strict(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_json_may_be_nested_to_the_limit() -> None:
    assert parse_json(b"[" * 65 + b"]" * 65) is not None


def test_json_takes_whole_pairs_and_the_largest_double() -> None:
    assert parse_json(b'{"\\ud83d\\ude00": [1.7976931348623157e308, 1e-999]}') == {
        "\U0001f600": [sys.float_info.max, 0.0]
    }


def test_json_has_no_more_values_than_the_engine_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    # The object, the list, and its three numbers; keys are no values.
    text = b'{"a": [1, 2, 3]}'
    monkeypatch.setattr("lavolta.runtime.container.MAX_VALUES", 5)
    assert parse_json(text) == {"a": [1, 2, 3]}
    monkeypatch.setattr("lavolta.runtime.container.MAX_VALUES", 4)
    with pytest.raises(ValueError, match="it has more than 4 values"):
        parse_json(text)


def test_the_limit_of_json_is_the_engines() -> None:
    source = (Path(__file__).parents[2] / "native" / "runtime" / "json.cpp").read_text()
    found = re.search(r"kMaxNodes = size_t\{1\} << (\d+);", source)
    assert found is not None
    assert 1 << int(found[1]) == MAX_VALUES
