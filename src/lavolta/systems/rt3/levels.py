"""Which levels a device needs: for every clock the least sparsity that keeps the deadline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavolta.devices.latency import latency_ms, max_kept_share
from lavolta.devices.profile import DeviceProfile
from lavolta.errors import InfeasibleError, UserInputError
from lavolta.runtime.spec import ModelSpec
from lavolta.runtime.work import dense_cells, work_of
from lavolta.systems.rt3 import defaults

MOST_SPARSITY = 0.93
"""A cap on the levels may be no higher: the search's sparsest cut of every layer lies just beyond it."""
MOST_LEVELS = 32
ROUNDING = 1e-9
SWITCH_MARGIN = 0.01
"""Share of the deadline left for a change of clock and level, and for what a cell mask rounds up."""


@dataclass(frozen=True)
class PlannedLevel:
    """A level to be made: the clock that it is meant for, and the sparsity that keeps the deadline there."""

    name: str
    freq_mhz: float
    sparsity: float


@dataclass(frozen=True)
class LevelPlan:
    """The levels of a model for one device and one deadline, densest first.

    Args:
        skipped_mhz: clocks of the device at which no level up to the cap keeps the deadline.
    """

    deadline_ms: float
    tokens: int
    threads: int
    levels: tuple[PlannedLevel, ...]
    skipped_mhz: tuple[float, ...]


def check_wishes(deadline_ms: float | None, count: int, max_sparsity: float) -> None:
    """Refuse what `plan_levels` can do for no model and no device.

    Raises:
        UserInputError: a count, a deadline or a cap outside its range.
    """
    if not 0.0 <= max_sparsity <= MOST_SPARSITY:
        raise UserInputError(f"the sparsest level may drop 0 to {MOST_SPARSITY}, not {max_sparsity}; give such a cap.")
    if not 1 <= count <= MOST_LEVELS:
        raise UserInputError(f"{count} levels were asked for; choose 1 to {MOST_LEVELS}.")
    if deadline_ms is not None and not (deadline_ms > 0 and math.isfinite(deadline_ms)):
        raise UserInputError(f"a deadline of {deadline_ms} ms is not a positive number of milliseconds.")


def plan_levels(
    profile: DeviceProfile,
    spec: ModelSpec,
    cell_rows: int,
    tokens: int,
    deadline_ms: float | None,
    count: int,
    threads: int = 1,
    precision: str = "fp32",
    max_sparsity: float = defaults.MAX_SPARSITY,
) -> LevelPlan:
    """The levels that let a model keep a deadline at the clocks of a device.

    Every usable clock wants the least sparsity that keeps the deadline there; where slower clocks want more than
    ``max_sparsity``, a level of just that much is wanted too, since it spends less at the clocks that it serves. Where
    ``count`` is the number of these, they are the levels; otherwise ``count`` levels are evenly spaced in kept work
    between the densest and the sparsest of them. Each is meant for the lowest clock at which it keeps the deadline.

    Args:
        tokens: length of one inference.
        precision: ``"fp32"`` or ``"int8"``, of all linears.
        deadline_ms: ``None`` takes the shortest one that the dense model keeps at the highest clock.
        max_sparsity: no level drops a larger share of the prunable weights, 0 to 0.95.

    Raises:
        InfeasibleError: no clock can keep the deadline; the message names the closest one and what would be needed.
        UserInputError: a count, a deadline or a cap outside its range.
    """
    check_wishes(deadline_ms, count, max_sparsity)
    cells = dense_cells(spec, cell_rows)
    dense = work_of(spec, cells, cell_rows, tokens, int8=cells if precision == "int8" else ())
    cluster = profile.cluster()
    if deadline_ms is None:
        deadline_ms = latency_ms(profile, dense, cluster.max_mhz, threads) / (1.0 - SWITCH_MARGIN)
    budget_ms = deadline_ms * (1.0 - SWITCH_MARGIN)
    shares: dict[float, float] = {}
    refusal: InfeasibleError | None = None
    for step in sorted(cluster.steps, key=lambda s: -s.freq_mhz):
        try:
            share = max_kept_share(profile, dense, budget_ms, step.freq_mhz, threads)
        except InfeasibleError as error:
            refusal = refusal or error
            continue
        if share >= 1.0 - max_sparsity - ROUNDING:
            # A deadline made from the dense model's own time must not lose a cell to rounding.
            shares[step.freq_mhz] = 1.0 if share > 1.0 - ROUNDING else share
    if not shares:
        needed_ms = latency_ms(profile, dense.scaled(1.0 - max_sparsity), cluster.max_mhz, threads)
        raise InfeasibleError(
            f"no level meets {deadline_ms:g} ms on {profile.name}: the sparsest that may be made "
            f"({100 * max_sparsity:g} %) takes {needed_ms:.4g} ms at {cluster.max_mhz:g} MHz with {threads} thread(s); "
            f"allow at least {_rounded_up(needed_ms / (1.0 - SWITCH_MARGIN)):g} ms, more threads, fewer tokens, or a "
            f"higher cap on the sparsity (at some cost in quality)."
        ) from refusal
    skipped = tuple(step.freq_mhz for step in cluster.steps if step.freq_mhz not in shares)
    wanted = sorted(shares.values(), reverse=True)
    if skipped and wanted[-1] > 1.0 - max_sparsity + ROUNDING:
        wanted.append(1.0 - max_sparsity)
    return LevelPlan(deadline_ms, tokens, threads, _spread(wanted, shares, count), skipped)


def _rounded_up(value: float) -> float:
    """Four significant digits, never less than the value: a deadline that a message names has to work."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return float(f"{math.ceil(value / unit) * unit:.4g}")


def _spread(wanted: Sequence[float], shares: Mapping[float, float], count: int) -> tuple[PlannedLevel, ...]:
    """Levels for the wanted kept shares, densest first; ``shares`` are those that each clock allows."""
    kept = list(wanted)
    if count != len(kept):
        first, last = kept[0], kept[-1]
        kept = [first + (last - first) * index / max(1, count - 1) for index in range(count)]
    levels: list[PlannedLevel] = []
    for share in kept:
        # Clocks that a dense model serves already need no level of their own.
        if levels and abs(1.0 - share - levels[-1].sparsity) < 1e-6:
            continue
        freq = min(f for f, s in shares.items() if s >= share - ROUNDING)
        levels.append(PlannedLevel(f"L{len(levels)}", freq, 1.0 - share))
    return tuple(levels)
