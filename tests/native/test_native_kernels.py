"""Every kernel of every instruction set against float64, odd sizes first; the binding poisons padding with NaN."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lavolta import _native
from lavolta.errors import UserInputError
from lavolta.runtime.measure import peak_gflops
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.packing import pack_linear, unpack_linear
from reference_model import ACTIVATIONS

ISAS = _native.isas().split()
FAST = [isa for isa in ISAS if isa != "reference"]
EPS = float(np.finfo(np.float32).eps)
# One less, equal and one more than a register (8, 16), a tile (24, 48, 64, 96, 128 tokens), and a prime.
TOKENS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 63, 65, 97, 127, 128, 129)
# Around one and two of attention's blocks of 128 keys, and its groups of 192 queries.
LONG = (127, 128, 129, 191, 193, 257, 389)


def product_bound(
    weight: NDArray[np.floating], x: NDArray[np.floating], bias: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Rounding error of bias + W x in any order (Higham, "Accuracy and Stability", 3.5): n eps sum |w||x|, n terms."""
    terms = weight.shape[1] + 1
    return terms * EPS * (np.abs(weight).astype(np.float64) @ np.abs(x) + np.abs(bias)[:, None])


def activation_bound(name: str, before: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error after an activation: all have slopes below 1.13; their own error is below 4 eps of the argument or of 1."""
    own = {
        "none": 0.0,
        "relu": 0.0,
        "gelu": 4 * EPS * np.abs(before),
        "gelu_tanh": 4 * EPS * np.abs(before),
        "silu": 4 * EPS * np.abs(before),
        "tanh": np.full_like(before, 4 * EPS),
    }[name]
    return 1.13 * error + own


def test_this_machine_has_the_reference() -> None:
    assert ISAS[0] == "reference"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_linear(isa: str, cell_rows: int, tokens: int) -> None:
    generator = np.random.default_rng(cell_rows * 1000 + tokens)
    # 37 rows are ragged for every cell height above 1; 23 inputs are a prime.
    weight = generator.standard_normal((37, 23)).astype(np.float32)
    weight[3] = 0.0
    grid = CellGrid(37, 23, cell_rows)
    share = generator.random(grid.shape)
    masks = [
        np.ones(grid.shape, dtype=bool),
        share < 0.4,
        generator.random(grid.shape) < 0.3,
        np.zeros(grid.shape, dtype=bool),
    ]
    packed = pack_linear(weight, masks, cell_rows)
    bias = generator.standard_normal(37).astype(np.float32)
    x = generator.standard_normal((23, tokens)).astype(np.float32)
    residual = generator.standard_normal((37, tokens)).astype(np.float32)
    for level, activation in enumerate(("none", "gelu", "relu", "tanh")):
        dense = unpack_linear(packed, level)
        before = dense.astype(np.float64) @ x + bias[:, None]
        error = activation_bound(activation, before, product_bound(dense, x, bias))
        expected = ACTIVATIONS[activation](before)
        arrays = (packed.values, packed.columns, *packed.groups.runs(level), bias, x)
        assert (np.abs(_native.linear(isa, *arrays, None, activation) - expected) <= error).all()
        added = expected + residual
        assert (np.abs(_native.linear(isa, *arrays, residual, activation) - added) <= error + EPS * np.abs(added)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 3, 8, 9, 17])
@pytest.mark.parametrize("tokens", [1, 16, 17, 49])
def test_dense(isa: str, rows: int, tokens: int) -> None:
    generator = np.random.default_rng(rows)
    weight = generator.standard_normal((rows, 29)).astype(np.float32)
    bias = generator.standard_normal(rows).astype(np.float32)
    x = generator.standard_normal((29, tokens)).astype(np.float32)
    before = weight.astype(np.float64) @ x + bias[:, None]
    error = activation_bound("tanh", before, product_bound(weight, x, bias))
    assert (np.abs(_native.dense(isa, weight, bias, x, "tanh") - np.tanh(before)) <= error).all()


def attention_float64(q: NDArray, k: NDArray, v: NDArray, scale: float, causal: bool) -> NDArray[np.float64]:
    """Equation 1 of Vaswani et al. 2017; arguments and result are (features, tokens)."""
    scores = (q.astype(np.float64).T @ k) * scale
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape, dtype=bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(v.astype(np.float64) @ (p / p.sum(axis=1, keepdims=True)).T)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_size", [1, 4, 5, 32])
@pytest.mark.parametrize("tokens", [1, 2, 15, 17, 33, 47, 48, 49, 97, *LONG])
def test_attention(isa: str, causal: bool, head_size: int, tokens: int) -> None:
    generator = np.random.default_rng(tokens)
    start, around = 5, 11
    q, k, v = (generator.standard_normal((head_size, start + tokens + around)).astype(np.float32) for _ in range(3))
    inside = slice(start, start + tokens)
    # Other sequences must not be read into the result: they are NaN.
    for array in (q, k, v):
        array[:, :start] = np.nan
        array[:, start + tokens :] = np.nan
    scale = 1.0 / math.sqrt(head_size)
    out = _native.attention(isa, q, k, v, start, tokens, scale, causal, -7.0)
    expected = attention_float64(q[:, inside], k[:, inside], v[:, inside], scale, causal)
    # A score is wrong by at most head_size eps sum |q||k| scale; weights by the exponential of twice that plus the
    # rounding of their sum; the result is an average of values with such weights.
    score = (head_size + 4) * EPS * scale * (np.abs(q[:, inside]).T @ np.abs(k[:, inside])).max()
    tolerance = (2 * score + (2 * tokens + 8) * EPS) * np.abs(v[:, inside]).max()
    assert np.abs(out[:, inside] - expected).max() <= tolerance
    assert (out[:, :start] == -7.0).all()
    assert (out[:, start + tokens :] == -7.0).all()


@pytest.mark.parametrize("isa", ISAS)
def test_attention_survives_scores_of_any_size(isa: str) -> None:
    """Scores in the thousands overflow exp without the shift by the largest; then only the largest key counts."""
    q = np.full((1, 3), 100.0, dtype=np.float32)
    k = np.array([[1.0, 90.0, -90.0]], dtype=np.float32)
    v = np.array([[3.0, 5.0, 7.0]], dtype=np.float32)
    assert (_native.attention(isa, q, k, v, 0, 3, 1.0, False, 0.0) == 5.0).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_corrects_earlier_blocks(isa: str, causal: bool) -> None:
    """Scores that rise from block to block by hundreds: all that was summed before is worth nothing."""
    keys = np.arange(400, dtype=np.float32)[None]
    q = np.ones((1, 400), dtype=np.float32)
    out = _native.attention(isa, q, keys, keys, 0, 400, 1.0, causal, 0.0)[0]
    # Each key weighs e times what the one before does: the mean is 1 / (e - 1) below the last key that is seen.
    last = keys[0] if causal else np.full(400, 399.0)
    expected = last - (last > 40) / (math.e - 1)
    assert (np.abs(out - expected) <= np.where(last > 40, 400 * 8 * EPS, 1.0)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("at", [1, 20, 129, 149])
def test_attention_scores_that_overflow(isa: str, causal: bool, sign: float, at: int) -> None:
    """+infinity makes every query that sees its key NaN; for -infinity it is as if the key were not there."""
    q, keys = np.full((1, 150), 1e30, dtype=np.float32), np.zeros((1, 150), dtype=np.float32)
    values = np.arange(150, dtype=np.float32)[None]
    keys[0, at] = sign * 1e30
    out = _native.attention(isa, q, keys, values, 0, 150, 1.0, causal, 0.0)[0]
    sees = (np.arange(150) >= at) | (not causal)
    if sign > 0:
        np.testing.assert_array_equal(np.isnan(out), sees)
        return
    # All other scores are 0: the mean of the other values that a query sees.
    counts = np.arange(1, 151) if causal else np.full(150, 150)
    sums = np.cumsum(np.arange(150)) if causal else np.full(150, 149 * 75)
    expected = (sums - at * sees) / (counts - sees)
    assert (np.abs(out - expected) <= 2 * 150 * EPS * 150).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("where", ["query", "key", "value"])
@pytest.mark.parametrize("at", [0, 20, 128, 149])
def test_attention_keeps_nan_where_it_belongs(isa: str, causal: bool, where: str, at: int) -> None:
    """A query that meets NaN is NaN; one that does not see its key is what it was, and other sequences always are."""
    generator = np.random.default_rng(at)
    arrays = generator.standard_normal((3, 5, 160)).astype(np.float32)
    before = _native.attention(isa, *arrays, 3, 150, 0.5, causal, -7.0)
    arrays[("query", "key", "value").index(where), 2, 3 + at] = np.nan
    after = _native.attention(isa, *arrays, 3, 150, 0.5, causal, -7.0)
    sees = np.arange(150) == at if where == "query" else (np.arange(150) >= at) | (not causal)
    inside = slice(3, 153)
    assert (np.isnan(after[:, inside]).any(axis=0) >= sees).all()
    if where != "value":
        # A weight of 0 times NaN is NaN: values alone reach the queries before them that share their tile.
        np.testing.assert_array_equal(after[:, inside][:, ~sees], before[:, inside][:, ~sees])
    outside = np.r_[:3, 153:160]
    assert (after[:, outside] == -7.0).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("features", [1, 3, 4, 5, 20, 384])
@pytest.mark.parametrize("tokens", [1, 8, 17, 65])
def test_norm(isa: str, features: int, tokens: int) -> None:
    generator = np.random.default_rng(features)
    # A mean of a hundred deviations: a one-pass variance would lose four digits.
    x = (100.0 + generator.standard_normal((features, tokens))).astype(np.float32)
    weight, bias = generator.standard_normal((2, features)).astype(np.float32)
    exact = x.astype(np.float64)
    centered = exact - exact.mean(axis=0)
    deviation = np.sqrt((centered**2).mean(axis=0) + 1e-5)
    expected = centered / deviation * weight[:, None] + bias[:, None]
    # The mean is wrong by features eps |x|, which moves every centered value by as much.
    moved = (features + 4) * EPS * np.abs(exact).max(axis=0) / deviation
    tolerance = (
        np.abs(weight)[:, None] * (moved + 8 * EPS + moved * np.abs(centered) / deviation) * 2
        + EPS * np.abs(bias)[:, None]
    )
    assert (np.abs(_native.norm(isa, x, weight, bias, 1e-5) - expected) <= tolerance).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "relu", "silu", "tanh"])
def test_activation_error(isa: str, name: str) -> None:
    """On a dense grid and at the edges: the error that the other tests' tolerances assume."""
    edges = [0.0, -0.0, 1e-30, -1e-30, 5.54, -5.54, 5.55, -5.55, 43.0, -43.0, 44.0, -44.0, 1e4, -1e4, 3e38, -3e38]
    x = np.concatenate([np.linspace(-12, 12, 40_001), edges]).astype(np.float32)[None]
    exact = x.astype(np.float64)
    own = activation_bound(name, exact, np.zeros_like(exact))
    # Gates of ones: the products are exact.
    assert (np.abs(_native.gate(isa, x, np.ones_like(x), name) - ACTIVATIONS[name](exact)) <= own + 1e-38).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "relu", "silu", "tanh"])
