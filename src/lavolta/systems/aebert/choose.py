"""Find where to prune: candidates under one budget, ranked by a proxy on growing slices of held-out rows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lavolta.errors import UserInputError
from lavolta.models.batching import Encoded
from lavolta.models.loaded import LoadedModel
from lavolta.progress import Progress, SilentProgress
from lavolta.search import RatioSpace, ScoreReward, ShortList, StudyConfig, run_study
from lavolta.search.ratios import ratios_of, thinned
from lavolta.search.spaces import Actions
from lavolta.sparsity.ranking import model_sparsity
from lavolta.systems.aebert.budget import budget_of
from lavolta.systems.aebert.judge import SLICES, Judge
from lavolta.systems.aebert.ratios import Candidate, Ratios
from lavolta.systems.aebert.space import FIXED, compared_space, fixed_candidates
from lavolta.training.proxies import PROXIES

SHORT_LIST = 8
"""One candidate in so many goes on to the second round."""
FINALISTS = 3
SEARCHED = "searched"
LEAST_ROWS, LEAST_COMPARED = 8, 2
"""To calibrate on, and to compare candidates on."""


def choose_ratios(
    dense: LoadedModel,
    train: Encoded,
    held_out: Encoded,
    *,
    overall_ratio: float | None = None,
    device: str | None = None,
    deadline_ms: float | None = None,
    energy_mj: float | None = None,
    tokens: int = 128,
    threads: int = 1,
    proxy: str = "kl",
    candidates: int = 100,
    workers: int = 1,
    storage: str | Path | None = None,
    sampler: str = "evolve",
    cell_rows: int = 1,
    low: float | None = None,
    high: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ratios:
    """Choose how much of each layer is pruned, without fine-tuning anything.

    Every candidate meets the budget, or for a budget that asks for more than `COMPARED`, that ratio; the choice is then
    thinned alike in all layers. Three candidates come first: all layers alike, one magnitude threshold for all, and the
    least sum of the layers' own output errors; so the choice is never worse than uniform by its own score. The best go
    on to larger slices (successive halving). Training rows calibrate, held-out rows compare; the development split is
    not looked at.

    Args:
        dense: the fine-tuned model; it is not changed.
        train: its training data, tokenised.
        held_out: rows that it was not trained on: what it learnt by heart is no measure of a candidate.
        overall_ratio: share of the prunable weights that goes; or else ``device`` with one or both limits.
        device: profile name or file; ``deadline_ms`` and ``energy_mj`` limit one inference of ``tokens`` tokens.
        proxy: ``"kl"``, ``"hidden"``, ``"loss"``, ``"ladder"`` or ``"reconstruction"``; see `lavolta.training.proxies`.
        candidates: ratio vectors of the first round.
        workers: processes that share the candidates.
        storage: SQLite file of the study: a call that was cut off continues there. ``None`` keeps nothing.
        sampler: ``"evolve"``, ``"random"``, ``"tpe"`` or ``"reinforce"``.
        cell_rows: height of the cells, 1 for single weights.
        low, high: bounds of each layer's ratio.

    Raises:
        InfeasibleError: a budget that the bounds or the device cannot reach.
        UserInputError: options outside their range, too little data, a storage that cannot be used.
    """
    started = time.perf_counter()
    _check(proxy, candidates, overall_ratio, device, deadline_ms, energy_mj, len(train), len(held_out))
    progress = progress or SilentProgress()
    budget = budget_of(dense, overall_ratio, device, deadline_ms, energy_mj, tokens, threads, cell_rows)
    space = compared_space(budget, low, high)
    with progress.stage("calibrate"):
        judge = Judge.of(dense, train, held_out, cell_rows, seed)
        firsts = fixed_candidates(judge.calibration, judge.errors, space)
        space = replace(space, firsts=firsts)
        objective = judge.objective(proxy)
    calibrated = time.perf_counter() - started
    name = _study_name(dense, (train, held_out), proxy, seed, cell_rows)
    uniform, size = space.first_children[0], min(SLICES[0], len(judge.compared))
    file = None if storage is None else Path(storage)

    def rank(label: str, over: RatioSpace | ShortList, rows: int, count: int, kind: str) -> list[tuple[Any, float]]:
        # Another ratio or another short list is another study of the same file.
        mark = hashlib.sha256(json.dumps(over.describe(), sort_keys=True).encode()).hexdigest()[:12]
        config = StudyConfig(file, f"{name}-{label}-{mark}", count, kind, seed, workers)
        with progress.stage(f"rank {count} candidates on {rows} rows", count) as stage:
            found = run_study(over, objective(rows), ScoreReward(), config, on_trial=lambda *_: stage.advance())
        return [(row.actions, row.reward) for row in found.top(count)]

    ranked = rank("first", space, size, max(candidates, len(firsts)), sampler)
    for place, wanted in enumerate(SLICES[1:]):
        if size >= len(judge.compared) or proxy == "reconstruction":
            break
        size = min(wanted, len(judge.compared))
        count = max(FINALISTS, len(ranked) // SHORT_LIST) if place == 0 else FINALISTS
        short = ShortList(space, _with([child for child, _ in ranked[:count]], uniform))
        again = rank(f"round {place + 2}", short, size, len(short.children), "random")
        ranked = [(short.children[picked[0]], score) for picked, score in again]
    finalists = ranked[:FINALISTS] + [entry for entry in ranked[FINALISTS:] if entry[0] == uniform]
    named = dict(zip(reversed(space.first_children), reversed(FIXED), strict=True))

    def settled(child: Actions) -> dict[str, int]:
        return thinned(space.decode(child), budget.parts, budget.limit)

    kept, share = settled(finalists[0][0]), budget.limit / space.limit
    masks = {name: ranking.keep(kept[name]) for name, ranking in judge.calibration.by_magnitude.items()}
    return Ratios(
        per_linear=ratios_of(kept, budget.parts),
        kept_cells=kept,
        cell_rows=cell_rows,
        overall_ratio=model_sparsity(judge.calibration.grids, masks),
        compared_ratio=space.mean,
        score=finalists[0][1],
        origin=named.get(finalists[0][0], SEARCHED),
        proxy=proxy,
        budget={**budget.asked, "low": 1.0 - share * (1.0 - space.low), "high": 1.0 - share * (1.0 - space.high)},
        finalists=tuple(
            Candidate(named.get(child, SEARCHED), score, ratios_of(settled(child), budget.parts))
            for child, score in finalists
        ),
        candidates=max(candidates, len(firsts)),
        slice_rows=size,
        seconds=round(time.perf_counter() - started, 2),
        calibration_seconds=round(calibrated, 2),
        seed=seed,
    )


def _check(
    proxy: str,
    candidates: int,
    overall_ratio: float | None,
    device: str | None,
    deadline_ms: float | None,
    energy_mj: float | None,
    train_rows: int,
    held_out_rows: int,
) -> None:
    if proxy not in PROXIES:
        raise UserInputError(f"the proxy {proxy!r} is unknown; choose one of {', '.join(PROXIES)}.")
    if candidates < 1:
        raise UserInputError(f"{candidates} candidates were asked for; give at least 1.")
    limits = deadline_ms is not None or energy_mj is not None
    if (overall_ratio is None) == (device is None) or limits != (device is not None):
        raise UserInputError("give either overall_ratio, or a device with deadline_ms, energy_mj or both.")
    for name, rows, least in (("training", train_rows, LEAST_ROWS), ("held-out", held_out_rows, LEAST_COMPARED)):
        if rows < least:
            raise UserInputError(f"there are {rows} {name} rows; the search needs at least {least}.")


def _with(children: list[Actions], uniform: Actions) -> tuple[Actions, ...]:
    return tuple(children) if uniform in children else (*children, uniform)


def _study_name(dense: LoadedModel, parts: Sequence[Encoded], proxy: str, seed: int, cell_rows: int) -> str:
    """A name that no other model, data or proxy has: a study cannot see by itself that its evaluation changed."""
    digest = hashlib.sha256(json.dumps([proxy, seed, cell_rows, [len(part) for part in parts]]).encode())
    for name, tensor in sorted(dense.module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for part in parts:
        for ids in part.ids:
            digest.update(ids.tobytes())
        if part.labels is not None:
            digest.update(part.labels.tobytes())
    return f"aebert-{proxy}-{digest.hexdigest()[:16]}"
