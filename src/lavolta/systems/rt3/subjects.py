"""What RT3 is tried on: the paper's language model, and an encoder fine-tuned on a task."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.files import make_folder, write_whole
from lavolta.models.batching import Encoded, StepBatches, encode_pairs, encode_texts, predict
from lavolta.models.hf import load_encoder, with_head
from lavolta.models.lm import LmCorpus, load_lm_corpus
from lavolta.models.loaded import Batch, LoadedModel
from lavolta.models.tasks import TaskData, load_task
from lavolta.systems.rt3.lm import LmTraining, language_objective, load_trained_lm, score
from lavolta.training.dropout import lock_dropout
from lavolta.training.encoder import EncoderObjective, LossWeights, encoder_statistics
from lavolta.training.joint import JointConfig, Objective, train_joint
from lavolta.training.levels import DenseOnly
from lavolta.training.masking import MaskedLinears
from lavolta.training.saliency import LinearStats, collect_stats

OnStep = Callable[[int, float], None]

"""Sequences that the engine gets at once."""
STATISTICS_WINDOWS, STATISTICS_WINDOW = 64, 64
"""Windows of the training text that a language model is calibrated on, and the words of each."""


class Subject(Protocol):
    """A dense, trained model with its data: what is compressed, how it learns and how it is scored."""

    name: str
    dense: LoadedModel
    tokens: int
    """Tokens of one inference on the device."""

    def objective(self, student: LoadedModel, distil: bool, seed: int) -> Objective:
        """The loss of a student on the task; with ``distil`` against the dense model too."""

    def score(self, loaded: LoadedModel) -> float:
        """The task's score on the evaluation split, 0 to 100."""

    def statistics(self, hessians: bool) -> dict[str, LinearStats]:
        """What the linears of the dense model see on training data."""

    def trainable(self, student: LoadedModel) -> list[Tensor]:
        """The parameters that recover from pruning, in a stable order."""


@dataclass
class GlueSubject:
    """An encoder fine-tuned on one task; scored on its development split."""

    name: str
    dense: LoadedModel
    task: TaskData
    train: Encoded
    dev: Encoded
    batch_size: int
    weights: LossWeights
    extra: Encoded | None = None
    """Text without labels that a distilled student sees too, every other step."""
    tokens: int = 128

    def source(self, seed: int) -> Callable[[int], Batch]:
        return StepBatches(self.train, self.batch_size, seed)

    def objective(self, student: LoadedModel, distil: bool, seed: int) -> Objective:
        source = self.source(seed)
        if distil and self.extra is not None:
            source = Alternating(source, StepBatches(self.extra, self.batch_size, seed))
        return EncoderObjective(student, source, self.dense if distil else None, self.weights)

    def score(self, loaded: LoadedModel) -> float:
        return glue_score(loaded, self.task, self.dev)

    def statistics(self, hessians: bool) -> dict[str, LinearStats]:
        rows = np.random.default_rng(0).permutation(len(self.train))[:256]
        batches = [self.train.batch(rows[i : i + 32]) for i in range(0, len(rows), 32)]
        return encoder_statistics(self.dense, batches, hessians)

    def trainable(self, student: LoadedModel) -> list[Tensor]:
        return encoder_parameters(student)


@dataclass
class LmSubject:
    """The word-level language model; scored by next-word accuracy on the test text."""

    name: str
    dense: LoadedModel
    corpus: LmCorpus
    training: LmTraining
    score_words: int = 0
    """Words of the test text that are scored; 0 scores all."""
    tokens: int = 64

    def objective(self, student: LoadedModel, distil: bool, seed: int) -> Objective:
        return language_objective(
            student, self.corpus, replace(self.training, seed=seed + 1000), self.dense if distil else None
        )

    def score(self, loaded: LoadedModel) -> float:
        words = self.corpus.test[: self.score_words] if self.score_words else self.corpus.test
        return 100.0 * score(loaded, words, self.training).accuracy

    def statistics(self, hessians: bool) -> dict[str, LinearStats]:
        tokens = min(STATISTICS_WINDOW, self.dense.spec.max_tokens, len(self.corpus.train))
        starts = np.linspace(0, len(self.corpus.train) - tokens, STATISTICS_WINDOWS).astype(int)
        windows = torch.from_numpy(np.stack([self.corpus.train[s : s + tokens] for s in starts]))
        self.dense.module.eval()
        return collect_stats(self.dense.linears, torch.split(windows, 16), self.dense.module.hidden, hessians=hessians)

    def trainable(self, student: LoadedModel) -> list[Tensor]:
        return encoder_parameters(student)


