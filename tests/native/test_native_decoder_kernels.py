"""The kernels that decoders add, on every instruction set, against float64; the binding poisons padding with NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lavolta import _native
from reference_model import ACTIVATIONS

ISAS = _native.isas().split()
EPS = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("features", [1, 3, 5, 20, 384])
@pytest.mark.parametrize("tokens", [1, 8, 17, 65])
def test_rms_norm(isa: str, features: int, tokens: int) -> None:
    generator = np.random.default_rng(features)
    x = (3.0 + generator.standard_normal((features, tokens))).astype(np.float32)
    weight = generator.standard_normal(features).astype(np.float32)
    exact = x.astype(np.float64)
    expected = exact / np.sqrt((exact**2).mean(axis=0) + 1e-5) * weight[:, None]
    # The mean of squares is wrong by features eps of itself, its root by half; then a root, two products, a quotient.
    assert (
        np.abs(_native.norm(isa, x, weight, None, 1e-5) - expected) <= (features + 8) * EPS * np.abs(expected)
    ).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("count", [1, 7, 8, 16, 17, 33])
def test_gate(isa: str, activation: str, count: int) -> None:
    generator = np.random.default_rng(count)
    gate = (4.0 * generator.standard_normal((1, count))).astype(np.float32)
    values = generator.standard_normal((1, count)).astype(np.float32)
    expected = ACTIVATIONS[activation](gate.astype(np.float64)) * values
    # The activation's own error is below 4 eps of its argument (test_activation_error), the product adds one rounding.
    tolerance = 4 * EPS * np.abs(gate * values) + EPS * np.abs(expected)
    assert (np.abs(_native.gate(isa, gate, values, activation) - expected) <= tolerance).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("head_size", [2, 4, 6, 64])
@pytest.mark.parametrize("tokens", [1, 7, 16, 33])
def test_rotate(isa: str, head_size: int, tokens: int) -> None:
    generator = np.random.default_rng(tokens)
    x = generator.standard_normal((head_size, tokens)).astype(np.float32)
    angle = generator.uniform(-100, 100, (head_size // 2, tokens))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    first, second = x[: head_size // 2].astype(np.float64), x[head_size // 2 :].astype(np.float64)
    expected = np.concatenate([first * cos - second * sin, second * cos + first * sin])
    size = np.hypot(first, second)
    # Two products and a sum of numbers below the pair's length.
    assert (np.abs(_native.rotate(isa, x, cos, sin) - expected) <= 3 * EPS * np.concatenate([size, size])).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("head_size", [1, 5, 16, 17, 64, 72])
@pytest.mark.parametrize(
    ("past", "tokens"),
    [(0, 1), (1, 1), (14, 1), (15, 1), (16, 1), (40, 1), (0, 33), (13, 7), (31, 97), (129, 1), (90, 97), (250, 200)],
)
@pytest.mark.parametrize("heads", [1, 3])
def test_cached_attention(isa: str, head_size: int, past: int, tokens: int, heads: int) -> None:
    """One query of a head takes another path than many; 3 heads are a pair and a single one."""
    generator = np.random.default_rng(past + tokens)
    q = generator.standard_normal((heads * head_size, tokens)).astype(np.float32)
    k, v = generator.standard_normal((2, head_size, past + tokens)).astype(np.float32)
    scale = 1.0 / math.sqrt(head_size)
    out = _native.cached_attention(isa, q, k, v, scale)
    keys = past + tokens
    hidden = np.arange(keys)[None, :] > past + np.arange(tokens)[:, None]
    for head in range(heads):
        rows = slice(head * head_size, (head + 1) * head_size)
        scores = np.where(hidden, -np.inf, q[rows].astype(np.float64).T @ k * scale)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected = v.astype(np.float64) @ (p / p.sum(axis=1, keepdims=True)).T
        # As in test_attention: the score's rounding, twice in the weights, and the sums over the keys.
        score = (head_size + 4) * EPS * scale * (np.abs(q[rows]).T @ np.abs(k)).max()
        assert np.abs(out[rows] - expected).max() <= (2 * score + (2 * keys + 8) * EPS) * np.abs(v).max()


@pytest.mark.parametrize("isa", ISAS)
def test_cached_attention_survives_scores_of_any_size(isa: str) -> None:
    q = np.array([[100.0, 100.0]], dtype=np.float32)
    k = np.array([[90.0, 1.0, -90.0]], dtype=np.float32)
    v = np.array([[5.0, 3.0, 7.0]], dtype=np.float32)
    assert (_native.cached_attention(isa, q[:, :1], k, v, 1.0) == 5.0).all()
    assert (_native.cached_attention(isa, q, k, v, 1.0) == 5.0).all()
