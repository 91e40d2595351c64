"""The fit finds known coefficients again, and is honest about noise."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices.fitting import Details, nnls
from lavolta.errors import UserInputError

SOURCE = devices.Source(text="synthetic", licence="none", label="measured")
TRUTH = devices.LatencyCoefficients.model_validate(
    {
        "isa": "neon",
        "cycles_fixed": 2e5,
        "cycles_per_kept_mac": {"1": 3.0, "8": 0.9},
        "cycles_per_rest_mac": 2.0,
        "bandwidth_gb_s": 2.0,
        "fixed_us": 150.0,
        "thread_efficiency": 0.8,
        "source": SOURCE,
    }
)


def _samples(rng: np.random.Generator, count: int, noise: float, clocks: tuple[float, ...], max_threads: int = 4):
    samples = []
    for index in range(count):
        work = devices.Work(
            cell_rows=(1, 8)[index % 2],
            tokens=16,
            kept_macs=float(rng.uniform(1e6, 1e8)),
            kept_bytes=float(rng.uniform(1e5, 2e7)),
            rest_macs=float(rng.uniform(1e5, 1e7)),
            rest_bytes=float(rng.uniform(1e4, 1e6)),
        )
        freq, threads = float(rng.choice(clocks)), int(rng.integers(1, max_threads + 1))
        time = devices.coefficients_ms(TRUTH, work, freq, threads) * (1 + noise * rng.standard_normal())
        samples.append(devices.LatencySample(work, freq, threads, time))
    return samples


def test_exact_measurements_give_the_coefficients_back() -> None:
    fit = devices.fit_latency(_samples(np.random.default_rng(0), 60, 0.0, (400.0, 800.0, 1400.0)), "neon", SOURCE)
    found = fit.coefficients
    assert found.thread_efficiency == TRUTH.thread_efficiency
    # The equations are exact; the tolerance is the condition of the system times the rounding.
    assert found.cycles_per_kept_mac == pytest.approx(TRUTH.cycles_per_kept_mac, rel=1e-6)
    assert found.cycles_per_rest_mac == pytest.approx(2.0, rel=1e-6)
    assert found.bandwidth_gb_s == pytest.approx(2.0, rel=1e-6)
    assert found.fixed_us == pytest.approx(150.0, rel=1e-4)
    assert found.cycles_fixed == pytest.approx(2e5, rel=1e-4)
    assert fit.max_error_percent < 1e-4
    assert fit.samples == 60


def test_held_out_error_is_that_of_the_noise() -> None:
    fit = devices.fit_latency(_samples(np.random.default_rng(1), 400, 0.05, (400.0, 800.0, 1400.0)), "neon", SOURCE)
    # The median of |N(0, 5 %)| is 3.37 %, its 95th percentile 9.8 %; 400 samples leave a few tenths of spread.
    assert fit.median_error_percent == pytest.approx(3.4, abs=0.7)
    assert fit.p95_error_percent == pytest.approx(9.8, abs=2.0)
    assert fit.coefficients.median_error_percent == fit.median_error_percent
    assert fit.coefficients.source.label == "measured"


def test_one_clock_and_one_thread_still_fit() -> None:
    fit = devices.fit_latency(_samples(np.random.default_rng(2), 40, 0.0, (1400.0,), max_threads=1), "neon", SOURCE)
    assert fit.max_error_percent < 1e-4
    assert fit.coefficients.cycles_fixed == 0.0
    # Fixed cycles at the one clock are fixed time: 150 us + 2e5 cycles / 1400 MHz.
    assert fit.coefficients.fixed_us == pytest.approx(150 + 2e5 / 1400, rel=1e-4)
    assert fit.coefficients.speedup(1) == 1.0


def test_too_few_or_impossible_measurements() -> None:
    samples = _samples(np.random.default_rng(3), 14, 0.0, (400.0, 1400.0))
    with pytest.raises(UserInputError, match="14 measurements are too few to fit 5 coefficients; measure at least 15"):
        devices.fit_latency(samples, "neon", SOURCE)
    with pytest.raises(UserInputError, match="too few"):
        devices.fit_latency([], "neon", SOURCE)
    bad = devices.LatencySample(samples[0].work, 400.0, 1, 0.0)
    with pytest.raises(UserInputError, match=r"0\.0 ms .* measure again"):
        devices.fit_latency([bad, *samples], "neon", SOURCE)


@settings(max_examples=50)
@given(rows=st.integers(1, 12), columns=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_nnls_is_as_good_as_scipys(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, target = rng.standard_normal((rows, columns)), rng.standard_normal(rows)
    ours = nnls(matrix, target)
    _, residual = scipy.optimize.nnls(matrix, target)
    assert (ours >= 0).all()
    # Both minimize the same convex function; sizes are of order 1.
    assert np.linalg.norm(matrix @ ours - target) == pytest.approx(residual, abs=1e-9)


def test_errors_are_told_by_kind() -> None:
    """Cells of one row are measured 30 % too slow in every second sample: the error is theirs, and shows there."""
    samples = _samples(np.random.default_rng(2), 300, 0.0, (400.0, 800.0, 1400.0), max_threads=2)
    disturbed = [
        replace(sample, measured_ms=1.3 * sample.measured_ms)
        if sample.work.cell_rows == 1 and index % 4 == 0
        else sample
        for index, sample in enumerate(samples)
    ]
    fit = devices.fit_latency(disturbed, "neon", SOURCE)
    found = {each.kind: each for each in fit.by_kind}
    # All are fp32 and have 16 tokens: no kinds.
    assert list(found) == ["cells of 1 row", "cells of 8 rows", "1 thread", "2 threads"]
    assert found["cells of 1 row"].p95_percent > 15 > found["cells of 8 rows"].p95_percent
    assert found["cells of 1 row"].samples + found["cells of 8 rows"].samples == 300
    assert found["1 thread"].samples + found["2 threads"].samples == 300


def test_kernels_for_a_few_tokens_have_coefficients_of_their_own() -> None:
    """A few tokens are no part of a full register: their kernels stream the weights, and say nothing of the others."""
    truth = TRUTH.model_copy(
        update={
            "cycles_per_kept_mac_few": {"1": 7.0, "8": 2.0},
            "cycles_per_kept_weight_few": {"8": 5.0},
            "tokens_per_register": 8,
            "cycles_fixed": 0.0,
        }
    )
    rng = np.random.default_rng(3)
    samples = []
    for sample in _samples(rng, 200, 0.0, (1000.0,), max_threads=1):
        work = replace(sample.work, tokens=int(rng.choice([1, 2, 4, 5, 16])))
        samples.append(replace(sample, work=work, measured_ms=devices.coefficients_ms(truth, work, 1000.0)))
    fit = devices.fit_latency(samples, "avx2", SOURCE, Details(32768, 8))
    found = fit.coefficients
    assert found.cycles_per_kept_mac_few == pytest.approx({"1": 7.0, "8": 2.0}, rel=1e-4)
    # Cells of one row have these kernels for one token alone: that says nothing of a second one.
    assert found.cycles_per_kept_weight_few == pytest.approx({"8": 5.0}, rel=1e-4)
    assert found.cycles_per_kept_mac == pytest.approx({"1": 3.0, "8": 0.9}, rel=1e-4)
    assert fit.max_error_percent < 1e-2
    tall = next(sample.work for sample in samples if sample.work.cell_rows == 8)
    few, many = (replace(tall, tokens=tokens) for tokens in (4, 5))
    assert devices.coefficients_ms(found, few, 1000.0) == pytest.approx(devices.coefficients_ms(truth, few, 1000.0))
    # Without them a few tokens are a part of a register.
    plain = truth.model_copy(update={"cycles_per_kept_mac_few": None})
    macs = few.kept_macs * truth.kept_cycles(few.cell_rows)
    assert devices.coefficients_ms(plain, few, 1000.0) > 2 * macs / 1e6
    assert devices.coefficients_ms(plain, many, 1000.0) == devices.coefficients_ms(truth, many, 1000.0)
    # No more tokens than rows, and no int8: those are groups of tokens.
    flat = replace(few, cell_rows=1)
    assert devices.coefficients_ms(plain, flat, 1000.0) == devices.coefficients_ms(truth, flat, 1000.0)
    one = replace(flat, tokens=1)
    assert devices.coefficients_ms(plain, one, 1000.0) > devices.coefficients_ms(truth, one, 1000.0)
