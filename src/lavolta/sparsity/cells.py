"""Cells and bands: the smallest thing that is pruned, and how masks over it become masks over weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError

CELL_ROWS = (1, 2, 4, 8, 16)
MAX_IN_FEATURES = 1 << 16

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class CellGrid:
    """How one weight ``(out_features, in_features)`` is divided in cells: ``cell_rows`` rows of one column.

    Rows ``b * cell_rows ... (b + 1) * cell_rows - 1`` are band ``b``; the last band may be ragged.

    Raises:
        UserInputError: for a cell height that no kernel has, an empty weight, or more inputs than a packed column index
            holds.
    """

    out_features: int
    in_features: int
    cell_rows: int

    def __post_init__(self) -> None:
        if self.cell_rows not in CELL_ROWS:
            raise UserInputError(f"cell_rows is {self.cell_rows}; choose one of {', '.join(map(str, CELL_ROWS))}.")
        if self.out_features < 1 or self.in_features < 1:
            raise UserInputError(
                f"a weight of shape ({self.out_features}, {self.in_features}) has no cells; leave this layer out."
            )
        if self.in_features > MAX_IN_FEATURES:
            raise UserInputError(
                f"a layer with {self.in_features} inputs cannot be cut: packed columns are 16 bits, "
                f"at most {MAX_IN_FEATURES} inputs; leave this layer out."
            )

    @property
    def bands(self) -> int:
        return -(-self.out_features // self.cell_rows)

    @property
    def shape(self) -> tuple[int, int]:
        """``(bands, in_features)``, the shape of cell masks and cell scores."""
        return self.bands, self.in_features

    @property
    def cells(self) -> int:
        return self.bands * self.in_features

    def rows_per_band(self) -> NDArray[np.int64]:
        """Real rows of each band, ``(bands,)``; only the last can be fewer than ``cell_rows``."""
        rows = np.full(self.bands, self.cell_rows, dtype=np.int64)
        rows[-1] = self.out_features - (self.bands - 1) * self.cell_rows
        return rows

    def to_bands(self, weight: FloatArray) -> FloatArray:
        """``(out_features, in_features)`` to ``(bands, cell_rows, in_features)``; missing rows are zero."""
        if weight.shape != (self.out_features, self.in_features):
            raise UserInputError(
                f"a weight of shape {tuple(weight.shape)} does not fit a grid of "
                f"({self.out_features}, {self.in_features})."
            )
        padded = np.zeros((self.bands * self.cell_rows, self.in_features), dtype=weight.dtype)
        padded[: self.out_features] = weight
        return padded.reshape(self.bands, self.cell_rows, self.in_features)

    def cell_scores(self, saliency: FloatArray) -> NDArray[np.float64]:
        """Sum a per-weight saliency ``(out_features, in_features)`` over each cell: ``(bands, in_features)``.

        A ragged band's cells hold fewer weights; their sum is scaled to a full cell, so that they compete as equals per
        weight.
        """
        total: NDArray[np.float64] = self.to_bands(saliency.astype(np.float64)).sum(axis=1)
        return total * (self.cell_rows / self.rows_per_band())[:, None]

    def expand(self, cell_mask: BoolArray) -> BoolArray:
        """A cell mask ``(bands, in_features)`` to a weight mask ``(out_features, in_features)``."""
        if cell_mask.shape != self.shape:
            raise UserInputError(f"a cell mask of shape {tuple(cell_mask.shape)} does not fit a grid of {self.shape}.")
        return np.repeat(cell_mask, self.cell_rows, axis=0)[: self.out_features]

    def weight_sparsity(self, cell_mask: BoolArray) -> float:
        """Share of the weights that the mask removes, 0 to 1 (a ragged band counts its real rows)."""
        kept = float(cell_mask.sum(axis=1) @ self.rows_per_band())
        return 1.0 - kept / (self.out_features * self.in_features)
