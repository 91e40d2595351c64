"""Dropout whose mask is shared by the tokens of a sequence: one random number per feature, not per value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lavolta.errors import UserInputError


class LockedDropout(nn.Module):
    """Drops whole features of a sequence ``(batch, tokens, hidden)``: locked dropout (Merity et al. 2018, AWD-LSTM).

    On a CPU, drawing one random number per value takes as long as the matrix products of a small model.

    Args:
        p: probability of dropping a feature, 0 to below 1.

    Raises:
        UserInputError: a probability outside this range.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise UserInputError(f"a dropout of {p} is outside 0 <= p < 1.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        keep = torch.rand(x.shape[0], *([1] * (x.ndim - 2)), x.shape[-1], device=x.device) >= self.p
        return x * (keep / (1.0 - self.p))


def lock_dropout(module: nn.Module, p: float) -> None:
    """Replace every `nn.Dropout` inside ``module`` whose probability is not zero by a `LockedDropout` of ``p``."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout) and child.p > 0.0:
                setattr(parent, name, LockedDropout(p))
