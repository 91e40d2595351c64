"""Compress a trained Transformer into one bundle with a level for every clock of a device."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lavolta import __version__
from lavolta.devices.loading import load as load_device
from lavolta.devices.profile import DeviceProfile
from lavolta.errors import UserInputError
from lavolta.models.batching import Encoded, StepBatches, encode_texts, sorted_batches
from lavolta.models.export import export_bundle
from lavolta.models.hf import load_encoder
from lavolta.models.hf_decoders import is_decoder, load_decoder
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.models.marks import model_mark, task_mark
from lavolta.models.tasks import load_task
from lavolta.progress import Progress, SilentProgress
from lavolta.runtime.bundle import BundleFile, made_with
from lavolta.runtime.engine import open_bundle
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.ranking import level_masks
from lavolta.stages import Clock, teller
from lavolta.systems.rt3.cutting import GRID, choose_cuts, layer_groups, measure_groups
from lavolta.systems.rt3.judging import Judge, fidelity_judge, task_judge
from lavolta.systems.rt3.levels import LevelPlan, plan_levels
from lavolta.systems.rt3.options import CompressOptions, fingerprint, text_of
from lavolta.systems.rt3.probe import CutProbe, compensate, output_distance
from lavolta.systems.rt3.subjects import (
    GlueTraining,
    encoder_parameters,
    glue_subject,
)
from lavolta.training.encoder import EncoderObjective, LossWeights, encoder_statistics
from lavolta.training.joint import JointConfig, train_joint
from lavolta.training.levels import RankedLevels
from lavolta.training.masking import MaskedLinears
from lavolta.training.oneshot import gradual_rankings
from lavolta.unfinished import TEACHERS, begin_work, remove_work

DEFAULT_CELL_ROWS = 4
CALIBRATION_TEXTS = 256
PROBE_TEXTS = 64
TRAIN_TOKENS = 64
CHECKPOINT_EVERY = 50


@dataclass
class _Material:
    """The dense model with what it learns from.

    Args:
        train: sequences for calibration and training.
        probe: a batch on which cuts are judged.
        weights: of what a student learns from.
        judge: what levels are measured by.
    """

    dense: LoadedModel
    train: Encoded
    probe: Batch
    text_source: str
    weights: LossWeights
    judge: Judge
    score_name: str | None = None
    dense_score: float | None = None


def compress(
    source: str,
    *,
    out: str | Path,
    text: str | Path | None = None,
    task: str | None = None,
    data: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Compress a model into a bundle; an interrupted call continues where it was when it is repeated.

    Args:
        source: a folder with a BERT, DistilBERT or RoBERTa encoder, a GPT-2, Llama, Mistral or Qwen2 decoder, or the
            packaged ``all-MiniLM-L6-v2``.
        out: the bundle to write; work in progress is kept beside it in ``<out>.work`` until it is done, and begun anew
            when the options, the model or the text are others.
        text, task, data, options: see `CompressOptions`.

    Returns:
        Plain data: the options, the plan, per level its sparsity and kept share of each linear, and the seconds of each
        stage that this call ran.

    Raises:
        UserInputError: unknown model or device, text that cannot be read, options outside their range.
        InfeasibleError: no level can keep the deadline.
        BundleError: the bundle cannot be written.
    """
    opts = CompressOptions(
        source=str(source),
        text=None if text is None else str(text),
        task=task,
        data=None if data is None else str(data),
        **options,
    )
    progress = progress or SilentProgress()
    out = Path(out)
    if not out.parent.is_dir():
        raise UserInputError(f"there is no folder {out.parent} for the bundle; make it first.")
    if not os.access(out.parent, os.W_OK) or (out.exists() and not out.is_file()):
        raise UserInputError(f"{out} cannot be written; choose a file in a folder that you may write to.")
    mark = fingerprint(opts)
    if out.exists():
        done = _finished(out, mark)
        if done is not None:
            progress.say(f"{out} is already made with these options")
            return {**done, "seconds": {}}
    profile = load_device(opts.device)
    clock = Clock()
    work = out.with_name(out.name + ".work")
    torch.manual_seed(opts.seed)
    with clock.stage(progress, "read the model and the text"):
        material = _prepare(opts, profile, work, mark, progress)
    dense, cell_rows = material.dense, opts.cell_rows or DEFAULT_CELL_ROWS
    plan = _plan(opts, profile, dense.spec)
    begin_work(work, mark, keep=TEACHERS)
    grids = dense.grids(cell_rows)
    with clock.stage(progress, "calibrate"):
        calibration = [
            material.train.batch(range(i, min(i + 32, CALIBRATION_TEXTS, len(material.train))))
            for i in range(0, min(CALIBRATION_TEXTS, len(material.train)), 32)
        ]
        stats = encoder_statistics(dense, calibration, hessians=True)
        sparsest = plan.levels[-1].sparsity
        rankings = gradual_rankings(dense.linears, grids, stats, max(sparsest, 0.5))
    student = copy.deepcopy(dense)
    masked = MaskedLinears(student.linears, grids)
    groups = layer_groups(list(grids))
    with clock.stage(progress, "search the cuts", len(groups) * (len(GRID) - 1)) as stage:
        probe = CutProbe(dense.linears, masked, stats, output_distance(dense, student, material.probe))
        tables = measure_groups(rankings, probe, stage.advance)
        cuts = choose_cuts(tables, [level.sparsity for level in plan.levels])
    masks = [level_masks(rankings, c) for c in cuts]
    with clock.stage(progress, "compensate"):
        compensate(dense.linears, masked, stats, masks)
    if opts.mode == "distill":
        with clock.stage(progress, "distil all levels", opts.steps) as stage:
            identity = json.dumps([sorted(cut.items()) for cut in cuts])
            levels = RankedLevels(rankings, cuts)
            _distil(opts, material, student, masked, levels, work / "training.pt", identity, stage)
    masked.detach()
    level_info: list[dict[str, Any]] = [{"name": level.name, "freq_mhz": level.freq_mhz} for level in plan.levels]
    summary = {
        "mark": mark,
        "options": asdict(opts),
        "deadline_ms": plan.deadline_ms,
        "skipped_mhz": list(plan.skipped_mhz),
        "text_source": material.text_source,
        "dense_score": material.dense_score,
        "score_name": material.score_name,
        "judged_texts": material.judge.texts,
    }

    def write(file: Path) -> None:
        export_bundle(
            student,
            masks,
            level_info,
            cell_rows,
            file,
            precision=opts.precision,
            sparsity_info={"ranking": "free", "saliency": "second-order, gradual"},
            provenance={"compress": summary},
            device={"name": profile.name, "tokens": opts.tokens, "threads": opts.threads},
        )

    judge = material.judge
    with clock.stage(progress, "judge every level", judge.steps) as stage:
        # What the engine answers is judged, in the precision of the bundle, not what was trained.
        trial = work / "unjudged.lavolta"
        write(trial)
        with open_bundle(trial) as model:
            for info, value in zip(level_info, judge.rate(model, stage.advance), strict=True):
                info[judge.field] = value
    with clock.stage(progress, "write the bundle"):
        write(out)
    remove_work(work)
    result = _finished(out, mark)
    if result is None:
        raise UserInputError(f"{out} was replaced while it was being written; run the command again.")
    return {**result, "seconds": clock.seconds}