def test_activations_keep_nan(isa: str, name: str) -> None:
    x = np.full((1, 37), 2.0, dtype=np.float32)
    x[0, [0, 18, 36]] = np.nan
    np.testing.assert_array_equal(np.isnan(_native.gate(isa, x, np.ones_like(x), name)), np.isnan(x))


@pytest.mark.parametrize("isa", FAST)
def test_bits_do_not_depend_on_the_neighbors(isa: str) -> None:
    """A token's result is the same alone, among others, and at any place: one sum per output, in one order."""
    generator = np.random.default_rng(3)
    weight = generator.standard_normal((40, 50)).astype(np.float32)
    bias = generator.standard_normal(40).astype(np.float32)
    x = generator.standard_normal((50, 129)).astype(np.float32)
    for cell_rows in CELL_ROWS:
        grid = CellGrid(40, 50, cell_rows)
        packed = pack_linear(weight, [generator.random(grid.shape) < 0.5], cell_rows)
        arrays = (packed.values, packed.columns, *packed.groups.runs(0), bias)
        together = _native.linear(isa, *arrays, x, None, "gelu")
        for token in (0, 15, 16, 47, 48, 128):
            alone = _native.linear(isa, *arrays, np.ascontiguousarray(x[:, token : token + 1]), None, "gelu")
            assert (alone[:, 0] == together[:, token]).all()


