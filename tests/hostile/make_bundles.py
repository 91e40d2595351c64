"""Broken bundles, one or more per kind of error: every reader, in any language, must name the kind.

As a script it writes them to a folder: ``python tests/hostile/make_bundles.py DIR`` makes ``<kind>.<what>.lavolta`` for
every reader, ``strict.<kind>.<what>.lavolta`` for readers that check more than the engine needs, ``valid.lavolta`` (an
encoder) and ``valid-decoder.lavolta``.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.packed_tensors import Packed
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.packing import pack_linear
from lavolta.sparsity.packing_int8 import pack_int8


@dataclass
class Parts:
    """A valid file taken apart: the header's tensors, the manifest, the bytes of every tensor."""

    header: dict[str, Any]
    manifest: dict[str, Any]
    tensors: dict[str, bytes]


Change = Callable[[Parts], None]
"""Breaks the parts in place."""

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


def take_apart(data: bytes) -> Parts:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["lavolta"])
    payload = data[8 + length :]
    tensors = {name: payload[slice(*entry["data_offsets"])] for name, entry in header.items()}
    return Parts(header, manifest, tensors)


def build(header: dict[str, Any], manifest: object, tensors: dict[str, bytes]) -> bytes:
    """The file of such parts; offsets stay as the header has them."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    return raw(json.dumps({"__metadata__": {"lavolta": text}, **header}).encode(), payload_of(header, tensors))


def payload_of(header: dict[str, Any], tensors: dict[str, bytes]) -> bytes:
    """The tensors' bytes in the order of the valid file."""
    return b"".join(tensors[name] for name in header if name in tensors)


