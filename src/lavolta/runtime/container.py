"""A strict reader and an atomic writer of safetensors files, with a named error for each way a file can be broken."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import BundleError

KINDS = (
    "not-a-bundle",
    "truncated",
    "header-too-large",
    "header-not-json",
    "manifest-missing",
    "manifest-invalid",
    "version-unsupported",
    "tensor-missing",
    "tensor-shape",
    "tensor-dtype",
    "offsets-invalid",
    "index-out-of-range",
    "not-finite",
    "value-out-of-range",
    "io",
)
"""Every `BundleError.kind`; the native reader has the same list."""

MAX_HEADER_BYTES = 100_000_000
ALIGNMENT = 64
"""The data begins at a multiple of so many bytes; items inside are aligned because wide types come first."""
MAX_SIZE = 1 << 63

MAX_DEPTH = 64
"""Values below the outermost one of a JSON text are nested at most so deep."""
MAX_VALUES = 1 << 20
"""A JSON text has at most so many values, those inside others counted too; the native reader has the same limit."""

DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype("<u8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_TYPES_BY_BYTES = {
    1: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"),
    2: ("I16", "U16", "F16", "BF16"),
    4: ("I32", "U32", "F32"),
    8: ("I64", "U64", "F64"),
}
ITEM_BYTES = {name: size for size, names in _TYPES_BY_BYTES.items() for name in names}
"""Bytes per item of every safetensors type; a bundle uses those of `DTYPES`, the others only have to fit."""


@dataclass(frozen=True)
class Entry:
    """Where one tensor is: its safetensors type, its shape, its bytes from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Container:
    """A safetensors file, mapped; its header is checked, its tensors are read when asked for.

    Raises:
        BundleError: ``io``, ``truncated``, ``header-too-large``, ``not-a-bundle``, ``header-not-json``,
            ``offsets-invalid``, ``tensor-dtype`` or ``tensor-shape``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._data = _map(self.path)
        size = len(self._data)
        if size < 8:
            self.fail("truncated", f"has {size} bytes, fewer than its first field; copy it again.")
        length = int.from_bytes(self._data[:8], "little")
        if length > MAX_HEADER_BYTES:
            self.fail(
                "header-too-large", f"claims a header of {length} bytes, above {MAX_HEADER_BYTES}; it is no bundle."
            )
        if length > size - 8:
            self.fail("truncated", f"claims a header of {length} bytes and ends after {size - 8}; copy it again.")
        if self._data[8:9] != b"{" or length == 0:
            self.fail("not-a-bundle", "has no safetensors header; it is another kind of file.")
        self._start = 8 + length
        try:
            header = parse_json(self._data[8 : self._start])
        except ValueError as error:
            self.fail("header-not-json", f"has a header that is not JSON ({error}); copy it again.")
        if not isinstance(header, dict):
            self.fail("header-not-json", "has a header that is not a JSON object; copy it again.")
        self.metadata: Any = header.pop("__metadata__", None)
        self.entries = {name: self._entry(name, entry) for name, entry in header.items()}
        self._check_cover(size - self._start)

    def fail(self, kind: str, what: str) -> NoReturn:
        """Raise the error of a kind; ``what`` continues the sentence that the file's name begins."""
        raise BundleError(kind, f"{self.path} {what}")

    def tensor(self, name: str, dtype: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """A read-only view of one tensor; ``None`` in ``shape`` accepts any size.

        Raises:
            BundleError: ``tensor-missing``, ``tensor-dtype`` or ``tensor-shape``.
        """
        entry = self.entries.get(name)
        if entry is None:
            self.fail("tensor-missing", f"has no tensor {name!r}; write the bundle again.")
        if entry.dtype != dtype:
            self.fail("tensor-dtype", f"has {name!r} as {entry.dtype}, not {dtype}; write the bundle again.")
        fits = len(entry.shape) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, entry.shape, strict=True)
        )
        if not fits:
            wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
            self.fail("tensor-shape", f"has {name!r} of shape {entry.shape}, not {wanted}; write the bundle again.")
        count = (entry.end - entry.begin) // ITEM_BYTES[dtype]
        flat: NDArray[Any] = np.frombuffer(self._data, DTYPES[dtype], count, self._start + entry.begin)
        return flat.reshape(entry.shape)

    def _entry(self, name: str, entry: Any) -> Entry:
        if not isinstance(entry, dict):
            self.fail("header-not-json", f"has a header entry {name!r} that is not a tensor; copy it again.")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
            self.fail("header-not-json", f"has a header entry {name!r} that is not a tensor; copy it again.")
        if not all(_is_size(offset) for offset in offsets) or offsets[0] > offsets[1]:
            self.fail("offsets-invalid", f"has {name!r} at {offsets}, which is not a range; copy it again.")
        if dtype not in ITEM_BYTES:
            self.fail("tensor-dtype", f"has {name!r} of the unknown type {dtype!r}; write the bundle again.")
        size = ITEM_BYTES[dtype]
        for item in shape:
            if not _is_size(item) or size * item >= MAX_SIZE:
                self.fail("tensor-shape", f"has {name!r} of the impossible shape {shape}; copy it again.")
            size *= item
        if size != offsets[1] - offsets[0]:
            self.fail(
                "offsets-invalid", f"has {name!r} of shape {shape} in {offsets[1] - offsets[0]} bytes; copy it again."
            )
        return Entry(dtype, tuple(shape), offsets[0], offsets[1])

    def _check_cover(self, available: int) -> None:
        """Tensors follow each other without holes and fill the file."""
        covered = 0
        for entry in sorted(self.entries.values(), key=lambda e: (e.begin, e.end)):
            if entry.begin != covered:
                self.fail(
                    "offsets-invalid", f"has tensors that overlap or leave a hole at byte {covered}; copy it again."
                )
            covered = entry.end
        if covered > available:
            self.fail("truncated", f"has {available} bytes of tensors where {covered} are needed; copy it again.")
        if covered < available:
            self.fail("offsets-invalid", f"has {available - covered} bytes after its last tensor; copy it again.")


