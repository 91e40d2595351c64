"""Calibration statistics and saliencies: real tokens only, closed forms, the surgeon's identity."""

import numpy as np
import pytest
import torch
from torch import nn

from lavolta.errors import UserInputError
from lavolta.training.saliency import LinearStats, collect_stats, importance, importances


def stats_of(inputs: torch.Tensor) -> LinearStats:
    layer = nn.Linear(inputs.shape[-1], 1)
    return collect_stats({"a": layer}, [inputs], layer, hessians=True)["a"]


def test_moments_are_those_of_all_inputs() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    # Batches of odd sizes, with and without a token dimension.
    batches = [torch.randn(7, 5), torch.randn(2, 3, 5), torch.randn(1, 1, 5)]
    found = collect_stats({"a": layer}, batches, layer, hessians=True)["a"]
    everything = torch.cat([batch.reshape(-1, 5) for batch in batches]).double()
    assert found.tokens == 14
    np.testing.assert_allclose(found.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.second_moment, everything.square().mean(0), rtol=1e-12)
    # Products are summed in float32: 14 terms of at most the largest square.
    bound = 14 * np.finfo(np.float32).eps * everything.abs().max().item() ** 2
    np.testing.assert_allclose(found.hessian(0.0), everything.T @ everything / 14, atol=bound)


def test_padding_counts_nowhere() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 2)
    inputs, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    poisoned = torch.where(mask[..., None].bool(), inputs, torch.full_like(inputs, torch.nan))
    found = collect_stats({"a": layer}, [(poisoned, mask)], lambda batch: layer(batch[0]), lambda batch: batch[1], True)
    real = collect_stats({"a": layer}, [inputs[mask.bool()]], layer, hessians=True)
    assert found["a"].tokens == 9
    for field in ("total", "squares", "products"):
        assert torch.equal(getattr(found["a"], field), getattr(real["a"], field))


def test_layers_that_share_an_input_count_it_once_each() -> None:
    torch.manual_seed(0)
    first, second, third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def run(batch: torch.Tensor) -> torch.Tensor:
        return third(first(batch) + second(batch))

    batches = [torch.randn(6, 4), torch.randn(3, 4)]
    found = collect_stats({"a": first, "b": second, "c": third}, batches, run, hessians=True)
    assert [found[name].tokens for name in "abc"] == [9, 9, 9]
    assert torch.equal(found["a"].products, found["b"].products)
    middle = torch.cat([first(batch) + second(batch) for batch in batches]).detach()
    np.testing.assert_allclose(found["c"].squares, middle.double().square().sum(0), rtol=1e-6)


def test_no_hook_is_left_behind_even_after_a_failure() -> None:
    layer = nn.Linear(4, 2)
    with pytest.raises(UserInputError, match="token mask has 3"):
        collect_stats({"a": layer}, [torch.ones(4, 4)], layer, lambda _: torch.ones(3))
    assert not layer._forward_pre_hooks
    collect_stats({"a": layer}, [torch.ones(4, 4)], layer)
    assert not layer._forward_pre_hooks


def test_hessian_is_damped_by_the_mean_diagonal() -> None:
    found = stats_of(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    # E[x x^T] = [[5, 0], [0, 0]], mean diagonal 2.5.
    np.testing.assert_allclose(found.hessian(0.1), [[5.25, 0.0], [0.0, 0.25]], rtol=1e-12)
    np.testing.assert_array_equal(stats_of(torch.zeros(3, 2)).hessian(), np.eye(2))


def test_golden_saliencies_by_hand() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    found = stats_of(torch.tensor([[1.0, 1.0], [1.0, -1.0], [2.0, 0.0], [0.0, 0.0]]))
    assert importance(weight, None, "magnitude").tolist() == [[1, 4], [0, 9]]
    # E[x^2] = (6/4, 2/4), and the inputs are uncorrelated: the inverse of the Hessian is diagonal.
    assert importance(weight, found, "activation").tolist() == [[1.5, 2.0], [0.0, 4.5]]
    np.testing.assert_allclose(importance(weight, found, "second-order", 0.0), [[1.5, 2.0], [0.0, 4.5]], rtol=1e-12)


def test_second_order_saliency_is_the_error_after_the_best_repair() -> None:
    # Hassibi and Stork: remove w_j, let the others adapt; the least error is w_j^2 / inverse(H)_jj.
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6))
    weight = rng.standard_normal(6)
    found = importance(torch.from_numpy(weight[None]), stats_of(torch.from_numpy(inputs).float()), "second-order", 0.0)[
        0
    ]
    for removed in range(6):
        others = [column for column in range(6) if column != removed]
        residual = np.linalg.lstsq(inputs[:, others], inputs @ weight, rcond=None)[1][0]
        # The products are summed in float32 (1e-7 times the condition number of the inputs, about 100 squared).
        assert found[removed] == pytest.approx(residual / 40, rel=1e-2)


def test_redundant_inputs_make_weights_cheap_to_second_order_only() -> None:
    torch.manual_seed(0)
    base = torch.randn(200, 1)
    inputs = torch.cat([base, base + 0.01 * torch.randn(200, 1), torch.randn(200, 1)], dim=1)
    weight = torch.ones(1, 3)
    found = stats_of(inputs)
    second, activation = (importance(weight, found, kind)[0] for kind in ("second-order", "activation"))
    assert second[0] < 0.1 * second[2]
    assert activation[0] > 0.5 * activation[2]


def test_dead_inputs_and_dead_layers_have_finite_saliency() -> None:
    inputs = torch.randn(9, 3)
    inputs[:, 1] = 0.0
    for kind in ("activation", "second-order"):
        found = importance(torch.ones(2, 3), stats_of(inputs), kind)
        assert (found[:, 1] < found[:, [0, 2]].min() * 0.1).all()
        assert np.isfinite(importance(torch.ones(2, 3), stats_of(torch.zeros(4, 3)), kind)).all()


def test_all_layers_by_name() -> None:
    layers = {"a": nn.Linear(3, 2), "b": nn.Linear(2, 4)}
    found = importances(layers, None, "magnitude")
    assert {name: values.shape for name, values in found.items()} == {"a": (2, 3), "b": (4, 2)}
    assert all(values.dtype == np.float64 for values in found.values())


def test_wrong_values_are_refused_in_words() -> None:
    layer = nn.Linear(3, 2)
    plain = collect_stats({"a": layer}, [torch.ones(1, 3)], layer)["a"]
    with pytest.raises(UserInputError, match="'entropy' is unknown"):
        importance(layer.weight, plain, "entropy")
    with pytest.raises(UserInputError, match="needs calibration statistics"):
        importance(layer.weight, None, "activation")
    with pytest.raises(UserInputError, match="hessians=True"):
        importance(layer.weight, plain, "second-order")
    with pytest.raises(UserInputError, match="do not fit a weight of 4"):
        importance(torch.ones(2, 4), plain, "activation")
    with pytest.raises(UserInputError, match="a saw no token"):
        collect_stats({"a": layer}, [], layer)
    with pytest.raises(UserInputError, match="a saw no token"):
        collect_stats({"a": layer}, [torch.ones(2, 3)], layer, lambda _: torch.zeros(2))
    with pytest.raises(UserInputError, match="inputs of a contain NaN"):
        collect_stats({"a": layer}, [torch.full((2, 3), torch.inf)], layer)
