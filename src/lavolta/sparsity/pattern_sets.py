"""Pattern sets: rankings (ours) or binary masks (RT3 as published) of a ``P x P`` tile, shared by all tiles of a model.

A weight is covered by tiles of ``tile x tile`` weights, that is ``tile / cell_rows`` bands of ``tile`` columns; tiles
at the lower and right edge are cropped. Every tile names one pattern of the set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid, FloatArray


@dataclass(frozen=True)
class PatternSet:
    """RT3's pattern set: ``m`` binary masks of one sparsity.

    Args:
        tile: edge of a tile in weights, a multiple of ``cell_rows``.
        cell_rows: height of a cell.
        masks: ``(m, tile / cell_rows, tile) bool``, true for a kept cell; all masks keep the same number of cells.
    """

    tile: int
    cell_rows: int
    masks: BoolArray

    def __post_init__(self) -> None:
        _check_tile(self.tile, self.cell_rows, self.masks.shape)
        if self.masks.dtype != np.bool_:
            raise UserInputError(f"the masks of a pattern set are {self.masks.dtype}; give booleans.")
        kept = self.masks.sum(axis=(1, 2))
        if (kept != kept[0]).any():
            raise UserInputError(f"the patterns of one set keep {sorted(set(kept.tolist()))} cells; give equal counts.")

    @property
    def patterns(self) -> int:
        return len(self.masks)

    @property
    def kept(self) -> int:
        """Cells that every pattern keeps."""
        return int(self.masks[0].sum())

    @property
    def sparsity(self) -> float:
        """Share of a whole tile's cells that every pattern drops, 0 to 1."""
        return 1.0 - self.kept / tile_cells(self.tile, self.cell_rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``masks`` holds one hexadecimal string per pattern, most significant bit first."""
        rows = np.packbits(self.masks.reshape(self.patterns, -1), axis=1)
        return {"tile": self.tile, "cell_rows": self.cell_rows, "masks": [row.tobytes().hex() for row in rows]}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> PatternSet:
        """The inverse of ``to_dict``."""
        try:
            tile, cell_rows = int(data["tile"]), int(data["cell_rows"])
            rows = [np.frombuffer(bytes.fromhex(text), dtype=np.uint8) for text in data["masks"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserInputError(f"this is not a pattern set ({error!r}); write it with PatternSet.to_dict.") from error
        cells = tile_cells(tile, cell_rows)
        if not rows or any(len(row) != -(-cells // 8) for row in rows):
            raise UserInputError(
                f"a pattern of {cells} cells needs {-(-cells // 8)} bytes; the pattern set is damaged."
            )
        bits = np.unpackbits(np.stack(rows), axis=1, count=cells)
        return PatternSet(tile, cell_rows, bits.astype(bool).reshape(len(rows), tile // cell_rows, tile))


@dataclass(frozen=True)
class RankedPatternSet:
    """Our pattern set: ``m`` rankings of a tile's cells; every cut of it is an RT3 pattern set.

    Args:
        tile: edge of a tile in weights, a multiple of ``cell_rows``.
        cell_rows: height of a cell.
        ranks: ``(m, tile / cell_rows, tile) int32``, each a permutation of ``0 ... cells - 1``, 0 the most important.
    """

    tile: int
    cell_rows: int
    ranks: NDArray[np.int32]

    def __post_init__(self) -> None:
        _check_tile(self.tile, self.cell_rows, self.ranks.shape)
        cells = tile_cells(self.tile, self.cell_rows)
        if (np.sort(self.ranks.reshape(len(self.ranks), -1), axis=1) != np.arange(cells)).any():
            raise UserInputError(f"a ranking must name each position 0 to {cells - 1} of its tile once.")

    @property
    def patterns(self) -> int:
        return len(self.ranks)

    def cut(self, kept: int) -> PatternSet:
        """The binary patterns that keep the first ``kept`` cells of each ranking."""
        return PatternSet(self.tile, self.cell_rows, self.ranks < kept)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``ranks`` holds one list of integers per pattern, row by row."""
        return {
            "tile": self.tile,
            "cell_rows": self.cell_rows,
            "ranks": self.ranks.reshape(self.patterns, -1).tolist(),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> RankedPatternSet:
        """The inverse of ``to_dict``."""
        try:
            tile, cell_rows = int(data["tile"]), int(data["cell_rows"])
            ranks = np.asarray(data["ranks"], dtype=np.int32)
            cells = tile_cells(tile, cell_rows)
            ranks = ranks.reshape(len(ranks), cells // tile, tile)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserInputError(
                f"this is not a ranked pattern set ({error!r}); write it with RankedPatternSet.to_dict."
            ) from error
        return RankedPatternSet(tile, cell_rows, ranks)


@dataclass(frozen=True)
class PatternStorage:
    """Size of a pattern set: the patterns themselves, and one index per tile of the model, in bytes."""

    pattern_bytes: int
    index_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.pattern_bytes + self.index_bytes


def pattern_storage(pattern_set: PatternSet | RankedPatternSet, grids: Mapping[str, CellGrid]) -> PatternStorage:
    """Bytes that a set needs: one bit per cell of a mask (or the bits of a rank), ``ceil(log2 m)`` bits per tile.

    The indices of each layer are rounded up to whole bytes.
    """
    cells = tile_cells(pattern_set.tile, pattern_set.cell_rows)
    bits = 1 if isinstance(pattern_set, PatternSet) else (cells - 1).bit_length()
    index_bits = (pattern_set.patterns - 1).bit_length()
    tiles = [int(np.prod(tile_counts(grid, pattern_set.tile))) for grid in grids.values()]
    return PatternStorage(
        -(-pattern_set.patterns * cells * bits // 8), sum(-(-count * index_bits // 8) for count in tiles)
    )


def tile_cells(tile: int, cell_rows: int) -> int:
    if tile < 1 or cell_rows < 1 or tile % cell_rows:
        raise UserInputError(f"a tile of {tile} is not a multiple of the cell height {cell_rows}.")
    return tile // cell_rows * tile


def tile_counts(grid: CellGrid, tile: int) -> tuple[int, int]:
    return -(-grid.out_features // tile), -(-grid.in_features // tile)


def tile_scores(grid: CellGrid, scores: FloatArray, tile: int, removed: BoolArray | None) -> NDArray[np.float64]:
    """Importance by tile, ``(tile rows, tile columns, cells)``: zero outside the weight and where cells are removed."""
    rows, columns = tile_counts(grid, tile)
    height = tile // grid.cell_rows
    padded = np.zeros((rows * height, columns * tile))
    # Cell scores of a ragged band are scaled up to a full cell; what a mask preserves is only what is there.
    padded[: grid.bands, : grid.in_features] = scores * (grid.rows_per_band() / grid.cell_rows)[:, None]
    if removed is not None:
        padded[: grid.bands, : grid.in_features][removed] = 0.0
    tiles: NDArray[np.float64] = padded.reshape(rows, height, columns, tile).swapaxes(1, 2)
    return tiles.reshape(rows, columns, height * tile)


def untile(tiles: NDArray[Any], grid: CellGrid) -> NDArray[Any]:
    """``(tile rows, tile columns, tile bands, tile)`` to ``(bands, in_features)``, cropped at the edges."""
    rows, columns, height, tile = tiles.shape
    whole = tiles.swapaxes(1, 2).reshape(rows * height, columns * tile)
    return np.ascontiguousarray(whole[: grid.bands, : grid.in_features])


def _check_tile(tile: int, cell_rows: int, shape: tuple[int, ...]) -> None:
    tile_cells(tile, cell_rows)
    if len(shape) != 3 or shape[0] < 1 or shape[1:] != (tile // cell_rows, tile):
        raise UserInputError(
            f"patterns of shape {shape} do not fit a tile of {tile}: give (patterns, {tile // cell_rows}, {tile})."
        )
