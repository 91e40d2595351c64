"""The budget of a search: a share of the weights, or the time or energy of one inference on a device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lavolta.devices.energy import run_mw
from lavolta.devices.latency import latency_ms, max_kept_share
from lavolta.devices.loading import load as load_device
from lavolta.devices.profile import DeviceProfile
from lavolta.errors import InfeasibleError, UserInputError
from lavolta.models.loaded import LoadedModel
from lavolta.runtime.spec import ModelSpec
from lavolta.runtime.work import dense_cells, work_of
from lavolta.search.ratios import Part
from lavolta.sparsity.cells import CellGrid


@dataclass(frozen=True)
class Budget:
    """What may be kept.

    Args:
        parts: the layers and what their cells cost.
        limit: largest cost of what is kept.
        asked: the question in plain values.
    """

    parts: tuple[Part, ...]
    limit: float
    asked: dict[str, Any]


def budget_of(
    dense: LoadedModel,
    overall_ratio: float | None,
    device: str | None,
    deadline_ms: float | None,
    energy_mj: float | None,
    tokens: int,
    threads: int,
    cell_rows: int,
) -> Budget:
    """What `choose_ratios` is asked to meet, by its arguments of these names.

    Raises:
        InfeasibleError, UserInputError: as `ratio_budget` and `device_budget` do.
    """
    if overall_ratio is not None:
        return ratio_budget(dense.grids(cell_rows), overall_ratio)
    profile = load_device(str(device))
    return device_budget(profile, dense.spec, cell_rows, tokens, deadline_ms, energy_mj, threads)


def ratio_budget(grids: dict[str, CellGrid], overall_ratio: float) -> Budget:
    """A share of the weights of all prunable layers together is pruned.

    Raises:
        UserInputError: a ratio outside 0 to 1, both exclusive.
    """
    if not 0.0 < overall_ratio < 1.0:
        raise UserInputError(f"the overall ratio is {overall_ratio:g}; give a share above 0 and below 1, such as 0.6.")
    # A ragged last band's cells hold fewer weights: their mean counts, so that layers weigh what they hold.
    parts = tuple(
        Part(name, grid.cells, grid.out_features * grid.in_features / grid.cells) for name, grid in grids.items()
    )
    total = math.fsum(part.cost for part in parts)
    return Budget(parts, (1.0 - overall_ratio) * total, {"overall_ratio": overall_ratio})


def device_budget(
    profile: DeviceProfile,
    spec: ModelSpec,
    cell_rows: int,
    tokens: int,
    deadline_ms: float | None,
    energy_mj: float | None,
    threads: int = 1,
) -> Budget:
    """The kept work that one inference may have, in milliseconds at the clock that leaves most of it.

    Predicted time is linear in the kept cells of each layer, and energy is time by the power of a clock, so both are
    linear budgets in which a layer's cells cost what the device takes for them.

    Args:
        deadline_ms, energy_mj: limits of one inference, at least one of them.
        tokens: length of the inference.

    Raises:
        InfeasibleError: no clock meets the limits, however little is kept.
        UserInputError: a limit that is not positive, or that the dense model meets already.
    """
    for name, value in (("deadline_ms", deadline_ms), ("energy_mj", energy_mj)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserInputError(f"{name} is {value}; give a positive number.")
    cells = dense_cells(spec, cell_rows)
    dense = work_of(spec, cells, cell_rows, tokens)
    shares: list[tuple[float, float, float]] = []
    refusal: InfeasibleError | None = None
    for step in profile.cluster().steps:
        allowed_ms = math.inf if deadline_ms is None else deadline_ms
        if energy_mj is not None:
            allowed_ms = min(allowed_ms, 1e3 * energy_mj / run_mw(profile, step.freq_mhz, threads))
        try:
            share = max_kept_share(profile, dense, allowed_ms, step.freq_mhz, threads)
        except InfeasibleError as error:
            refusal = error
        else:
            shares.append((share, step.freq_mhz, allowed_ms))
    if not shares:
        raise refusal or InfeasibleError(f"{profile.name} has no clock; repair its profile.")
    # Of clocks that leave equally much, the lower one draws less power.
    _, freq_mhz, allowed_ms = max(shares, key=lambda found: (found[0], -found[1]))
    dense_ms = latency_ms(profile, dense, freq_mhz, threads)
    if dense_ms <= allowed_ms:
        raise UserInputError(
            f"the dense model meets this budget on {profile.name} at {freq_mhz:g} MHz already; there is nothing to "
            "prune, or give a smaller one."
        )

    def kept_ms(kept: dict[str, int]) -> float:
        work = work_of(spec, kept, cell_rows, tokens)
        return latency_ms(profile, work, freq_mhz, threads)

    parts = [Part(name, count, (dense_ms - kept_ms({**cells, name: 0})) / count) for name, count in cells.items()]
    # Biases are read whatever is kept: the time of nothing kept is that of the work itself, not of scaled work.
    limit_ms = allowed_ms - kept_ms(dict.fromkeys(cells, 0))
    asked = {
        "device": profile.name,
        "deadline_ms": deadline_ms,
        "energy_mj": energy_mj,
        "freq_mhz": freq_mhz,
        "tokens": tokens,
        "threads": threads,
        "allowed_ms": allowed_ms,
        "dense_ms": dense_ms,
    }
    return Budget(tuple(parts), limit_ms, asked)
