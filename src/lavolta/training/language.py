"""Objective and score of a word-level language model: sampled softmax in training, the whole vocabulary in scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.models.transformer import Transformer
from lavolta.training.distill import hidden_loss, soft_label_loss


@dataclass(frozen=True)
class LmBatch:
    """``inputs`` and ``targets``: ``(sequences, tokens) int64``, the targets one word later."""

    inputs: Tensor
    targets: Tensor


class SampledSoftmax:
    """Cross-entropy over the words of the batch and a draw of others, corrected for their chance to be candidates.

    Subtracting the log of that chance puts the minimum of the loss where the full softmax has it (Jean et al. 2015, "On
    using very large target vocabulary", section 3; Bengio and Senecal 2008). The value of the loss is another one.

    Args:
        counts: ``(vocab,)``, how often each word occurs in the training text.
        samples: draws per step from the counts to the power 0.75.
    """

    def __init__(self, counts: NDArray[np.int64], samples: int) -> None:
        frequency = torch.from_numpy(np.maximum(counts, 1)).double()
        proposal = frequency**0.75
        self._frequency = frequency / frequency.sum()
        self._proposal = (proposal / proposal.sum()).float()
        self._samples = samples
        self._log_chances: dict[int, Tensor] = {}

    def log_chance(self, targets: int) -> Tensor:
        """Log of the chance of each word, ``(vocab,)``, to be a candidate beside ``targets`` target words."""
        if targets not in self._log_chances:
            absent = targets * torch.log1p(-self._frequency) + self._samples * torch.log1p(-self._proposal.double())
            self._log_chances[targets] = torch.log(-torch.expm1(absent)).float()
        return self._log_chances[targets]

    def candidates(self, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Candidate words ``(c,)`` and the place of every target among them, ``targets`` flattened."""
        drawn = torch.multinomial(self._proposal, self._samples, replacement=True, generator=generator)
        words, places = torch.unique(torch.cat([targets.reshape(-1), drawn]), return_inverse=True)
        return words, places[: targets.numel()]

    def logits(self, module: Transformer, hidden: Tensor, words: Tensor) -> Tensor:
        """Corrected logits ``(n, c)`` of the candidates for the hidden states ``(n, hidden)`` of ``n`` targets."""
        out = module.head.out
        if out is None:
            raise UserInputError("a language model needs an output layer; this model has none.")
        return functional.linear(hidden, out.weight[words], out.bias[words]) - self.log_chance(len(hidden))[words]


class LanguageObjective:
    """Next-word loss of the live model, with the dense teacher's distribution and hidden states where there is one.

    Args:
        module: the model that is trained.
        words: ``(n,) int64`` training text.
        softmax: the sampled softmax.
        sequences, tokens: shape of a batch.
        teacher: the dense model; ``None`` trains on the text alone.
        seed: of the offsets and of the draws.
        distill_weight, hidden_weight: of the teacher's distribution and hidden states beside the text's loss.
    """

    def __init__(
        self,
        module: Transformer,
        words: NDArray[np.int64],
        softmax: SampledSoftmax,
        sequences: int,
        tokens: int,
        teacher: Transformer | None,
        seed: int,
        distill_weight: float = 1.0,
        hidden_weight: float = 1.0,
    ) -> None:
        if len(words) < sequences * (tokens + 1):
            raise UserInputError(
                f"{len(words)} words are too few for {sequences} sequences of {tokens}; give more text or a smaller "
                "batch."
            )
        self.module, self.teacher, self._softmax = module, teacher, softmax
        self._tokens, self._seed = tokens, seed
        self._columns = len(words) // sequences
        self._data = torch.from_numpy(words[: self._columns * sequences]).view(sequences, self._columns)
        self.steps_per_epoch = max(1, (self._columns - 1) // tokens)
        self._weights = (distill_weight, hidden_weight)

    def batch(self, step: int) -> LmBatch:
        epoch, place = divmod(step, self.steps_per_epoch)
        # Each epoch starts at another word, so that sequences are cut at other places.
        slack = self._columns - 1 - self.steps_per_epoch * self._tokens
        shift = int(np.random.default_rng((self._seed, epoch)).integers(0, slack + 1))
        start = shift + place * self._tokens
        return LmBatch(self._data[:, start : start + self._tokens], self._data[:, start + 1 : start + self._tokens + 1])

    def split(self, batch: LmBatch, parts: int) -> Sequence[LmBatch]:
        return [LmBatch(x, y) for x, y in zip(batch.inputs.chunk(parts), batch.targets.chunk(parts), strict=True)]

    def loss(self, batch: LmBatch) -> Tensor:
        states = self.module.all_hidden(batch.inputs)
        # The draw depends on the targets, so that a resumed run repeats it.
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + int(batch.targets.sum())) % (1 << 63))
        words, places = self._softmax.candidates(batch.targets, generator)
        width = states[-1].shape[-1]
        logits = self._softmax.logits(self.module, states[-1].reshape(-1, width), words)
        loss = functional.cross_entropy(logits, places)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            taught = self.teacher.all_hidden(batch.inputs)
            target = self._softmax.logits(self.teacher, taught[-1].reshape(-1, width), words)
        distill, hidden = self._weights
        real = torch.ones(batch.inputs.shape)
        return loss + distill * soft_label_loss(logits, target) + hidden * hidden_loss(states[1:], taught[1:], real)


@dataclass(frozen=True)
class LmScore:
    """Next-word accuracy (0 to 1) and perplexity over ``words`` predictions of the whole vocabulary."""

    accuracy: float
    perplexity: float
    words: int


@torch.no_grad()
def score_language_model(module: Transformer, words: NDArray[np.int64], tokens: int, batch: int = 16) -> LmScore:
    """Score a text ``(n,)`` in windows of ``tokens`` words; every word but the first is predicted once.

    The first half of every window but the first is context only, so that no word is predicted from little text.
    """
    if len(words) < 2:
        raise UserInputError("a text of fewer than 2 words cannot be scored; give more text.")
    stride = max(1, tokens // 2)
    right = 0
    total = 0.0
    count = 0
    starts = list(range(0, max(1, len(words) - 1 - (tokens - stride)), stride))
    text = torch.from_numpy(words)
    was_training = module.training
    module.eval()
    try:
        for first in range(0, len(starts), batch):
            for start, window in _windows(text, starts[first : first + batch], tokens):
                hidden = module.hidden(window[:, :-1])
                skip = 0 if start == 0 else tokens - stride
                kept = hidden[:, skip:].reshape(-1, hidden.shape[-1])
                target = window[:, 1 + skip :].reshape(-1)
                logits = module.logits(kept)
                total += float(functional.cross_entropy(logits, target, reduction="sum"))
                right += int((logits.argmax(-1) == target).sum())
                count += len(target)
    finally:
        module.train(was_training)
    # A model that diverged has a loss whose exponential no float holds: its perplexity is infinite.
    perplexity = float(torch.tensor(total / count, dtype=torch.float64).exp())
    return LmScore(right / count, perplexity, count)


def _windows(text: Tensor, starts: Sequence[int], tokens: int) -> list[tuple[int, Tensor]]:
    """Windows of equal length stacked, ``(start, (n, tokens + 1))``; the first and the last window stand alone."""
    groups: list[tuple[int, Tensor]] = []
    whole = []
    for start in starts:
        piece = text[start : start + tokens + 1]
        if start == 0 or len(piece) < tokens + 1:
            groups.append((start, piece.unsqueeze(0)))
        else:
            whole.append(piece)
    if whole:
        groups.append((starts[-1], torch.stack(whole)))
    return groups
