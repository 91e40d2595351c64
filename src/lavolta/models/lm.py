"""The paper's first model: a word-level Transformer language model, its vocabulary and its three text files."""

from __future__ import annotations

import lzma
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lavolta.errors import UserInputError
from lavolta.models.loaded import LoadedModel
from lavolta.models.transformer import Dropout, Transformer, sinusoidal_positions
from lavolta.runtime.spec import ModelSpec

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"


@dataclass(frozen=True)
class LmConfig:
    """Shape of the language model; the labels are those of the RT3 method sheet.

    Args:
        hidden: width of the model [unverified: low].
        heads: attention heads [unverified: medium].
        ffn: width of the feed-forward part [unverified: low].
        layers: Transformer layers below the output layer, which the paper counts as its decoder [unverified: medium].
        dropout: of embeddings, attention, feed-forward and sublayer outputs while training [proposed].
        max_tokens: longest sequence, words [proposed].
        tie: share the word vectors with the output layer [proposed: off; the paper is not known to tie].
        norm_eps: epsilon of the layer norms, that of PyTorch's Transformer layer [proposed].
    """

    hidden: int = 800
    heads: int = 4
    ffn: int = 200
    layers: int = 2
    dropout: float = 0.2
    max_tokens: int = 256
    tie: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise UserInputError(f"dropout is {self.dropout}; it must be at least 0 and below 1.")
        if self.hidden % 2:
            raise UserInputError(f"hidden is {self.hidden}; sinusoidal positions need an even width.")


@dataclass(frozen=True)
class Vocabulary:
    """Words by index; ``<unk>`` is 0 and ``<eos>`` is 1, then by falling frequency (equal ones by code point).

    The order by frequency is what samplers with a log-uniform proposal expect.
    """

    words: tuple[str, ...]
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {word: place for place, word in enumerate(self.words)}
        if len(index) != len(self.words):
            raise UserInputError(f"the vocabulary has {len(self.words) - len(index)} repeated words; remove them.")
        if self.words[:2] != (UNKNOWN, END_OF_LINE):
            raise UserInputError(f"a vocabulary must begin with {UNKNOWN} and {END_OF_LINE}.")
        for word in self.words:
            if word.split() != [word]:
                raise UserInputError(f"the vocabulary word {word!r} is empty or contains white space.")
        object.__setattr__(self, "index", index)

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, lines: Iterable[str]) -> Vocabulary:
        """Every word of the lines."""
        count = Counter(word for line in lines for word in line.split())
        for special in (UNKNOWN, END_OF_LINE):
            count.pop(special, None)
        return cls((UNKNOWN, END_OF_LINE, *sorted(count, key=lambda word: (-count[word], word))))

    def encode(self, lines: Iterable[str]) -> NDArray[np.int64]:
        """Word indices of the lines, one ``<eos>`` after each: ``(words + lines,)``."""
        return np.fromiter(self._indices(lines), dtype=np.int64)

    def _indices(self, lines: Iterable[str]) -> Iterator[int]:
        for line in lines:
            for word in line.split():
                yield self.index.get(word, 0)
            yield 1

    def to_bytes(self) -> bytes:
        """One word a line, UTF-8; what a bundle's ``vocab`` tensor holds."""
        return "".join(f"{word}\n" for word in self.words).encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> Vocabulary:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserInputError(f"the vocabulary is not UTF-8 (byte {error.start}); write it again.") from error
        return cls(tuple(text.removesuffix("\n").split("\n")))

    def save(self, path: str | Path) -> None:
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except OSError as error:
            raise UserInputError(f"{path} cannot be read: {error.strerror}.") from error


@dataclass(frozen=True)
class LmCorpus:
    """The three splits as word indices, ``(words,) int64`` each, with one ``<eos>`` per line.

    Args:
        train_file: name of the file that the vocabulary is from; ``partial`` in it says that the text is not whole.
    """

    vocabulary: Vocabulary
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    train_file: str