def raw(header: bytes, payload: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + payload


def _set(tensor: str, index: int, value: float, dtype: str) -> Change:
    def change(parts: Parts) -> None:
        array = np.frombuffer(parts.tensors[tensor], dtype=dtype).copy()
        array[index] = value
        parts.tensors[tensor] = array.tobytes()

    return change


def _manifest(*path: str | int, value: Any) -> Change:
    def change(parts: Parts) -> None:
        at: Any = parts.manifest
        for step in path[:-1]:
            at = at[step]
        if value is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return change


def _entry(tensor: str, **fields: Any) -> Change:
    def change(parts: Parts) -> None:
        parts.header[tensor] = {**parts.header[tensor], **fields} if isinstance(parts.header[tensor], dict) else fields

    return change


def _replace_entry(tensor: str, value: Any) -> Change:
    def change(parts: Parts) -> None:
        parts.header[tensor] = value

    return change


def _drop(tensor: str) -> Change:
    """Remove a tensor and close the hole."""

    def change(parts: Parts) -> None:
        begin, end = parts.header.pop(tensor)["data_offsets"]
        del parts.tensors[tensor]
        for entry in parts.header.values():
            if entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [offset - (end - begin) for offset in entry["data_offsets"]]

    return change


def _overlap(parts: Parts) -> None:
    first, second = list(parts.header)[:2]
    size = parts.header[second]["data_offsets"][1] - parts.header[second]["data_offsets"][0]
    parts.header[second]["data_offsets"] = [
        parts.header[first]["data_offsets"][0],
        parts.header[first]["data_offsets"][0] + size,
    ]


def _cell_of_the_next_band(tensor: str) -> Change:
    """The first band, which has every column, takes a unit of the second one: there are as many as before."""

    def change(parts: Parts) -> None:
        shape = parts.header[f"{tensor}.sizes"]["shape"]
        sizes = np.frombuffer(parts.tensors[f"{tensor}.sizes"], dtype="<u2").copy().reshape(shape)
        group = int(np.flatnonzero(sizes[:, 0, 1])[0])
        sizes[group, 0, 0] += 1
        sizes[group, 0, 1] -= 1
        parts.tensors[f"{tensor}.sizes"] = sizes.tobytes()

    return change


def _same_column(parts: Parts) -> None:
    columns = np.frombuffer(parts.tensors[f"{QUERY}.columns"], dtype="<u2").copy()
    columns[-1] = columns[-2]
    parts.tensors[f"{QUERY}.columns"] = columns.tobytes()


def _swap_linears(parts: Parts) -> None:
    linears = parts.manifest["linears"]
    linears[0], linears[1] = linears[1], linears[0]


def _fillers(parts: Parts) -> np.ndarray[Any, Any]:
    """Indices among the columns of the int8 linear of cells that only fill up a quad; the tiny model has some."""
    quads = np.frombuffer(parts.tensors[f"{UP}.columns"], dtype="<u2").reshape(-1, 4)
    repeats = quads == quads[:, :1]
    repeats[:, 0] = False
    return np.flatnonzero(repeats)


def _filler_not_zero(parts: Parts) -> None:
    quad, place = divmod(int(_fillers(parts)[0]), 4)
    values = np.frombuffer(parts.tensors[f"{UP}.values"], dtype="i1").copy().reshape(-1, 2, 4)
    values[quad, 1, place] = 1
    parts.tensors[f"{UP}.values"] = values.tobytes()


def _int8_column_twice(parts: Parts) -> None:
    """The third column of a quad is its second: neither is the first, so neither is a filler."""
    columns = np.frombuffer(parts.tensors[f"{UP}.columns"], dtype="<u2").copy().reshape(-1, 4)
    quad = int(np.flatnonzero(columns[:, 1] != columns[:, 0])[0])
    columns[quad, 2] = columns[quad, 1]
    parts.tensors[f"{UP}.columns"] = columns.tobytes()


def _resize(tensor: str, shape: list[int]) -> Change:
    """Another shape for a tensor, its bytes zeros; those behind it move."""

    def change(parts: Parts) -> None:
        entry = parts.header[tensor]
        data = bytes({"U64": 8, "U16": 2}[entry["dtype"]] * math.prod(shape))
        begin, end = entry["data_offsets"]
        for other in parts.header.values():
            if other["data_offsets"][0] >= end and other is not entry:
                other["data_offsets"] = [offset + len(data) - (end - begin) for offset in other["data_offsets"]]
        parts.header[tensor] = {**entry, "shape": shape, "data_offsets": [begin, begin + len(data)]}
        parts.tensors[tensor] = data

    return change


def _vocab(text: bytes) -> Change:
    """A vocabulary in the place of the tokenizer."""

    def change(parts: Parts) -> None:
        _drop("tokenizer")(parts)
        end = max(entry["data_offsets"][1] for entry in parts.header.values())
        parts.header["vocab"] = {"dtype": "U8", "shape": [len(text)], "data_offsets": [end, end + len(text)]}
        parts.tensors["vocab"] = text

    return change


def _too_many_groups(parts: Parts) -> None:
    _resize(f"{UP}.kept_by", [1025])(parts)
    _resize(f"{UP}.sizes", [1025, 1, 3])(parts)


def _flat_values(parts: Parts) -> None:
    entry = parts.header[f"{UP}.values"]
    quads, rows, width = entry["shape"]
    parts.header[f"{UP}.values"] = {**entry, "shape": [quads, rows * width]}


CHANGES: dict[str, Change] = {
    "manifest-invalid.no-levels": _manifest("levels", value=[]),
    "manifest-invalid.too-many-levels": _manifest("levels", value=[{"name": str(i)} for i in range(65)]),
    "manifest-invalid.levels-missing": _manifest("levels", value=...),
    "manifest-invalid.level-without-name": _manifest("levels", 1, "name", value=...),
    "manifest-invalid.two-levels-one-name": _manifest("levels", 1, "name", value="L0"),
    "manifest-invalid.no-model": _manifest("model", value=...),
    "manifest-invalid.model-is-a-list": _manifest("model", value=[]),
    "manifest-invalid.hidden-zero": _manifest("model", "hidden", value=0),
    "manifest-invalid.hidden-negative": _manifest("model", "hidden", value=-4),
    "manifest-invalid.hidden-huge": _manifest("model", "hidden", value=1 << 40),
    "manifest-invalid.hidden-a-string": _manifest("model", "hidden", value="4"),
    "manifest-invalid.hidden-a-bool": _manifest("model", "heads", value=True),
    "manifest-invalid.heads-do-not-divide": _manifest("model", "heads", value=3),
    "manifest-invalid.three-types": _manifest("model", "types", value=3),
    "manifest-invalid.unknown-activation": _manifest("model", "activation", value="swish"),
    "manifest-invalid.unknown-pooling": _manifest("model", "pooling", value="max"),
    "manifest-invalid.unknown-head": _manifest("model", "head_dense", value="sigmoid"),
    "manifest-invalid.eps-negative": _manifest("model", "norm_eps", value=-1.0),
    "manifest-invalid.causal-a-number": _manifest("model", "causal", value=1),
    "manifest-invalid.cell-rows-3": _manifest("cell_rows", value=3),
    "manifest-invalid.cell-rows-32": _manifest("cell_rows", value=32),
    "manifest-invalid.linear-not-listed": _manifest("linears", 0, "name", value="layers.0.attention.what"),
    "manifest-invalid.linear-of-another-shape": _manifest("linears", 0, "in_features", value=5),
    "manifest-invalid.linears-swapped": _swap_linears,
    "manifest-invalid.linear-missing": _manifest("linears", 5, value=...),
    "manifest-invalid.linear-a-number": _manifest("linears", 5, value=7),
    "manifest-invalid.no-precision": _manifest("linears", 0, "precision", value=...),
    "manifest-invalid.unknown-precision": _manifest("linears", 0, "precision", value="int3"),
    "manifest-invalid.kv-heads-zero": _manifest("model", "kv_heads", value=0),
    "manifest-invalid.more-kv-heads-than-heads": _manifest("model", "kv_heads", value=4),
    "manifest-invalid.unknown-norm": _manifest("model", "norm", value="batch"),
    "manifest-invalid.norm-first-a-number": _manifest("model", "norm_first", value=0),
    "manifest-invalid.unknown-position": _manifest("model", "position", value="alibi"),
    "manifest-invalid.gate-a-string": _manifest("model", "ffn_gate", value="no"),
    "manifest-invalid.version-a-number": _manifest("lavolta_version", value=1),
    "manifest-invalid.provenance-a-list": _manifest("provenance", value=[]),
    "manifest-invalid.device-a-string": _manifest("device", value="phone"),
    "manifest-invalid.name-a-number": _manifest("model", "name", value=7),
    "manifest-invalid.vocab-not-utf8": _vocab(b"<unk>\n<eos>\n\xff\n"),
    "manifest-invalid.vocab-half-a-surrogate-pair": _vocab(b"<unk>\n<eos>\n\xed\xa0\x80\n"),
    "version-unsupported.newer": _manifest("format", value=5),
    "version-unsupported.older": _manifest("format", value=3),
    "version-unsupported.first": _manifest("format", value=1),
    "version-unsupported.zero": _manifest("format", value=0),
    "manifest-invalid.format-a-string": _manifest("format", value="4"),
    "tensor-missing.embedding": _drop("embeddings.word"),
    "tensor-missing.bias": _drop(f"{QUERY}.bias"),
    "tensor-missing.columns": _drop(f"{QUERY}.columns"),
    "tensor-missing.scale": _drop(f"{UP}.scale"),
    "tensor-missing.sizes": _drop(f"{UP}.sizes"),
    "tensor-missing.kept-by": _drop(f"{QUERY}.kept_by"),
    "tensor-missing.head": _drop("head.out.weight"),
    "tensor-shape.vocab-of-two-words": _vocab(b"<unk>\n<eos>\n"),
    "tensor-shape.vocab-of-four-words": _vocab(b"<unk>\n<eos>\none\ntwo\n"),
    "tensor-shape.empty-vocab": _vocab(b""),
    "tensor-shape.embedding-transposed": _entry("embeddings.word", shape=[4, 3]),
    "tensor-shape.values-flat": _entry(f"{QUERY}.values", shape=[16]),
    "tensor-shape.two-sizes-for-columns": _entry(f"{QUERY}.columns", shape=[8, 1]),
    "tensor-shape.no-whole-quads": _manifest("linears", 5, "precision", value="int8"),
    "tensor-shape.quads-flat": _flat_values,
    "tensor-shape.sizes-flat": _entry(f"{KEY}.sizes", shape=[4]),
    "tensor-shape.sizes-without-blocks": _entry(f"{KEY}.sizes", shape=[2, 2]),
    "tensor-shape.sizes-of-one-band": _entry(f"{KEY}.sizes", shape=[2, 2, 1]),
    "tensor-shape.groups-of-another-number": _resize(f"{UP}.kept_by", [1]),
    "tensor-shape.kept-by-a-column": _entry(f"{KEY}.kept_by", shape=[2, 1]),
    "tensor-shape.no-blocks": _resize(f"{UP}.sizes", [3, 0, 3]),
    "tensor-shape.too-many-blocks": _resize(f"{UP}.sizes", [3, 257, 3]),
    "tensor-shape.too-many-groups": _too_many_groups,
    "tensor-shape.negative": _entry("embeddings.word", shape=[-3, -4]),
    "tensor-shape.product-overflows": _entry("embeddings.word", shape=[1 << 33, 1 << 33, 1 << 33]),
    "tensor-shape.a-float": _entry("embeddings.word", shape=[3.0, 4]),
    "tensor-dtype.integers-for-floats": _entry("embeddings.word", dtype="U32"),
    "tensor-dtype.signed-columns": _entry(f"{QUERY}.columns", dtype="I16"),
    "tensor-dtype.int8-as-fp32": _manifest("linears", 4, "precision", value="fp32"),
    "tensor-dtype.fp32-as-int8": _manifest("linears", 0, "precision", value="int8"),
    "tensor-dtype.unsigned-values": _entry(f"{UP}.values", dtype="U8"),
    "tensor-dtype.signed-sizes": _entry(f"{UP}.sizes", dtype="I16"),
    "tensor-dtype.signed-kept-by": _entry(f"{UP}.kept_by", dtype="I64"),
    "tensor-dtype.unknown": _entry("embeddings.word", dtype="F31"),
    "offsets-invalid.reversed": _entry("embeddings.word", data_offsets=[48, 0]),
    "offsets-invalid.negative": _entry("embeddings.word", data_offsets=[-48, 0]),
    "offsets-invalid.fractions": _entry("embeddings.word", data_offsets=[0.5, 48.5]),
    "offsets-invalid.shape-too-small": _entry("embeddings.word", shape=[2, 4]),
    "offsets-invalid.overlap": _overlap,
    "index-out-of-range.column": _set(f"{QUERY}.columns", 0, 4, "<u2"),
    "index-out-of-range.column-65535": _set(f"{QUERY}.columns", -1, 65535, "<u2"),
    "index-out-of-range.column-twice": _same_column,
    "index-out-of-range.sizes-too-large": _set(f"{QUERY}.sizes", 0, 65535, "<u2"),
    "index-out-of-range.sizes-too-small": _set(f"{QUERY}.sizes", -1, 0, "<u2"),
    "index-out-of-range.a-cell-of-the-next-band": _cell_of_the_next_band(QUERY),
    "index-out-of-range.kept-by-a-fourth-level": _set(f"{KEY}.kept_by", 0, 8, "<u8"),
    "index-out-of-range.kept-by-level-63": _set(f"{UP}.kept_by", 1, 1 << 63, "<u8"),
    "not-finite.nan-embedding": _set("embeddings.word", 5, float("nan"), "<f4"),
    "not-finite.infinite-value": _set(f"{QUERY}.values", 3, float("-inf"), "<f4"),
    "not-finite.nan-bias": _set(f"{QUERY}.bias", 0, float("nan"), "<f4"),
    "index-out-of-range.quad-column": _set(f"{UP}.columns", 0, 4, "<u2"),
    "index-out-of-range.quad-column-twice": _int8_column_twice,
    "index-out-of-range.sizes-of-cells": _set(f"{UP}.sizes", 0, 4, "<u2"),
    "index-out-of-range.a-quad-of-the-next-band": _cell_of_the_next_band(UP),
    "value-out-of-range.minus-128": _set(f"{UP}.values", 5, -128, "i1"),
    "value-out-of-range.negative-scale": _set(f"{UP}.scale", 1, -0.5, "<f4"),
    "value-out-of-range.filler-not-zero": _filler_not_zero,
    "not-finite.nan-scale": _set(f"{UP}.scale", 2, float("nan"), "<f4"),
    "not-finite.nan-norm": _set("layers.0.ffn_norm.bias", 3, float("nan"), "<f4"),
    "header-not-json.entry-a-number": _replace_entry("embeddings.word", 7),
    "header-not-json.entry-without-shape": _replace_entry("embeddings.word", {"dtype": "F32", "data_offsets": [0, 48]}),
    "header-not-json.three-offsets": _entry("embeddings.word", data_offsets=[0, 24, 48]),
    "strict.manifest-invalid.kept-cells-lie": _manifest("levels", 0, "kept_cells", "layers.0.attention.query", value=7),
    "strict.manifest-invalid.kept-cells-missing": _manifest("levels", 2, "kept_cells", value=...),
    "strict.manifest-invalid.sparsity-falls": _manifest("levels", 2, "sparsity", value=0.1),
    "strict.manifest-invalid.unknown-field": _manifest("model", "rotary", value=True),
    "strict.manifest-invalid.unknown-task": _manifest("model", "task", value="vision"),
    "strict.manifest-invalid.sparsity-kind": _manifest("sparsity", "kind", value="butterfly"),
}

DECODER_CHANGES: dict[str, Change] = {
    "manifest-invalid.kv-heads-do-not-divide": _manifest("model", "kv_heads", value=3),
    "manifest-invalid.rope-with-odd-heads": _manifest("model", "heads", value=8),
    "manifest-invalid.head-of-another-shape": _manifest("linears", 7, "out_features", value=4),
    "manifest-invalid.linear-after-the-head": _manifest("linears", 7, "name", value="layers.1.attention.query"),
    "tensor-missing.frequencies": _drop("rope.inv_freq"),
    "tensor-missing.final-norm": _drop("final_norm.weight"),
    "tensor-missing.packed-head": _drop("linear.head.out.columns"),
    "tensor-missing.gate": _drop("linear.layers.0.ffn.gate.values"),
    "tensor-shape.frequencies-column": _entry("rope.inv_freq", shape=[1, 1]),
    "tensor-shape.key-of-all-heads": _entry("linear.layers.0.attention.key.bias", shape=[4, 1]),
    "not-finite.nan-frequency": _set("rope.inv_freq", 0, float("nan"), "<f4"),
    "index-out-of-range.head-column": _set("linear.head.out.columns", 0, 8, "<u2"),
    "strict.manifest-invalid.kept-cells-without-head": _manifest("levels", 1, "kept_cells", "head.out", value=...),
}


def hostile_bundles() -> dict[str, bytes]:
    """Name to bytes of every broken file; the first word (the second after ``strict.``) is the kind of its error."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for decoder in (False, True):
            path = Path(folder) / "valid.lavolta"
            write_tiny(path, decoder=decoder)
            parts.append(take_apart(path.read_bytes()))
    whole_parts, decoder_parts = parts
    files = {}
    for changes, valid in ((CHANGES, whole_parts), (DECODER_CHANGES, decoder_parts)):
        for name, change in changes.items():
            changed = deepcopy(valid)
            change(changed)
            files[name] = build(changed.header, changed.manifest, changed.tensors)
    header, manifest, tensors = whole_parts.header, whole_parts.manifest, whole_parts.tensors
    whole, payload = build(header, manifest, tensors), payload_of(header, tensors)
    length = 8 + int.from_bytes(whole[:8], "little")
    text = whole[8:length]
    plain = json.dumps(header).encode()
    files |= {
        "truncated.empty": b"",
        "truncated.seven-bytes": whole[:7],
        "truncated.inside-header": whole[: length - 5],
        "truncated.header-only": whole[:length],
        "truncated.last-byte": whole[:-1],
        "offsets-invalid.trailing-bytes": whole + b"\0",
        "offsets-invalid.hole-at-start": build(_shifted(header, 8), manifest, tensors) + bytes(8),
        "header-too-large.huge": (1 << 63).to_bytes(8, "little") + text,
        "header-too-large.text-file": b"Dear reader, this is a letter and not a bundle.\n",
        "header-too-large.pickle": b"PK\x03\x04" + bytes(range(64)),
        "not-a-bundle.no-brace": raw(b"[" + text[1:], payload),
        "not-a-bundle.no-header": raw(b"", payload),
        "header-not-json.cut-brace": raw(text[:-1] + b" ", payload),
        "header-not-json.not-utf8": raw(text.replace(b"tiny", b"\xff\xfe\xfd\xfc", 1), payload),
        "header-not-json.key-twice": raw(text[:-1] + b', "embeddings.word": {}}', payload),
        "header-not-json.deep": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", payload),
        "header-not-json.infinite-number": raw(text[:-1] + b', "x": 1e999}', payload),
        "header-not-json.half-a-surrogate-pair": raw(text[:-1] + b', "x": "\\ud800"}', payload),
        "header-not-json.half-a-surrogate-pair-in-a-key": raw(text[:-1] + b', "\\udc00": 1}', payload),
        "header-not-json.nan": raw(text[:-1] + b', "x": NaN}', payload),
        "manifest-missing.no-metadata": raw(plain, payload),
        "manifest-missing.other-metadata": raw(b'{"__metadata__":{"format":"pt"},' + plain[1:], payload),
        "manifest-invalid.an-object": raw(b'{"__metadata__":{"lavolta":{}},' + plain[1:], payload),
        "manifest-invalid.not-json": build(header, "{", tensors),
        "manifest-invalid.a-list": build(header, "[]", tensors),
        "manifest-invalid.deep": build(header, '{"format":4,"a":' + "[" * 100_000 + "]" * 100_000 + "}", tensors),
        "manifest-invalid.infinite-number": build(header, _with_provenance(manifest, "1e999"), tensors),
        "manifest-invalid.integer-beyond-a-double": build(header, _with_provenance(manifest, "1" + "0" * 400), tensors),
        "manifest-invalid.half-a-surrogate-pair": build(header, _with_provenance(manifest, '"\\ud800"'), tensors),
        "manifest-invalid.nan": build(header, json.dumps(manifest).replace("1e-12", "NaN"), tensors),
    }
    return files


def _with_provenance(manifest: dict[str, Any], value: str) -> str:
    """The manifest with a JSON text in a free field."""
    return json.dumps({**manifest, "provenance": {"x": 0}}).replace('{"x": 0}', f'{{"x": {value}}}')


def _shifted(header: dict[str, Any], by: int) -> dict[str, Any]:
    moved = deepcopy(header)
    for entry in moved.values():
        entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]
    return moved


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny(folder / "valid.lavolta")
    write_tiny(folder / "valid-decoder.lavolta", decoder=True)
    for name, data in hostile_bundles().items():
        (folder / f"{name}.lavolta").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