def test_an_absent_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match="instruction set"):
        _native.gate("sse9", *np.zeros((2, 1, 1), dtype=np.float32), "gelu")


def test_the_peak_of_every_instruction_set() -> None:
    peaks = [peak_gflops(isa) for isa in ISAS]
    assert all(peak > 0.0 for peak in peaks)
    assert peak_gflops() > 0.0
    with pytest.raises(UserInputError, match="'sse9'"):
        peak_gflops("sse9")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell_rows", [1, 2])
@pytest.mark.parametrize("nested", [True, False])
def test_low_cells_in_visits_have_the_bits_of_the_straight_walk(isa: str, cell_rows: int, nested: bool) -> None:
    """Many columns and tokens make low cells visit blocks of columns; few tokens walk straight: bits must not tell.

    Levels that are not nested have several runs in a band. 531 bands are more than two panels; some bands are empty.
    """
    generator = np.random.default_rng(cell_rows)
    rows, columns, tokens = 531 * cell_rows - (cell_rows - 1), 397, 131
    weight = generator.standard_normal((rows, columns)).astype(np.float32)
    bias = generator.standard_normal(rows).astype(np.float32)
    x = generator.standard_normal((columns, tokens)).astype(np.float32)
    residual = generator.standard_normal((rows, tokens)).astype(np.float32)
    grid = CellGrid(rows, columns, cell_rows)
    share = generator.random(grid.shape)
    share[::7] = 2.0
    masks = (
        [share < 0.9, share < 0.5, share < 0.1]
        if nested
        else [share < 0.9, (share > 0.2) & (share < 0.8), (share > 0.7) & (share < 0.9)]
    )
    packed = pack_linear(weight, masks, cell_rows)
    for level in range(len(masks)):
        arrays = (packed.values, packed.columns, *packed.groups.runs(level), bias)
        together = _native.linear(isa, *arrays, x, residual, "none")
        dense = unpack_linear(packed, level)
        exact = dense.astype(np.float64) @ x + bias[:, None] + residual
        error = product_bound(dense, x, bias) + EPS * np.abs(exact)
        assert (np.abs(together - exact) <= error).all()
        for first in (0, 16, 128):
            part = slice(first, first + 3)
            few = (np.ascontiguousarray(x[:, part]), np.ascontiguousarray(residual[:, part]))
            assert (_native.linear(isa, *arrays, *few, "none") == together[:, part]).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell_rows", [4, 8, 16])
