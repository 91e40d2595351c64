"""Proxies: what they compute is what a forward pass or the Hessian says, and the dense model is left alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers
from tiny_families import tiny_config, tiny_model

from lavolta.errors import UserInputError
from lavolta.models.batching import Encoded
from lavolta.models.hf import from_transformers
from lavolta.models.loaded import LoadedModel, run_module
from lavolta.sparsity.ranking import level_masks, uniform_cuts
from lavolta.training.encoder import label_loss
from lavolta.training.proxies import (
    RUNGS,
    ForwardProxy,
    ReconstructionProxy,
    calibrate,
    global_ratios,
    layer_errors,
    magnitude_rankings,
    unexplained,
)


def encoded(rows: int = 24, labels: str | None = "classes") -> Encoded:
    chance = np.random.default_rng(4)
    ids = [chance.integers(2, 50, int(length)) for length in chance.integers(2, 12, rows)]
    types = [np.zeros(len(row), np.int64) for row in ids]
    truth = {None: None, "classes": np.arange(rows) % 3, "scores": chance.random(rows).astype(np.float32)}[labels]
    return Encoded(ids, types, truth, 0)


@pytest.fixture(scope="module")
def dense() -> LoadedModel:
    return from_transformers(tiny_model("bert", 3), name="m")


def cut_by_hand(dense: LoadedModel, kept: dict[str, int], data: Encoded) -> LoadedModel:
    """The largest weights alone, and every bias corrected by what its layer lost on average."""
    batch = data.batch(range(len(data)))
    stats = calibrate(dense, [batch], 1).stats
    student = copy.deepcopy(dense)
    with torch.no_grad():
        for name, linear in student.linears.items():
            flat = linear.weight.abs().flatten()
            mask = torch.zeros(len(flat), dtype=torch.bool)
            mask[flat.argsort(descending=True, stable=True)[: kept[name]]] = True
            lost = linear.weight * ~mask.view_as(linear.weight)
            linear.weight -= lost
            linear.bias += lost @ stats[name].mean.float()
    return student


def by_hand(dense: LoadedModel, kept: dict[str, int], data: Encoded) -> torch.Tensor:
    """Outputs of that model."""
    with torch.no_grad():
        output = run_module(cut_by_hand(dense, kept, data), data.batch(range(len(data)))).output
    assert output is not None
    return output


def test_kl_and_loss_are_those_of_the_cut_and_corrected_model(dense: LoadedModel) -> None:
    data = encoded()
    before = {name: tensor.clone() for name, tensor in dense.module.state_dict().items()}
    batches = [data.batch(range(10)), data.batch(range(10, 24))]
    calibration = calibrate(dense, [data.batch(range(24))], 1)
    kept = {name: grid.cells // 2 for name, grid in calibration.grids.items()}
    output = by_hand(dense, kept, data)
    batch = data.batch(range(24))
    with torch.no_grad():
        target = run_module(dense, batch).output
    assert target is not None
    kl = (target.softmax(-1) * (target.log_softmax(-1) - output.log_softmax(-1))).sum(-1).mean()
    # Float32 outputs of a few dozen operations, of size 1.
    assert ForwardProxy(calibration, batches, "kl")(kept)[0] == pytest.approx(-float(kl), abs=1e-5)
    loss = float(label_loss(output, batch, "classification"))
    assert ForwardProxy(calibration, batches, "loss")(kept)[0] == pytest.approx(-loss, abs=1e-5)
    for name, tensor in dense.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_hidden_states_are_compared_layer_by_layer(dense: LoadedModel) -> None:
    data = encoded()
    calibration = calibrate(dense, [data.batch(range(24))], 1)
    kept = {name: grid.cells // 2 for name, grid in calibration.grids.items()}
    whole = {name: grid.cells for name, grid in calibration.grids.items()}
    student = cut_by_hand(dense, kept, data)
    shares = []
    batch = data.batch(range(24))
    with torch.no_grad():
        before, after = (run_module(model, batch).all_hidden for model in (dense, student))
    for layer in (1, 2):
        rows = []
        for row in range(24):
            tokens = batch.attention_mask[row].bool()
            rows.append([states[layer][row][tokens].double().mean(0) for states in (before, after)])
        mean = torch.stack([a for a, _ in rows]).mean(0)
        lost = sum(float((a - b).square().sum()) for a, b in rows)
        shares.append(lost / sum(float((a - mean).square().sum()) for a, _ in rows))
    wanted = -sum(shares) / 2
    # Float32 states of size 1 whose differences are a tenth of that.
    for parts in ([range(24)], [range(5), range(5, 24)]):
        proxy = ForwardProxy(calibration, [data.batch(rows) for rows in parts], "hidden")
        assert proxy(kept)[0] == pytest.approx(wanted, rel=1e-4)
        assert proxy(whole)[0] == pytest.approx(0.0, abs=1e-9)
    assert proxy.on([data.batch(range(12))])(kept)[0] < 0.0
    assert proxy(kept)[0] == pytest.approx(wanted, rel=1e-4)


def test_equal_rows_make_a_finite_distance(dense: LoadedModel) -> None:
    one = encoded(1)
    batch = Encoded(one.ids * 2, None if one.types is None else one.types * 2, np.zeros(2, np.int64), 0).batch(range(2))
    calibration = calibrate(dense, [batch], 1)
    proxy = ForwardProxy(calibration, [batch], "hidden")
    scores = [proxy({n: round(s * g.cells) for n, g in calibration.grids.items()})[0] for s in (1.0, 0.5)]
    assert np.isfinite(scores).all()
    assert scores[1] < scores[0]


def test_outputs_of_tokens_are_compared_by_their_hidden_states_alone() -> None:
    theirs = transformers.AutoModelForTokenClassification.from_config(tiny_config("bert", num_labels=3)).eval()
    model = from_transformers(theirs, name="m")
    batches = [encoded(labels=None).batch(range(24))]
    calibration = calibrate(model, batches, 1)
    half = {name: grid.cells // 2 for name, grid in calibration.grids.items()}
    assert ForwardProxy(calibration, batches, "hidden")(half)[0] < 0.0
    with pytest.raises(UserInputError, match=r"one output per token.*choose 'hidden'"):
        ForwardProxy(calibration, batches, "kl")


def test_scores_are_compared_up_to_a_shift_and_a_scale() -> None:
    chance = np.random.default_rng(0)
    dense, noise = (torch.from_numpy(chance.normal(size=(200, 1))).float() for _ in range(2))
    assert unexplained(3.0 * dense - 7.0, dense) == pytest.approx(0.0, abs=1e-6)
    mixed = dense + noise
    wanted = 1.0 - np.corrcoef(mixed.numpy().ravel(), dense.numpy().ravel())[0, 1] ** 2
    assert unexplained(mixed, dense) == pytest.approx(wanted, abs=1e-6)
    assert unexplained(-dense, dense) == unexplained(torch.ones(200, 1), dense) == 1.0
    assert unexplained(dense[:1], dense[:1]) == 1.0


def test_the_distance_of_scores_is_of_all_batches_together() -> None:
    model = from_transformers(tiny_model("bert", 1), name="m")
    assert model.spec.task == "regression"
    data = encoded(labels="scores")
    calibration = calibrate(model, [data.batch(range(24))], 1)
    half = {name: grid.cells // 2 for name, grid in calibration.grids.items()}
    found = [
        ForwardProxy(calibration, [data.batch(rows) for rows in parts], "kl")(half)[0]
        for parts in ([range(24)], [range(5), range(5, 24)])
    ]
    with torch.no_grad():
        target = run_module(model, data.batch(range(24))).output
    assert target is not None
    # Float32 outputs, whose spread is about a tenth of their size: rounding is up to ten times that of one number.
    assert found == pytest.approx([-unexplained(by_hand(model, half, data), target)] * 2, abs=1e-4)


def test_everything_kept_is_no_distance_and_the_order_of_calls_does_not_matter(dense: LoadedModel) -> None:
    data = encoded()
    calibration = calibrate(dense, [data.batch(range(24))], 1)
    whole = {name: grid.cells for name, grid in calibration.grids.items()}
    half = {name: count // 2 for name, count in whole.items()}
    proxy = ForwardProxy(calibration, [data.batch(range(24))], "kl")
    first = proxy(half)
    assert proxy(whole)[0] == pytest.approx(0.0, abs=1e-6)
    assert proxy(half) == first
    # Another slice has targets of the dense model, whatever was cut before.
    assert proxy.on([data.batch(range(12))])(whole)[0] == pytest.approx(0.0, abs=1e-6)
    assert proxy(half) == first


def test_the_ladder_tells_mild_cuts_from_harsh_ones_with_other_weights(dense: LoadedModel) -> None:
    data = encoded(64)
    batches = [data.batch(range(64))]
    calibration = calibrate(dense, batches, 1)
    ladder = ForwardProxy(calibration, batches, "ladder")
    scores = [
        ladder({name: round(share * grid.cells) for name, grid in calibration.grids.items()})[0]
        for share in (0.8, 0.5, 0.05)
    ]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    half = {name: grid.cells // 2 for name, grid in calibration.grids.items()}
    assert ladder(half) != ForwardProxy(calibration, batches, "kl")(half)


def test_layer_errors_are_those_of_the_outputs(dense: LoadedModel) -> None:
    data = encoded()
    batch = data.batch(range(24))
    calibration = calibrate(dense, [batch], 1)
    rankings = magnitude_rankings(dense, calibration.grids)
    errors = layer_errors(calibration, rankings)
    name = "layers.1.ffn.up"
    seen: list[torch.Tensor] = []
    handle = dense.linears[name].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        run_module(dense, batch)
    handle.remove()
    inputs = seen[0][batch.attention_mask].double()
    place = RUNGS.index(0.7)
    mask = torch.from_numpy(level_masks(rankings, uniform_cuts(rankings, 0.7))[name])
    weight = dense.linears[name].weight.detach().double()
    full, change = inputs @ weight.T, inputs @ (weight * ~mask).T
    wanted = float(change.var(0, correction=0).sum() / full.var(0, correction=0).sum())
    assert errors[name][place] == pytest.approx(wanted, rel=1e-4)
    for found in errors.values():
        assert found[0] == 0.0
        assert (np.diff(found) >= 0.0).all()
    proxy = ReconstructionProxy(errors, {n: g.cells for n, g in calibration.grids.items()})
    kept = {n: round((1 - 0.7) * g.cells) for n, g in calibration.grids.items()}
    assert proxy(kept)[0] == pytest.approx(-sum(found[place] for found in errors.values()), rel=0.05)


def test_one_threshold_rules_all_layers(dense: LoadedModel) -> None:
    grids = dense.grids(1)
    ratios = global_ratios(dense, grids, 0.6)
    sizes = {name: grid.cells for name, grid in grids.items()}
    lost = sum(round(ratios[name] * size) for name, size in sizes.items())
    assert lost == round(0.6 * sum(sizes.values()))
    weights = dense.weights()
    lowest_kept = min(np.sort(np.abs(w).ravel())[round(ratios[n] * w.size)] for n, w in weights.items())
    highest_lost = max(np.sort(np.abs(w).ravel())[round(ratios[n] * w.size) - 1] for n, w in weights.items())
    assert highest_lost < lowest_kept


def test_what_cannot_be_compared_is_refused(dense: LoadedModel) -> None:
    data = encoded(labels=None)
    calibration = calibrate(dense, [data.batch(range(24))], 1)
    with pytest.raises(UserInputError, match="'loss' needs labels"):
        ForwardProxy(calibration, [data.batch(range(24))], "loss")
    with pytest.raises(UserInputError, match="the proxy 'luck' is unknown"):
        ForwardProxy(calibration, [], "luck")