def load_lm_corpus(folder: str | Path) -> LmCorpus:
    """Read ``train*``, ``valid`` and ``test`` text from a folder, plain or xz; the words are the training text's.

    Raises:
        UserInputError: a split that is missing, ambiguous, empty or not UTF-8.
    """
    files = {split: find_split(folder, split) for split in ("train", "valid", "test")}
    lines = {split: read_lines(path) for split, path in files.items()}
    vocabulary = Vocabulary.build(lines["train"])
    encoded = {split: vocabulary.encode(lines[split]) for split in lines}
    return LmCorpus(vocabulary, encoded["train"], encoded["valid"], encoded["test"], files["train"].name)


def find_split(folder: str | Path, split: str) -> Path:
    """The file of a split: ``train*.txt``, ``valid.txt``, ``test.txt`` or ``wiki.<split>.tokens``, plain or ``.xz``."""
    root = Path(folder)
    if not root.is_dir():
        raise UserInputError(f"{folder} is not a folder; give one with train, valid and test text.")
    stem = "train*" if split == "train" else split
    names = (f"{stem}.txt", f"wiki.{split}.tokens")
    found = sorted({path for name in names for ending in ("", ".xz") for path in root.glob(name + ending)})
    if not found:
        raise UserInputError(f"{folder} has no {names[0]} or {names[1]} (plain or .xz); add the {split} text.")
    if len(found) > 1:
        raise UserInputError(f"{folder} has {' and '.join(p.name for p in found)}; keep one file for {split}.")
    return found[0]


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 text file, plain or ``.xz``, without their line ends.

    Only ``\\n`` (and ``\\r\\n``) ends a line: other separators occur inside the lines of Wikipedia text.

    Raises:
        UserInputError: the file is missing, damaged, not UTF-8 or has no word.
    """
    path = Path(path)
    try:
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserInputError(f"{path} cannot be read: {error.strerror}; check the path.") from error
    except lzma.LZMAError as error:
        raise UserInputError(f"{path} is not a whole xz file ({error}); copy it again.") from error
    except UnicodeDecodeError as error:
        raise UserInputError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}); convert it, for example with "
            "`iconv -t utf-8`."
        ) from error
    if not text.strip():
        raise UserInputError(f"{path} has no words; give a text file with content.")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def build_lm(config: LmConfig, vocabulary: Vocabulary, seed: int, name: str = "transformer-lm") -> LoadedModel:
    """A new language model: word vectors times ``sqrt(hidden)``, sinusoidal positions, post-norm layers, output layer.

    Word vectors and output weights start uniform in +-0.1, as in PyTorch's word language model example, and the layers
    Xavier-uniform [proposed].
    """
    spec = ModelSpec(
        name=name,
        layers=config.layers,
        hidden=config.hidden,
        heads=config.heads,
        ffn=config.ffn,
        vocab=len(vocabulary),
        max_tokens=config.max_tokens,
        activation="relu",
        norm_eps=config.norm_eps,
        causal=True,
        embedding_norm=False,
        pooling="none",
        outputs=len(vocabulary),
        task="language-model",
    )
    p = config.dropout
    module = Transformer(spec, Dropout(p, p, p, 0.0), word_scale=math.sqrt(config.hidden), tie=config.tie)
    provenance = {"source": "trained from scratch", "config": asdict(config), "seed": seed}
    loaded = LoadedModel(module.eval(), spec, vocabulary=vocabulary, provenance=provenance)
    generator = torch.Generator().manual_seed(seed)
    position = module.get_parameter("embeddings.position.weight")
    with torch.no_grad():
        module.embeddings.word.weight.uniform_(-0.1, 0.1, generator=generator)
        position.copy_(sinusoidal_positions(config.max_tokens, config.hidden))
        for linear in loaded.linears.values():
            nn.init.xavier_uniform_(linear.weight, generator=generator)
            linear.bias.zero_()
        if module.head.out is not None:
            if not config.tie:
                module.head.out.weight.uniform_(-0.1, 0.1, generator=generator)
            module.head.out.bias.zero_()
    position.requires_grad_(False)
    return loaded
