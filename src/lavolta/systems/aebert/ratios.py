"""What a search chose: plain values that come back from JSON, and the masks that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lavolta.errors import UserInputError
from lavolta.models.loaded import LoadedModel
from lavolta.sparsity.ranking import LevelMasks
from lavolta.training.proxies import magnitude_rankings


@dataclass(frozen=True)
class Candidate:
    """One ratio vector of the last round.

    Args:
        origin: ``"uniform"``, ``"global-magnitude"``, ``"sensitivity"`` or ``"searched"``.
        score: by the proxy on the largest slice, higher is better.
    """

    origin: str
    score: float
    per_linear: dict[str, float]


@dataclass(frozen=True)
class Ratios:
    """What the search chose; plain values all through.

    Args:
        per_linear: canonical name to the share of its cells that goes.
        kept_cells: canonical name to the cells that stay.
        cell_rows: height of the cells.
        overall_ratio: share of the weights that goes, all layers together.
        compared_ratio: overall ratio at which candidates were compared; where it is lower than what was asked for, each
            layer of the choice then gave up the same share of what it kept.
        score: of the choice at that ratio, on the largest slice that it was looked at with.
        origin: how it came about, see `Candidate`.
        proxy: what the score is.
        budget: what was asked for.
        finalists: the candidates of the last round, best first; the uniform one is always among them.
        candidates: how many vectors were looked at.
        slice_rows: held-out rows of the last round.
        seconds: of the whole search.
        calibration_seconds: the part of them before the first candidate.
        seed: of everything drawn.
    """

    per_linear: dict[str, float]
    kept_cells: dict[str, int]
    cell_rows: int
    overall_ratio: float
    compared_ratio: float
    score: float
    origin: str
    proxy: str
    budget: dict[str, Any]
    finalists: tuple[Candidate, ...]
    candidates: int
    slice_rows: int
    seconds: float
    calibration_seconds: float
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ratios:
        """Read what `as_dict` wrote.

        Raises:
            UserInputError: a field is missing or unknown.
        """
        try:
            finalists = tuple(Candidate(**candidate) for candidate in data["finalists"])
            return cls(**{**data, "finalists": finalists})
        except (KeyError, TypeError) as error:
            raise UserInputError(f"these are no ratios of a search ({error}); run the search again.") from error

    def masks(self, dense: LoadedModel) -> LevelMasks:
        """Cell masks by magnitude at these ratios."""
        return magnitude_masks(dense, self.kept_cells, self.cell_rows)


def magnitude_masks(dense: LoadedModel, kept: Mapping[str, int], cell_rows: int) -> LevelMasks:
    """Cell masks that keep the largest ``kept`` cells of each layer."""
    rankings = magnitude_rankings(dense, dense.grids(cell_rows))
    return {name: ranking.keep(kept[name]) for name, ranking in rankings.items()}
