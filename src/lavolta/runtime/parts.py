"""Where the time of a run goes: the steps that `Model.explain` measures, summed by part of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

PARTS = ("embeddings", "linear layers", "quantization", "attention", "norms", "pooling and head")
"""Parts of a model in the order of the computation. A gated feed-forward part's gate counts with its linear layer."""

_BY_OP = {
    "linear": "linear layers",
    "token_linear": "linear layers",
    "quantize": "quantization",
    "token_quantize": "quantization",
    "attention": "attention",
    "cached_attention": "attention",
    "norm": "norms",
    "token_norm": "norms",
}


def part_of(record: Mapping[str, Any]) -> str:
    """The part that a step of `Model.explain` belongs to; the norm of the embeddings counts with them."""
    if record["layer"] == "embeddings":
        return "embeddings"
    if record["layer"].startswith("head"):
        return "pooling and head"
    return _BY_OP[record["op"]]


def of_one_token(record: Mapping[str, Any]) -> bool:
    """Whether a step is one of a session's single token, and not of a run."""
    return str(record["op"]).startswith("token_") or record["op"] == "cached_attention"


def part_times_ms(records: Iterable[Mapping[str, Any]], level: str) -> dict[str, float]:
    """Measured milliseconds of each of `PARTS` that has steps among `records` at a level."""
    found: dict[str, float] = {}
    for record in records:
        if record["level"] == level:
            part = part_of(record)
            found[part] = found.get(part, 0.0) + float(record["measured_ms"])
    return {part: found[part] for part in PARTS if part in found}
