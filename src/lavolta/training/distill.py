"""Losses that pull a pruned model to its dense teacher; padding never counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor


def hidden_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean squared difference of hidden states over layers and real tokens, relative to the teacher's power.

    Args:
        student, teacher: per layer ``(batch, tokens, hidden)``.
        mask: ``(batch, tokens)``, 1 for real tokens.
    """
    weight = mask.unsqueeze(-1).to(student[0].dtype)
    losses = [
        ((s - t).square() * weight).sum() / ((t.square() * weight).sum() + 1e-9)
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(losses).mean()


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of softened class distributions ``(batch, classes)``, times the squared temperature."""
    return (
        functional.kl_div(
            functional.log_softmax(student / temperature, dim=-1),
            functional.log_softmax(teacher / temperature, dim=-1),
            log_target=True,
            reduction="batchmean",
        )
        * temperature**2
    )


def embedding_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the mean cosine of pooled embeddings ``(batch, hidden)``, plus the error of their cosine matrix.

    The second term keeps the distances between sentences, which is what an embedding is used for.
    """
    s = functional.normalize(student, dim=-1)
    t = functional.normalize(teacher, dim=-1)
    direct = 1.0 - (s * t).sum(dim=-1).mean()
    return direct + (s @ s.T - t @ t.T).square().mean()


def summed_hidden_error(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Mean squared difference of hidden states, summed over layers, as SPD has it: not relative to anything.

    Args:
        student, teacher: per layer ``(batch, tokens, hidden)``.
        mask: ``(batch, tokens)``, true for real tokens; ``None`` counts padding too, as published.
    """
    pairs = zip(student, teacher, strict=True)
    if mask is None:
        return torch.stack([functional.mse_loss(s, t) for s, t in pairs]).sum()
    weight = mask.unsqueeze(-1).to(student[0].dtype)
    count = weight.sum() * student[0].shape[-1]
    return torch.stack([((s - t).square() * weight).sum() / count for s, t in pairs]).sum()


def attention_error(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Mean squared difference of attention weights, summed over layers.

    Args:
        student, teacher: per layer ``(batch, heads, tokens, tokens)``, rows of sum 1.
        mask: ``(batch, tokens)``, true for real tokens: pairs of real tokens count; ``None`` counts all, as published.
    """
    pairs = zip(student, teacher, strict=True)
    if mask is None:
        return torch.stack([functional.mse_loss(s, t) for s, t in pairs]).sum()
    real = mask.to(student[0].dtype)
    weight = (real[:, :, None] * real[:, None, :])[:, None]
    count = weight.sum() * student[0].shape[1]
    return torch.stack([((s - t).square() * weight).sum() / count for s, t in pairs]).sum()


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of softened class distributions ``(batch, classes)``, mean over batch and classes, as in SPD."""
    soft = functional.softmax(teacher / temperature, dim=-1)
    return -(soft * functional.log_softmax(student / temperature, dim=-1)).mean()