class Alternating:
    """Batches of two sources in turn."""

    def __init__(self, first: Callable[[int], Batch], second: Callable[[int], Batch]) -> None:
        self._sources = (first, second)

    def __call__(self, step: int) -> Batch:
        return self._sources[step % 2](step // 2)


def encoder_parameters(student: LoadedModel) -> list[Tensor]:
    """What recovers from pruning, in a stable order; see `named_encoder_parameters`."""
    return list(named_encoder_parameters(student).values())


def named_encoder_parameters(student: LoadedModel) -> dict[str, Tensor]:
    """Everything but the embeddings (and an output layer as large as the vocabulary, unless it is pruned too)."""
    whole_head = student.spec.task == "language-model" and not student.packed_head
    frozen = ("embeddings.", "head.out.") if whole_head else ("embeddings.",)
    return {name: p for name, p in student.module.named_parameters() if not name.startswith(frozen)}


def glue_score(loaded: LoadedModel, task: TaskData, encoded: Encoded) -> float:
    """The task's own metric on a tokenised split, 0 to 100."""
    assert encoded.labels is not None
    return 100.0 * task.score(predict(loaded, encoded), encoded.labels)[task.metric]


@dataclass(frozen=True)
class GlueTraining:
    """How a dense encoder is fine-tuned on a task."""

    epochs: float = 3.0
    lr: float = 1e-4
    batch_size: int = 32
    max_tokens: int = 128
    pooling: str = "mean"
    dropout: float = 0.1
    seed: int = 0


EXTRA_TOKENS = 64
"""Where text without labels is cut: hidden states are learned from short sequences as well, and cheaper."""


def glue_subject(
    source: str,
    task_name: str,
    data: Path,
    cache: Path,
    training: GlueTraining,
    on_step: OnStep | None = None,
    *,
    weights: LossWeights | None = None,
    extra_tasks: Sequence[str] = (),
) -> GlueSubject:
    """Fine-tune the dense encoder on a task, or take it from ``cache``.

    Args:
        source: what `load_encoder` takes.
        data: folder of the task, as `load_task` takes it.
        cache: folder for the dense model, one for each task and seed.
        weights: of a student's loss; by default the label and the outputs once, the hidden states ten times.
        extra_tasks: tasks of ``data`` whose training pairs, without their labels, are distillation text too.

    Raises:
        UserInputError: wrong data, or a model in ``cache`` that was trained from another source or in another way.
    """
    task = load_task(task_name, data)
    loaded = with_head(
        load_encoder(source, "embedding"),
        task.outputs,
        task.kind,
        training.seed,
        labels=task.labels,
        pooling=training.pooling,
        dropout=training.dropout,
    )
    lock_dropout(loaded.module, training.dropout)
    train = encode_pairs(loaded, task.train, training.max_tokens)
    dev = encode_pairs(loaded, task.dev, training.max_tokens)
    extra = None
    if extra_tasks:
        splits = [load_task(name, data).train for name in extra_tasks]
        texts: list[Any] = [text for split in splits for text in split.texts]
        extra = encode_texts(loaded, texts, EXTRA_TOKENS)
    subject = GlueSubject(
        task.name, loaded, task, train, dev, training.batch_size, weights or LossWeights(1.0, 1.0, 10.0), extra
    )
    saved = cache / f"{task.name}-dense-{training.seed}.safetensors"
    identity = {"training": json.dumps(asdict(training), sort_keys=True), "source": json.dumps(source)}
    if saved.exists():
        _restore(saved, loaded, identity)
        return subject
    objective = EncoderObjective(loaded, subject.source(training.seed), None, LossWeights(1.0, 0.0, 0.0))
    steps = max(1, round(training.epochs * -(-len(train) // training.batch_size)))
    masked = MaskedLinears(loaded.linears, loaded.grids(1))
    loaded.module.train()
    make_folder(cache)
    checkpoint = cache / f"{task.name}-dense-{training.seed}.checkpoint"
    config = JointConfig(steps=steps, lr=training.lr, seed=training.seed)
    train_joint(
        masked,
        DenseOnly(),
        objective,
        encoder_parameters(loaded),
        config,
        checkpoint,
        on_step,
        identity=json.dumps([task.name, identity]),
    )
    masked.detach()
    loaded.module.eval()
    write_whole(saved, save({k: v.contiguous() for k, v in loaded.module.state_dict().items()}, identity))
    checkpoint.unlink(missing_ok=True)
    return subject


def _restore(saved: Path, loaded: LoadedModel, identity: dict[str, str]) -> None:
    """Weights of an earlier fine-tuning, where it was the same one."""
    try:
        with safe_open(saved, "pt") as file:
            found = file.metadata() or {}
        if {k: json.loads(v) for k, v in found.items()} != {k: json.loads(v) for k, v in identity.items()}:
            raise UserInputError(f"{saved} was trained from another model or in another way; delete it to train again.")
        loaded.module.load_state_dict(load_file(saved))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserInputError(f"{saved} cannot be read ({reason}); delete it to train again.") from error
    loaded.module.eval()


def lm_subject(data: Path, dense: Path, score_words: int = 0) -> LmSubject:
    """The language model that `train_lm` left in ``dense``, on ``data``; ``score_words`` as in `LmSubject`."""
    corpus = load_lm_corpus(data)
    loaded, training = load_trained_lm(dense, corpus)
    loaded.module.eval()
    return LmSubject("wikitext2", loaded, corpus, training, score_words)


def fresh_student(subject: Subject) -> LoadedModel:
    """A copy of the dense model to prune and train."""
    student = copy.deepcopy(subject.dense)
    student.module.train()
    return student
