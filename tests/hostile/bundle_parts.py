"""A bundle taken apart, changes that break its parts, and the file of what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Parts:
    """A valid file taken apart: the header's tensors, the manifest, the bytes of every tensor."""

    header: dict[str, Any]
    manifest: dict[str, Any]
    tensors: dict[str, bytes]


Change = Callable[[Parts], None]
"""Breaks the parts in place."""


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


def set_value(tensor: str, index: int, value: float, dtype: str) -> Change:
    def change(parts: Parts) -> None:
        array = np.frombuffer(parts.tensors[tensor], dtype=dtype).copy()
        array[index] = value
        parts.tensors[tensor] = array.tobytes()

    return change


def set_manifest(*path: str | int, value: Any) -> Change:
    """Another value at a path of the manifest; ``...`` removes what is there."""

    def change(parts: Parts) -> None:
        at: Any = parts.manifest
        for step in path[:-1]:
            at = at[step]
        if value is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return change


def set_entry(tensor: str, **fields: Any) -> Change:
    def change(parts: Parts) -> None:
        parts.header[tensor] = {**parts.header[tensor], **fields}

    return change


def replace_entry(tensor: str, value: Any) -> Change:
    def change(parts: Parts) -> None:
        parts.header[tensor] = value

    return change


def drop(tensor: str) -> Change:
    """Remove a tensor and close the hole."""

    def change(parts: Parts) -> None:
        begin, end = parts.header.pop(tensor)["data_offsets"]
        del parts.tensors[tensor]
        for entry in parts.header.values():
            if entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [offset - (end - begin) for offset in entry["data_offsets"]]

    return change
