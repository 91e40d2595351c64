"""The kernels that decoders add, on every instruction set, against float64; the binding poisons padding with NaN."""

from __future__ import annotations

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
