"""Int8 kernels of every instruction set against NumPy and the reference, odd sizes first: same integers, same bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lavolta import _native
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.packing_int8 import QUAD, PackedInt8, pack_int8

ISAS = _native.isas().split()
FAST = [isa for isa in ISAS if isa != "reference"]
EPS = float(np.finfo(np.float32).eps)
# One less, equal and one more than a group of tokens (16) and a block (64), half a group, and few tokens.
TOKENS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129)


def integer_weights(packed: PackedInt8, level: int) -> NDArray[np.int64]:
    """The values of a level as a matrix ``(out_features, in_features)``."""
    grid, of = packed.grid, packed.groups.bands()
    weight = np.zeros((grid.bands * grid.cell_rows, grid.in_features), dtype=np.int64)
    for quad in packed.groups.kept_units(level):
        rows = slice(of[quad] * grid.cell_rows, (of[quad] + 1) * grid.cell_rows)
        for column, values in zip(packed.columns[QUAD * quad : QUAD * quad + QUAD], packed.values[quad].T, strict=True):
            weight[rows, column] += values
    return weight[: grid.out_features]


def arguments(packed: PackedInt8, level: int) -> tuple[Any, ...]:
    return (packed.values, packed.columns, *packed.groups.runs(level))


def random_packed(generator: np.random.Generator, out: int, into: int, cell_rows: int) -> PackedInt8:
    """Four levels: all cells, nested and not nested parts, no cells; a row of zeros."""
    weight = generator.standard_normal((out, into)).astype(np.float32)
    weight[min(3, out - 1)] = 0.0
    grid = CellGrid(out, into, cell_rows)
    share = generator.random(grid.shape)
    masks = [np.ones(grid.shape, bool), share < 0.4, generator.random(grid.shape) < 0.3, np.zeros(grid.shape, bool)]
    return pack_int8(weight, masks, cell_rows)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_sums_are_exact(isa: str, cell_rows: int, tokens: int) -> None:
    """With scales of one and no bias, the result is the integer sum; 37 rows are ragged, 23 inputs are a prime."""
    generator = np.random.default_rng(cell_rows * 1000 + tokens)
    packed = random_packed(generator, 37, 23, cell_rows)
    u = generator.integers(0, 256, (23, tokens)).astype(np.uint8)
    ones, zeros = np.ones(37, np.float32), np.zeros(37, np.float32)
    token_scale = np.ones(tokens, np.float32)
    for level in range(packed.groups.levels):
        y = _native.linear_int8(isa, *arguments(packed, level), ones, zeros, u, token_scale, None, "none")
        # Sums stay below 2^24, where every integer is a float.
        np.testing.assert_array_equal(y, integer_weights(packed, level) @ (u.astype(np.int64) - 128))


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "tanh", "gelu_tanh", "silu"])
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
def test_the_epilogue_equals_the_reference(isa: str, activation: str, cell_rows: int) -> None:
    """Scales, bias and residual give the reference's bits; an activation its value within the error of its formula."""
    generator = np.random.default_rng(cell_rows)
    packed = random_packed(generator, 37, 50, cell_rows)
    bias = generator.standard_normal(37).astype(np.float32)
    for tokens in (1, 9, 17, 65):
        u = generator.integers(0, 256, (50, tokens)).astype(np.uint8)
        token_scale = generator.random(tokens).astype(np.float32) / 100
        residual = generator.standard_normal((37, tokens)).astype(np.float32)
        for added in (None, residual):
            rest = (*arguments(packed, 0), packed.scale, bias, u, token_scale, added)
            plain = _native.linear_int8("reference", *rest, "none")
            want, got = (_native.linear_int8(one, *rest, activation) for one in ("reference", isa))
            if activation in ("none", "relu"):
                np.testing.assert_array_equal(got, want)
            # Both are within 4 eps of the argument or of 1 of the exact activation, and round the residual once.
            limit = 8 * EPS * np.maximum(1.0, np.abs(plain)) + EPS * np.abs(want)
            assert (np.abs(got - want) <= limit).all()


@pytest.mark.parametrize("isa", ISAS)
def test_largest_sums_do_not_overflow(isa: str) -> None:
    """Every weight 127 or -127 and every input 127 or -127, for as many inputs as a layer may have.

    16-bit sums of pairs would saturate at 32767 here, and 127 * 255 * 65536 is just below 2^31.
    """
    into = 1 << 16
    weight = np.ones((2, into), np.float32)
    weight[1] = -1.0
    packed = pack_int8(weight, [np.ones((1, into), bool)], 2)
    u = np.repeat(np.array([[255, 1]], np.uint8), into, axis=0)
    scale = np.ones(2, np.float32)
    y = _native.linear_int8(isa, *arguments(packed, 0), scale, 0 * scale, u, np.ones(2, np.float32), None, "none")
    largest = 127 * 127 * into
    np.testing.assert_array_equal(y, np.array([[largest, -largest], [-largest, largest]], np.float32))


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
@pytest.mark.parametrize("inputs", [255, 256, 257, 701])
def test_long_bands_of_large_weights_add_up(isa: str, cell_rows: int, inputs: int) -> None:
    """Weights of every size in every pair, in bands longer than what a kernel takes at a time; a level of two parts."""
    generator = np.random.default_rng(inputs + cell_rows)
    weight = generator.integers(-127, 128, (9, inputs)).astype(np.float32)
    weight[:, 0] = 127.0
    grid = CellGrid(9, inputs, cell_rows)
    share = generator.random(grid.shape)
    packed = pack_int8(weight, [share < 0.9, (share < 0.3) | (share > 0.6), share < 0.02], cell_rows)
    ones, zeros = np.ones(9, np.float32), np.zeros(9, np.float32)
    for tokens in (1, 17, 70):
        u = generator.integers(1, 256, (inputs, tokens)).astype(np.uint8)
        token_scale = np.ones(tokens, np.float32)
        for level in range(packed.groups.levels):
            y = _native.linear_int8(isa, *arguments(packed, level), ones, zeros, u, token_scale, None, "none")
            # Sums stay below 2^24, where every integer is a float.
            np.testing.assert_array_equal(y, integer_weights(packed, level) @ (u.astype(np.int64) - 128))


