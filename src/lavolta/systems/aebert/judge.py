"""What candidates are judged by: a calibrated dense model, the layers' errors, and the rows that proxies look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lavolta.models.batching import Encoded
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.training.proxies import Calibration, ForwardProxy, ReconstructionProxy, calibrate, layer_errors

CALIBRATION_ROWS = 128
SLICES = (24, 64, 256)
"""Rows of the held-out slice in each round, which begin with those of the round before it: the table of
`experiments/aebert` has how well so many rows rank."""
BATCH_ROWS = 16
"""Of similar length: a slice of 32 rows in one batch would be padding by half."""

Proxy = Callable[[Mapping[str, int]], Sequence[float]]


@dataclass(frozen=True)
class Judge:
    """One dense model, ready to compare cuts of it.

    Args:
        errors: of every layer alone, as `layer_errors` gives them, cells by magnitude.
        compared: held-out rows in the order in which rounds take them.
    """

    calibration: Calibration
    errors: dict[str, NDArray[np.float64]]
    compared: Encoded

    @classmethod
    def of(cls, dense: LoadedModel, train: Encoded, held_out: Encoded, cell_rows: int, seed: int) -> Judge:
        """Calibrate on training rows, and draw the held-out rows to compare on."""
        chance = np.random.default_rng(seed)
        seen, compared = (chance.permutation(len(part)) for part in (train, held_out))
        calibration = calibrate(dense, batches_of(train.take(seen[:CALIBRATION_ROWS])), cell_rows)
        errors = layer_errors(calibration, calibration.by_magnitude)
        return cls(calibration, errors, held_out.take(compared[: SLICES[-1]]))

    def objective(self, proxy: str) -> Callable[[int], Proxy]:
        """A proxy that can be asked for the first so many of the compared rows, or all.

        The batches of a round are among those of the next, since a proxy remembers what a candidate said to a batch.
        """
        if proxy == "reconstruction":
            cells = {name: grid.cells for name, grid in self.calibration.grids.items()}
            layers = ReconstructionProxy(self.errors, cells)
            return lambda _rows: layers
        made = ForwardProxy(self.calibration, [], proxy)

        def on(rows: int) -> Proxy:
            last = min(rows, len(self.compared))
            ends = [0, *(size for size in SLICES if size < last), last]
            return made.on([batch for a, b in pairwise(ends) for batch in batches_of(self.compared, np.arange(a, b))])

        return on


def batches_of(encoded: Encoded, rows: NDArray[np.int64] | None = None) -> list[Batch]:
    """Rows, all where none are named, in batches of similar length."""
    rows = np.arange(len(encoded)) if rows is None else rows
    by_length = rows[np.argsort(encoded.lengths[rows], kind="stable")]
    return [encoded.batch(by_length[start : start + BATCH_ROWS]) for start in range(0, len(rows), BATCH_ROWS)]
