"""The options of `prune`: what is refused, and how long each phase of a training is."""

from __future__ import annotations

from typing import Any

import pytest

from lavolta.errors import UserInputError
from lavolta.systems.spd.options import PruneOptions, pruned_steps, rate_ends


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sparsity": 1.0}, "a sparsity of 1 cannot be reached"),
        ({"sparsity": -0.5}, "cannot be reached"),
        ({"method": "magic"}, "the method 'magic' is unknown; choose one of spd"),
        ({"cell_rows": 3}, "the cell height 3 is unknown"),
        ({"pooling": "max"}, "the pooling 'max' is unknown"),
        ({"accelerator": "tpu"}, "the accelerator 'tpu' is unknown"),
        ({"steps": 0}, "give at least 1"),
        ({"lr": float("nan")}, "the learning rate is nan"),
        ({"epochs": 0.0}, "the epochs is 0.0"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": 1 << 31}, "the seed is 2147483648; give 0 to 2147483647"),
        ({"levels": (1.0,), "sparsity": None}, "do not lead to 1"),
        ({"levels": (0.5, 0.4)}, "give rising sparsities"),
        ({"levels": (0.95,)}, "do not lead to 0.9"),
        ({"levels": (0.5,), "method": "wanda"}, "wanda leaves no order in which cells were dropped"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserInputError, match=sentence):
        PruneOptions("m", "rte", "d", **options)


def test_the_method_is_the_best_that_leaves_what_is_asked_for() -> None:
    assert PruneOptions("m", "rte", "d").method == "gradual-sparsegpt"
    assert PruneOptions("m", "rte", "d", levels=(0.5,)).method == "spd"
    assert PruneOptions("m", "rte", "d", levels=(0.5,), method="gmp-kd").method == "gmp-kd"
    assert PruneOptions("m", "rte", "d") == PruneOptions("m", "rte", "d", method="gradual-sparsegpt")


def test_phases_of_short_runs() -> None:
    assert [pruned_steps(steps, 0.5) for steps in (1, 2, 3, 60)] == [0, 1, 2, 30]
    assert rate_ends(1, 0, restart=True) == (1,)
    assert rate_ends(60, 30, restart=True) == (30, 60)
    assert rate_ends(60, 30, restart=False) == (60,)
