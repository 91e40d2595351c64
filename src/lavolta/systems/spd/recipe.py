"""Prune an encoder on a task: fine-tune the teacher, train the student under the method, write what can be run."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lavolta import __version__
from lavolta.errors import UserInputError
from lavolta.models.batching import StepBatches, predict, sorted_batches
from lavolta.models.hf import load_encoder
from lavolta.models.loaded import LoadedModel
from lavolta.models.marks import model_mark, task_mark
from lavolta.models.tasks import TaskData, load_task
from lavolta.progress import Progress, SilentProgress
from lavolta.sparsity.ranking import LevelMasks, level_masks, model_sparsity
from lavolta.stages import Clock, teller
from lavolta.systems.spd import defaults
from lavolta.systems.spd.ladder import train_ladder
from lavolta.systems.spd.methods import METHODS, PRUNE_SHARE, SCORE_LR, Method, make_pruning, trained
from lavolta.systems.spd.options import PruneOptions, pruned_steps, rate_ends
from lavolta.systems.spd.output import (
    FoundRatios,
    Pruned,
    Ratios,
    RatioSearch,
    finished,
    mark_of,
    teacher_mark,
    write,
)
from lavolta.training.grafting import GraftedModel, GraftingObjective, freeze
from lavolta.training.masking import MaskedLinears
from lavolta.training.pruning import GradualMagnitude, Pruning, apply_masks, check_targets
from lavolta.training.schedules import RestartedDecay
from lavolta.training.sparse import SparseConfig, SparseRun, train_sparse
from lavolta.training.task_data import TaskSplits, at_chance, split_task, task_score, task_scores, untellable
from lavolta.training.teacher import TeacherTraining, fine_tune, looks, teacher_steps, untrained
from lavolta.unfinished import TEACHERS, begin_work, remove_work

LOOKS = 8
"""How often the scores are taken along a training."""

CHECKPOINT_EVERY = 50
CALIBRATION_ROWS = 256


@dataclass
class Teacher:
    """The dense model of a task with its data.

    Args:
        curve: scores along its fine-tuning; empty for a model that came with its head.
        score: on the whole development split, 0 to 100.
        doubt: one sentence where its score is what chance gives.
    """

    loaded: LoadedModel
    splits: TaskSplits
    curve: list[dict[str, Any]]
    score: float
    doubt: str | None


def prune(
    source: str,
    *,
    task: str,
    data: str | Path,
    out: str | Path,
    ratios: Ratios | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Prune an encoder for a task; an interrupted call continues where it was when it is repeated.

    Args:
        source: a folder with a BERT, DistilBERT or RoBERTa encoder, or the packaged ``all-MiniLM-L6-v2``.
        out: a folder for the bundle ``model.lavolta``, the folder ``huggingface``, ``result.json`` and
            ``report.html``; or, ending in ``.lavolta``, the bundle alone. Work in progress is kept beside it in
            ``<out>.work``.
        ratios: a sparsity for each linear layer in place of one for all, or a search for them.
        options: see `PruneOptions`.

    Returns:
        Plain data: scores of teacher and student, both sparsities, the curves, the levels, the options.

    Raises:
        UserInputError: wrong options, model or data; a teacher at chance; a loss that is not finite.
        BundleError: the bundle cannot be written.
    """
    if isinstance(ratios, Mapping) and options.setdefault("sparsity", None) is not None:
        raise UserInputError("sparsity and ratios of the layers are two answers to one question; give one of them.")
    opts = PruneOptions(str(source), task, str(data), **options)
    if opts.sparsity is None and ratios is None:
        raise UserInputError("neither a sparsity nor ratios of the layers are given; give one of them.")
    progress, out = progress or SilentProgress(), Path(out)
    task_data = load_task(opts.task, opts.data)
    mark = mark_of(opts, task_data, ratios)
    done = finished(out, mark)
    if done is not None:
        progress.say(f"{out} is already made with these options")
        return done
    if ratios is not None:
        # Fine-tuning takes long; that ratios do not fit, or a budget has none, should not come out after it.
        encoder = load_encoder(opts.source, "embedding")
        if isinstance(ratios, RatioSearch):
            ratios.check(encoder)
        else:
            check_levels(opts, encoder.linear_shapes, check_targets(encoder.linear_shapes, ratios))
    work = out.with_name(out.name + ".work")
    # The teacher says itself what it is: other options of the pruning need no other one.
    begin_work(work, mark, keep=TEACHERS)
    clock = Clock()
    teacher = make_teacher(opts, task_data, work / TEACHERS / teacher_mark(opts, task_data), clock, progress)
    found = _found(opts, teacher, ratios, work, progress)
    pruned = prune_teacher(opts, teacher, found.per_linear, work, clock, progress)
    result = {"kind": "prune", "mark": mark, **pruned.facts, "seconds": dict(clock.seconds), "out": str(out)}
    if isinstance(ratios, RatioSearch):
        result |= {"method": f"{ratios.name}+{opts.method}", "search": found.facts}
    with clock.stage(progress, "write the result"):
        result = write(out, work, pruned, opts, result)
    remove_work(work)
    return result


