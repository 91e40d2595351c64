"""The kernels of one token, on every instruction set: against float64, int8 layers bit by bit against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lavolta import _native
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.groups import Groups
from lavolta.sparsity.packing import pack_linear, unpack_linear
from lavolta.sparsity.packing_int8 import pack_int8
from reference_model import ACTIVATIONS

ISAS = _native.isas().split()
FAST = [isa for isa in ISAS if isa != "reference"]
EPS = float(np.finfo(np.float32).eps)
# One less, equal and one more than a register (8, 16) and a step of quads (64 columns), and a prime.
INPUTS = (1, 2, 7, 8, 9, 15, 16, 17, 23, 31, 33, 63, 64, 65, 131)


def masks_of(grid: CellGrid, generator: np.random.Generator) -> list[np.ndarray]:
    """All, two that are not nested, none."""
    share = generator.random(grid.shape)
    return [np.ones(grid.shape, bool), share < 0.4, generator.random(grid.shape) < 0.3, np.zeros(grid.shape, bool)]


def stretches(groups: Groups, level: int) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """What a level streams: sizes ``(stretches, bands)``, and the first unit of each stretch."""
    bands = groups.sizes.shape[2]
    ends = np.cumsum(groups.sizes.sum(axis=2, dtype=np.uint32).reshape(-1), dtype=np.uint32).reshape(
        groups.sizes.shape[:2]
    )
    firsts = ends - groups.sizes.sum(axis=2, dtype=np.uint32)
    kept = groups.keeps(level)
    return np.ascontiguousarray(groups.sizes[kept].reshape(-1, bands)), np.ascontiguousarray(firsts[kept].reshape(-1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_token_linear(isa: str, cell_rows: int, inputs: int) -> None:
    generator = np.random.default_rng(cell_rows * 1000 + inputs)
    # 37 rows are ragged for every cell height above 1.
    weight = generator.standard_normal((37, inputs)).astype(np.float32)
    packed = pack_linear(weight, masks_of(CellGrid(37, inputs, cell_rows), generator), cell_rows)
    bias, residual = generator.standard_normal((2, 37)).astype(np.float32)
    x = generator.standard_normal(inputs).astype(np.float32)
    for level, activation in enumerate(("none", "gelu", "relu", "silu")):
        dense = unpack_linear(packed, level)
        before = dense.astype(np.float64) @ x + bias
        # Higham, "Accuracy and Stability", 3.5; all activations have slopes below 1.13, their own error is below 4 eps.
        error = (inputs + 1) * EPS * (np.abs(dense).astype(np.float64) @ np.abs(x) + np.abs(bias))
        error = 1.13 * error + 4 * EPS * np.abs(before)
        arrays = (packed.values, packed.columns, *stretches(packed.groups, level), bias, x)
        expected = ACTIVATIONS[activation](before)
        assert (np.abs(_native.token_linear(isa, *arrays, None, activation)[0] - expected) <= error).all()
        added = expected + residual
        found = _native.token_linear(isa, *arrays, residual, activation)[0]
        assert (np.abs(found - added) <= error + EPS * np.abs(added)).all()


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_token_linear_int8(isa: str, cell_rows: int, inputs: int) -> None:
    generator = np.random.default_rng(cell_rows * 1000 + inputs)
    weight = generator.standard_normal((37, inputs)).astype(np.float32)
    packed = pack_int8(weight, masks_of(CellGrid(37, inputs, cell_rows), generator), cell_rows)
    bias, residual = generator.standard_normal((2, 37)).astype(np.float32)
    vectors = [generator.standard_normal(inputs).astype(np.float32), np.zeros(inputs, np.float32)]
    # The largest magnitudes, of both signs: what 16-bit sums of pairs must hold.
    vectors += [np.full(inputs, value, np.float32) for value in (1.0, -1.0)]
    for level in range(4):
        tables = (packed.values, packed.columns, *stretches(packed.groups, level), packed.scale)
        for x in vectors:
            for added in (None, residual):
                found, exact = (
                    _native.token_linear_int8(name, *tables, bias, x, added, "none") for name in (isa, "reference")
                )
                assert (found == exact).all()
            found, exact = (
                _native.token_linear_int8(name, *tables, bias, x, None, "gelu") for name in (isa, "reference")
            )
            assert np.abs(found - exact).max() <= 8 * EPS * np.abs(exact).max() + 4 * EPS


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
def test_int8_layers_are_those_of_many_tokens(isa: str, cell_rows: int) -> None:
    """Sums are exact, so a session's token gets the bits that a run gives it."""
    generator = np.random.default_rng(cell_rows)
    weight = generator.standard_normal((37, 65)).astype(np.float32)
    packed = pack_int8(weight, masks_of(CellGrid(37, 65, cell_rows), generator), cell_rows)
    bias = generator.standard_normal(37).astype(np.float32)
    x = generator.standard_normal((65, 1)).astype(np.float32)
    for level in range(4):
        tables = (packed.values, packed.columns, *stretches(packed.groups, level))
        one = _native.token_linear_int8(isa, *tables, packed.scale, bias, x[:, 0].copy(), None, "none")[0]
        dequantized = np.abs(x).max() / 127
        q = np.round(x[:, 0] * (np.float32(127) / np.abs(x).max()))
        dense = np.zeros((37, 65))
        for quad in packed.groups.kept_units(level):
            band = packed.groups.bands()[quad]
            rows = slice(band * cell_rows, min(37, (band + 1) * cell_rows))
            height = rows.stop - rows.start
            for i in range(4):
                dense[rows, packed.columns[4 * quad + i]] += packed.values[quad, :height, i]
        expected = dense @ q * (packed.scale.astype(np.float64) * dequantized) + bias
        assert np.abs(one - expected).max() <= 8 * EPS * (np.abs(expected).max() + np.abs(bias).max())


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_lost(isa: str, value: float) -> None:
    generator = np.random.default_rng(0)
    packed = pack_int8(generator.standard_normal((5, 9)).astype(np.float32), [np.ones((2, 9), bool)], 4)
    x = np.ones(9, np.float32)
    x[4] = value
    tables = (packed.values, packed.columns, *stretches(packed.groups, 0), packed.scale)
    bias = np.zeros(5, np.float32)
    found, exact = (_native.token_linear_int8(name, *tables, bias, x, None, "none") for name in (isa, "reference"))
    assert not np.isfinite(found).any()
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 7, 16, 33])
@pytest.mark.parametrize("inputs", INPUTS)
def test_token_dense(isa: str, rows: int, inputs: int) -> None:
    generator = np.random.default_rng(rows * 1000 + inputs)
    weight = generator.standard_normal((rows, inputs)).astype(np.float32)
    bias = generator.standard_normal(rows).astype(np.float32)
    x = generator.standard_normal(inputs).astype(np.float32)
    before = weight.astype(np.float64) @ x + bias
    error = (inputs + 1) * EPS * (np.abs(weight).astype(np.float64) @ np.abs(x) + np.abs(bias))
    found = _native.token_dense(isa, weight, bias, x, "tanh")[0]
    assert (np.abs(found - np.tanh(before)) <= error + 4 * EPS).all()
    found = _native.token_dense(isa, weight, bias, x, "none")[0]
    assert (np.abs(found - before) <= error).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("features", [1, 3, 8, 15, 16, 17, 63, 65, 384])
@pytest.mark.parametrize("rms", [False, True])
def test_token_norm(isa: str, features: int, rms: bool) -> None:
    generator = np.random.default_rng(features)
    x = (3.0 + generator.standard_normal(features)).astype(np.float32)
    weight, bias = generator.standard_normal((2, features)).astype(np.float32)
    exact = x.astype(np.float64)
    centered = exact if rms else exact - exact.mean()
    deviation = np.sqrt((centered**2).mean() + 1e-5)
    expected = centered / deviation * weight + (0.0 if rms else bias)
    # As in test_norm: the mean is wrong by features eps |x|, which moves every centered value by as much.
    moved = (features + 4) * EPS * np.abs(exact).max() / deviation
    limit = 2 * np.abs(weight) * (moved + 8 * EPS + moved * np.abs(centered) / deviation) + EPS * np.abs(bias)
    found = _native.token_norm(isa, x, weight, None if rms else bias, 1e-5)[0]
    assert (np.abs(found - expected) <= limit).all()
