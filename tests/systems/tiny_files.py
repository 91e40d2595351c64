"""What the fixtures of this room write: a tiny encoder with its tokenizer, and sentences of made-up words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WORDS = [first + second + third for first in "bdgkm" for second in "aeo" for third in ("", "ri", "lun")]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(count)]


def save_model(folder: Path, seed: int = 0) -> Path:
    """A BERT of two layers with random weights and a word-level tokenizer."""
    import torch
    from tiny_families import tiny_model
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocab = {word: place for place, word in enumerate([*special, *WORDS])}
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        model = tiny_model("bert", seed=seed, vocab_size=len(vocab), max_position_embeddings=128, **sizes)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_rte(folder: Path, train: int, dev: int) -> Path:
    """RTE's files with so many made-up pairs, every other one entailed."""
    folder.mkdir(exist_ok=True)
    for name, count, seed in (("train", train, 1), ("dev", dev, 2)):
        pairs = zip(sentences(count, seed), sentences(count, seed + 10), strict=True)
        rows = [f"{i}\t{a}\t{b}\t{'not_' * (i % 2)}entailment" for i, (a, b) in enumerate(pairs)]
        lines = ["index\tsentence1\tsentence2\tlabel", *rows]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
