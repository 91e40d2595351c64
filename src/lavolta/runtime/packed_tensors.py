"""The tensors of one packed linear in a bundle: written, read, and checked so that an engine may follow them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lavolta.runtime.container import Container
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.cuts import MOST_BLOCKS, Cuts, runs_of_cuts
from lavolta.sparsity.packing import PackedLinear, unpack_linear
from lavolta.sparsity.packing_int8 import LARGEST, QUAD, PackedInt8, unpack_int8

Packed = PackedLinear | PackedInt8
PRECISIONS = ("fp32", "int8")
TABLES = ("cuts", "runs")
"""How a linear tells what its levels keep."""
_CHECK_CELLS = 1 << 24


def int8_linears(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Names of the linears that a valid manifest lists as int8."""
    return frozenset(entry["name"] for entry in manifest["linears"] if entry["precision"] == "int8")


def precision_of(packed: Packed) -> str:
    """Its name in the manifest."""
    return "int8" if isinstance(packed, PackedInt8) else "fp32"


def unpack(packed: Packed, level: int) -> NDArray[np.float32]:
    """The dense weight ``(out_features, in_features)`` that ``level`` computes with; what it dropped is zero."""
    return unpack_int8(packed, level) if isinstance(packed, PackedInt8) else unpack_linear(packed, level)


def packed_arrays(
    name: str, packed: Packed, bias: NDArray[np.float32] | None, cuts: Cuts | None
) -> dict[str, NDArray[Any]]:
    """Tensor name to array of one linear; no ``bias`` is a bias of zeros, no ``cuts`` write its runs."""
    prefix = f"linear.{name}"
    arrays: dict[str, NDArray[Any]] = {
        f"{prefix}.columns": np.asarray(packed.columns, dtype=np.uint16),
        f"{prefix}.bias": (
            np.zeros(packed.grid.out_features, np.float32) if bias is None else np.asarray(bias, dtype=np.float32)
        ),
    }
    if isinstance(packed, PackedInt8):
        arrays[f"{prefix}.values"] = np.asarray(packed.values, dtype=np.int8)
        arrays[f"{prefix}.scale"] = np.asarray(packed.scale, dtype=np.float32)
    else:
        arrays[f"{prefix}.values"] = np.asarray(packed.values, dtype=np.float32)
    if cuts is None:
        arrays[f"{prefix}.runs"] = np.asarray(packed.runs, dtype=np.uint32)
        arrays[f"{prefix}.run_ptr"] = np.asarray(packed.run_ptr, dtype=np.uint32)
    else:
        arrays[f"{prefix}.starts"] = cuts.starts
        arrays[f"{prefix}.cuts"] = cuts.cuts
    return arrays


def read_cuts(container: Container, name: str, grid: CellGrid, levels: int) -> Cuts:
    """The cuts of a linear that has them: views of its tensors, their types and shapes checked, their contents not."""
    prefix = f"linear.{name}"
    cuts = container.tensor(f"{prefix}.cuts", "U16", (levels, grid.bands, None))
    if not 1 <= cuts.shape[2] <= MOST_BLOCKS:
        container.fail(
            "tensor-shape",
            f"has {cuts.shape[2]} blocks in the cuts of {name!r}, not 1 to {MOST_BLOCKS}; write the bundle again.",
        )
    return Cuts(container.tensor(f"{prefix}.starts", "U32", (grid.bands * cuts.shape[2] + 1,)), cuts)


