"""Where cells lie does not change a bit: sums are added in the order that format 3 of bundles had, band by band."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lavolta import _native
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.packing import PackedLinear, column_blocks, pack_linear
from lavolta.sparsity.packing_int8 import QUAD, PackedInt8, pack_int8

ISAS = _native.isas().split()
GOLDEN: list[dict[str, Any]] = json.loads(Path(__file__).with_name("sums_of_format_3.json").read_text())
"""What the engine of format 3 computed, `<f4` in hexadecimal: ``fused`` with AVX2, ``rounded`` with the reference."""


def golden_layer(
    rows: int, columns: int, cell_rows: int, tokens: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], list[NDArray[np.bool_]]]:
    """Weight, bias, inputs and the masks of three nested levels."""
    generator = np.random.default_rng(columns)

    def draw(*shape: int) -> NDArray[np.float32]:
        return (generator.integers(-1000, 1001, shape) / 64).astype(np.float32)

    weight, bias, x = draw(rows, columns), draw(rows), draw(columns, tokens)
    grid = CellGrid(rows, columns, cell_rows)
    share = generator.permuted(np.arange(grid.cells)).reshape(grid.shape) / grid.cells
    return weight, bias, x / np.float32(3), [share < kept for kept in (1.0, 0.5, 0.1)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: f"{entry['shape']}-{entry['level']}")
def test_golden_sums(isa: str, entry: dict[str, Any]) -> None:
    weight, bias, x, masks = golden_layer(*entry["shape"])
    packed = pack_linear(weight, masks, entry["shape"][2])
    runs = packed.groups.runs(entry["level"])
    found = _native.linear(isa, packed.values, packed.columns, *runs, bias, x, None, "none")
    # ARMv7 rounds every product, as the reference does.
    assert found.astype("<f4").tobytes().hex() in (
        (entry["rounded"],) if isa == "reference" else (entry["fused"], entry["rounded"])
    )


def band_by_band(
    packed: PackedLinear | PackedInt8, level: int
) -> tuple[NDArray[Any], NDArray[np.uint16], NDArray[np.uint32], NDArray[np.uint32]]:
    """What a level keeps as format 3 stored it: bands one after another, of nested levels one run a band and block."""
    width = QUAD if isinstance(packed, PackedInt8) else 1
    blocks = 1 if isinstance(packed, PackedInt8) else column_blocks(packed.grid)
    groups, blocks_of, bands = packed.groups.sizes.shape
    sizes = packed.groups.sizes.reshape(-1)
    group, block, band = (np.repeat(index.reshape(-1), sizes) for index in np.indices((groups, blocks_of, bands)))
    order = np.lexsort((np.arange(len(band)), group, block, band))
    kept = packed.groups.keeps(level)[group[order]]
    columns = packed.columns.reshape(-1, width)[order].reshape(-1)
    place = band[order] * blocks + block[order]
    runs, run_ptr = [], [0]
    for at in range(bands):
        for segment in range(at * blocks, (at + 1) * blocks):
            inside = np.flatnonzero((place == segment) & kept)
            # A level is a prefix of each block, so its cells are one run.
            assert (np.diff(inside) == 1).all()
            if len(inside):
                runs.append([inside[0], len(inside)])
        run_ptr.append(len(runs))
    return packed.values[order], columns, np.array(runs, np.uint32).reshape(-1, 2), np.array(run_ptr, np.uint32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
@pytest.mark.parametrize("columns", [23, 641])
def test_both_orders_have_the_same_bits(isa: str, cell_rows: int, columns: int) -> None:
    """Every walk: few tokens and many, narrow layers and wide ones, levels of all cells, some, few and none."""
    generator = np.random.default_rng(cell_rows + columns)
    rows = 150 * cell_rows - (cell_rows - 1)
    grid = CellGrid(rows, columns, cell_rows)
    share = generator.random(grid.shape)
    masks = [share < kept for kept in (1.0, 0.6, 0.05, 0.0)]
    weight = generator.standard_normal((rows, columns)).astype(np.float32)
    bias = generator.standard_normal(rows).astype(np.float32)
    packed, quads = pack_linear(weight, masks, cell_rows), pack_int8(weight, masks, cell_rows)
    for tokens in (1, 3, 17, 100):
        x = generator.standard_normal((columns, tokens)).astype(np.float32)
        u = generator.integers(0, 256, (columns, tokens)).astype(np.uint8)
        scale = np.ones(tokens, np.float32)
        for level in range(len(masks)):
            here = (packed.values, packed.columns, *packed.groups.runs(level))
            found, expected = (
                _native.linear(isa, *arrays, bias, x, None, "none") for arrays in (here, band_by_band(packed, level))
            )
            assert (found == expected).all()
            here = (quads.values, quads.columns, *quads.groups.runs(level))
            found, expected = (
                _native.linear_int8(isa, *arrays, quads.scale, bias, u, scale, None, "none")
                for arrays in (here, band_by_band(quads, level))
            )
            assert (found == expected).all()