def make_teacher(
    opts: PruneOptions, task: TaskData, cache: Path, clock: Clock | None = None, progress: Progress | None = None
) -> Teacher:
    """The fine-tuned dense model, trained here where it does not come with its head.

    Args:
        cache: folder of the weights; another run of equal model, data and training finds them there.

    Raises:
        UserInputError: a model that does not fit the task; a teacher whose score is what chance gives.
    """
    clock, progress = clock or Clock(), progress or SilentProgress()
    check_accelerator(opts.accelerator)
    training = TeacherTraining(
        1.0 if opts.quick else opts.teacher_epochs,
        opts.teacher_lr,
        defaults.QUICK_BATCH if opts.quick else opts.teacher_batch_size,
        pooling=opts.pooling,
    )
    with clock.stage(progress, "read the model and the data"):
        loaded, task, ready = untrained(opts.source, task, training, opts.seed)
        loaded.module.to(opts.accelerator)
        splits = split_task(
            loaded,
            task,
            opts.seed,
            defaults.QUICK_TOKENS if opts.quick else opts.max_tokens,
            defaults.QUICK_ROWS if opts.quick else None,
        )
    curve: list[dict[str, Any]] = []
    if not ready:
        saved = cache / f"{task.name}-teacher-{opts.seed}.safetensors"
        identity = {
            "model": model_mark(opts.source),
            "data": task_mark(task),
            "tokens": opts.max_tokens,
            "quick": opts.quick,
            "accelerator": opts.accelerator,
        }
        total = teacher_steps(len(splits.train), training)
        with clock.stage(progress, "fine-tune the teacher", total) as stage:
            curve = fine_tune(loaded, splits, training, opts.seed, saved, identity, opts.accelerator, teller(stage))
    unsure = untellable(task, splits.held_out)
    if unsure is not None:
        progress.say(unsure)
    known = task_scores(loaded, task, splits.held_out, opts.accelerator)
    told = at_chance(task, splits.held_out, known, "the teacher", "held-out")
    doubt = told and f"{told}: it is not fine-tuned for this task"
    if doubt is not None and not (opts.force or opts.quick):
        raise UserInputError(f"{doubt}; give a fine-tuned model, train the teacher longer, or insist with --force.")
    if doubt is not None:
        progress.say(doubt)
    score = task_score(loaded, task, splits.dev, opts.accelerator)
    progress.say(f"the dense model scores {score:.2f} ({task.metric})")
    return Teacher(loaded, splits, curve, score, doubt)


