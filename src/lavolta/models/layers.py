"""The parts of one Transformer layer: norms, rotary positions, attention, feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lavolta.runtime.spec import ModelSpec


@dataclass(frozen=True)
class Dropout:
    """Probabilities of dropout while training, each 0 to 1.

    Args:
        hidden: on the embeddings and on the output of every attention and feed-forward part.
        attention: on the attention weights.
        ffn: inside the feed-forward part, after its activation.
        head: before the last linear layer.
    """

    hidden: float = 0.1
    attention: float = 0.1
    ffn: float = 0.0
    head: float = 0.1


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "relu": nn.ReLU(),
    "silu": nn.SiLU(),
}


def make_norm(spec: ModelSpec) -> nn.Module:
    """The spec's norm over the last axis, ``(..., hidden)``; an RMS norm has no bias."""
    if spec.norm == "rms":
        return nn.RMSNorm(spec.hidden, eps=spec.norm_eps)
    return nn.LayerNorm(spec.hidden, eps=spec.norm_eps)


class Rope(nn.Module):
    """Rotary positions (Su et al. 2021): features i and i + half of a head turn by ``position * inv_freq[i]``.

    ``inv_freq (head_size / 2,)`` is a buffer: radians per position, with every scaling folded in.
    """

    inv_freq: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        pairs = torch.arange(0, spec.head_size, 2, dtype=torch.float64)
        self.register_buffer("inv_freq", (10000.0 ** (-pairs / spec.head_size)).float())

    def forward(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``(tokens, head_size / 2)`` of the first positions."""
        position = torch.arange(tokens, dtype=torch.float64, device=self.inv_freq.device)
        # In double: thousands of positions times a frequency lose what a float has.
        angle = torch.outer(position, self.inv_freq.double())
        return angle.cos().to(self.inv_freq.dtype), angle.sin().to(self.inv_freq.dtype)


def rotate(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """``heads (b, heads, t, head_size)`` turned by cosines and sines ``(t, head_size / 2)``."""
    cos, sin = turn
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention and its output projection; queries may share keys and values (Ainslie et al. 2023)."""

    def __init__(self, spec: ModelSpec, dropout: float) -> None:
        super().__init__()
        keys = spec.kv_heads * spec.head_size
        self.query = nn.Linear(spec.hidden, spec.hidden)
        self.key = nn.Linear(spec.hidden, keys)
        self.value = nn.Linear(spec.hidden, keys)
        self.output = nn.Linear(spec.hidden, spec.hidden)
        self.head_size = spec.head_size
        self.shared = spec.heads // spec.kv_heads
        self.causal = spec.causal
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None, turn: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """``x (b, t, hidden)``, ``mask`` broadcastable to ``(b, heads, t, t)``, true where attention is allowed.

        ``turn``: cosines and sines of the positions, for models with rotary ones.
        """
        query, key, value = self._heads(x, turn)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal and mask is None,
        )
        return self._merged(mixed)

    def forward_with_weights(
        self, x: Tensor, mask: Tensor | None, turn: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, with the attention weights ``(b, heads, t, t)`` before dropout; slower.

        A causal model needs its mask here: ``None`` means that all tokens see one another.
        """
        query, key, value = self._heads(x, turn)
        scores = query @ key.transpose(-1, -2) * self.head_size**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        return self._merged(functional.dropout(weights, self.dropout, self.training) @ value), weights

    def _heads(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ``(b, heads, t, head_size)``."""
        batch, tokens, _ = x.shape

        def split(projected: Tensor) -> Tensor:
            return projected.view(batch, tokens, -1, self.head_size).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        if self.shared > 1:
            key, value = (part.repeat_interleave(self.shared, dim=1) for part in (key, value))
        return query, key, value

    def _merged(self, mixed: Tensor) -> Tensor:
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """``down(activation(up(x)))``, or ``down(activation(gate(x)) * up(x))``."""

    def __init__(self, spec: ModelSpec, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(spec.hidden, spec.ffn)
        self.gate = nn.Linear(spec.hidden, spec.ffn) if spec.ffn_gate else None
        self.down = nn.Linear(spec.ffn, spec.hidden)
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        inner = self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up
        out: Tensor = self.down(self.dropout(inner))
        return out


class Layer(nn.Module):
    """One layer, its norms after the two parts or before them: ``(b, t, hidden)`` to the same shape."""

    def __init__(self, spec: ModelSpec, dropout: Dropout) -> None:
        super().__init__()
        self.attention = Attention(spec, dropout.attention)
        self.attention_norm = make_norm(spec)
        self.ffn = FeedForward(spec, dropout.ffn)
        self.ffn_norm = make_norm(spec)
        self.dropout = nn.Dropout(dropout.hidden)
        self.norm_first = spec.norm_first

    def forward(self, x: Tensor, mask: Tensor | None, turn: tuple[Tensor, Tensor] | None = None) -> Tensor:
        attended = self.attention(self.attention_norm(x) if self.norm_first else x, mask, turn)
        return self._rest(x, attended)

    def forward_with_weights(
        self, x: Tensor, mask: Tensor | None, turn: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, with the attention weights ``(b, heads, t, t)``; see `Attention.forward_with_weights`."""
        attended, weights = self.attention.forward_with_weights(
            self.attention_norm(x) if self.norm_first else x, mask, turn
        )
        return self._rest(x, attended), weights

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        """What follows the attention: residuals, norms, feed-forward."""
        if self.norm_first:
            x = x + self.dropout(attended)
            before: Tensor = x + self.dropout(self.ffn(self.ffn_norm(x)))
            return before
        x = self.attention_norm(x + self.dropout(attended))
        after: Tensor = self.ffn_norm(x + self.dropout(self.ffn(x)))
        return after
