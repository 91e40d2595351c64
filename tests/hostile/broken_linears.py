"""Packed layers whose columns, sizes, groups or values are wrong, fp32 and int8."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from bundle_parts import Change, Parts, drop, set_entry, set_manifest, set_value
from valid_bundles import KEY, QUERY, UP


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


def _too_many_groups(parts: Parts) -> None:
    _resize(f"{UP}.kept_by", [1025])(parts)
    _resize(f"{UP}.sizes", [1025, 1, 3])(parts)


def _flat_values(parts: Parts) -> None:
    entry = parts.header[f"{UP}.values"]
    quads, rows, width = entry["shape"]
    parts.header[f"{UP}.values"] = {**entry, "shape": [quads, rows * width]}


CHANGES: dict[str, Change] = {
    "tensor-missing.bias": drop(f"{QUERY}.bias"),
    "tensor-missing.columns": drop(f"{QUERY}.columns"),
    "tensor-missing.scale": drop(f"{UP}.scale"),
    "tensor-missing.sizes": drop(f"{UP}.sizes"),
    "tensor-missing.kept-by": drop(f"{QUERY}.kept_by"),
    "tensor-shape.values-flat": set_entry(f"{QUERY}.values", shape=[16]),
    "tensor-shape.two-sizes-for-columns": set_entry(f"{QUERY}.columns", shape=[8, 1]),
    "tensor-shape.no-whole-quads": set_manifest("linears", 5, "precision", value="int8"),
    "tensor-shape.quads-flat": _flat_values,
    "tensor-shape.sizes-flat": set_entry(f"{KEY}.sizes", shape=[4]),
    "tensor-shape.sizes-without-blocks": set_entry(f"{KEY}.sizes", shape=[2, 2]),
    "tensor-shape.sizes-of-one-band": set_entry(f"{KEY}.sizes", shape=[2, 2, 1]),
    "tensor-shape.groups-of-another-number": _resize(f"{UP}.kept_by", [1]),
    "tensor-shape.kept-by-a-column": set_entry(f"{KEY}.kept_by", shape=[2, 1]),
    "tensor-shape.no-blocks": _resize(f"{UP}.sizes", [3, 0, 3]),
    "tensor-shape.too-many-blocks": _resize(f"{UP}.sizes", [3, 257, 3]),
    "tensor-shape.too-many-groups": _too_many_groups,
    "tensor-dtype.signed-columns": set_entry(f"{QUERY}.columns", dtype="I16"),
    "tensor-dtype.int8-as-fp32": set_manifest("linears", 4, "precision", value="fp32"),
    "tensor-dtype.fp32-as-int8": set_manifest("linears", 0, "precision", value="int8"),
    "tensor-dtype.unsigned-values": set_entry(f"{UP}.values", dtype="U8"),
    "tensor-dtype.signed-sizes": set_entry(f"{UP}.sizes", dtype="I16"),
    "tensor-dtype.signed-kept-by": set_entry(f"{UP}.kept_by", dtype="I64"),
    "index-out-of-range.column": set_value(f"{QUERY}.columns", 0, 4, "<u2"),
    "index-out-of-range.column-65535": set_value(f"{QUERY}.columns", -1, 65535, "<u2"),
    "index-out-of-range.column-twice": _same_column,
    "index-out-of-range.sizes-too-large": set_value(f"{QUERY}.sizes", 0, 65535, "<u2"),
    "index-out-of-range.sizes-too-small": set_value(f"{QUERY}.sizes", -1, 0, "<u2"),
    "index-out-of-range.a-cell-of-the-next-band": _cell_of_the_next_band(QUERY),
    "index-out-of-range.kept-by-a-fourth-level": set_value(f"{KEY}.kept_by", 0, 8, "<u8"),
    "index-out-of-range.kept-by-level-63": set_value(f"{UP}.kept_by", 1, 1 << 63, "<u8"),
    "index-out-of-range.quad-column": set_value(f"{UP}.columns", 0, 4, "<u2"),
    "index-out-of-range.quad-column-twice": _int8_column_twice,
    "index-out-of-range.sizes-of-cells": set_value(f"{UP}.sizes", 0, 4, "<u2"),
    "index-out-of-range.a-quad-of-the-next-band": _cell_of_the_next_band(UP),
    "not-finite.infinite-value": set_value(f"{QUERY}.values", 3, float("-inf"), "<f4"),
    "not-finite.nan-bias": set_value(f"{QUERY}.bias", 0, float("nan"), "<f4"),
    "not-finite.nan-scale": set_value(f"{UP}.scale", 2, float("nan"), "<f4"),
    "value-out-of-range.minus-128": set_value(f"{UP}.values", 5, -128, "i1"),
    "value-out-of-range.negative-scale": set_value(f"{UP}.scale", 1, -0.5, "<f4"),
    "value-out-of-range.filler-not-zero": _filler_not_zero,
}
