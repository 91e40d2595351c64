"""The tensors of one packed linear in a bundle: written, read, and checked so that an engine may follow them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lavolta.runtime.container import Container
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.groups import MOST_BLOCKS, MOST_GROUPS, Groups
from lavolta.sparsity.packing import PackedLinear, unpack_linear
from lavolta.sparsity.packing_int8 import LARGEST, QUAD, PackedInt8, unpack_int8

Packed = PackedLinear | PackedInt8
PRECISIONS = ("fp32", "int8")
_PLACES_PER_CELL = 16
_MOST_PLACES = 1 << 24
_MOST_UNITS = (1 << 32) - 1


def int8_linears(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Names of the linears that a valid manifest lists as int8."""
    return frozenset(entry["name"] for entry in manifest["linears"] if entry["precision"] == "int8")


def precision_of(packed: Packed) -> str:
    """Its name in the manifest."""
    return "int8" if isinstance(packed, PackedInt8) else "fp32"


def unpack(packed: Packed, level: int) -> NDArray[np.float32]:
    """The dense weight ``(out_features, in_features)`` that ``level`` computes with; what it dropped is zero."""
    return unpack_int8(packed, level) if isinstance(packed, PackedInt8) else unpack_linear(packed, level)


def packed_arrays(name: str, packed: Packed, bias: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
    """Tensor name to array of one linear; no ``bias`` is a bias of zeros."""
    prefix = f"linear.{name}"
    arrays: dict[str, NDArray[Any]] = {
        f"{prefix}.columns": np.asarray(packed.columns, dtype=np.uint16),
        f"{prefix}.kept_by": np.asarray(packed.groups.kept_by, dtype=np.uint64),
        f"{prefix}.sizes": np.asarray(packed.groups.sizes, dtype=np.uint16),
        f"{prefix}.bias": (
            np.zeros(packed.grid.out_features, np.float32) if bias is None else np.asarray(bias, dtype=np.float32)
        ),
    }
    if isinstance(packed, PackedInt8):
        arrays[f"{prefix}.values"] = np.asarray(packed.values, dtype=np.int8)
        arrays[f"{prefix}.scale"] = np.asarray(packed.scale, dtype=np.float32)
    else:
        arrays[f"{prefix}.values"] = np.asarray(packed.values, dtype=np.float32)
    return arrays


def read_packed(container: Container, name: str, grid: CellGrid, levels: int, precision: str) -> Packed:
    """One linear of a bundle: views of its tensors, their types and shapes checked, their contents not."""
    tensor, prefix = container.tensor, f"linear.{name}"
    # Three sizes only state how much there is; what they state must fit the other tensors.
    columns = tensor(f"{prefix}.columns", "U16", (None,))
    kept_by = tensor(f"{prefix}.kept_by", "U64", (None,))
    sizes = tensor(f"{prefix}.sizes", "U16", (len(kept_by), None, grid.bands))
    if len(kept_by) > MOST_GROUPS or not 1 <= sizes.shape[1] <= MOST_BLOCKS:
        container.fail(
            "tensor-shape",
            f"has {len(kept_by)} groups of {sizes.shape[1]} blocks in {name!r}, not at most {MOST_GROUPS} of 1 to "
            f"{MOST_BLOCKS}; write the bundle again.",
        )
    groups = Groups(sizes, kept_by, levels)
    if precision == "fp32":
        values = tensor(f"{prefix}.values", "F32", (len(columns), grid.cell_rows))
        return PackedLinear(grid, values, columns, groups)
    if len(columns) % QUAD:
        container.fail(
            "tensor-shape", f"has {len(columns)} columns in {name!r}, not whole quads; write the bundle again."
        )
    return PackedInt8(
        grid,
        tensor(f"{prefix}.values", "I8", (len(columns) // QUAD, grid.cell_rows, QUAD)),
        columns,
        groups,
        tensor(f"{prefix}.scale", "F32", (grid.out_features,)),
    )


def table_bytes(packed: Packed, level: int) -> int:
    """Bytes beside values and columns that one pass of ``level`` reads: the sizes of its groups."""
    return int(packed.groups.sizes[packed.groups.keeps(level)].nbytes)


def check_packed(container: Container, name: str, packed: Packed) -> None:
    """All that the engine follows blindly, and all numbers.

    Raises:
        BundleError: ``not-finite``, ``index-out-of-range`` or ``value-out-of-range``.
    """
    if isinstance(packed, PackedInt8):
        check_finite(container, f"linear.{name}.scale", packed.scale)
    else:
        check_finite(container, f"linear.{name}.values", packed.values)
    _check_indices(container, name, packed)
    if isinstance(packed, PackedInt8):
        _check_values(container, name, packed)


def check_finite(container: Container, name: str, array: NDArray[np.float32]) -> None:
    """Refuse NaN and infinity."""
    if not np.isfinite(array).all():
        container.fail("not-finite", f"has NaN or infinity in {name!r}; repair the model and write it again.")


def _check_indices(container: Container, name: str, packed: Packed) -> None:
    """Columns, and the groups of the levels."""

    def broken(what: str) -> NoReturn:
        container.fail("index-out-of-range", f"has a broken linear {name!r}: {what}; write the bundle again.")

    grid, groups = packed.grid, packed.groups
    unit = QUAD if isinstance(packed, PackedInt8) else 1
    units = len(packed.columns) // unit
    if len(packed.columns) and int(packed.columns.max()) >= grid.in_features:
        broken(f"a column is {int(packed.columns.max())}")
    beyond = groups.kept_by >> np.uint64(groups.levels - 1) > 1
    if beyond.any():
        broken(f"group {int(np.argmax(beyond))} is kept by a level that is not there")
    total = int(groups.sizes.sum(dtype=np.int64))
    if total != units or total > _MOST_UNITS:
        broken(f"its groups have {total} cells or quads, there are {units}")
    # A column that comes once among all cells of a band does so in every level.
    places = np.repeat(groups.bands(), unit) * grid.in_features + packed.columns
    if isinstance(packed, PackedInt8):
        places = places[~packed.fillers]
    if _repeats(places, grid.cells):
        broken("a band has a column twice")


def _repeats(places: NDArray[np.int64], count: int) -> bool:
    """Whether a number below ``count`` comes twice; memory stays near that of the numbers."""
    if count > _MOST_PLACES + _PLACES_PER_CELL * len(places):
        return len(np.unique(places)) < len(places)
    seen = np.zeros(count, dtype=bool)
    seen[places] = True
    return int(seen.sum()) < len(places)


def _check_values(container: Container, name: str, packed: PackedInt8) -> None:
    """Values of int8: their range, the fillers' zeros, and scales."""

    def broken(what: str) -> NoReturn:
        container.fail("value-out-of-range", f"has a broken linear {name!r}: {what}; write the bundle again.")

    if (packed.values < -LARGEST).any():
        broken(f"a value is {-LARGEST - 1}, below {-LARGEST}")
    if (packed.scale < 0.0).any():
        broken(f"a scale is {float(packed.scale.min()):g}, below 0")
    if packed.values.transpose(0, 2, 1).reshape(-1, packed.grid.cell_rows)[packed.fillers].any():
        broken("a cell that only fills up a quad is not zero")
