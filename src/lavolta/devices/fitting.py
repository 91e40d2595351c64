"""Fit the latency model to measurements: non-negative least squares on relative errors, judged on held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavolta.devices.latency import coefficients_ms
from lavolta.devices.profile import LatencyCoefficients, Source
from lavolta.devices.work import Work
from lavolta.errors import UserInputError

Array = NDArray[np.float64]

FOLDS = 5
_EFFICIENCY_GRID = np.linspace(0.0, 1.0, 101)
_SMALLEST_CYCLES = 1e-9
"""A kept MAC cannot be free; a coefficient that the fit puts at zero is reported as this."""


@dataclass(frozen=True)
class LatencySample:
    """One measurement: this work took ``measured_ms`` at this clock with this many threads."""

    work: Work
    freq_mhz: float
    threads: int
    measured_ms: float


@dataclass(frozen=True)
class LatencyFit:
    """Fitted coefficients and how far to trust them.

    Args:
        coefficients: fitted on all samples.
        samples: how many there were.
        median_error_percent, p95_error_percent, max_error_percent: relative error of samples that the fit had not seen
            (interleaved cross-validation).
    """

    coefficients: LatencyCoefficients
    samples: int
    median_error_percent: float
    p95_error_percent: float
    max_error_percent: float


def nnls(matrix: Array, target: Array) -> Array:
    """Minimize ``|matrix x - target|`` over ``x >= 0`` (Lawson and Hanson 1974, algorithm 23.10).

    Args:
        matrix: (samples, coefficients).
        target: (samples,).

    Returns:
        (coefficients,), none negative.
    """
    columns = matrix.shape[1]
    solution = np.zeros(columns)
    passive = np.zeros(columns, dtype=bool)
    tolerance = 10 * np.finfo(float).eps * max(matrix.shape) * float(np.abs(matrix.T @ target).max(initial=0.0))
    for _ in range(3 * columns + 10):
        gradient = matrix.T @ (target - matrix @ solution)
        gradient[passive] = -np.inf
        if passive.all() or gradient.max() <= tolerance:
            break
        passive[int(gradient.argmax())] = True
        while True:
            trial = np.zeros(columns)
            trial[passive] = np.linalg.lstsq(matrix[:, passive], target, rcond=None)[0]
            blocked = passive & (trial <= 0)
            if not blocked.any():
                break
            step = float((solution[blocked] / (solution[blocked] - trial[blocked])).min())
            solution = solution + step * (trial - solution)
            passive &= solution > tolerance
            solution[~passive] = 0.0
            if not passive.any():
                trial = np.zeros(columns)
                break
        solution = trial
    return solution


def fit_latency(samples: Sequence[LatencySample], isa: str, source: Source) -> LatencyFit:
    """Fit the coefficients of `lavolta.devices.latency` to measurements.

    Every error counts relative to its measurement. Where all samples have one clock, the cycles that do not depend on
    the work cannot be told from fixed time; they are reported as fixed time.

    Args:
        samples: at least three per unknown coefficient, with different work.
        isa: name that the coefficients get.
        source: where the measurements come from.

    Raises:
        UserInputError: too few samples, or a measurement that is not positive.
    """
    heights = sorted({sample.work.cell_rows for sample in samples})
    unknowns = len(heights) + 3
    if len(samples) < 3 * unknowns:
        raise UserInputError(
            f"{len(samples)} measurements are too few to fit {unknowns} coefficients; measure at least {3 * unknowns}."
        )
    for sample in samples:
        if not (sample.measured_ms > 0 and sample.freq_mhz > 0 and sample.threads >= 1):
            raise UserInputError(
                f"a measurement of {sample.measured_ms} ms at {sample.freq_mhz} MHz with {sample.threads} thread(s) "
                "is not possible; measure again."
            )
    errors = np.zeros(len(samples))
    for fold in range(FOLDS):
        seen = [sample for index, sample in enumerate(samples) if index % FOLDS != fold]
        coefficients = _fit(seen, heights, isa, source)
        for index in range(fold, len(samples), FOLDS):
            sample = samples[index]
            predicted = coefficients_ms(coefficients, sample.work, sample.freq_mhz, sample.threads)
            errors[index] = abs(predicted - sample.measured_ms) / sample.measured_ms
    median, p95 = (float(100 * np.quantile(errors, q)) for q in (0.5, 0.95))
    fitted = _fit(samples, heights, isa, source).model_copy(
        update={"median_error_percent": median, "p95_error_percent": p95}
    )
    return LatencyFit(fitted, len(samples), median, p95, float(100 * errors.max()))


def _fit(samples: Sequence[LatencySample], heights: list[int], isa: str, source: Source) -> LatencyCoefficients:
    efficiencies = _EFFICIENCY_GRID if len({sample.threads for sample in samples}) > 1 else np.array([1.0])
    best: tuple[float, float, Array] | None = None
    for efficiency in efficiencies:
        matrix = _design(samples, heights, float(efficiency))
        # Columns of similar size, so that the stop rule means the same for all of them.
        scale = np.abs(matrix).max(axis=0)
        scale[scale == 0] = 1.0
        solution = nnls(matrix / scale, np.ones(len(samples))) / scale
        residual = float(np.square(matrix @ solution - 1.0).sum())
        if best is None or residual < best[0]:
            best = (residual, float(efficiency), solution)
    if best is None:
        raise UserInputError("there is nothing to fit; give measurements.")
    _, efficiency, solution = best
    kept = solution[: len(heights)]
    rest, per_byte_ms, fixed_ms, cycles_fixed = (float(value) for value in solution[len(heights) :])
    return LatencyCoefficients.model_validate(
        {
            "isa": isa,
            "cycles_fixed": cycles_fixed,
            "cycles_per_kept_mac": {
                str(rows): max(float(value), _SMALLEST_CYCLES) for rows, value in zip(heights, kept, strict=True)
            },
            "cycles_per_rest_mac": rest,
            "bandwidth_gb_s": 1e-6 / per_byte_ms if per_byte_ms > 0 else None,
            "fixed_us": 1e3 * fixed_ms,
            "thread_efficiency": efficiency,
            "source": source,
        }
    )


def _design(samples: Sequence[LatencySample], heights: list[int], efficiency: float) -> Array:
    """Rows divided by their measurement: kept cycles per height, rest cycles, bytes, fixed ms, fixed cycles."""
    one_clock = len({sample.freq_mhz for sample in samples}) == 1
    rows = []
    for sample in samples:
        per_cycle_ms = 1.0 / (sample.freq_mhz * 1e3)
        speedup = 1.0 + (sample.threads - 1) * efficiency
        kept = [sample.work.kept_macs * per_cycle_ms / speedup * (sample.work.cell_rows == rows_) for rows_ in heights]
        rest = sample.work.rest_macs * per_cycle_ms / speedup
        row = [*kept, rest, sample.work.streamed_bytes, 1.0, 0.0 if one_clock else per_cycle_ms]
        rows.append([value / sample.measured_ms for value in row])
    return np.array(rows)
