"""How patterns are made from a backbone's importance, and which one each tile uses.

Sources: RT3 (arXiv 2102.06336) for sets of equal sparsity, generated from the summed importance of sampled tiles;
HotNAS (CODES+ISSS 2020) for the assignment by preserved norm. Rankings and their clustering are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid, FloatArray
from lavolta.sparsity.pattern_sets import PatternSet, RankedPatternSet, tile_cells, tile_counts, tile_scores, untile
from lavolta.sparsity.ranking import NEVER, LayerRanking, LevelMasks, model_sparsity

TileIndex = dict[str, NDArray[np.int64]]
"""Linear name to the pattern that each tile uses, ``(tile rows, tile columns)``."""

LLOYD_ROUNDS = 10


def ranked_pattern_rankings(
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    tile: int,
    patterns: int,
    rng: np.random.Generator,
    removed: Mapping[str, BoolArray] | None = None,
    sparsities: Sequence[float] = (0.5, 0.625, 0.75),
    samples: int = 512,
) -> tuple[dict[str, LayerRanking], RankedPatternSet]:
    """Make ``patterns`` rankings from the backbone's importance and give each tile the one that keeps most of it.

    Sampled tiles are dealt to the patterns at random; each pattern ranks the positions by the summed normalized
    importance of its tiles; each tile moves to the pattern that keeps most of it, averaged over the cuts of
    ``sparsities``; and so on. Both steps can only raise the importance kept, so the patterns grow apart as far as the
    tiles differ.

    Args:
        scores: linear name to ``(bands, in_features)``, not negative, as from ``CellGrid.cell_scores``.
        tile: edge of a tile in weights, a multiple of the cell height.
        patterns: rankings in the set.
        removed: cells that block pruning took; they rank ``NEVER`` and count nothing.
        sparsities: tile sparsities of the levels that the assignment should serve.
        samples: tiles that the rankings are made from, at most.

    Returns:
        A ranking per linear (cells at the same place of a pattern share a rank) and the pattern set.
    """
    _check(grids, scores, tile, patterns, removed)
    if not sparsities:
        raise UserInputError("ranked patterns need at least one sparsity to be made for; give some.")
    cells = tile_cells(tile, _cell_rows(grids))
    cuts = np.array([_kept_cells(cells, sparsity) for sparsity in sparsities])
    tiles = _sampled_tiles(grids, scores, tile, removed, _sample(grids, tile, samples, rng))
    total = tiles.sum(axis=1, keepdims=True)
    tiles = tiles[total[:, 0] > 0] / total[total[:, 0] > 0]

    owner = rng.permutation(len(tiles)) % patterns
    ranks = _rank_clusters(tiles, owner, patterns, None)
    for _ in range(LLOYD_ROUNDS):
        kept = tiles @ _kept_share(ranks, cuts).T
        moved = kept.argmax(axis=1) if len(tiles) else owner
        if (moved == owner).all():
            break
        owner = moved
        ranks = _rank_clusters(tiles, owner, patterns, kept.max(axis=1))
    pattern_set = RankedPatternSet(
        tile, _cell_rows(grids), ranks.reshape(patterns, cells // tile, tile).astype(np.int32)
    )
    index = _assign_by(_kept_share(ranks, cuts), grids, scores, tile, removed)
    rankings = {}
    for name, grid in grids.items():
        rank = untile(pattern_set.ranks[index[name]], grid)
        if removed is not None and name in removed:
            rank = np.where(removed[name], np.int32(NEVER), rank)
        rankings[name] = LayerRanking(grid, np.ascontiguousarray(rank, dtype=np.int32))
    return rankings, pattern_set


def generate_pattern_set(
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    tile: int,
    patterns: int,
    sparsity: float,
    rng: np.random.Generator,
    samples: int = 8,
    removed: Mapping[str, BoolArray] | None = None,
) -> PatternSet:
    """RT3's generation, as it is believed to be: per pattern, sum freshly sampled tiles and keep the top positions.

    Args:
        scores: linear name to ``(bands, in_features)``; the paper sums absolute weights.
        sparsity: share of a tile's cells that each pattern drops; ``round((1 - sparsity) * cells)`` are kept exactly.
        samples: tiles summed per pattern, drawn without repetition.
    """
    _check(grids, scores, tile, patterns, removed)
    ranks = _sampled_ranks(grids, scores, tile, patterns, rng, samples, removed)
    return _cut_set(ranks, tile, _cell_rows(grids), sparsity)


def random_pattern_set(
    tile: int, cell_rows: int, patterns: int, sparsity: float, rng: np.random.Generator
) -> PatternSet:
    """Patterns by chance with the same exact count: the rPP rows of RT3's ablation."""
    if patterns < 1:
        raise UserInputError(f"a set of {patterns} patterns is empty; give 1 or more.")
    cells = tile_cells(tile, cell_rows)
    return _cut_set(rng.permuted(np.tile(np.arange(cells), (patterns, 1)), axis=1), tile, cell_rows, sparsity)


