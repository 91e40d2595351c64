"""Fit the latency model to measurements: non-negative, robust to disturbed ones, judged on what was held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavolta.devices.latency import are_few, band_visits, far_macs, padding
from lavolta.devices.profile import LatencyCoefficients, Source
from lavolta.devices.work import Work
from lavolta.errors import UserInputError

Array = NDArray[np.float64]

FOLDS = 5
_EFFICIENCY_GRID = np.linspace(0.0, 1.0, 101)
_COARSE = 10
_SMALLEST_CYCLES = 1e-9
"""A kept MAC cannot be free; a coefficient that the fit puts at zero is reported as this."""
_ROUNDS = 8
_NOISE = 0.02
"""Relative errors below this are noise and count as squares; larger ones count less and less, so that disturbed
measurements do not bend the fit."""


@dataclass(frozen=True)
class LatencySample:
    """One measurement: this work took ``measured_ms`` at this clock with this many threads.

    ``shape`` names the model; samples of one shape are held out together.
    """

    work: Work
    freq_mhz: float
    threads: int
    measured_ms: float
    shape: str = ""


@dataclass(frozen=True)
class Details:
    """What the fit may know about the processor, for the finer terms of the model.

    Args:
        near_cache_bytes: size of the first data cache.
        tokens_per_register: tokens that one vector register holds.
    """

    near_cache_bytes: int
    tokens_per_register: int


@dataclass(frozen=True)
class KindError:
    """Held-out errors of the samples of one kind, such as ``int8`` or ``8 tokens``."""

    kind: str
    samples: int
    median_percent: float
    p95_percent: float


@dataclass(frozen=True)
class LatencyFit:
    """Fitted coefficients and how far to trust them.

    Args:
        coefficients: fitted on all samples.
        samples: how many there were.
        median_error_percent, p95_error_percent, max_error_percent: relative error of samples that the fit had not seen
            (cross-validation: shapes are left out one by one where there are `FOLDS` of them or more, else samples are
            left out in turn).
        by_kind: the same errors by precision, cell height, tokens and threads; where a model is weak shows here.
    """

    coefficients: LatencyCoefficients
    samples: int
    median_error_percent: float
    p95_error_percent: float
    max_error_percent: float
    by_kind: tuple[KindError, ...] = ()


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


def fit_latency(
    samples: Sequence[LatencySample], isa: str, source: Source, details: Details | None = None
) -> LatencyFit:
    """Fit the coefficients of `lavolta.devices.latency` to measurements.

    Errors count relative to their measurements. Where all samples have one clock, the cycles that do not depend on
    the work cannot be told from fixed time; they are reported as fixed time.

    Args:
        samples: at least three per unknown coefficient, with different work.
        isa: name that the coefficients get.
        source: where the measurements come from.
        details: with them, the terms for inputs beyond the nearest cache, for cells, bands and groups of tokens.

    Raises:
        UserInputError: too few samples, none with fp32 weights, or a measurement that is not positive.
    """
    columns = _columns(samples, details)
    if len(samples) < 3 * (len(columns) - 1):
        raise UserInputError(
            f"{len(samples)} measurements are too few to fit {len(columns) - 1} coefficients; "
            f"measure at least {3 * (len(columns) - 1)}."
        )
    for sample in samples:
        if not (sample.measured_ms > 0 and sample.freq_mhz > 0 and sample.threads >= 1):
            raise UserInputError(
                f"a measurement of {sample.measured_ms} ms at {sample.freq_mhz} MHz with {sample.threads} thread(s) "
                "is not possible; measure again."
            )
    if not any(column[:2] == ("kept", False) for column in columns):
        raise UserInputError("no measurement has fp32 weights; measure some.")
    parallel, serial = _design(samples, columns, details)
    threads = np.array([sample.threads for sample in samples])
    errors = np.zeros(len(samples))
    for held in _folds(samples):
        seen = ~held
        efficiency, solution = _solve(parallel[seen], serial[seen], threads[seen])
        errors[held] = np.abs(_matrix(parallel[held], serial[held], threads[held], efficiency) @ solution - 1.0)
    median, p95 = (float(100 * np.quantile(errors, q)) for q in (0.5, 0.95))
    efficiency, solution = _solve(parallel, serial, threads)
    coefficients = _coefficients(columns, solution, efficiency, isa, source, details).model_copy(
        update={"median_error_percent": median, "p95_error_percent": p95}
    )
    by_kind = tuple(_errors_by_kind(samples, errors))
    return LatencyFit(coefficients, len(samples), median, p95, float(100 * errors.max()), by_kind)


def _errors_by_kind(samples: Sequence[LatencySample], errors: Array) -> Iterator[KindError]:
    """Each way to tell samples apart that has at least two kinds, in its order."""
    ways: list[Callable[[LatencySample], tuple[int, str]]] = [
        lambda s: (int(s.work.int8_macs > 0), "int8" if s.work.int8_macs > 0 else "fp32"),
        lambda s: (s.work.cell_rows, f"cells of {s.work.cell_rows} row{'s' * (s.work.cell_rows > 1)}"),
        lambda s: (s.work.tokens, f"{s.work.tokens} token{'s' * (s.work.tokens > 1)}"),
        lambda s: (s.threads, f"{s.threads} thread{'s' * (s.threads > 1)}"),
    ]
    for way in ways:
        kinds = [way(sample) for sample in samples]
        for kind in sorted(set(kinds)) if len(set(kinds)) > 1 else ():
            these = errors[[other == kind for other in kinds]]
            median, p95 = (float(100 * np.quantile(these, q)) for q in (0.5, 0.95))
            yield KindError(kind[1], len(these), median, p95)


_Column = tuple[str, bool, int]
"""Kind of a coefficient, whether it is one of int8 weights, and its cell height (0: of none)."""


def _columns(samples: Sequence[LatencySample], details: Details | None) -> list[_Column]:
    heights: set[tuple[bool, int]] = set()
    few: dict[int, set[int]] = {}
    for sample in samples:
        work = sample.work
        for int8, macs in _macs(work):
            if macs > 0 and _is_few(work, int8, details):
                few.setdefault(work.cell_rows, set()).add(work.tokens)
            elif macs > 0:
                heights.add((int8, work.cell_rows))
    found: list[_Column] = [("kept", int8, rows) for int8, rows in sorted(heights)]
    if details is not None:
        found += [("few", False, rows) for rows in sorted(few)]
        # One number of tokens does not tell what a weight takes from what a product takes.
        found += [("few_weight", False, rows) for rows in sorted(few) if len(few[rows]) > 1]
        found += [("far", int8, rows) for int8, rows in sorted(heights)]
        found += [(kind, int8, 0) for kind in ("cell", "band") for int8 in sorted({int8 for int8, _ in heights})]
    return [*found, ("rest", False, 0), ("bytes", False, 0), ("fixed", False, 0), ("cycles", False, 0)]


def _is_few(work: Work, int8: bool, details: Details | None) -> bool:
    """Whether the kernels for a few tokens run, told apart where the fit may know the finer terms."""
    return details is not None and not int8 and are_few(work)


def _macs(work: Work) -> tuple[tuple[bool, float], tuple[bool, float]]:
    return (False, work.kept_macs - work.int8_macs), (True, work.int8_macs)


def _design(
    samples: Sequence[LatencySample], columns: Sequence[_Column], details: Details | None
) -> tuple[Array, Array]:
    """Rows divided by their measurement: the part that threads share, and the part that they do not."""
    one_clock = len({sample.freq_mhz for sample in samples}) == 1
    parallel, serial = np.zeros((2, len(samples), len(columns)))
    width = 1 if details is None else details.tokens_per_register
    for row, sample in enumerate(samples):
        work, per_cycle = sample.work, 1.0 / (sample.freq_mhz * 1e3)
        pad = padding(work.tokens, width)
        macs = dict(_macs(work))
        for place, (kind, int8, rows) in enumerate(columns):
            few = _is_few(work, int8, details)
            if few and kind in ("kept", "far", "cell", "band"):
                continue
            if kind in ("few", "few_weight"):
                if few and rows == work.cell_rows:
                    shared = work.tokens if kind == "few_weight" else 1
                    parallel[row, place] = macs[False] / max(shared, 1) * per_cycle
            elif kind == "kept" and rows == work.cell_rows:
                parallel[row, place] = pad * macs[int8] * per_cycle
            elif kind == "far" and rows == work.cell_rows and details is not None:
                parallel[row, place] = pad * far_macs(work, int8, details.near_cache_bytes, width) * per_cycle
            elif kind == "cell":
                parallel[row, place] = macs[int8] / (work.cell_rows * max(work.tokens, 1)) * per_cycle
            elif kind == "band":
                parallel[row, place] = band_visits(work, int8) * per_cycle
            elif kind == "rest":
                parallel[row, place] = pad * work.rest_macs * per_cycle
            elif kind == "bytes":
                serial[row, place] = work.streamed_bytes
            elif kind == "fixed":
                serial[row, place] = 1.0
            elif kind == "cycles" and not one_clock:
                serial[row, place] = per_cycle
    measured = np.array([[sample.measured_ms] for sample in samples])
    return parallel / measured, serial / measured


def _matrix(parallel: Array, serial: Array, threads: NDArray[np.int64], efficiency: float) -> Array:
    matrix: Array = parallel / (1.0 + (threads - 1) * efficiency)[:, None] + serial
    return matrix


def _folds(samples: Sequence[LatencySample]) -> list[NDArray[np.bool_]]:
    shapes = sorted({sample.shape for sample in samples})
    if len(shapes) >= FOLDS:
        return [np.array([sample.shape == shape for sample in samples]) for shape in shapes]
    place = np.arange(len(samples)) % FOLDS
    return [place == fold for fold in range(FOLDS)]


def _solve(parallel: Array, serial: Array, threads: NDArray[np.int64]) -> tuple[float, Array]:
    """Thread efficiency and coefficients."""
    if len(set(threads.tolist())) == 1 and threads[0] == 1:
        places = [len(_EFFICIENCY_GRID) - 1]
    else:
        coarse = range(0, len(_EFFICIENCY_GRID), _COARSE)
        best = min(coarse, key=lambda place: _residual(parallel, serial, threads, place))
        places = [place for place in range(best - _COARSE, best + _COARSE + 1) if 0 <= place < len(_EFFICIENCY_GRID)]
    place = min(places, key=lambda place: _residual(parallel, serial, threads, place)) if len(places) > 1 else places[0]
    efficiency = float(_EFFICIENCY_GRID[place])
    matrix = _matrix(parallel, serial, threads, efficiency)
    solution = _least_squares(matrix, np.ones(len(matrix)))
    for _ in range(_ROUNDS):
        weights = 1.0 / np.sqrt(np.maximum(np.abs(matrix @ solution - 1.0), _NOISE))
        solution = _least_squares(matrix, weights)
    return efficiency, solution


def _residual(parallel: Array, serial: Array, threads: NDArray[np.int64], place: int) -> float:
    matrix = _matrix(parallel, serial, threads, float(_EFFICIENCY_GRID[place]))
    return float(np.square(matrix @ _least_squares(matrix, np.ones(len(matrix))) - 1.0).sum())


def _least_squares(matrix: Array, weights: Array) -> Array:
    """Non-negative solution of ``weights * (matrix x) = weights``."""
    # Columns of similar size, so that the stop rule means the same for all of them.
    scale = np.abs(matrix).max(axis=0)
    scale[scale == 0] = 1.0
    # The triangle of a QR decomposition has the same solution and far fewer rows.
    rotation, triangle = np.linalg.qr(matrix / scale * weights[:, None])
    solution: Array = nnls(triangle, rotation.T @ weights) / scale
    return solution


def _coefficients(
    columns: Sequence[_Column],
    solution: Array,
    efficiency: float,
    isa: str,
    source: Source,
    details: Details | None,
) -> LatencyCoefficients:
    found = {column: float(value) for column, value in zip(columns, solution, strict=True)}

    def table(kind: str, int8: bool, least: float) -> dict[str, float] | None:
        rows = {str(r): max(v, least) for (k, i, r), v in found.items() if (k, i) == (kind, int8)}
        return rows or None

    per_byte_ms = found["bytes", False, 0]
    return LatencyCoefficients.model_validate(
        {
            "isa": isa,
            "cycles_fixed": found["cycles", False, 0],
            "cycles_per_kept_mac": table("kept", False, _SMALLEST_CYCLES),
            "cycles_per_kept_mac_int8": table("kept", True, _SMALLEST_CYCLES),
            "cycles_per_kept_mac_few": table("few", False, _SMALLEST_CYCLES),
            "cycles_per_kept_weight_few": table("few_weight", False, 0.0),
            "cycles_per_far_mac": table("far", False, 0.0),
            "cycles_per_far_mac_int8": table("far", True, 0.0),
            "near_cache_bytes": None if details is None else details.near_cache_bytes,
            "cycles_per_cell": found.get(("cell", False, 0), 0.0),
            "cycles_per_cell_int8": found.get(("cell", True, 0), 0.0),
            "cycles_per_band": found.get(("band", False, 0), 0.0),
            "cycles_per_band_int8": found.get(("band", True, 0), 0.0),
            "tokens_per_register": 1 if details is None else details.tokens_per_register,
            "cycles_per_rest_mac": found["rest", False, 0],
            "bandwidth_gb_s": 1e-6 / per_byte_ms if per_byte_ms > 0 else None,
            "fixed_us": 1e3 * found["fixed", False, 0],
            "thread_efficiency": efficiency,
            "source": source,
        }
    )