@pytest.mark.parametrize("isa", FAST)
def test_bits_do_not_depend_on_the_neighbors(isa: str) -> None:
    """A token's result is the same alone, among others, and at any place, also with an activation."""
    generator = np.random.default_rng(3)
    for cell_rows in CELL_ROWS:
        packed = random_packed(generator, 40, 50, cell_rows)
        u = generator.integers(0, 256, (50, 129)).astype(np.uint8)
        token_scale = generator.random(129).astype(np.float32)
        rest = (*arguments(packed, 1), packed.scale, np.ones(40, np.float32))
        together = _native.linear_int8(isa, *rest, u, token_scale, None, "gelu")
        for token in (0, 7, 8, 15, 16, 48, 63, 64, 128):
            one = slice(token, token + 1)
            alone = _native.linear_int8(isa, *rest, np.ascontiguousarray(u[:, one]), token_scale[one], None, "gelu")
            np.testing.assert_array_equal(alone[:, 0], together[:, token])


def quantized(x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The contract in single precision: `x (features, tokens)` to bytes and scales."""
    largest = np.abs(x).max(axis=0, initial=0.0)
    scale = (largest / np.float32(127)).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 0.0
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=scale > 0.0)
    return (np.rint(x * inverse).astype(np.int64) + 128).astype(np.uint8), scale


def native_quantized(isa: str, x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    data, scale = _native.quantize(isa, x)
    return np.frombuffer(data, np.uint8).reshape(x.shape), scale[0]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("features", [1, 2, 23])
@pytest.mark.parametrize("tokens", TOKENS)
def test_quantization(isa: str, features: int, tokens: int) -> None:
    generator = np.random.default_rng(tokens)
    x = generator.standard_normal((features, tokens)).astype(np.float32) * np.float32(10.0) ** (
        np.arange(tokens) % 7 - 3
    )
    x = x.astype(np.float32)
    for got, want in zip(native_quantized(isa, x), quantized(x), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("isa", ISAS)
def test_quantization_at_the_edges(isa: str) -> None:
    """Halves go to even; a token of zeros, of numbers too small for a scale, and of the smallest that have one."""
    halves = np.array([127.0, 0.5, 1.5, -0.5, -1.5, 2.5], np.float32)
    tiny = np.float32(np.finfo(np.float32).tiny)
    x = np.stack([halves, 0 * halves, 0 * halves + tiny, halves * tiny, halves * np.float32(2.0**100)], axis=1)
    u, scale = native_quantized(isa, np.ascontiguousarray(x))
    np.testing.assert_array_equal(u[:, 0].astype(int) - 128, [127, 0, 2, 0, -2, 2])
    assert (u[:, 1:3] == 128).all()
    assert scale[:3].tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(u[:, 3:], np.repeat(u[:, :1], 2, axis=1))
    assert scale[3] == tiny


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_stays_so(isa: str, bad: float) -> None:
    """A token with NaN or infinity gives no finite result; its neighbors are as they would be."""
    x = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    clean = native_quantized(isa, x)
    x[4, 1] = bad
    u, scale = native_quantized(isa, x)
    assert not np.isfinite(scale[1])
    for token in (0, 2):
        np.testing.assert_array_equal(u[:, token], clean[0][:, token])
        assert scale[token] == clean[1][token]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    out=st.integers(1, 40),
    into=st.integers(1, 40),
    cell_rows=st.sampled_from(CELL_ROWS),
    tokens=st.integers(1, 140),
    isa=st.sampled_from(ISAS),
)
def test_a_layer_is_the_model_of_the_contract(
    seed: int, out: int, into: int, cell_rows: int, tokens: int, isa: str
) -> None:
    """Quantized and multiplied natively: the fp32 layer within the error that rounding to steps can make."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((out, into)).astype(np.float32)
    mask = generator.random(CellGrid(out, into, cell_rows).shape) < generator.random()
    packed = pack_int8(weight, [mask], cell_rows)
    x = generator.standard_normal((into, tokens)).astype(np.float32)
    bias = generator.standard_normal(out).astype(np.float32)
    u, token_scale = native_quantized(isa, x)
    y = _native.linear_int8(isa, *arguments(packed, 0), packed.scale, bias, u, token_scale, None, "none")
    values = integer_weights(packed, 0)
    sums = values @ (u.astype(np.int64) - 128)
    want = sums * (packed.scale.astype(np.float64)[:, None] * token_scale) + bias[:, None]
    assert (np.abs(y - want) <= 4 * EPS * (np.abs(want - bias[:, None]) + np.abs(bias)[:, None])).all()
    # A product w x is wrong by half a step of w times |x|, half a step of x times |w|, and the product of both halves.
    kept = packed.grid.expand(mask)
    exact = np.where(kept, weight, 0.0).astype(np.float64) @ x + bias[:, None]
    weight_step, input_step = packed.scale.astype(np.float64)[:, None] / 2, token_scale.astype(np.float64)[None] / 2
    error = weight_step * (kept @ np.abs(x)) + (np.abs(weight) * kept) @ np.ones_like(x) * input_step
    error += kept.sum(axis=1)[:, None] * weight_step * input_step
    assert (np.abs(y - exact) <= error * (1 + 1e-4) + 1e-5 * (1 + np.abs(exact))).all()