def _plan(opts: CompressOptions, profile: DeviceProfile, spec: ModelSpec) -> LevelPlan:
    return plan_levels(
        profile,
        spec,
        opts.cell_rows or DEFAULT_CELL_ROWS,
        opts.tokens,
        opts.deadline_ms,
        opts.levels,
        opts.threads,
        opts.precision,
        opts.max_sparsity,
    )


def _prepare(opts: CompressOptions, profile: DeviceProfile, work: Path, mark: str, progress: Progress) -> _Material:
    if opts.task is not None and opts.data is not None:
        # Fine-tuning takes minutes; that no level can meet the deadline should not come out after it.
        _plan(opts, profile, load_encoder(opts.source, "embedding").spec)
        begin_work(work, mark, keep=TEACHERS)
        # Named by all that it depends on, it serves when another option of the compression is tried.
        training = GlueTraining(seed=opts.seed)
        content = [__version__, asdict(training), model_mark(opts.source), task_mark(load_task(opts.task, opts.data))]
        teacher = work / TEACHERS / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        subject = glue_subject(opts.source, opts.task, Path(opts.data), teacher, training)
        pairs = subject.train.batch(range(min(PROBE_TEXTS, len(subject.train))))
        dense_score = subject.score(subject.dense)
        progress.say(f"the dense model scores {dense_score:.2f} ({subject.task.metric})")
        return _Material(
            subject.dense,
            subject.train,
            pairs,
            f"{subject.name} training data",
            subject.weights,
            task_judge(subject.task, subject.dev),
            subject.task.metric,
            dense_score,
        )
    text = text_of(opts)
    dense = load_decoder(opts.source) if is_decoder(opts.source) else load_encoder(opts.source, "embedding")
    train = encode_texts(dense, text.train, TRAIN_TOKENS)
    probe = next(sorted_batches(encode_texts(dense, text.train[-PROBE_TEXTS:], TRAIN_TOKENS), PROBE_TEXTS))
    weights = LossWeights(label=0.0, output=1.0, hidden=1.0)
    return _Material(dense, train, probe, text.source, weights, fidelity_judge(dense, text.held_out))


def _distil(
    opts: CompressOptions,
    material: _Material,
    student: LoadedModel,
    masked: MaskedLinears,
    levels: RankedLevels,
    checkpoint: Path,
    identity: str,
    stage: Any,
) -> None:
    source = StepBatches(material.train, opts.batch_size, opts.seed)
    objective = EncoderObjective(student, source, material.dense, material.weights)
    # Dropout off: the teacher regularizes, and every level should see the same function.
    student.module.eval()
    config = JointConfig(steps=opts.steps, lr=opts.lr, seed=opts.seed, checkpoint_every=CHECKPOINT_EVERY)
    trainable = encoder_parameters(student)
    if not train_joint(masked, levels, objective, trainable, config, checkpoint, teller(stage), identity=identity):
        # All of it was done by an earlier call: no step has told so.
        stage.advance(opts.steps)


def _finished(out: Path, mark: str) -> dict[str, Any] | None:
    """What `compress` returns for a bundle that these options made; ``None`` for any other bundle."""
    made = made_with(out, "compress")
    if made.get("mark") != mark:
        return None
    bundle = BundleFile.open(out)
    shapes = bundle.linears
    cell_rows = int(bundle.manifest["cell_rows"])
    levels = []
    for level in bundle.manifest["levels"]:
        kept = {
            name: min(1.0, count * cell_rows / (shapes[name][0] * shapes[name][1]))
            for name, count in level["kept_cells"].items()
        }
        shown = {key: level[key] for key in ("name", "sparsity", "freq_mhz", "score", "fidelity") if key in level}
        levels.append({**shown, "kept_by_layer": kept})
    return {**made, "out": str(out), "levels": levels, "cell_rows": cell_rows, "bytes": out.stat().st_size}