@pytest.mark.parametrize("nested", [True, False])
def test_copied_activations_have_the_bits_of_the_straight_walk(isa: str, cell_rows: int, nested: bool) -> None:
    """Wide layers and tall bands read copied activations; few tokens and few bands walk straight: bits must not tell.

    More than one panel of 1024 rows, three blocks of columns, the last ones ragged; some bands are empty.
    """
    generator = np.random.default_rng(cell_rows)
    rows, columns, tokens = 1168 - (cell_rows - 1), 641, 131
    weight = generator.standard_normal((rows, columns)).astype(np.float32)
    bias = generator.standard_normal(rows).astype(np.float32)
    x = generator.standard_normal((columns, tokens)).astype(np.float32)
    residual = generator.standard_normal((rows, tokens)).astype(np.float32)
    grid = CellGrid(rows, columns, cell_rows)
    share = generator.random(grid.shape)
    share[::7] = 2.0
    masks = (
        [share < 0.9, share < 0.5, share < 0.1]
        if nested
        else [share < 0.9, (share > 0.2) & (share < 0.8), (share > 0.7) & (share < 0.9)]
    )
    packed = pack_linear(weight, masks, cell_rows)
    for level in range(len(masks)):
        runs, run_ptr = packed.groups.runs(level)
        arrays = (packed.values, packed.columns, runs, run_ptr, bias)
        for activation in ("none", "gelu"):
            together = _native.linear(isa, *arrays, x, residual, activation)
            for first in (0, 16, 128):
                part = slice(first, first + 3)
                few = (np.ascontiguousarray(x[:, part]), np.ascontiguousarray(residual[:, part]))
                assert (_native.linear(isa, *arrays, *few, activation) == together[:, part]).all()
            few_bands = 32 // cell_rows
            some = slice(0, few_bands * cell_rows)
            head = (packed.values, packed.columns, runs, run_ptr[: few_bands + 1], bias[some])
            alone = _native.linear(isa, *head, x, np.ascontiguousarray(residual[some]), activation)
            assert (alone == together[some]).all()
        dense = unpack_linear(packed, level)
        together = _native.linear(isa, *arrays, x, residual, "none")
        exact = dense.astype(np.float64) @ x + bias[:, None] + residual
        error = product_bound(dense, x, bias) + EPS * np.abs(exact)
        assert (np.abs(together - exact) <= error).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("columns", [400, 1000])
