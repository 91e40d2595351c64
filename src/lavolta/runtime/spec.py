"""The one description of a model that training, bundle and engine share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lavolta.errors import UserInputError

ACTIVATIONS = ("gelu", "relu")
POOLINGS = ("mean", "cls", "none")
HEAD_DENSE = (None, "tanh", "relu", "gelu")
TASKS = ("embedding", "classification", "regression", "language-model")
LINEARS_PER_LAYER = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "ffn.up",
    "ffn.down",
)


@dataclass(frozen=True)
class ModelSpec:
    """A post-norm Transformer; `docs/design/architecture.md` states what it computes.

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
    activation: str = "gelu"
    norm_eps: float = 1e-12
    causal: bool = False
    embedding_norm: bool = True
    pooling: str = "mean"
    normalize: bool = False
    head_dense: str | None = None
    outputs: int = 0
    task: str = "embedding"
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "ffn", "vocab", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserInputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.hidden % self.heads:
            raise UserInputError(f"hidden {self.hidden} is not a multiple of heads {self.heads}.")
        for name, allowed in (
            ("activation", ACTIVATIONS),
            ("pooling", POOLINGS),
            ("head_dense", HEAD_DENSE),
            ("task", TASKS),
        ):
            if getattr(self, name) not in allowed:
                raise UserInputError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}.")

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Every prunable linear, in order: name to ``(out_features, in_features)``."""
        shapes: dict[str, tuple[int, int]] = {}
        for layer in range(self.layers):
            for part in LINEARS_PER_LAYER:
                out = self.ffn if part == "ffn.up" else self.hidden
                into = self.ffn if part == "ffn.down" else self.hidden
                shapes[f"layers.{layer}.{part}"] = (out, into)
        return shapes

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

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
