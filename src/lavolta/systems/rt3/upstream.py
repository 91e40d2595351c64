"""A ladder made before any task is known: an encoder cut and distilled once, from which every task begins.

Pruning is learned from text without labels, of which there is more than a small task has; the paper's own models are
fine-tuned first and pruned after. A task then takes the ladder's ranking and cuts, and adds to its weights what
fine-tuning added to the dense encoder's.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.files import make_folder, write_whole
from lavolta.models.batching import StepBatches, encode_texts
from lavolta.models.hf import load_encoder
from lavolta.models.loaded import LoadedModel
from lavolta.models.tasks import load_task
from lavolta.sparsity.ranking import LayerRanking, level_masks
from lavolta.systems.rt3.cutting import choose_cuts, measure_groups
from lavolta.systems.rt3.probe import CutProbe, compensate, output_distance
from lavolta.systems.rt3.subjects import (
    encoder_parameters,
    named_encoder_parameters,
)
from lavolta.training.encoder import EncoderObjective, LossWeights, encoder_statistics
from lavolta.training.joint import JointConfig, train_joint
from lavolta.training.levels import RankedLevels
from lavolta.training.masking import MaskedLinears
from lavolta.training.oneshot import gradual_rankings

Cuts = list[dict[str, int]]
CALIBRATION_TEXTS, PROBE_TEXTS = 256, 64


@dataclass(frozen=True)
class UpstreamOptions:
    """How the ladder is made.

    Args:
        steps: of joint distillation from the dense encoder.
        lr: peak learning rate.
        sparsities: of the levels, densest first.
        cell_rows: height of a cell.
        batch_size: sentence pairs of a step.
        max_tokens: where a pair is cut: hidden states are learned from short sequences as well, and cheaper.
        hidden_weight: of the hidden states beside the embedding.
        seed: of the data order and the level draws.
    """

    steps: int = 1000
    lr: float = 8e-4
    sparsities: tuple[float, ...] = (0.5, 0.65, 0.75)
    cell_rows: int = 4
    batch_size: int = 32
    max_tokens: int = 64
    hidden_weight: float = 10.0
    seed: int = 0


@dataclass(frozen=True)
class Upstream:
    """A finished ladder.

    Args:
        options: what it was made with.
        base: parameters of the dense encoder that it was made from, by canonical name.
        weights: the ladder's parameters, by canonical name; shapes as in ``base``.
        rankings: by linear.
        cuts: one cut per linear for each level, densest first.
    """

    options: UpstreamOptions
    base: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    rankings: dict[str, LayerRanking]
    cuts: Cuts

    def begin(self, student: LoadedModel) -> None:
        """Give a copy of a fine-tuned dense model the ladder's weights, plus what fine-tuning changed.

        Raises:
            UserInputError: the model is not made from the encoder that the ladder was made from.
        """
        own = dict(student.module.named_parameters())
        strange = [n for n, w in self.weights.items() if n not in own or own[n].shape != w.shape]
        if strange:
            raise UserInputError(
                f"the ladder has a weight {strange[0]} that the model lacks; make one from its encoder."
            )
        with torch.no_grad():
            for name, weight in self.weights.items():
                own[name].add_(weight - self.base[name])


def pair_text(data: Path, tasks: Sequence[str]) -> list[tuple[str, str]]:
    """Sentence pairs of GLUE training splits, without labels; a pair stands once."""
    pairs: list[Any] = [pair for name in tasks for pair in load_task(name, data).train.texts]
    return list(dict.fromkeys(pairs))


def upstream_ladder(
    source: str,
    pairs: Sequence[tuple[str, str]],
    file: Path,
    options: UpstreamOptions,
    on_step: Callable[[int, float], None] | None = None,
) -> Upstream:
    """Make the ladder of an encoder, or take it from ``file``; resumable through a checkpoint beside the file.

    Args:
        source: what `load_encoder` takes.
        pairs: text to distil on.

    Raises:
        UserInputError: no text, or a file that was made with other options.
    """
    dense = load_encoder(source, "embedding")
    base = {name: p.detach() for name, p in named_encoder_parameters(dense).items()}
    mark = json.dumps([source, len(pairs), asdict(options)], sort_keys=True)
    grids = dense.grids(options.cell_rows)
    if file.exists():
        weights, ranks, cuts = _restore(file, mark)
        return Upstream(options, base, weights, {n: LayerRanking(grids[n], r) for n, r in ranks.items()}, cuts)
    train = encode_texts(dense, list(pairs), options.max_tokens)
    some = np.random.default_rng(options.seed).permutation(len(train))
    calibration = [train.batch(some[i : i + 32]) for i in range(0, min(CALIBRATION_TEXTS, len(some)), 32)]
    stats = encoder_statistics(dense, calibration, hessians=True)
    rankings = gradual_rankings(dense.linears, grids, stats, options.sparsities[-1])
    student = copy.deepcopy(dense)
    masked = MaskedLinears(student.linears, grids)
    distance = output_distance(dense, student, train.batch(some[-PROBE_TEXTS:]))
    probe = CutProbe(dense.linears, masked, stats, distance)
    cuts = choose_cuts(measure_groups(rankings, probe), options.sparsities)
    make_folder(file.parent)
    checkpoint = file.with_suffix(".checkpoint")
    if not checkpoint.exists():
        compensate(dense.linears, masked, stats, [level_masks(rankings, cut) for cut in cuts])
    student.module.eval()
    objective = EncoderObjective(
        student,
        StepBatches(train, options.batch_size, options.seed),
        dense,
        LossWeights(0.0, 1.0, options.hidden_weight),
    )
    config = JointConfig(options.steps, options.lr, seed=options.seed, checkpoint_every=50)
    trainable = encoder_parameters(student)
    train_joint(masked, RankedLevels(rankings, cuts), objective, trainable, config, checkpoint, on_step, mark)
    masked.detach()
    weights = {name: p.detach() for name, p in named_encoder_parameters(student).items()}
    tensors = {f"weight.{name}": w.contiguous() for name, w in weights.items()}
    tensors |= {f"rank.{name}": torch.from_numpy(r.rank) for name, r in rankings.items()}
    write_whole(file, save(tensors, {"made": mark, "cuts": json.dumps(cuts)}))
    checkpoint.unlink(missing_ok=True)
    return Upstream(options, base, weights, rankings, cuts)


def _restore(file: Path, mark: str) -> tuple[dict[str, Tensor], dict[str, np.ndarray], Cuts]:
    try:
        with safe_open(file, "pt") as stored:
            notes = stored.metadata() or {}
            if notes.get("made") != mark:
                raise UserInputError(f"{file} was made with other options or text; delete it to make it again.")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            cuts: Cuts = json.loads(notes["cuts"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserInputError(f"{file} cannot be read ({reason}); delete it to make it again.") from error
    weights = {name.removeprefix("weight."): t for name, t in tensors.items() if name.startswith("weight.")}
    ranks = {name.removeprefix("rank."): t.numpy() for name, t in tensors.items() if name.startswith("rank.")}
    return weights, ranks, cuts
