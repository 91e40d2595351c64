"""The one description of a model that training, bundle and engine share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lavolta.errors import UserInputError

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
NORMS = ("layer", "rms")
POSITIONS = ("learned", "rope")
POOLINGS = ("mean", "cls", "none")
HEAD_DENSE = (None, "tanh", "relu", "gelu")
TASKS = ("embedding", "classification", "regression", "language-model")
HEAD_LINEAR = "head.out"


@dataclass(frozen=True)
class ModelSpec:
    """A Transformer; `docs/design/architecture.md` states what it computes.

    ``kv_heads`` 0 means as many as ``heads``; the instance then has that number. ``head_norm``, the norm between the
    two layers of a masked language model's head, is for training and export: no bundle holds such a head.

    Raises:
        UserInputError: for a value outside its set or range.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    max_tokens: int
    types: int = 0
    kv_heads: int = 0
    norm: str = "layer"
    norm_first: bool = False
    position: str = "learned"
    ffn_gate: bool = False
    activation: str = "gelu"
    norm_eps: float = 1e-12
    causal: bool = False
    embedding_norm: bool = True
    pooling: str = "mean"
    normalize: bool = False
    head_dense: str | None = None
    head_norm: bool = False
    outputs: int = 0
    task: str = "embedding"
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "ffn", "vocab", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserInputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.hidden % self.heads:
            raise UserInputError(f"hidden {self.hidden} is not a multiple of heads {self.heads}.")
        if self.kv_heads == 0:
            object.__setattr__(self, "kv_heads", self.heads)
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise UserInputError(f"kv_heads is {self.kv_heads}; it must divide heads {self.heads}.")
        if self.position == "rope" and self.head_size % 2:
            raise UserInputError(f"a head has {self.head_size} features; rope turns pairs and needs an even number.")
        for name, allowed in (
            ("norm", NORMS),
            ("position", POSITIONS),
            ("activation", ACTIVATIONS),
            ("pooling", POOLINGS),
            ("head_dense", HEAD_DENSE),
            ("task", TASKS),
        ):
            if getattr(self, name) not in allowed:
                raise UserInputError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}.")

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.hidden // self.heads

    def linear_shapes(self, *, packed_head: bool = False) -> dict[str, tuple[int, int]]:
        """Every prunable linear, in order: name to ``(out_features, in_features)``.

        Args:
            packed_head: with the output layer, which a bundle may pack like the others, as the last one.
        """
        keys = self.kv_heads * self.head_size
        parts = {
            "attention.query": (self.hidden, self.hidden),
            "attention.key": (keys, self.hidden),
            "attention.value": (keys, self.hidden),
            "attention.output": (self.hidden, self.hidden),
            "ffn.up": (self.ffn, self.hidden),
            **({"ffn.gate": (self.ffn, self.hidden)} if self.ffn_gate else {}),
            "ffn.down": (self.hidden, self.ffn),
        }
        shapes = {f"layers.{i}.{part}": shape for i in range(self.layers) for part, shape in parts.items()}
        if packed_head:
            if not self.outputs:
                raise UserInputError(f"{self.name} has no output layer that could be packed.")
            shapes[HEAD_LINEAR] = (self.outputs, self.hidden)
        return shapes

    def as_dict(self) -> dict[str, Any]:
        """Plain values; ``head_norm`` is left out where it is false, as in every bundle."""
        data = asdict(self)
        if not self.head_norm:
            del data["head_norm"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelSpec:
        """Read what `as_dict` wrote; an unknown or missing field is an error that names it."""
        known = {f.name for f in fields(cls)}
        unknown = set(data) - known
        if unknown:
            raise UserInputError(f"the model description has unknown fields: {', '.join(sorted(unknown))}.")
        try:
            return cls(**data)
        except TypeError as error:
            raise UserInputError(f"the model description is incomplete: {error}.") from error


def dense_shapes(spec: ModelSpec, *, packed_head: bool = False) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model that is not a packed linear: canonical name to shape.

    Args:
        packed_head: the output layer is packed, so it is not among them.
    """
    hidden = spec.hidden
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word": (spec.vocab, hidden)}
    if spec.position == "rope":
        shapes["rope.inv_freq"] = (spec.head_size // 2,)
    else:
        shapes["embeddings.position"] = (spec.max_tokens, hidden)
    if spec.types:
        shapes["embeddings.type"] = (spec.types, hidden)
    norms = ["embeddings.norm"] if spec.embedding_norm else []
    norms += [f"layers.{i}.{part}" for i in range(spec.layers) for part in ("attention_norm", "ffn_norm")]
    norms += ["final_norm"] if spec.norm_first else []
    for norm in norms:
        shapes[f"{norm}.weight"] = (hidden,)
        if spec.norm == "layer":
            shapes[f"{norm}.bias"] = (hidden,)
    if spec.head_dense is not None:
        shapes["head.dense.weight"], shapes["head.dense.bias"] = (hidden, hidden), (hidden,)
    if spec.head_norm:
        shapes["head.norm.weight"], shapes["head.norm.bias"] = (hidden,), (hidden,)
    if spec.outputs and not packed_head:
        shapes["head.out.weight"], shapes["head.out.bias"] = (spec.outputs, hidden), (spec.outputs,)
    return shapes
