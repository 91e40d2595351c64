"""The language model's loss and score: sampled softmax against the full one, windows against one word at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lavolta.errors import UserInputError
from lavolta.models.lm import LmConfig, Vocabulary, build_lm
from lavolta.models.transformer import Transformer
from lavolta.training.language import LanguageObjective, SampledSoftmax, score_language_model

COUNTS = np.array([40, 25, 15, 10, 5, 3, 2, 0])
WORDS = len(COUNTS)


def language_model(seed: int = 0, **changes: Any) -> Transformer:
    words = tuple(f"w{i}" for i in range(WORDS - 2))
    sizes = {"hidden": 8, "heads": 2, "ffn": 6, "max_tokens": 16, "dropout": 0.0}
    module = build_lm(LmConfig(**{**sizes, **changes}), Vocabulary(("<unk>", "<eos>", *words)), seed).module
    assert module.head.out is not None
    with torch.no_grad():
        module.head.out.bias.copy_(torch.randn(WORDS, generator=torch.Generator().manual_seed(seed)))
    return module


def with_output(layer: nn.Linear) -> Any:
    """A model of which only the output layer matters."""
    return SimpleNamespace(head=SimpleNamespace(out=layer))


def test_the_chance_to_be_a_candidate_is_its_frequency() -> None:
    softmax = SampledSoftmax(COUNTS, samples=3)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    frequency = np.maximum(COUNTS, 1) / np.maximum(COUNTS, 1).sum()
    rounds, seen = 4000, np.zeros(WORDS)
    for _ in range(rounds):
        targets = torch.from_numpy(rng.choice(WORDS, 5, p=frequency))
        words, places = softmax.candidates(targets, generator)
        assert torch.equal(words[places], targets)
        seen[words.numpy()] += 1
    chance = softmax.log_chance(5).double().exp().numpy()
    # Five standard errors of a frequency.
    assert (np.abs(seen / rounds - chance) < 5 * np.sqrt(chance * (1 - chance) / rounds) + 1e-6).all()
    # By hand for the first word: not among 5 targets, and not among 3 draws from the counts to the power 3/4.
    powers = np.maximum(COUNTS, 1) ** 0.75
    by_hand = 1 - (1 - frequency[0]) ** 5 * (1 - powers[0] / powers.sum()) ** 3
    assert chance[0] == pytest.approx(by_hand, rel=1e-6)
    assert softmax.log_chance(1)[0] < softmax.log_chance(5)[0] < softmax.log_chance(500)[0] <= 0


def test_with_all_words_as_candidates_it_is_the_full_softmax() -> None:
    softmax = SampledSoftmax(COUNTS, samples=20_000)
    layer, hidden = nn.Linear(4, WORDS), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 7, 1, 0, 2])
    words, places = softmax.candidates(targets, torch.Generator().manual_seed(0))
    assert words.tolist() == list(range(WORDS))
    sampled = functional.cross_entropy(softmax.logits(with_output(layer), hidden, words), places)
    full = functional.cross_entropy(layer(hidden), targets)
    torch.testing.assert_close(sampled, full)
    for left, right in zip(*(torch.autograd.grad(x, list(layer.parameters())) for x in (sampled, full)), strict=True):
        torch.testing.assert_close(left, right)


def test_a_vocabulary_of_one_word_has_nothing_to_lose() -> None:
    softmax = SampledSoftmax(np.array([5]), samples=2)
    assert softmax.log_chance(3).tolist() == [0.0]


def test_its_gradient_vanishes_where_that_of_the_full_softmax_does() -> None:
    # Two contexts with conditional distributions of their own; the counts are their mixture. The model that knows both
    # is a minimum of the full softmax, so the sampled gradient must average to zero there. It does not without the
    # correction: then frequent words, which are candidates more often, are pushed down.
    rng = np.random.default_rng(1)
    conditional = rng.dirichlet(np.full(WORDS, 1.0), size=2)
    softmax = SampledSoftmax((1e6 * conditional.mean(axis=0)).astype(np.int64), samples=4)
    layer = nn.Linear(2, WORDS, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.log(conditional)).T)
        layer.bias.zero_()
    generator = torch.Generator().manual_seed(0)
    gradients = {True: [], False: []}
    for _ in range(1500):
        context = rng.integers(0, 2, 16)
        targets = torch.from_numpy((rng.random(16)[:, None] > conditional.cumsum(axis=1)[context]).sum(axis=1))
        words, places = softmax.candidates(targets, generator)
        logits = softmax.logits(with_output(layer), functional.one_hot(torch.from_numpy(context), 2).float(), words)
        for corrected in (True, False):
            used = logits if corrected else logits + softmax.log_chance(16)[words]
            loss = functional.cross_entropy(used, places)
            gradients[corrected].append(torch.autograd.grad(loss, layer.weight, retain_graph=True)[0].double())
    bias = {}
    for corrected, found in gradients.items():
        stacked = torch.stack(found)
        error = stacked.std(dim=0) / math.sqrt(len(found))
        bias[corrected] = float((stacked.mean(dim=0).abs() / error).max())
    # Of 16 entries the largest of standard normal size is below 4; what is left above 3 is one target in sixteen that
    # the formula counts among the draws of the others.
    assert bias[True] < 5
    assert bias[False] > 10


def text(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, WORDS, size)


def objective(module: Transformer, teacher: Transformer | None = None, **changes: Any) -> LanguageObjective:
    options = {"sequences": 3, "tokens": 5, "seed": 2, **changes}
    return LanguageObjective(module, text(100), SampledSoftmax(COUNTS, 4), teacher=teacher, **options)


@given(st.integers(20, 90), st.integers(1, 4), st.integers(1, 4), st.integers(0, 60), st.integers(0, 9))
@settings(max_examples=60)
def test_batches_are_text_and_its_next_words(size: int, sequences: int, tokens: int, step: int, seed: int) -> None:
    data = text(size)
    aim = LanguageObjective(language_model(), data, SampledSoftmax(COUNTS, 4), sequences, tokens, None, seed)
    batch, again = aim.batch(step), aim.batch(step)
    assert torch.equal(batch.inputs, again.inputs)
    assert batch.inputs.shape == batch.targets.shape == (sequences, tokens)
    columns = size // sequences
    for row in range(sequences):
        stream = data[row * columns : (row + 1) * columns].tolist()
        window = [*batch.inputs[row].tolist(), int(batch.targets[row, -1])]
        assert batch.targets[row, :-1].tolist() == batch.inputs[row, 1:].tolist()
        assert any(stream[i : i + tokens + 1] == window for i in range(columns - tokens))


def test_an_epoch_reads_the_text_without_repeating_a_word() -> None:
    aim = objective(language_model())
    # 33 words for each of three sequences: six windows of five, three places to begin.
    assert aim.steps_per_epoch == 6
    for epoch in range(3):
        read = torch.cat([aim.batch(epoch * 6 + i).inputs for i in range(6)], dim=1)
        streams = torch.from_numpy(text(100)[:99]).view(3, 33)
        assert any(torch.equal(read, streams[:, i : i + 30]) for i in range(3))
    starts = {tuple(aim.batch(6 * epoch).inputs[0].tolist()) for epoch in range(20)}
    assert len(starts) > 1


def test_parts_are_the_sequences_once() -> None:
    aim = objective(language_model(), sequences=4)
    batch = aim.batch(1)
    for parts in (1, 2, 3, 4, 9):
        found = aim.split(batch, parts)
        assert 1 <= len(found) <= parts
        assert torch.equal(torch.cat([p.inputs for p in found]), batch.inputs)
        assert torch.equal(torch.cat([p.targets for p in found]), batch.targets)


def test_a_student_that_is_its_teacher_has_only_the_loss_of_the_text() -> None:
    student, teacher = language_model(), language_model()
    batch = objective(student).batch(0)
    alone = objective(student).loss(batch)
    assert objective(student).loss(batch).item() == alone.item()
    assert objective(student, teacher).loss(batch).item() == pytest.approx(alone.item(), abs=1e-6)
    other = objective(student, language_model(1)).loss(batch)
    assert other.item() > alone.item() + 0.1
    lighter = objective(student, language_model(1), distill_weight=0.0, hidden_weight=0.0).loss(batch)
    assert lighter.item() == pytest.approx(alone.item())
    other.backward()
    assert student.embeddings.word.weight.grad is not None


def test_too_little_text_is_refused() -> None:
    with pytest.raises(UserInputError, match="100 words are too few for 17 sequences of 5"):
        objective(language_model(), sequences=17)
    with pytest.raises(UserInputError, match="needs an output layer"):
        SampledSoftmax(COUNTS, 4).logits(with_output(None), torch.zeros(1, 8), torch.tensor([0]))
    with pytest.raises(UserInputError, match="fewer than 2 words"):
        score_language_model(language_model(), text(1), 4)


def one_by_one(module: Transformer, words: np.ndarray, tokens: int) -> tuple[float, float]:
    """Accuracy and perplexity, every word predicted alone from the window that the docstring promises."""
    right, total, stride = 0, 0.0, max(1, tokens // 2)
    with torch.no_grad():
        for place in range(1, len(words)):
            start = max(0, -(-(place - tokens) // stride) * stride)
            context = torch.from_numpy(words[start:place])[None]
            logits = module.logits(module.hidden(context))[0, -1].double()
            right += int(logits.argmax()) == words[place]
            total -= float(logits.log_softmax(-1)[words[place]])
    return right / (len(words) - 1), math.exp(total / (len(words) - 1))


@given(st.integers(2, 40), st.integers(1, 16), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40)
def test_windows_score_every_word_once(size: int, tokens: int, batch: int, seed: int) -> None:
    module, words = language_model(), text(size, seed)
    found = score_language_model(module, words, tokens, batch)
    assert found.words == size - 1
    accuracy, perplexity = one_by_one(module, words, tokens)
    assert found.perplexity == pytest.approx(perplexity, rel=1e-4)
    # A tie of two float32 logits may fall either way; it moves one word at most.
    assert abs(found.accuracy - accuracy) * (size - 1) < 1.5


def test_known_models_have_known_scores() -> None:
    module, words = language_model(), text(200)
    assert module.head.out is not None
    module.train()
    with torch.no_grad():
        module.head.out.weight.zero_()
        module.head.out.bias.zero_()
    # A model that knows nothing is as perplexed as there are words.
    assert score_language_model(module, words, 8).perplexity == pytest.approx(WORDS, rel=1e-6)
    with torch.no_grad():
        module.head.out.bias[3] = 2.0
    found = score_language_model(module, words, 8)
    share = float((words[1:] == 3).mean())
    assert found.accuracy == pytest.approx(share)
    log_sum = math.log(WORDS - 1 + math.exp(2))
    assert found.perplexity == pytest.approx(math.exp(log_sum - 2 * share), rel=1e-5)
    assert module.training


def test_a_model_that_diverged_is_infinitely_perplexed() -> None:
    module = language_model()
    assert module.head.out is not None
    with torch.no_grad():
        module.head.out.bias[3] = 1e4
    assert score_language_model(module, np.array([0, 1, 2]), 4).perplexity == math.inf
