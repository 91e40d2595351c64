"""Plain text for calibration and distillation: the user's file, or the reference text that every Python has."""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from lavolta.models.lm import read_lines

HELD_OUT_SHARE = 10
"""One piece in so many is held out."""
MIN_WORDS = 4
MAX_CHARACTERS = 400


@dataclass(frozen=True)
class TextData:
    """Sentences to train with and sentences that no training sees."""

    train: list[str]
    held_out: list[str]
    source: str


def read_text(path: str | Path) -> list[str]:
    """Sentences of a UTF-8 file, plain or ``.xz``: its lines that are not blank, stripped, in order.

    Raises:
        UserInputError: the file is missing, damaged, not UTF-8 or has no word.
    """
    return [line.strip() for line in read_lines(path) if line.strip()]


def user_text(path: str | Path) -> TextData:
    """The sentences of a file, divided by `split_by_hash`."""
    train, held_out = split_by_hash(read_text(path))
    return TextData(train, held_out, str(path))


def builtin_text() -> TextData:
    """Sentences and short paragraphs of Python's own language reference (``pydoc_data.topics``).

    A paragraph is on one side as a whole, chosen by its hash, so no training text contains a held-out sentence. The
    text differs a little between versions of Python; ``source`` names the version.
    """
    from pydoc_data.topics import topics

    paragraphs = dict.fromkeys(paragraph for name in sorted(topics) for paragraph in _paragraphs(topics[name]))
    train_paragraphs, held_out_paragraphs = split_by_hash(list(paragraphs))
    train = dict.fromkeys(piece for paragraph in train_paragraphs for piece in _pieces(paragraph))
    held_out = dict.fromkeys(piece for paragraph in held_out_paragraphs for piece in _pieces(paragraph))
    unseen = [piece for piece in held_out if piece not in train]
    return TextData(list(train), unseen, f"pydoc_data.topics of Python {platform.python_version()}")


def split_by_hash(texts: list[str]) -> tuple[list[str], list[str]]:
    """Divide texts in training and held-out, 9 to 1, by a hash of each: adding one never moves another.

    Equal texts are on the same side. Both sides get at least one where two texts differ.
    """

    def place(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")

    kept_out = {text for text in texts if place(text) % HELD_OUT_SHARE == 0}
    if not kept_out or len(kept_out) == len(set(texts)):
        kept_out = {min(texts, key=place)}
    train = [text for text in texts if text not in kept_out]
    held_out = [text for text in texts if text in kept_out]
    return (train, held_out) if train else (texts, held_out)


def _paragraphs(topic: str) -> list[str]:
    """Paragraphs of prose of one topic, each joined to one line; headings, grammar, tables and code are left out."""
    found = []
    for paragraph in re.split(r"\n\s*\n", topic):
        lines = [line.strip() for line in paragraph.splitlines()]
        ruled = any(re.fullmatch(r"[*=\-~^\"+| ]{3,}", line) for line in lines)
        if not ruled and "::=" not in paragraph and ">>>" not in paragraph:
            found.append(" ".join(" ".join(lines).split()))
    return found


def _pieces(paragraph: str) -> list[str]:
    """The sentences of a paragraph and, where it has several and is short, the paragraph itself."""
    sentences = re.split(r"(?<=[.!?:])\s+(?=[A-Z\"(])", paragraph)
    pieces = [*sentences, paragraph] if len(sentences) > 1 else sentences
    return [piece for piece in pieces if len(piece.split()) >= MIN_WORDS and len(piece) <= MAX_CHARACTERS]
