"""The paper's first model: train the dense word-level language model from scratch, resumable, and keep it as a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lavolta.errors import UserInputError
from lavolta.files import make_folder, write_whole
from lavolta.models.lm import LmConfig, LmCorpus, Vocabulary, build_lm, load_lm_corpus
from lavolta.models.loaded import LoadedModel
from lavolta.training.dropout import lock_dropout
from lavolta.training.joint import JointConfig, train_joint
from lavolta.training.language import LanguageObjective, LmScore, SampledSoftmax, score_language_model
from lavolta.training.levels import DenseOnly
from lavolta.training.masking import MaskedLinears


@dataclass(frozen=True)
class LmTraining:
    """How the dense language model is trained.

    Args:
        model: shape of the model.
        epochs: passes over the training text.
        sequences, tokens: shape of a batch.
        samples: words drawn for the sampled softmax.
        lr: peak learning rate.
        seed: of the weights and the data order.
    """

    model: LmConfig = field(default_factory=LmConfig)
    epochs: float = 8.0
    sequences: int = 32
    tokens: int = 64
    samples: int = 1500
    lr: float = 2e-3
    seed: int = 0


def train_lm(
    data: Path,
    out: Path,
    training: LmTraining,
    on_step: Callable[[int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Train the dense model, or take it from ``out`` where it is done; returns its scores.

    Args:
        data: folder with the train, valid and test text.
        out: folder for ``model.safetensors``, ``vocab.txt`` and ``result.json``; an interrupted run continues there.
        on_step: called with step, number of steps, and loss.

    Raises:
        UserInputError: wrong text, or ``out`` holds a model of another configuration.
    """
    result_file = out / "result.json"
    wanted = json.loads(json.dumps(asdict(training)))
    corpus = load_lm_corpus(data)
    text = _text_mark(corpus)
    if result_file.exists():
        done = _read_result(out)
        if done["training"] != wanted or done.get("text") != text:
            raise UserInputError(
                f"{out} holds a model of another configuration or of other text; choose another folder or delete it."
            )
        return done
    loaded = build_lm(training.model, corpus.vocabulary, training.seed)
    lock_dropout(loaded.module, training.model.dropout)
    objective = language_objective(loaded, corpus, training, teacher=None)
    steps = max(1, round(training.epochs * objective.steps_per_epoch))
    masked = MaskedLinears(loaded.linears, loaded.grids(1))
    trainable = [p for p in loaded.module.parameters() if p.requires_grad]
    make_folder(out)
    checkpoint = out / "checkpoint.pt"
    loaded.module.train()
    train_joint(
        masked,
        DenseOnly(),
        objective,
        trainable,
        JointConfig(steps=steps, lr=training.lr, grad_clip=0.5, seed=training.seed, checkpoint_every=200),
        checkpoint,
        None if on_step is None else lambda step, loss: on_step(step, steps, loss),
        identity=json.dumps([wanted, text]),
    )
    masked.detach()
    scores = {"valid": score(loaded, corpus.valid, training), "test": score(loaded, corpus.test, training)}
    result = {
        "training": wanted,
        "text": text,
        "train_file": corpus.train_file,
        "train_words": len(corpus.train),
        "steps": steps,
        **{split: asdict(score) for split, score in scores.items()},
    }
    # safetensors refuses two names for one tensor: a tied output layer is stored once, under the word vectors.
    state = {k: v.contiguous() for k, v in loaded.module.state_dict().items() if not _is_tied(k, training.model)}
    write_whole(out / "model.safetensors", save(state))
    write_whole(out / "vocab.txt", corpus.vocabulary.to_bytes())
    # Last: where it is, all the others are.
    write_whole(result_file, f"{json.dumps(result, indent=1)}\n".encode())
    checkpoint.unlink(missing_ok=True)
    return result


def _text_mark(corpus: LmCorpus) -> str:
    """Names a corpus by its words."""
    digest = hashlib.sha256(corpus.vocabulary.to_bytes())
    for split in (corpus.train, corpus.valid, corpus.test):
        digest.update(hashlib.sha256(split.tobytes()).digest())
    return digest.hexdigest()


def load_trained_lm(folder: Path, corpus: LmCorpus) -> tuple[LoadedModel, LmTraining]:
    """The dense model that `train_lm` left in ``folder``.

    Raises:
        UserInputError: the folder holds none, or the text is another one.
    """
    try:
        done = _read_result(folder)["training"]
        training = LmTraining(**{**done, "model": LmConfig(**done["model"])})
        known = Vocabulary.load(folder / "vocab.txt")
        if known != corpus.vocabulary:
            raise UserInputError(
                f"the model in {folder} was trained on other text; give that text, or train another model."
            )
        loaded = build_lm(training.model, corpus.vocabulary, training.seed)
        state = load_file(folder / "model.safetensors")
        if _is_tied("head.out.weight", training.model):
            state["head.out.weight"] = state["embeddings.word.weight"]
        loaded.module.load_state_dict(state)
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserInputError(
            f"{folder} holds no trained language model ({reason}); run `lavolta rt3 train-lm` first."
        ) from error
    lock_dropout(loaded.module, training.model.dropout)
    return loaded, training


def language_objective(
    loaded: LoadedModel, corpus: LmCorpus, training: LmTraining, teacher: LoadedModel | None, **weights: float
) -> LanguageObjective:
    """The training objective of a model on a corpus, distilled from ``teacher`` where there is one."""
    counts = np.bincount(corpus.train, minlength=len(corpus.vocabulary))
    softmax = SampledSoftmax(counts, training.samples)
    return LanguageObjective(
        loaded.module,
        corpus.train,
        softmax,
        training.sequences,
        training.tokens,
        None if teacher is None else teacher.module,
        training.seed,
        **weights,
    )


def score(loaded: LoadedModel, words: NDArray[np.int64], training: LmTraining) -> LmScore:
    """Accuracy and perplexity over the whole vocabulary, in windows of the training length.

    A longer window would put words at positions that training never saw.
    """
    return score_language_model(loaded.module, words, training.tokens)


def _read_result(folder: Path) -> dict[str, Any]:
    """What `train_lm` left in ``result.json``.

    Raises:
        UserInputError: it is missing, or not what `train_lm` writes.
    """
    path = folder / "result.json"
    try:
        done = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(done["training"], dict):
            return dict(done)
        reason = "its training is no object"
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error)
    raise UserInputError(f"{path} is not the result of a language model ({reason}); run `lavolta rt3 train-lm` first.")


def _is_tied(name: str, config: LmConfig) -> bool:
    return config.tie and name == "head.out.weight"
