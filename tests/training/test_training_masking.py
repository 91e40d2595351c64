"""Masks on live layers: what is trained, what is put back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import NEVER, LayerRanking
from lavolta.training.masking import MaskedLinears, expanded_rank


def masked_layer(out: int, into: int, cell_rows: int, seed: int = 0) -> tuple[nn.Linear, MaskedLinears]:
    layer = nn.Linear(into, out)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(out, into, generator=torch.Generator().manual_seed(seed)))
    return layer, MaskedLinears({"a": layer}, {"a": CellGrid(out, into, cell_rows)})


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 2**31))
@settings(max_examples=30)
def test_output_and_gradient_know_only_kept_weights(out: int, into: int, cell_rows: int, seed: int) -> None:
    layer, masked = masked_layer(out, into, cell_rows)
    grid = masked.grids["a"]
    mask = {"a": np.random.default_rng(seed).random(grid.shape) < 0.5}
    kept = torch.from_numpy(grid.expand(mask["a"]))
    dense = masked.dense_weight("a").detach().clone()
    x = torch.randn(4, into, generator=torch.Generator().manual_seed(seed))
    with masked.at(mask):
        y = layer(x)
        y.square().sum().backward()
    torch.testing.assert_close(y, x @ (dense * kept).T + layer.bias, rtol=0, atol=1e-5)
    gradient = masked.dense_weight("a").grad
    assert gradient is not None
    # d/dW of sum(y^2) is 2 y^T x where the weight is kept, and exactly zero elsewhere.
    torch.testing.assert_close(gradient, 2.0 * (y.detach().T @ x) * kept, rtol=1e-5, atol=1e-4)
    assert not gradient[~kept].any()


def test_a_level_ends_with_its_block_even_by_an_error() -> None:
    layer, masked = masked_layer(5, 3, 2)
    none = {"a": np.zeros((3, 3), dtype=bool)}
    dense = layer.weight.clone()

    def fail() -> None:
        with masked.at(none):
            assert not layer.weight.any()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(layer.weight, dense)


def test_detaching_gives_back_the_dense_weights_bit_for_bit() -> None:
    layer, masked = masked_layer(5, 3, 2)
    parameter = masked.dense_weight("a")
    with torch.no_grad():
        parameter[0, 0] = 1e-40  # Not even a denormal number is lost.
    before = parameter.detach().clone()
    masked.set_masks({"a": np.zeros((3, 3), dtype=bool)})
    masked.detach()
    assert type(layer) is nn.Linear
    assert layer.weight is parameter
    assert torch.equal(layer.weight, before)
    assert sorted(name for name, _ in layer.named_parameters()) == ["bias", "weight"]
    # And the layer can be masked again.
    again = MaskedLinears({"a": layer}, {"a": CellGrid(5, 3, 1)})
    assert again.dense_weight("a") is parameter


def test_wrong_grids_and_masks_are_refused_in_words_and_nothing_is_changed() -> None:
    layer = nn.Linear(3, 5)
    with pytest.raises(UserInputError, match=r"a has shape \(5, 3\), but its grid is for \(3, 5\)"):
        MaskedLinears({"a": layer}, {"a": CellGrid(3, 5, 1)})
    with pytest.raises(UserInputError, match="b has no cell grid"):
        MaskedLinears({"a": layer, "b": nn.Linear(2, 2)}, {"a": CellGrid(5, 3, 1)})
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    masked = MaskedLinears({"a": layer}, {"a": CellGrid(5, 3, 1)})
    with pytest.raises(UserInputError, match="a is masked already"):
        MaskedLinears({"a": layer}, {"a": CellGrid(5, 3, 1)})
    with pytest.raises(UserInputError, match="no mask for a"):
        masked.set_masks({})
    with pytest.raises(UserInputError, match=r"mask of shape \(3, 5\)"):
        masked.set_masks({"a": np.ones((3, 5), dtype=bool)})


@given(st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 2, 4, 16]), st.integers(0, 2**31), st.integers(0, 50))
@settings(max_examples=30)
def test_expanded_rank_cuts_like_the_ranking(out: int, into: int, cell_rows: int, seed: int, cut: int) -> None:
    grid = CellGrid(out, into, cell_rows)
    rng = np.random.default_rng(seed)
    rank = rng.permutation(grid.cells).reshape(grid.shape).astype(np.int32)
    rank[rng.random(grid.shape) < 0.2] = NEVER
    ranking = LayerRanking(grid, rank)
    found = (expanded_rank(ranking) < cut).numpy()
    np.testing.assert_array_equal(found, grid.expand(ranking.keep(cut)))
