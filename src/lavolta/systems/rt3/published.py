"""Level 2 of RT3: independent pattern sets, one per frequency level, found by the RNN controller.

Of the paper the abstract alone is confirmed; what it leaves open is filled in as the method sheet proposes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lavolta.files import make_folder
from lavolta.search import PatternSetSpace, Rt3Reward, StudyConfig, pattern_set_space, run_study
from lavolta.search.spaces import Candidate
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.pattern_sets import PatternSet, pattern_storage, tile_cells
from lavolta.sparsity.patterns import assign, pattern_set_for_model, random_pattern_set
from lavolta.sparsity.ranking import LevelMasks, model_sparsity

ScoreMasks = Callable[[LevelMasks], float]


@dataclass(frozen=True)
class PatternOptions:
    """Sizes that the paper's sheet leaves open.

    Args:
        tile: edge of a pattern [unverified: low for the paper's 100; here it has to divide 384 and 256].
        patterns: patterns of a set [proposed: 4, as HotNAS picks].
        alternatives: sets of equal sparsity that a level may choose from [proposed].
        trials: children that the controller tries.
        sampler: ``"reinforce"``, ``"random"`` or ``"tpe"``.
    """

    tile: int = 32
    patterns: int = 4
    alternatives: int = 4
    trials: int = 12
    sampler: str = "reinforce"


@dataclass(frozen=True)
class PublishedLevels:
    """Masks per level, densest first; ``swap_bytes`` is what one published switch has to bring in."""

    masks: list[LevelMasks]
    swap_bytes: int
    trials: int


def random_levels(
    grids: Mapping[str, CellGrid],
    magnitudes: Mapping[str, np.ndarray],
    removed: Mapping[str, BoolArray],
    sparsities: Sequence[float],
    options: PatternOptions,
    seed: int,
) -> PublishedLevels:
    """The rPP ablation: patterns by chance, of the count that brings the whole model to each sparsity."""
    cell_rows = next(iter(grids.values())).cell_rows
    cells = tile_cells(options.tile, cell_rows)
    masks, size = [], 0
    for level, sparsity in enumerate(sparsities):

        def drawn(kept: int, level: int = level) -> PatternSet:
            rng = np.random.default_rng((seed, 2, level))
            return random_pattern_set(options.tile, cell_rows, options.patterns, 1.0 - kept / cells, rng)

        # A tile takes the pattern that preserves most, hence rather one that keeps what the backbone left: the count
        # that reaches the sparsity is found over the whole model and not inside a tile.
        reaches, misses = 0, cells + 1
        while misses - reaches > 1:
            middle = (reaches + misses) // 2
            found = model_sparsity(grids, assign(drawn(middle), grids, magnitudes, removed))
            reaches, misses = (middle, misses) if found >= sparsity - 1e-12 else (reaches, middle)
        chosen = drawn(reaches)
        masks.append(assign(chosen, grids, magnitudes, removed))
        size = max(size, _swap_bytes(chosen, grids))
    return PublishedLevels(masks, size, 0)


def searched_levels(
    grids: Mapping[str, CellGrid],
    magnitudes: Mapping[str, np.ndarray],
    removed: Mapping[str, BoolArray],
    sparsities: Sequence[float],
    freqs_mhz: Sequence[float],
    score: ScoreMasks,
    dense_score: float,
    storage: Path,
    options: PatternOptions,
    seed: int,
) -> PublishedLevels:
    """One pattern set per frequency level, chosen among sets made from the backbone's importance.

    Every level has one sparsity, the smallest that keeps its deadline (theta = 1), so that the result can be compared
    with other methods at equal sparsity; the controller chooses which of the alternative sets each level takes.

    Args:
        magnitudes: squared weights summed over cells, ``(bands, in_features)`` by name.
        score: of the masked backbone without training, on training data; higher is better.
        dense_score: the same of the dense model.
        storage: SQLite file of the study; an interrupted search continues there.
    """
    rng = np.random.default_rng((seed, 3))
    sets: list[list[PatternSet]] = [
        [
            pattern_set_for_model(grids, magnitudes, options.tile, options.patterns, s, rng, removed=removed)
            for _ in range(options.alternatives)
        ]
        for s in sparsities
    ]
    masks = [[assign(chosen, grids, magnitudes, removed) for chosen in level] for level in sets]
    needed = dict(zip(freqs_mhz, sparsities, strict=True))

    def latency_ms(sparsity: float, freq_mhz: float) -> float:
        # The plan already turned the deadline into one sparsity per clock; in its unit of 1 that sparsity just fits.
        return (1.0 - sparsity) / (1.0 - needed[freq_mhz])

    space: PatternSetSpace = pattern_set_space(
        latency_ms, list(freqs_mhz), 1.0 + 1e-9, sorted(sparsities), theta=1, alternatives=options.alternatives
    )
    known: dict[tuple[int, int], float] = {}

    def evaluate(choice: tuple[Candidate, ...]) -> list[float]:
        found = []
        for level, candidate in enumerate(choice):
            key = (level, candidate.alternative)
            if key not in known:
                known[key] = score(masks[level][candidate.alternative])
            found.append(known[key])
        return found

    reward = Rt3Reward(original_score=dense_score, smallest_score=dense_score - 1.0)
    make_folder(storage.parent)
    config = StudyConfig(storage, trials=options.trials, sampler=options.sampler, seed=seed)
    result = run_study(space, evaluate, reward, config)
    best = result.best
    chosen = space.decode(best.actions) if best is not None else tuple(level[0] for level in space.candidates)
    swap = max(_swap_bytes(sets[i][c.alternative], grids) for i, c in enumerate(chosen))
    return PublishedLevels([masks[i][c.alternative] for i, c in enumerate(chosen)], swap, len(result.rows))


def _swap_bytes(chosen: PatternSet, grids: Mapping[str, CellGrid]) -> int:
    storage = pattern_storage(chosen, grids)
    return storage.pattern_bytes + storage.index_bytes