def pattern_set_for_model(
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    tile: int,
    patterns: int,
    sparsity: float,
    rng: np.random.Generator,
    samples: int = 8,
    removed: Mapping[str, BoolArray] | None = None,
) -> PatternSet:
    """The densest set of one sampling whose masks, block pruning included, reach ``sparsity`` over the whole model.

    ``generate_pattern_set`` counts inside a tile; this is the one to compare methods at equal sparsity.

    Raises:
        UserInputError: a sparsity outside 0 <= sparsity < 1.
    """
    _check(grids, scores, tile, patterns, removed)
    if not 0.0 <= sparsity < 1.0:
        raise UserInputError(f"a sparsity of {sparsity} is outside 0 <= sparsity < 1.")
    cell_rows = _cell_rows(grids)
    ranks = _sampled_ranks(grids, scores, tile, patterns, rng, samples, removed).reshape(patterns, -1, tile)
    reaches, misses = 0, tile_cells(tile, cell_rows) + 1
    while misses - reaches > 1:
        middle = (reaches + misses) // 2
        masks = assign(PatternSet(tile, cell_rows, ranks < middle), grids, scores, removed)
        if model_sparsity(grids, masks) >= sparsity - 1e-12:
            reaches = middle
        else:
            misses = middle
    return PatternSet(tile, cell_rows, ranks < reaches)


def assign_tiles(
    pattern_set: PatternSet,
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    removed: Mapping[str, BoolArray] | None = None,
) -> TileIndex:
    """For every tile the one pattern that preserves most: with squared weights as scores, most Frobenius norm (HotNAS).

    Ties, and tiles that are all zero, take the first of the best patterns, so patterns are never added up.
    """
    _check(grids, scores, pattern_set.tile, pattern_set.patterns, removed)
    masks = pattern_set.masks.reshape(pattern_set.patterns, -1).astype(np.float64)
    return _assign_by(masks, grids, scores, pattern_set.tile, removed)


def assign(
    pattern_set: PatternSet,
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    removed: Mapping[str, BoolArray] | None = None,
) -> LevelMasks:
    """Cell masks of a level that uses ``pattern_set``: linear name to ``(bands, in_features) bool``."""
    index = assign_tiles(pattern_set, grids, scores, removed)
    masks = {name: untile(pattern_set.masks[index[name]], grid) for name, grid in grids.items()}
    if removed is not None:
        masks = {name: mask & ~removed[name] if name in removed else mask for name, mask in masks.items()}
    return masks


def _cell_rows(grids: Mapping[str, CellGrid]) -> int:
    heights = {grid.cell_rows for grid in grids.values()}
    if len(heights) != 1:
        raise UserInputError(f"one pattern set needs layers of one cell height, not {sorted(heights)}.")
    return heights.pop()


def _check(
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    tile: int,
    patterns: int,
    removed: Mapping[str, BoolArray] | None,
) -> None:
    if patterns < 1:
        raise UserInputError(f"a set of {patterns} patterns is empty; give 1 or more.")
    tile_cells(tile, _cell_rows(grids))
    for name, grid in grids.items():
        if name not in scores:
            raise UserInputError(f"{name} has no cell scores; give them for every layer.")
        if scores[name].shape != grid.shape:
            raise UserInputError(f"{name}: scores of shape {scores[name].shape} do not fit a grid of {grid.shape}.")
        if not np.isfinite(scores[name]).all() or (scores[name] < 0).any():
            raise UserInputError(f"{name}: cell scores must be finite and not negative; check the weights.")
        if removed is not None and name in removed and removed[name].shape != grid.shape:
            raise UserInputError(f"{name}: removed cells of {removed[name].shape} do not fit a grid of {grid.shape}.")


