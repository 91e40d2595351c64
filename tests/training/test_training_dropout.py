"""Locked dropout: one mask for all tokens of a sequence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavolta.errors import UserInputError
from lavolta.training.dropout import LockedDropout, lock_dropout


def test_all_tokens_of_a_sequence_lose_the_same_features() -> None:
    torch.manual_seed(0)
    out = LockedDropout(0.25).train()(torch.ones(50, 7, 40))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert out.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    # 2,000 draws of chance 1/4: a standard error of 0.0097; sequences differ.
    assert float((out[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.04)
    assert not torch.equal(out[0], out[1])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.06)
    assert LockedDropout(0.25).train()(torch.ones(3, 4)).shape == (3, 4)


def test_it_does_nothing_outside_training_or_at_zero() -> None:
    x = torch.randn(2, 3, 4)
    assert LockedDropout(0.5).eval()(x) is x
    assert LockedDropout(0.0).train()(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_probabilities_outside_their_range_are_refused(p: float) -> None:
    with pytest.raises(UserInputError, match=f"a dropout of {p} is outside"):
        LockedDropout(p)


def test_only_dropouts_that_drop_are_replaced() -> None:
    model = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.0), nn.Linear(2, 2), nn.Dropout(0.1)))
    lock_dropout(model, 0.2)
    kinds = [(type(m).__name__, getattr(m, "p", None)) for m in model.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == [("LockedDropout", 0.2), ("Dropout", 0.0), ("Linear", None), ("LockedDropout", 0.2)]