def read_packed(
    container: Container, name: str, grid: CellGrid, levels: int, precision: str, cuts: Cuts | None
) -> Packed:
    """One linear of a bundle: views of its tensors, their types and shapes checked, their contents not.

    Args:
        cuts: its cuts, checked, where it has them instead of runs.
    """
    tensor, prefix = container.tensor, f"linear.{name}"
    # Two tensors only state how many cells and runs there are; what they state must fit the others.
    columns = tensor(f"{prefix}.columns", "U16", (None,))
    if cuts is None:
        runs = tensor(f"{prefix}.runs", "U32", (None, 2))
        run_ptr = tensor(f"{prefix}.run_ptr", "U32", (levels, grid.bands + 1))
    else:
        runs, run_ptr = runs_of_cuts(cuts)
    if precision == "fp32":
        values = tensor(f"{prefix}.values", "F32", (len(columns), grid.cell_rows))
        return PackedLinear(grid, values, columns, runs, run_ptr)
    if len(columns) % QUAD:
        container.fail(
            "tensor-shape", f"has {len(columns)} columns in {name!r}, not whole quads; write the bundle again."
        )
    return PackedInt8(
        grid,
        tensor(f"{prefix}.values", "I8", (len(columns) // QUAD, grid.cell_rows, QUAD)),
        columns,
        runs,
        run_ptr,
        tensor(f"{prefix}.scale", "F32", (grid.out_features,)),
    )


def table_bytes(packed: Packed, cuts: Cuts | None, level: int) -> int:
    """Bytes that only ``level`` needs: its cuts, or its row of ``run_ptr`` and its runs."""
    if cuts is not None:
        return int(cuts.cuts[level].nbytes)
    row = packed.run_ptr[level]
    return int(row.nbytes) + 8 * (int(row[-1]) - int(row[0]))


def check_packed(container: Container, name: str, packed: Packed, cuts: Cuts | None) -> None:
    """All that the engine follows blindly, and all numbers.

    Raises:
        BundleError: ``not-finite``, ``index-out-of-range`` or ``value-out-of-range``.
    """
    if isinstance(packed, PackedInt8):
        check_finite(container, f"linear.{name}.scale", packed.scale)
    else:
        check_finite(container, f"linear.{name}.values", packed.values)
    _check_indices(container, name, packed, cuts)
    if isinstance(packed, PackedInt8):
        _check_values(container, name, packed)


def check_finite(container: Container, name: str, array: NDArray[np.float32]) -> None:
    """Refuse NaN and infinity."""
    if not np.isfinite(array).all():
        container.fail("not-finite", f"has NaN or infinity in {name!r}; repair the model and write it again.")


def _check_indices(container: Container, name: str, packed: Packed, cuts: Cuts | None) -> None:
    """Columns, cuts or runs, and the table of every level."""

    def broken(what: str) -> NoReturn:
        container.fail("index-out-of-range", f"has a broken linear {name!r}: {what}; write the bundle again.")

    grid = packed.grid
    fillers = packed.fillers if isinstance(packed, PackedInt8) else np.zeros(len(packed.columns), dtype=bool)
    unit = QUAD if isinstance(packed, PackedInt8) else 1
    units = len(packed.columns) // unit
    if len(packed.columns) and int(packed.columns.max()) >= grid.in_features:
        broken(f"a column is {int(packed.columns.max())}")
    if cuts is not None and (what := _wrong_cuts(cuts, units)):
        broken(what)
    # What holds for the densest of nested levels holds for all.
    for level in range(1 if cuts is not None else packed.levels):
        pointer = packed.run_ptr[level].astype(np.int64)
        if (np.diff(pointer) < 0).any() or pointer[-1] > len(packed.runs):
            broken(f"the run table of level {level} does not rise or leaves the runs")
        runs = packed.runs[pointer[0] : pointer[-1]].astype(np.int64)
        first, end = runs[:, 0], runs.sum(axis=1)
        # Rising and disjoint runs also bound the work of a pass by the cells in the file.
        if len(runs) and (int(end.max()) > units or (first[1:] < end[:-1]).any()):
            broken(f"the runs of level {level} leave the cells or overlap")
        if len(runs) and int(runs[:, 1].min()) == 0:
            broken(f"a run of level {level} has no cells")
        if _repeats_column(packed, pointer - pointer[0], unit * runs, fillers):
            broken(f"a band of level {level} has a column twice")


def _wrong_cuts(cuts: Cuts, units: int) -> str:
    """The rule that cuts break, or nothing: blocks follow one another through all cells, and levels only shrink."""
    starts, lengths = cuts.starts.astype(np.int64), cuts.cuts.reshape(len(cuts.cuts), -1).astype(np.int64)
    if starts[0] != 0 or starts[-1] != units:
        return "the blocks do not begin at the first cell or end at the last"
    if (np.diff(starts) < 0).any():
        return "the starts of the blocks do not rise"
    if (lengths[0] > np.diff(starts)).any():
        return "a cut of level 0 leaves its block"
    grows = (np.diff(lengths, axis=0) > 0).any(axis=1)
    if grows.any():
        return f"level {1 + int(np.argmax(grows))} keeps more of a block than the level before"
    return ""


def _repeats_column(packed: Packed, pointer: NDArray[np.int64], runs: NDArray[np.int64], fillers: NDArray[Any]) -> bool:
    """Whether a band of one level has a column twice; ``runs`` count cells. Some bands at a time bound the memory."""
    grid = packed.grid
    step = max(1, _CHECK_CELLS // grid.in_features)
    for start in range(0, grid.bands, step):
        stop = min(start + step, grid.bands)
        chosen = runs[pointer[start] : pointer[stop]]
        if not len(chosen):
            continue
        counts = chosen[:, 1]
        band = np.repeat(np.arange(stop - start), np.diff(pointer[start : stop + 1]))
        before = np.cumsum(counts) - counts
        cells = np.arange(int(counts.sum())) + np.repeat(chosen[:, 0] - before, counts)
        seen = np.zeros((stop - start, grid.in_features), dtype=bool)
        seen[np.repeat(band, counts), packed.columns[cells]] = True
        if int(seen.sum()) != len(cells) - int(fillers[cells].sum()):
            return True
    return False


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