def _kept_cells(cells: int, sparsity: float) -> int:
    if not 0.0 <= sparsity <= 1.0:
        raise UserInputError(f"a sparsity of {sparsity} is outside 0 <= sparsity <= 1.")
    return int(np.floor((1.0 - sparsity) * cells + 0.5))


def _sample(
    grids: Mapping[str, CellGrid], tile: int, samples: int, rng: np.random.Generator
) -> list[tuple[str, int, int]]:
    """Names and places of tiles drawn without repetition, whole tiles only where the model has any."""
    if samples < 1:
        raise UserInputError(f"{samples} sampled tiles tell nothing; give 1 or more.")
    places = [
        (name, row, column)
        for name, grid in grids.items()
        for row in range(grid.out_features // tile)
        for column in range(grid.in_features // tile)
    ]
    if not places:
        places = [(name, *place) for name, grid in grids.items() for place in np.ndindex(tile_counts(grid, tile))]
    chosen = rng.choice(len(places), size=min(samples, len(places)), replace=False)
    return [places[index] for index in chosen]


def _sampled_tiles(
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    tile: int,
    removed: Mapping[str, BoolArray] | None,
    places: Sequence[tuple[str, int, int]],
) -> NDArray[np.float64]:
    """``(places, cells)``, in the order of ``places``."""
    by_layer: dict[str, list[int]] = {}
    for position, (name, _, _) in enumerate(places):
        by_layer.setdefault(name, []).append(position)
    found = np.zeros((len(places), tile_cells(tile, _cell_rows(grids))))
    for name, positions in by_layer.items():
        tiles = tile_scores(grids[name], scores[name], tile, None if removed is None else removed.get(name))
        for position in positions:
            found[position] = tiles[places[position][1:]]
    return found


def _sampled_ranks(
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    tile: int,
    patterns: int,
    rng: np.random.Generator,
    samples: int,
    removed: Mapping[str, BoolArray] | None,
) -> NDArray[np.int64]:
    """``(patterns, cells)``: each pattern ranks the summed importance of its own sampled tiles."""
    return np.stack(
        [
            _ranks_of(_sampled_tiles(grids, scores, tile, removed, _sample(grids, tile, samples, rng)).sum(axis=0))
            for _ in range(patterns)
        ]
    )


def _ranks_of(importance: NDArray[np.float64]) -> NDArray[np.int64]:
    ranks = np.empty(len(importance), dtype=np.int64)
    ranks[np.argsort(-importance, kind="stable")] = np.arange(len(importance))
    return ranks


def _rank_clusters(
    tiles: NDArray[np.float64], owner: NDArray[np.int64], patterns: int, kept: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """``(patterns, cells)``: rank each cluster's summed importance; an empty one restarts from a badly served tile."""
    ranks = np.zeros((patterns, tiles.shape[1]), dtype=np.int64)
    badly_served = iter([] if kept is None else np.argsort(kept, kind="stable").tolist())
    for pattern in range(patterns):
        mine = tiles[owner == pattern]
        if not len(mine):
            mine = tiles[[next(badly_served, 0)]] if len(tiles) else np.zeros((1, tiles.shape[1]))
        ranks[pattern] = _ranks_of(mine.sum(axis=0))
    return ranks


def _kept_share(ranks: NDArray[np.int64], cuts: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(patterns, cells)``: the share of the cuts that keep each position."""
    share: NDArray[np.float64] = (ranks[:, :, None] < cuts).mean(axis=2)
    return share


def _assign_by(
    weights: NDArray[np.float64],
    grids: Mapping[str, CellGrid],
    scores: Mapping[str, FloatArray],
    tile: int,
    removed: Mapping[str, BoolArray] | None,
) -> TileIndex:
    """The best pattern of every tile; ``weights (patterns, cells)``: how much of each position a pattern keeps."""
    return {
        name: (
            tile_scores(grid, scores[name], tile, None if removed is None else removed.get(name)) @ weights.T
        ).argmax(axis=2)
        for name, grid in grids.items()
    }


def _cut_set(ranks: NDArray[np.int64], tile: int, cell_rows: int, sparsity: float) -> PatternSet:
    kept = _kept_cells(ranks.shape[1], sparsity)
    return PatternSet(tile, cell_rows, (ranks < kept).reshape(len(ranks), tile // cell_rows, tile))