def prune_teacher(
    opts: PruneOptions,
    teacher: Teacher,
    targets: Mapping[str, float],
    work: Path,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """Train one student of a teacher under one method.

    Args:
        targets: linear name to sparsity.
        work: folder of the checkpoints.

    Raises:
        UserInputError: targets that do not fit, or that levels are not below; a loss that is not finite.
    """
    clock, progress = clock or Clock(), progress or SilentProgress()
    method, splits = METHODS[opts.method], teacher.splits
    check_levels(opts, teacher.loaded.linear_shapes, targets)
    steps = opts.step_count(len(splits.train))
    pruned = pruned_steps(steps, PRUNE_SHARE)
    student = copy.deepcopy(teacher.loaded)
    # Before the masks are attached: the originals stay dense.
    grafted = GraftedModel(student, opts.dropout)
    masked = MaskedLinears(student.linears, student.grids(opts.cell_rows))
    batch_size = defaults.QUICK_BATCH if opts.quick else opts.batch_size
    with clock.stage(progress, "choose the first masks"):
        calibration = splits.train.take(range(min(CALIBRATION_ROWS, len(splits.train))))
        batches = [batch.to(opts.accelerator) for batch in sorted_batches(calibration, batch_size)]
        cuts = defaults.QUICK_CUTS if opts.quick else None
        pruning = make_pruning(method, student, masked, targets, pruned, batches, cuts)
        grafted.set_training(opts.dropout)
    trainable = trained(method, student)
    freeze(student.module, [*trainable, *pruning.parameters()])
    terms = method.terms(splits.task.kind, opts.mask_padding)
    taught: LoadedModel | torch.Tensor | None = teacher.loaded if terms.needs_teacher else None
    if terms.needs_teacher and not terms.needs_layers and steps * batch_size >= len(splits.train):
        # The outputs of all rows fit in memory, and from the second epoch on the teacher's passes are saved.
        with clock.stage(progress, "ask the teacher"):
            taught = torch.from_numpy(predict(teacher.loaded, splits.train, device=opts.accelerator))
    objective = GraftingObjective(
        grafted,
        taught,
        StepBatches(splits.train, batch_size, opts.seed),
        terms,
        method.replacing(steps, pruned),
        opts.seed,
        opts.accelerator,
    )
    # Cells are whole: ratios that were found come to an overall one but for a rounding.
    overall = round(overall_sparsity(teacher.loaded.linear_shapes, targets), 3)
    peak = opts.lr or method.peak_lr(overall, teacher.loaded.spec.hidden)
    rate = RestartedDecay(peak, rate_ends(steps, pruned, method.restart))
    config = SparseConfig(
        rate,
        score_rate=SCORE_LR / rate.peak,
        seed=opts.seed,
        evaluate_every=max(1, -(-steps // LOOKS)),
        checkpoint_every=CHECKPOINT_EVERY,
    )
    checkpoint = work / f"{splits.task.name}-{opts.method}-{opts.seed}.checkpoint"
    grids = masked.grids

    def look() -> dict[str, float]:
        return {**looks(student, splits, opts.accelerator), "sparsity": model_sparsity(grids, pruning.masks())}

    with clock.stage(progress, f"train with {opts.method}", steps) as stage:
        # The fields of the method too: a checkpoint of other ones is of another training.
        identity = json.dumps([opts.identity(), asdict(method), sorted(targets.items()), __version__], sort_keys=True)
        run = train_sparse(objective, pruning, trainable, config, look, checkpoint, teller(stage), identity)
    student.module.eval()
    masks, info = _levels(opts, teacher, masked, pruning, targets, work, clock, progress, student)
    with clock.stage(progress, "score the result", len(masks)) as stage:
        for entry, level in zip(info, masks, strict=True):
            if len(masks) > 1:
                apply_masks(masked, level)
            scores = task_scores(student, splits.task, splits.dev, opts.accelerator)
            entry["score"] = scores[splits.task.metric]
            stage.advance()
    told = at_chance(splits.task, splits.dev, scores, "the sparsest level", "development")
    doubt = told and f"{told}: nothing of the task is left"
    if doubt is not None:
        progress.say(doubt)
    # The densest level of a ladder needs the weights that the sparsest drops.
    if len(masks) > 1:
        masked.detach()
    else:
        pruning.detach()
    for parameter in student.module.parameters():
        parameter.requires_grad_(True)
    student.module.to("cpu")
    facts = _facts(opts, method, teacher, run, student, masked, masks, info, steps, targets, peak)
    facts |= {"scores": scores, "doubt": doubt}
    return Pruned(student, masks, info, facts)


def check_accelerator(accelerator: str) -> None:
    """Refuse a GPU that is not there."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserInputError("there is no CUDA device here; leave --accelerator out, or choose cpu.")


def check_levels(opts: PruneOptions, shapes: Mapping[str, tuple[int, int]], targets: Mapping[str, float]) -> None:
    """Refuse a ladder that does not lead down to what the targets of the layers come to."""
    overall = overall_sparsity(shapes, targets)
    if opts.levels and opts.levels[-1] >= overall:
        raise UserInputError(
            f"the levels {list(opts.levels)} do not lead to {overall:.3g}, which the ratios of the layers come to; "
            "give sparsities below it."
        )


def overall_sparsity(shapes: Mapping[str, tuple[int, int]], targets: Mapping[str, float]) -> float:
    """Share of all weights that goes where each linear has a target of its own; what has no target stays."""
    sizes = {name: rows * columns for name, (rows, columns) in shapes.items()}
    return math.fsum(targets.get(name, 0.0) * size for name, size in sizes.items()) / sum(sizes.values())


def _found(opts: PruneOptions, teacher: Teacher, ratios: Ratios | None, work: Path, progress: Progress) -> FoundRatios:
    if ratios is None:
        # `prune` has refused options without either.
        assert opts.sparsity is not None
        return FoundRatios(dict.fromkeys(teacher.loaded.linear_shapes, opts.sparsity), {})
    if isinstance(ratios, RatioSearch):
        # A search works where its processes can share the model.
        teacher.loaded.module.to("cpu")
        found = ratios.run(teacher.loaded, teacher.splits, work, progress)
        teacher.loaded.module.to(opts.accelerator)
        return found
    return FoundRatios(ratios, {})


def _levels(
    opts: PruneOptions,
    teacher: Teacher,
    masked: MaskedLinears,
    pruning: Pruning,
    targets: Mapping[str, float],
    work: Path,
    clock: Clock,
    progress: Progress,
    student: LoadedModel,
) -> tuple[list[LevelMasks], list[dict[str, Any]]]:
    """The masks of the result, densest first; a ladder is trained jointly before."""
    if not opts.levels:
        return [pruning.masks()], [{"name": "L0"}]
    # `PruneOptions` has refused levels for any other kind.
    assert isinstance(pruning, GradualMagnitude)
    rankings = pruning.rankings()
    # The last level is the masks that the training ended with, whatever rounding says.
    final = {name: int(mask.sum()) for name, mask in pruning.masks().items()}
    overall = overall_sparsity(teacher.loaded.linear_shapes, targets)
    cuts = [
        {name: r.cut_for_sparsity(share / overall * targets[name]) for name, r in rankings.items()}
        for share in opts.levels
    ] + [final]
    train_ladder(opts, teacher.loaded, teacher.splits, student, masked, rankings, cuts, work, clock.stage, progress)
    return [level_masks(rankings, cut) for cut in cuts], [{"name": f"L{index}"} for index in range(len(cuts))]


def _facts(
    opts: PruneOptions,
    method: Method,
    teacher: Teacher,
    run: SparseRun,
    student: LoadedModel,
    masked: MaskedLinears,
    masks: list[LevelMasks],
    info: list[dict[str, Any]],
    steps: int,
    targets: Mapping[str, float],
    lr: float,
) -> dict[str, Any]:
    removed = [model_sparsity(masked.grids, level) for level in masks]
    linear = sum(grid.out_features * grid.in_features for grid in masked.grids.values())
    total = sum(parameter.numel() for parameter in student.module.parameters())
    levels = [
        {**entry, "encoder_sparsity": share, "model_sparsity": share * linear / total}
        for entry, share in zip(info, removed, strict=True)
    ]
    chosen = next(record for record in run.curve if record["step"] == run.chosen)
    return {
        "options": asdict(opts),
        "task": teacher.splits.task.name,
        "metric": teacher.splits.task.metric,
        "method": opts.method,
        "title": defaults.METHODS[opts.method],
        "settings": asdict(method),
        "lr": lr,
        "steps": steps,
        "train_rows": len(teacher.splits.train),
        "dense_score": teacher.score,
        "score": info[-1]["score"],
        "loss_points": teacher.score - info[-1]["score"],
        "held_out_score": chosen["held_out"],
        "encoder_sparsity": levels[-1]["encoder_sparsity"],
        "model_sparsity": levels[-1]["model_sparsity"],
        "levels": levels,
        "targets": dict(targets),
        "teacher_doubt": teacher.doubt,
        "chosen_step": run.chosen,
        "curve": run.curve,
        "teacher_curve": teacher.curve,
        "cell_rows": opts.cell_rows,
    }