def parse_json(data: bytes) -> Any:
    """Strict JSON: UTF-8, no repeated keys, finite numbers, whole characters, at most `MAX_VALUES`, `MAX_DEPTH` deep.

    Raises:
        ValueError: with the reason.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    inner, values = [value], 0
    for _ in range(MAX_DEPTH + 1):
        values += len(inner)
        if values > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values")
        for each in inner:
            if isinstance(each, str):
                _check_whole(each)
        inner = [child for outer in inner for child in _children(outer)]
    if inner:
        raise ValueError("it is nested too deeply")
    return value


def write_container(
    path: str | Path,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
    check: Callable[[Path], object],
) -> None:
    """Write a safetensors file completely or not at all.

    The bytes go to a temporary file in the same folder, which replaces ``path`` after it was flushed to the disk and
    ``check`` accepted it. On a failure the temporary file is removed and an older file at ``path`` stays as it was.

    Args:
        tensors: name to array of float32, uint64, uint16, int8 or uint8; written wide types first, then by name.
        check: called with the temporary file; what it raises ends the write.

    Raises:
        BundleError: ``io``, with the reason and the way out.
    """
    path = Path(path)
    names = {dtype: name for name, dtype in DTYPES.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        array = tensors[name]
        header[name] = {
            "dtype": names[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                little = tensors[name].astype(tensors[name].dtype.newbyteorder("<"), copy=False)
                file.write(np.ascontiguousarray(little).data)
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise BundleError("io", _write_failure(path, error, end)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        with open(path, "rb") as file:
            # An empty file cannot be mapped.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BundleError("io", f"{path} cannot be read: {reason}; check the path.") from error


def _write_failure(path: Path, error: OSError, size: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path} was not written: the disk is full; free {size / 1e6:.0f} MB or choose another folder."
    return f"{path} was not written: {error.strerror or error}; choose a folder that exists and can be written."


def _flush_folder(folder: Path) -> None:
    """Make the rename survive a power cut; where a folder cannot be flushed, the old or the new file is still whole."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_SIZE


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("it repeats a key")
    for key in result:
        _check_whole(key)
    return result


def _check_whole(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("it has half a surrogate pair") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it contains {text[:20]}, which no double holds")
    return value


def _integer(text: str) -> int:
    _finite(text)
    return int(text)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it contains {name}")
