"""The bundle: one safetensors file with a model, its levels and its manifest; docs/reference/bundle.md is its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lavolta import __version__
from lavolta.errors import BundleError, UserInputError
from lavolta.runtime.container import Container, parse_json, write_container
from lavolta.runtime.packed_tensors import (
    PRECISIONS,
    Packed,
    check_finite,
    check_packed,
    packed_arrays,
    precision_of,
    read_packed,
    table_bytes,
    unpack,
)
from lavolta.runtime.spec import HEAD_LINEAR, ModelSpec
from lavolta.runtime.spec import dense_shapes as dense_shapes
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.groups import MAX_LEVELS

FORMAT = 4
METADATA_KEY = "lavolta"
SPARSITY_KINDS = ("ranked", "pattern-sets")
LIMITS = {
    "layers": (1, 1 << 12),
    "hidden": (1, 1 << 16),
    "heads": (1, 1 << 16),
    "kv_heads": (1, 1 << 16),
    "ffn": (1, 1 << 16),
    "vocab": (1, 1 << 30),
    "max_tokens": (1, 1 << 20),
    "types": (0, 2),
    "outputs": (0, 1 << 30),
}
"""Smallest and largest value of each size in the manifest's model."""


def write_bundle(
    path: str | Path,
    spec: ModelSpec,
    tensors: Mapping[str, NDArray[np.float32]],
    packed: Mapping[str, Packed],
    biases: Mapping[str, NDArray[np.float32] | None],
    levels: Sequence[Mapping[str, Any]],
    cell_rows: int,
    sparsity_info: Mapping[str, Any],
    tokenizer_json: bytes | None = None,
    vocab: bytes | None = None,
    provenance: Mapping[str, Any] | None = None,
    device: Mapping[str, Any] | None = None,
) -> None:
    """Write a bundle, completely or not at all; it is read back and checked before it replaces an older one.

    Args:
        tensors: `dense_shapes` of the spec, float32.
        packed: every linear of ``spec.linear_shapes()``, each of its own precision, and ``head.out`` where the output
            layer is packed too.
        biases: of the same linears, ``(out_features,)``; ``None`` writes zeros.
        levels: densest first, each with ``name``, ``sparsity`` (0 to 1), ``kept_cells`` (linear name to count), and any
            other plain JSON fields.
        cell_rows: height of the cells.
        sparsity_info: ``{"kind": "ranked" | "pattern-sets", ...}``.
        tokenizer_json: bytes of a ``tokenizer.json``.
        vocab: words of a word-level model, one a line, UTF-8.
        provenance, device: plain JSON.

    Raises:
        UserInputError: parts that do not fit each other.
        BundleError: ``io``, such as a full disk.
    """
    packed_head = HEAD_LINEAR in packed
    shapes = spec.linear_shapes(packed_head=packed_head)
    _check_names("tensors", set(tensors), set(dense_shapes(spec, packed_head=packed_head)))
    _check_names("packed linears", set(packed), set(shapes))
    for name, layer in packed.items():
        if layer.groups.levels != len(levels):
            raise UserInputError(f"{name!r} was packed for {layer.groups.levels} levels, the bundle has {len(levels)}.")
    manifest = {
        "format": FORMAT,
        "lavolta_version": __version__,
        "model": spec.as_dict(),
        "cell_rows": cell_rows,
        "sparsity": dict(sparsity_info),
        "levels": [dict(level) for level in levels],
        "linears": [
            {
                "name": name,
                "out_features": shape[0],
                "in_features": shape[1],
                "precision": precision_of(packed[name]),
            }
            for name, shape in shapes.items()
        ],
        "provenance": dict(provenance or {}),
        "device": dict(device or {}),
    }
    try:
        text = json.dumps(manifest, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise UserInputError(
            f"the manifest is not plain JSON ({error}); use strings, finite numbers, lists."
        ) from error
    arrays: dict[str, NDArray[Any]] = {name: np.asarray(array, dtype=np.float32) for name, array in tensors.items()}
    for name, layer in packed.items():
        arrays |= packed_arrays(name, layer, biases.get(name))
    for name, blob in (("tokenizer", tokenizer_json), ("vocab", vocab)):
        if blob is not None:
            arrays[name] = np.frombuffer(blob, dtype=np.uint8)
    write_container(path, arrays, {METADATA_KEY: text}, _check_written)


class BundleFile:
    """A bundle, read without torch; every index and number in it was checked when it was opened.

    Arrays are read-only views of the mapped file, which stays mapped as long as one of them lives.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self.path = container.path
        self.manifest: dict[str, Any] = self._read_manifest()
        self.spec = self._read_spec()
        self.cell_rows: int = self.manifest["cell_rows"]
        self._check_linears()
        self._check_levels()
        self._check_tensors()

    @classmethod
    def open(cls, path: str | Path) -> BundleFile:
        """Map and check a bundle.

        Raises:
            BundleError: ``kind`` is one of `lavolta.runtime.container.KINDS`.
        """
        return cls(Container(path))

    @property
    def levels(self) -> list[dict[str, Any]]:
        """The manifest's levels, densest first."""
        levels: list[dict[str, Any]] = self.manifest["levels"]
        return levels

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Every packed linear, in order: name to ``(out_features, in_features)``; ``head.out`` last if it is one."""
        names = [entry.get("name") for entry in self.manifest["linears"] if isinstance(entry, dict)]
        return self.spec.linear_shapes(packed_head=bool(self.spec.outputs) and names[-1:] == [HEAD_LINEAR])

    @cached_property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Everything that is not a packed linear, canonical name to array."""
        shapes = dense_shapes(self.spec, packed_head=HEAD_LINEAR in self.linears)
        return {name: self._container.tensor(name, "F32", shape) for name, shape in shapes.items()}

    @property
    def tokenizer_json(self) -> bytes | None:
        """The bytes of ``tokenizer.json``, ``None`` where the model has no tokenizer."""
        return self._blob("tokenizer")

    @property
    def vocab(self) -> bytes | None:
        """The words of a word-level model, one a line, ``None`` for other models."""
        return self._blob("vocab")

    def precision(self, name: str) -> str:
        """Precision of a packed linear: ``"fp32"`` or ``"int8"``."""
        return str(self._listed(name)["precision"])

    def packed(self, name: str) -> Packed:
        """One packed linear by canonical name, with all its levels."""
        return read_packed(self._container, name, self._grid(name), len(self.levels), self.precision(name))

    def bias(self, name: str) -> NDArray[np.float32]:
        """Bias of a packed linear, ``(out_features,)``."""
        return self._container.tensor(f"linear.{name}.bias", "F32", (self._grid(name).out_features,))

    def dense_weight(self, name: str, level: int) -> NDArray[np.float32]:
        """The weight ``(out_features, in_features)`` that ``level`` computes with; what it dropped is zero."""
        if not 0 <= level < len(self.levels):
            raise UserInputError(f"there is no level {level}; the bundle has levels 0 to {len(self.levels) - 1}.")
        return unpack(self.packed(name), level)

    def level_bytes(self, level: int) -> dict[str, int]:
        """Bytes in memory and bytes that a level uses.

        Returns:
            ``resident``: all tensors that the engine holds, the same for every level; ``streamed``: values, columns and
            sizes that one pass at this level reads; ``table``: the sizes among them.
        """
        entries = self._container.entries
        resident = sum(e.end - e.begin for name, e in entries.items() if name not in ("tokenizer", "vocab"))
        streamed = table = 0
        for name in self.linears:
            packed = self.packed(name)
            own = table_bytes(packed, level)
            table += own
            streamed += packed.streamed_bytes(level) + own
        return {"resident": resident, "streamed": streamed, "table": table}

    def _blob(self, name: str) -> bytes | None:
        present = name in self._container.entries
        return bytes(self._container.tensor(name, "U8", (None,))) if present else None

    def _grid(self, name: str) -> CellGrid:
        shape = self.linears.get(name)
        if shape is None:
            raise UserInputError(f"the bundle has no packed linear {name!r}; see BundleFile.linears.")
        return CellGrid(*shape, self.cell_rows)

    def _listed(self, name: str) -> dict[str, Any]:
        """The manifest's entry of a packed linear."""
        self._grid(name)
        entry: dict[str, Any] = next(entry for entry in self.manifest["linears"] if entry["name"] == name)
        return entry

    def _invalid(self, what: str) -> NoReturn:
        self._container.fail("manifest-invalid", f"has an invalid manifest: {what}; write the bundle again.")

    def _member(self, parent: Any, name: str, kind: type) -> Any:
        """A member whose type is exactly ``kind`` (a bool is no int here)."""
        if not isinstance(parent, dict) or name not in parent:
            self._invalid(f"{name!r} is missing")
        if type(parent[name]) is not kind:
            self._invalid(f"{name!r} is {str(parent[name])[:40]!r}, not of type {kind.__name__}")
        return parent[name]

    def _read_manifest(self) -> dict[str, Any]:
        metadata = self._container.metadata
        if not isinstance(metadata, dict) or METADATA_KEY not in metadata:
            self._container.fail("manifest-missing", "has no 'lavolta' metadata; it is no La Volta bundle.")
        text = metadata[METADATA_KEY]
        if not isinstance(text, str):
            self._invalid("it is not a string")
        try:
            manifest = parse_json(text.encode("utf-8"))
        except ValueError as error:
            self._invalid(f"it is not JSON ({error})")
        version = self._member(manifest, "format", int)
        if version != FORMAT:
            way_out = "an older version made it, make the bundle again" if version < FORMAT else "update lavolta"
            self._container.fail(
                "version-unsupported", f"has format {version}, this version reads format {FORMAT}; {way_out}."
            )
        if self._member(manifest, "cell_rows", int) not in CELL_ROWS:
            self._invalid(f"'cell_rows' is {manifest['cell_rows']}")
        for name, kind in (("lavolta_version", str), ("model", dict), ("sparsity", dict), ("levels", list)):
            self._member(manifest, name, kind)
        for name, kind in (("linears", list), ("provenance", dict), ("device", dict)):
            self._member(manifest, name, kind)
        if self._member(manifest["sparsity"], "kind", str) not in SPARSITY_KINDS:
            self._invalid(f"the sparsity kind is {manifest['sparsity']['kind']!r}")
        result: dict[str, Any] = manifest
        return result

    def _read_spec(self) -> ModelSpec:
        model = self.manifest["model"]
        for name, (least, most) in LIMITS.items():
            if not least <= self._member(model, name, int) <= most:
                self._invalid(f"{name!r} is {model[name]}, not {least} to {most}")
        for name in ("norm_first", "ffn_gate", "causal", "embedding_norm", "normalize"):
            self._member(model, name, bool)
        for name in ("name", "norm", "position", "activation", "pooling", "task"):
            self._member(model, name, str)
        if missing := {field.name for field in fields(ModelSpec)} - {"head_norm"} - set(model):
            self._invalid(f"{min(missing)!r} is missing")
        if "head_norm" in model:
            self._invalid("'head_norm' is there, but no bundle of this format has a norm in its head")
        if type(model["norm_eps"]) not in (int, float) or not 0.0 <= model["norm_eps"] < 1.0:
            self._invalid(f"'norm_eps' is {str(model['norm_eps'])[:40]}, not a number from 0 to 1")
        if not all(type(label) is str for label in self._member(model, "labels", list)):
            self._invalid("'labels' are not strings")
        if type(model["head_dense"]) not in (str, type(None)):
            self._invalid("'head_dense' is neither null nor a string")
        try:
            return ModelSpec.from_dict(model)
        except UserInputError as error:
            self._invalid(str(error).removesuffix("."))

    def _check_levels(self) -> None:
        if not 1 <= len(self.levels) <= MAX_LEVELS:
            self._invalid(f"it has {len(self.levels)} levels, not 1 to {MAX_LEVELS}")
        names, densest = set(), 0.0
        for level in self.levels:
            names.add(self._member(level, "name", str))
            sparsity: Any = level.get("sparsity")
            if type(sparsity) not in (int, float) or not densest <= sparsity <= 1.0:
                self._invalid(f"the sparsities are not rising numbers from 0 to 1 at level {level['name']!r}")
            densest = sparsity
            kept = self._member(level, "kept_cells", dict)
            if set(kept) != set(self.linears) or not all(type(count) is int for count in kept.values()):
                self._invalid(f"'kept_cells' of level {level['name']!r} does not count every linear")
        if len(names) != len(self.levels):
            self._invalid("two levels share a name")

    def _check_linears(self) -> None:
        listed = []
        for entry in self.manifest["linears"]:
            name = self._member(entry, "name", str)
            listed.append((name, (self._member(entry, "out_features", int), self._member(entry, "in_features", int))))
            if self._member(entry, "precision", str) not in PRECISIONS:
                self._invalid(f"the precision of {name!r} is {entry['precision']!r}")
        if listed != list(self.linears.items()):
            self._invalid("'linears' does not fit the model")

    def _check_tensors(self) -> None:
        for name, array in self.tensors.items():
            check_finite(self._container, name, array)
        for name in self.linears:
            packed = self.packed(name)
            check_packed(self._container, name, packed)
            check_finite(self._container, f"linear.{name}.bias", self.bias(name))
            for index, level in enumerate(self.levels):
                if packed.kept_cells(index) != level["kept_cells"][name]:
                    self._invalid(
                        f"level {index} keeps {packed.kept_cells(index)} cells of {name!r}, not what 'kept_cells' says"
                    )
        self._blob("tokenizer")
        vocab = self._blob("vocab")
        if vocab is not None and vocab.count(b"\n") != self.spec.vocab:
            self._container.fail(
                "tensor-shape",
                f"has {vocab.count(10)} words in 'vocab', not {self.spec.vocab}; write the bundle again.",
            )
        try:
            (vocab or b"").decode("utf-8")
        except UnicodeDecodeError as error:
            self._invalid(f"'vocab' is not UTF-8 at byte {error.start}")


def _check_names(what: str, given: set[str], wanted: set[str]) -> None:
    if given != wanted:
        raise UserInputError(f"the {what} do not fit the model: {min(given ^ wanted)!r} is missing or unknown.")


def _check_written(path: Path) -> None:
    try:
        BundleFile.open(path)
    except BundleError as error:
        raise UserInputError(f"the parts of the bundle do not fit each other: {error}") from error


def made_with(path: Path, command: str) -> dict[str, Any]:
    """What a bundle says of the command that made it; nothing for another command, or another version of the format.

    Raises:
        BundleError: no bundle, or a damaged one.
    """
    try:
        manifest = BundleFile.open(path).manifest
    except BundleError as error:
        # A bundle of another version says "write it again": that has to work on the same file.
        if error.kind == "version-unsupported":
            return {}
        raise
    made = manifest.get("provenance", {}).get(command)
    return made if isinstance(made, dict) else {}
