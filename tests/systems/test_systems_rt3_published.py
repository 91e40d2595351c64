"""RT3 as reconstructed: the backbone, pattern sets for a whole model's sparsity, and their search in a file."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import sentences

from lavolta.errors import UserInputError
from lavolta.models.batching import encode_texts
from lavolta.models.hf import load_encoder
from lavolta.sparsity.block import block_prune_cells
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.ranking import LevelMasks, model_sparsity
from lavolta.systems.rt3.backbone import BackboneOptions, random_backbone, real_backbone
from lavolta.systems.rt3.published import PatternOptions, random_levels, searched_levels
from lavolta.systems.rt3.subjects import encoder_parameters
from lavolta.training.encoder import EncoderObjective, LossWeights

# Odd on purpose: tiles of 8 are ragged in all of them.
SHAPES = {"a": (20, 20), "b": (33, 20), "c": (20, 33)}
WANTED = (0.5, 0.65, 0.75)
CLOCKS = (1400.0, 1000.0, 800.0)
OPTIONS = PatternOptions(tile=8, patterns=3, alternatives=3, trials=5)
TILE_CELLS = 64


def model(seed: int) -> tuple[dict[str, CellGrid], dict[str, np.ndarray], dict[str, BoolArray]]:
    rng = np.random.default_rng(seed)
    grids = {name: CellGrid(*shape, 1) for name, shape in SHAPES.items()}
    weights = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    removed = {name: block_prune_cells(grid, weights[name], 0.3, 4) for name, grid in grids.items()}
    return grids, {name: grid.cell_scores(np.square(weights[name])) for name, grid in grids.items()}, removed


def check_levels(levels: list[LevelMasks], grids: dict[str, CellGrid], removed: dict[str, BoolArray]) -> None:
    assert len(levels) == len(WANTED)
    tiles = sum(-(-out // 8) * -(-into // 8) for out, into in SHAPES.values())
    total = sum(out * into for out, into in SHAPES.values())
    for sparsity, masks in zip(WANTED, levels, strict=True):
        # At least the sparsity; one more cell of every tile would be too many.
        assert sparsity - 1e-12 <= model_sparsity(grids, masks) <= sparsity + tiles / total
        for name, mask in masks.items():
            assert not (mask & removed[name]).any()


@given(st.integers(0, 2**31))
@settings(max_examples=10)
def test_random_patterns_reach_the_sparsity_of_the_whole_model(seed: int) -> None:
    grids, magnitudes, removed = model(seed)
    found = random_levels(grids, magnitudes, removed, WANTED, OPTIONS, seed)
    check_levels(found.masks, grids, removed)
    again = random_levels(grids, magnitudes, removed, WANTED, OPTIONS, seed)
    for left, right in zip(found.masks, again.masks, strict=True):
        assert all(np.array_equal(left[name], right[name]) for name in SHAPES)
    # 3 patterns of 64 bits, and 2 bits for each of 9, 15 and 15 tiles, in whole bytes.
    assert found.swap_bytes == 24 + 3 + 4 + 4
    assert found.trials == 0


def searched(storage: Path, score: object, seed: int = 0, options: PatternOptions = OPTIONS) -> object:
    grids, magnitudes, removed = model(1)
    return searched_levels(grids, magnitudes, removed, WANTED, CLOCKS, score, 0.0, storage, options, seed)


def minus_missing(masks: LevelMasks) -> float:
    """A score that knows which sets are good: those that keep the first rows."""
    return float(sum(mask[:4].mean() for mask in masks.values())) - 3.0


def test_the_search_finds_levels_at_their_sparsities(tmp_path: Path) -> None:
    grids, _, removed = model(1)
    found = searched(tmp_path / "new" / "s.db", minus_missing)
    check_levels(found.masks, grids, removed)
    assert found.trials == 5
    assert found.swap_bytes == 24 + 3 + 4 + 4


def test_the_search_takes_the_best_it_tried(tmp_path: Path) -> None:
    seen: list[float] = []

    def score(masks: LevelMasks) -> float:
        seen.append(minus_missing(masks))
        return seen[-1]

    # Twenty children of 27; every level's sets are scored once, however often they are chosen.
    found = searched(tmp_path / "s.db", score, options=PatternOptions(8, 3, 3, 20, "random"))
    assert len(seen) <= 9
    assert sum(minus_missing(m) for m in found.masks) >= np.mean(seen) * 3


def test_a_search_is_stored_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    straight = searched(tmp_path / "straight.db", minus_missing)
    calls = 0

    def broken(masks: LevelMasks) -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return minus_missing(masks)

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "s.db", broken)
    again = searched(tmp_path / "s.db", minus_missing)

    def never(_: LevelMasks) -> float:
        raise AssertionError("a finished search scored a child")

    third = searched(tmp_path / "s.db", never)
    for found in (again, third):
        assert found.trials == straight.trials
        for left, right in zip(found.masks, straight.masks, strict=True):
            assert all(np.array_equal(left[name], right[name]) for name in SHAPES)
    with pytest.raises(UserInputError, match="was begun with another"):
        searched(tmp_path / "s.db", minus_missing, seed=1)


def test_a_backbone_removes_its_share_of_groups(tiny_folder: Path) -> None:
    dense = load_encoder(str(tiny_folder), "embedding")
    grids = dense.grids(1)
    options = BackboneOptions(ratio=0.3, band_rows=4, lasso_steps=2, lr=1e-2)
    encoded = encode_texts(dense, sentences(8))
    weights = dense.weights()
    found = {}
    for steps in (0, 2):
        student = copy.deepcopy(dense)
        objective = EncoderObjective(student, lambda _: encoded.batch(range(8)), dense, LossWeights(0.0))
        own = BackboneOptions(0.3, 4, steps, lr=1e-2)
        found[steps] = real_backbone(student, grids, objective, encoder_parameters(student), own, seed=0)
        changed = any(not np.array_equal(weights[name], w) for name, w in student.weights().items())
        assert changed == (steps > 0)
        assert type(student.linears["layers.0.ffn.up"]) is torch.nn.Linear
    found[-1] = random_backbone(dense, grids, options, seed=0)
    for removed in found.values():
        for name, grid in grids.items():
            blocks = removed[name].reshape(-1, 4, grid.in_features)
            # Groups of four rows go as a whole, and exactly the count that the ratio gives.
            assert (blocks == blocks[:, :1]).all()
            assert int(blocks[:, 0].sum()) == int(0.3 * blocks.shape[0] * grid.in_features + 0.5)
    # Without training the weakest groups by norm go; by chance it would be others, with another seed others again.
    name = "layers.0.ffn.up"
    norms = np.square(weights[name]).reshape(-1, 4, 16).sum(axis=1)
    gone = found[0][name].reshape(-1, 4, 16)[:, 0]
    assert norms[gone].mean() < norms[~gone].mean()
    assert not np.array_equal(found[-1][name], found[0][name])
    other = random_backbone(dense, grids, options, seed=1)
    assert not np.array_equal(found[-1][name], other[name])
    assert np.array_equal(found[-1][name], random_backbone(dense, grids, options, seed=0)[name])
