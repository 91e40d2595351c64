"""The one Transformer that every supported model is loaded into; its module paths are the canonical names."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lavolta.errors import UserInputError
from lavolta.models.layers import Dropout as Dropout
from lavolta.models.layers import Layer, Rope, make_norm
from lavolta.runtime.spec import ModelSpec


class EncoderOutput(NamedTuple):
    """What one forward pass gives.

    Args:
        hidden: ``(batch, tokens, hidden)``, the last layer.
        all_hidden: ``layers + 1`` tensors ``(batch, tokens, hidden)``, the embeddings first; the last one is normed
            where the norms come first.
        output: the pooled vector ``(batch, hidden)`` or the head's outputs ``(batch, outputs)``; ``None`` for a
            language model, whose logits are asked for with `Transformer.logits`.
    """

    hidden: Tensor
    all_hidden: tuple[Tensor, ...]
    output: Tensor | None


class Embeddings(nn.Module):
    """Sum of word, position and type vectors, normalised where asked: ids ``(b, t)`` to ``(b, t, hidden)``."""

    def __init__(self, spec: ModelSpec, dropout: Dropout, word_scale: float) -> None:
        super().__init__()
        self.word = nn.Embedding(spec.vocab, spec.hidden)
        self.position = nn.Embedding(spec.max_tokens, spec.hidden) if spec.position == "learned" else None
        self.max_tokens = spec.max_tokens
        self.token_type = nn.Embedding(spec.types, spec.hidden) if spec.types else None
        self.norm = make_norm(spec) if spec.embedding_norm else None
        self.dropout = nn.Dropout(dropout.hidden)
        self.word_scale = word_scale

    def forward(self, input_ids: Tensor, type_ids: Tensor | None) -> Tensor:
        tokens = input_ids.shape[1]
        if tokens > self.max_tokens:
            raise UserInputError(
                f"a sequence of {tokens} tokens is longer than the model's {self.max_tokens} positions; truncate it."
            )
        x: Tensor = self.word(input_ids) * self.word_scale
        if self.position is not None:
            x = x + self.position.weight[:tokens]
        if self.token_type is not None:
            x = x + (self.token_type.weight[0] if type_ids is None else self.token_type(type_ids))
        if self.norm is not None:
            x = self.norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped


HEAD_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": functional.gelu}


class Head(nn.Module):
    """The optional dense layer, activation and norm, and the output layer: ``(..., hidden)`` to ``(..., outputs)``."""

    def __init__(self, spec: ModelSpec, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden, spec.hidden) if spec.head_dense is not None else None
        self.activation = HEAD_ACTIVATIONS[spec.head_dense] if spec.head_dense is not None else None
        self.norm = make_norm(spec) if spec.head_norm else None
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(spec.hidden, spec.outputs) if spec.outputs else None

    def forward(self, x: Tensor) -> Tensor:
        if self.dense is not None and self.activation is not None:
            x = self.activation(self.dense(x))
        if self.norm is not None:
            x = self.norm(x)
        if self.out is not None:
            x = self.out(self.dropout(x))
        return x


class Transformer(nn.Module):
    """The canonical model; ``docs/design/architecture.md`` states what it computes.

    ``get_submodule(name)`` with a canonical linear name, such as ``layers.0.ffn.up``, is that layer.

    Args:
        spec: the model.
        dropout: used in training mode only.
        word_scale: factor on the word vectors (the language model's ``sqrt(hidden)``); a bundle folds it in.
        tie: share the word vectors with the output layer's weight ``(vocab, hidden)``.

    Raises:
        UserInputError: a spec that this class cannot compute.
    """

    def __init__(
        self, spec: ModelSpec, dropout: Dropout | None = None, *, word_scale: float = 1.0, tie: bool = False
    ) -> None:
        super().__init__()
        dropout = Dropout() if dropout is None else dropout
        if tie and spec.outputs != spec.vocab:
            raise UserInputError(
                f"{spec.outputs} outputs cannot share the vectors of {spec.vocab} words; set tie=False."
            )
        self.spec = spec
        self.dropout_rates = dropout
        self.embeddings = Embeddings(spec, dropout, word_scale)
        self.rope = Rope(spec) if spec.position == "rope" else None
        self.layers = nn.ModuleList([Layer(spec, dropout) for _ in range(spec.layers)])
        self.final_norm = make_norm(spec) if spec.norm_first else None
        self.head = Head(spec, dropout.head)
        if tie and self.head.out is not None:
            self.head.out.weight = self.embeddings.word.weight

    def all_hidden(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Embeddings and the output of every layer, ``layers + 1`` tensors ``(b, t, hidden)``.

        Args:
            input_ids: ``(b, t)`` integers.
            attention_mask: ``(b, t)``, non-zero for a real token; every row starts with one. ``None``: all are real.
            type_ids: ``(b, t)`` integers, ``None``: all zero.
        """
        x = self.embeddings(input_ids, type_ids)
        mask = self.mask(attention_mask)
        turn = None if self.rope is None else self.rope(input_ids.shape[1])
        states = [x]
        for layer in self.layers:
            x = layer(x, mask, turn)
            states.append(x)
        if self.final_norm is not None:
            states[-1] = self.final_norm(x)
        return tuple(states)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None, type_ids: Tensor | None = None) -> Tensor:
        """The last layer's output, ``(b, t, hidden)``."""
        return self.all_hidden(input_ids, attention_mask, type_ids)[-1]

    def logits(self, hidden: Tensor) -> Tensor:
        """The head on hidden states ``(..., hidden)``: ``(..., outputs)``."""
        out: Tensor = self.head(hidden)
        return out

    def pool(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The spec's pooling over the real tokens: ``(b, hidden)``, or ``hidden`` itself where there is none."""
        if self.spec.pooling == "none":
            return hidden
        if self.spec.pooling == "cls":
            return hidden[:, 0]
        if attention_mask is None:
            return hidden.mean(dim=1)
        weight = attention_mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1)

    def output(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Pooling, head and normalisation: ``(b, hidden)`` or ``(b, outputs)``; per token where there is no pooling."""
        out = self.logits(self.pool(hidden, attention_mask))
        return functional.normalize(out, dim=-1) if self.spec.normalize else out

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, type_ids: Tensor | None = None
    ) -> EncoderOutput:
        states = self.all_hidden(input_ids, attention_mask, type_ids)
        out = None if self.spec.task == "language-model" else self.output(states[-1], attention_mask)
        return EncoderOutput(states[-1], states, out)

    def mask(self, attention_mask: Tensor | None) -> Tensor | None:
        """Which token may see which, ``(b, 1, 1 or t, t) bool``, from a mask of real tokens ``(b, t)``."""
        if attention_mask is None:
            return None
        mask = attention_mask.bool()[:, None, None, :]
        if self.spec.causal:
            tokens = attention_mask.shape[1]
            mask = mask & torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
        return mask


def sinusoidal_positions(max_tokens: int, hidden: int) -> Tensor:
    """Position vectors ``(max_tokens, hidden)``: sine in even, cosine in odd columns (Vaswani et al. 2017, 3.5)."""
    position = torch.arange(max_tokens, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, hidden, 2, dtype=torch.float64) * (-math.log(10000.0) / hidden))
    table = torch.zeros(max_tokens, hidden, dtype=torch.float64)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)[:, : hidden // 2]
    return table.float()
