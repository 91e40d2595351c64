"""The rows of the RT3 experiments: each prunes a dense model in one way, trains it, and scores every level."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavolta.errors import UserInputError
from lavolta.files import make_folder
from lavolta.models.loaded import LoadedModel
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.ranking import LayerRanking, LevelMasks, level_masks, model_sparsity, uniform_cuts
from lavolta.systems.rt3.backbone import BackboneOptions, random_backbone, real_backbone
from lavolta.systems.rt3.cutting import choose_cuts, measure_groups
from lavolta.systems.rt3.probe import CutProbe, compensate
from lavolta.systems.rt3.published import PatternOptions, random_levels, searched_levels
from lavolta.systems.rt3.subjects import Subject, fresh_student
from lavolta.systems.rt3.upstream import Upstream
from lavolta.training.joint import JointConfig, Objective, train_joint
from lavolta.training.levels import FixedLevels, LevelSet, RankedLevels
from lavolta.training.masking import MaskedLinears
from lavolta.training.oneshot import gradual_rankings
from lavolta.training.saliency import LinearStats

ROWS = {
    "dense": "the trained dense model",
    "bp-only": "block pruning alone, one level",
    "rbp-rpp": "random block pruning, random patterns",
    "rbp-pp": "random block pruning, patterns from importance",
    "bp-rpp": "real block pruning, random patterns",
    "rt3": "RT3 as reconstructed: real block pruning, pattern sets searched by the controller, labels only",
    "rt3-distilled": "the same with our training: distilled from the dense model",
    "ranked": "ours: cuts of one ranking per layer, cells of 4 rows, sandwich rule, distilled",
    "ranked-searched": "ours with the cut of each group of layers found by search, where the others cut all alike",
    "ranked-1": "ours with cells of 1 row",
    "ranked-upstream": "ours, begun from a ladder that was distilled on text without labels before the task",
    "upper-bound": "the sparsest level of `ranked` trained alone with its own weights",
    "upper-bound-searched": "the same for `ranked-searched`",
}
SEARCHED = ("ranked-searched", "upper-bound-searched")
"""Rows whose layers are cut as a search found."""
ALONE = ("upper-bound", "upper-bound-searched")
"""Rows of one level, the sparsest."""
FOUR_ROWS = ("ranked", "ranked-upstream", *SEARCHED, "upper-bound")
"""Rows with cells of 4 rows; the others have single weights."""

PROBE_BATCHES = 2
"""Training batches that a search for cuts is judged by."""


@dataclass(frozen=True)
class RowOptions:
    """One row.

    Args:
        sparsities: of the levels, densest first, over all prunable weights.
        freqs_mhz: the clock of each level.
        steps: of training after pruning; the same for every row of a subject.
        lr: peak learning rate.
        seed: of the pruning, the data order and the training.
    """

    row: str
    sparsities: tuple[float, ...] = (0.5, 0.65, 0.75)
    freqs_mhz: tuple[float, ...] = (1400.0, 1000.0, 800.0)
    steps: int = 300
    lr: float = 2e-4
    seed: int = 0
    backbone: BackboneOptions = field(default_factory=BackboneOptions)
    patterns: PatternOptions = field(default_factory=PatternOptions)

    def __post_init__(self) -> None:
        if self.row not in ROWS:
            raise UserInputError(f"the row {self.row!r} is unknown; choose one of {', '.join(ROWS)}.")
        if len(self.sparsities) != len(self.freqs_mhz):
            raise UserInputError(f"{len(self.sparsities)} sparsities do not fit {len(self.freqs_mhz)} clocks.")
        if list(self.sparsities) != sorted(self.sparsities):
            raise UserInputError(f"the sparsities {self.sparsities} must rise: densest level first.")

    @property
    def cell_rows(self) -> int:
        return 4 if self.row in FOUR_ROWS else 1


@dataclass
class RowRun:
    """What a row gives: JSON-able results, and the trained model with its masks for what is measured natively."""

    result: dict[str, Any]
    student: LoadedModel
    masks: list[LevelMasks]


def run_row(
    subject: Subject,
    options: RowOptions,
    work: Path,
    on_step: Callable[[int, float], None] | None = None,
    ladder: Upstream | None = None,
) -> RowRun:
    """Prune, train and score one row; resumable through the files in ``work``.

    Args:
        ladder: what the row `ranked-upstream` begins from; its sparsities must be the row's.

    Raises:
        UserInputError: options that do not fit the subject.
    """
    if (options.row == "ranked-upstream") != (ladder is not None):
        raise UserInputError(f"the row {options.row} does not fit the ladder; `ranked-upstream` alone begins from one.")
    start = time.perf_counter()
    torch.manual_seed(options.seed)
    dense_score = subject.score(subject.dense)
    grids = subject.dense.grids(options.cell_rows)
    student = fresh_student(subject)
    distil = options.row in (*FOUR_ROWS, "rt3-distilled", "ranked-1")
    # Distillation already regularizes; dropout would make student and teacher different functions.
    student.module.train(not distil)
    objective = subject.objective(student, distil, options.seed)
    make_folder(work)
    name = f"{subject.name}-{options.row}-{options.seed}"
    if ladder is not None:
        ladder.begin(student)
        masks, make_levels, extra = _from_ladder(ladder, options)
    else:
        masks, make_levels, extra = _prune(subject, student, objective, grids, options, work / f"{subject.name}.db")
    scores: list[float] = []
    if masks:
        masked = MaskedLinears(student.linears, grids)
        checkpoint = work / f"{name}.pt"
        if distil and ladder is None and not checkpoint.exists():
            compensate(subject.dense.linears, masked, subject.statistics(hessians=True), masks)
        config = JointConfig(steps=options.steps, lr=options.lr, seed=options.seed, checkpoint_every=50)
        train_joint(
            masked,
            make_levels(masked),
            objective,
            subject.trainable(student),
            config,
            checkpoint,
            on_step,
            identity=json.dumps([subject.name, asdict(options)], sort_keys=True),
        )
        student.module.eval()
        for level in masks:
            with masked.at(level):
                scores.append(subject.score(student))
        masked.detach()
        checkpoint.unlink(missing_ok=True)
    levels = [
        {
            "name": f"M{index + 1}",
            "sparsity": model_sparsity(grids, level),
            "score": scores[index],
            "loss_points": dense_score - scores[index],
            "kept_cells": {n: int(m.sum()) for n, m in level.items()},
        }
        for index, level in enumerate(masks)
    ]
    result = {
        "subject": subject.name,
        "row": options.row,
        "title": ROWS[options.row],
        "options": asdict(options),
        "cell_rows": options.cell_rows,
        "dense_score": dense_score,
        "levels": levels,
        "seconds": round(time.perf_counter() - start, 1),
        **extra,
    }
    return RowRun(result, student, masks)


LevelsOf = Callable[[MaskedLinears], LevelSet]


def _prune(
    subject: Subject,
    student: LoadedModel,
    objective: Objective,
    grids: dict[str, CellGrid],
    options: RowOptions,
    storage: Path,
) -> tuple[list[LevelMasks], LevelsOf, dict[str, Any]]:
    if options.row == "dense":
        return [], _fixed([]), {}
    if options.row in ("ranked", "ranked-1", *SEARCHED, *ALONE):
        stats = subject.statistics(hessians=True)
        rankings = gradual_rankings(subject.dense.linears, grids, stats, options.sparsities[-1])
        wanted = options.sparsities[-1:] if options.row in ALONE else options.sparsities
        if options.row in SEARCHED:
            cuts = _searched_cuts(subject, student, objective, grids, rankings, stats, wanted)
        else:
            cuts = [uniform_cuts(rankings, sparsity) for sparsity in wanted]

        def ranked(_: MaskedLinears) -> LevelSet:
            return RankedLevels(rankings, cuts)

        return [level_masks(rankings, level) for level in cuts], ranked, {}
    removed = _backbone(subject, student, objective, grids, options)
    if options.row == "bp-only":
        level = {name: ~removed[name] for name in grids}
        return [level], _fixed([level]), {}
    magnitudes = {name: grid.cell_scores(np.square(w)) for (name, grid), w in _weights(student, grids)}
    if options.row in ("rbp-rpp", "bp-rpp"):
        found = random_levels(grids, magnitudes, removed, options.sparsities, options.patterns, options.seed)
    else:
        probe = objective.batch(0)
        found = searched_levels(
            grids,
            magnitudes,
            removed,
            options.sparsities,
            options.freqs_mhz,
            _probe_score(student, objective, probe, grids),
            -_loss(student, objective, probe),
            storage.with_name(f"{storage.stem}-{options.row}-{options.seed}.db"),
            options.patterns,
            options.seed,
        )
    return found.masks, _fixed(found.masks), {"swap_bytes": found.swap_bytes, "search_trials": found.trials}


def _searched_cuts(
    subject: Subject,
    student: LoadedModel,
    objective: Objective,
    grids: dict[str, CellGrid],
    rankings: dict[str, LayerRanking],
    stats: dict[str, LinearStats],
    sparsities: Sequence[float],
) -> list[dict[str, int]]:
    """The cuts that `compress` would take, judged by the loss on training batches."""
    batches = [objective.batch(step) for step in range(PROBE_BATCHES)]
    masked = MaskedLinears(student.linears, grids)
    try:
        probe = CutProbe(
            subject.dense.linears, masked, stats, lambda: sum(_loss(student, objective, b) for b in batches)
        )
        return choose_cuts(measure_groups(rankings, probe), sparsities)
    finally:
        masked.detach()


def _from_ladder(ladder: Upstream, options: RowOptions) -> tuple[list[LevelMasks], LevelsOf, dict[str, Any]]:
    if ladder.options.sparsities != options.sparsities or ladder.options.cell_rows != options.cell_rows:
        raise UserInputError(
            f"the ladder has levels of {ladder.options.sparsities} in cells of {ladder.options.cell_rows} rows, not "
            f"{options.sparsities} and {options.cell_rows}; make one for them."
        )

    def ranked(_: MaskedLinears) -> LevelSet:
        return RankedLevels(ladder.rankings, ladder.cuts)

    masks = [level_masks(ladder.rankings, cut) for cut in ladder.cuts]
    return masks, ranked, {"upstream": asdict(ladder.options)}


def _fixed(masks: Sequence[LevelMasks]) -> LevelsOf:
    def levels(masked: MaskedLinears) -> LevelSet:
        return FixedLevels(masked, masks)

    return levels


def _backbone(
    subject: Subject, student: LoadedModel, objective: Objective, grids: dict[str, CellGrid], options: RowOptions
) -> dict[str, BoolArray]:
    if options.row.startswith("rbp"):
        return random_backbone(student, grids, options.backbone, options.seed)
    return real_backbone(student, grids, objective, subject.trainable(student), options.backbone, options.seed)


def _weights(student: LoadedModel, grids: dict[str, CellGrid]) -> list[tuple[tuple[str, CellGrid], Any]]:
    weights = student.weights()
    return [((name, grid), weights[name]) for name, grid in grids.items()]


def _probe_score(
    student: LoadedModel, objective: Objective, probe: Any, grids: dict[str, CellGrid]
) -> Callable[[LevelMasks], float]:
    """Minus the loss on one training batch: what a child of the search is judged by, without training."""

    def score(level: LevelMasks) -> float:
        masked = MaskedLinears(student.linears, grids)
        try:
            with masked.at(level):
                return -_loss(student, objective, probe)
        finally:
            masked.detach()

    return score


def _loss(student: LoadedModel, objective: Objective, probe: Any) -> float:
    was_training = student.module.training
    student.module.eval()
    with torch.no_grad():
        loss = float(objective.loss(probe))
    student.module.train(was_training)
    return loss