def test_runs_that_rise_and_fall_end(isa: str, columns: int) -> None:
    """Columns in any order, in runs of any length, also empty ones: every walk comes to an end with all products."""
    generator = np.random.default_rng(columns)
    bands, cell_rows, tokens = 64, 4, 50
    order = np.concatenate([generator.permutation(columns) for _ in range(bands)]).astype(np.uint16)
    values = generator.standard_normal((bands * columns, cell_rows)).astype(np.float32)
    weight = np.zeros((bands, columns, cell_rows), dtype=np.float32)
    weight[np.repeat(np.arange(bands), columns), order] = values
    dense = weight.transpose(0, 2, 1).reshape(bands * cell_rows, columns)
    x = generator.standard_normal((columns, tokens)).astype(np.float32)
    bias = np.zeros(bands * cell_rows, dtype=np.float32)
    sorted_order = np.sort(order.reshape(bands, columns), axis=1)
    for form in ("mixed", "rising", "falling"):
        if form == "rising":
            # Sorted runs of most of a block, an empty run before each and at the end.
            place = np.argsort(order.reshape(bands, columns), axis=1) + columns * np.arange(bands)[:, None]
            values, order = values[place.reshape(-1)], sorted_order.reshape(-1)
        # Falling: short sorted runs, the last columns first.
        cuts = list(range(0, columns + 1, 40)) if form == "falling" else [0, columns // 3, columns // 2, columns]
        runs: list[list[int]] = []
        run_ptr = [0]
        for band in range(bands):
            start = band * columns
            for low, high in list(itertools.pairwise(cuts))[:: -1 if form == "falling" else 1]:
                runs += [[start + low, 0], [start + low, high - low]]
            runs.append([start + columns, 0])
            run_ptr.append(len(runs))
        table = (np.array(runs, dtype=np.uint32), np.array(run_ptr, dtype=np.uint32))
        y = _native.linear(isa, np.ascontiguousarray(values), order, *table, bias, x, None, "none")
        exact = dense.astype(np.float64) @ x
        assert (np.abs(y - exact) <= product_bound(dense, x, bias)).all()
