"""The last stage of a ladder: all levels of one pruned model trained jointly on one set of weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lavolta.models.batching import StepBatches
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.progress import Progress, Stage
from lavolta.sparsity.ranking import LayerRanking
from lavolta.stages import teller
from lavolta.systems.spd import defaults
from lavolta.systems.spd.options import PruneOptions
from lavolta.training.encoder import EncoderObjective, LossWeights
from lavolta.training.joint import JointConfig, train_joint
from lavolta.training.levels import RankedLevels
from lavolta.training.masking import MaskedLinears
from lavolta.training.task_data import TaskSplits

SHARE, LR = 1 / 4, 3e-4
"""Of the steps of the pruning, and the peak learning rate."""

Stages = Callable[[Progress, str, int | None], AbstractContextManager[Stage]]


def train_ladder(
    opts: PruneOptions,
    teacher: LoadedModel,
    splits: TaskSplits,
    student: LoadedModel,
    masked: MaskedLinears,
    rankings: Mapping[str, LayerRanking],
    cuts: Sequence[Mapping[str, int]],
    work: Path,
    stages: Stages,
    progress: Progress,
) -> None:
    """Distil every level, and random ones between them, from the teacher; resumable.

    Args:
        masked: the student's layers; no mask is left on them.
        cuts: of the levels, densest first.
    """
    steps = max(1, round(SHARE * opts.step_count(len(splits.train))))
    source = StepBatches(splits.train, defaults.QUICK_BATCH if opts.quick else opts.batch_size, opts.seed)

    def moved(step: int) -> Batch:
        return source(step).to(opts.accelerator)

    objective = EncoderObjective(student, moved, teacher, LossWeights(1.0, 1.0, 10.0))
    # Dropout off: every level should see the same function.
    student.module.eval()
    levels = RankedLevels(rankings, cuts)
    levels.move_to(opts.accelerator)
    with stages(progress, "train all levels", steps) as stage:
        train_joint(
            masked,
            levels,
            objective,
            [p for name, p in student.module.named_parameters() if name.startswith("layers.")],
            JointConfig(steps=steps, lr=LR, seed=opts.seed, checkpoint_every=50),
            work / f"{splits.task.name}-ladder-{opts.seed}.checkpoint",
            teller(stage),
            identity=json.dumps([opts.identity(), [sorted(cut.items()) for cut in cuts]], sort_keys=True),
        )
