"""How much one inference computes and streams: the input of every prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS


@dataclass(frozen=True)
class LinearWork:
    """One prunable linear layer.

    Args:
        kept_macs: multiply-accumulates on kept cells.
        streamed_bytes: bytes of weights and columns.
        in_features, out_features: its widths; 0 where they are not known.
        int8: whether its weights are int8.
    """

    name: str
    kept_macs: float
    streamed_bytes: float
    in_features: int = 0
    out_features: int = 0
    int8: bool = False


@dataclass(frozen=True)
class Work:
    """One inference at one level.

    Args:
        cell_rows: height of the cells, which sets the speed on kept work.
        tokens: tokens of the inference.
        kept_macs: multiply-accumulates on kept cells, all prunable layers.
        kept_bytes: bytes of packed weights and columns that those layers stream.
        rest_macs: multiply-accumulates, and element operations counted as such, of everything else.
        rest_bytes: bytes that everything else streams.
        int8_macs: the part of ``kept_macs`` that has int8 weights.
        linears: the parts of ``kept_macs`` and ``kept_bytes``; empty where they are not known.
    """

    cell_rows: int
    tokens: int
    kept_macs: float
    kept_bytes: float
    rest_macs: float
    rest_bytes: float
    int8_macs: float = 0.0
    linears: tuple[LinearWork, ...] = ()

    def __post_init__(self) -> None:
        if self.cell_rows not in CELL_ROWS:
            raise UserInputError(f"cell_rows is {self.cell_rows}; choose one of {', '.join(map(str, CELL_ROWS))}.")
        for name in ("tokens", "kept_macs", "kept_bytes", "rest_macs", "rest_bytes", "int8_macs"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserInputError(f"{name} is {value}; it must be a finite number, at least 0.")
        if self.int8_macs > self.kept_macs:
            raise UserInputError(f"int8_macs is {self.int8_macs}; it is a part of kept_macs, {self.kept_macs}.")

    @property
    def streamed_bytes(self) -> float:
        """Bytes read from memory once per inference."""
        return self.kept_bytes + self.rest_bytes

    def scaled(self, share: float) -> Work:
        """The same inference with ``share`` (0 to 1) of its kept cells, all layers cut alike."""
        if not 0.0 <= share <= 1.0:
            raise UserInputError(f"a share of {share} is outside 0 to 1.")
        return replace(
            self,
            kept_macs=share * self.kept_macs,
            kept_bytes=share * self.kept_bytes,
            int8_macs=share * self.int8_macs,
            linears=tuple(
                replace(part, kept_macs=share * part.kept_macs, streamed_bytes=share * part.streamed_bytes)
                for part in self.linears
            ),
        )
