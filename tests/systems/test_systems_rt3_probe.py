"""The measurement behind the search for cuts: it sees what a cut does, and leaves the model as it was."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_files import sentences

from lavolta.models.batching import encode_texts
from lavolta.models.hf import load_encoder
from lavolta.models.loaded import LoadedModel
from lavolta.sparsity.ranking import LevelMasks
from lavolta.systems.rt3.probe import CutProbe, compensate, output_distance
from lavolta.training.distill import embedding_loss
from lavolta.training.encoder import encoder_statistics
from lavolta.training.masking import MaskedLinears
from lavolta.training.saliency import LinearStats


@pytest.fixture
def parts(tiny_folder: Path) -> tuple[LoadedModel, LoadedModel, MaskedLinears, dict[str, LinearStats], CutProbe]:
    dense = load_encoder(str(tiny_folder), "embedding")
    batch = encode_texts(dense, sentences(12)).batch(range(12))
    stats = encoder_statistics(dense, [batch], hessians=True)
    student = copy.deepcopy(dense)
    masked = MaskedLinears(student.linears, dense.grids(2))
    return dense, student, masked, stats, CutProbe(dense.linears, masked, stats, output_distance(dense, student, batch))


def random_masks(dense: LoadedModel, share: float) -> LevelMasks:
    rng = np.random.default_rng(0)
    return {name: rng.random(grid.shape) < share for name, grid in dense.grids(2).items()}


def test_only_the_members_are_cut_and_everything_is_put_back(parts: tuple) -> None:
    dense, student, masked, _, probe = parts
    before = {name: tensor.clone() for name, tensor in dense.module.state_dict().items()}
    masks = random_masks(dense, 0.4)
    probe.prepare(masks)
    one, other = ["layers.0.ffn.up", "layers.0.ffn.down"], ["layers.1.attention.query"]
    losses = [probe.loss(one), probe.loss(other), probe.loss(one), probe.loss([])]
    assert losses[0] == losses[2] != losses[1]
    assert losses[3] == pytest.approx(0.0, abs=1e-6)
    masked.detach()
    for name, tensor in student.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_loss_is_that_of_a_model_that_was_cut_and_compensated(parts: tuple) -> None:
    dense, _, _, stats, probe = parts
    masks = random_masks(dense, 0.4)
    members = ["layers.1.ffn.up"]
    probe.prepare(masks)
    whole = {name: np.ones_like(mask) for name, mask in masks.items()}
    hand = copy.deepcopy(dense)
    masked = MaskedLinears(hand.linears, dense.grids(2))
    mixed = {name: masks[name] if name in members else whole[name] for name in masks}
    compensate(dense.linears, masked, stats, [mixed])
    texts = encode_texts(dense, sentences(12)).batch(range(12))
    with torch.no_grad(), masked.at(mixed):
        out = hand.module(texts.input_ids, texts.attention_mask, texts.type_ids).output
    with torch.no_grad():
        target = dense.module(texts.input_ids, texts.attention_mask, texts.type_ids).output
    # Fewer steps of conjugate gradients than the final compensation, which leave a small part of the way.
    assert probe.loss(members) == pytest.approx(float(embedding_loss(out, target)), rel=0.05)


def test_compensation_helps(parts: tuple) -> None:
    dense, student, masked, stats, _ = parts
    masks = random_masks(dense, 0.5)
    batch = encode_texts(dense, sentences(12)).batch(range(12))

    def distance() -> float:
        with torch.no_grad(), masked.at(masks):
            out = student.module(batch.input_ids, batch.attention_mask, batch.type_ids).output
        with torch.no_grad():
            target = dense.module(batch.input_ids, batch.attention_mask, batch.type_ids).output
        return float(embedding_loss(out, target))

    plain = distance()
    compensate(dense.linears, masked, stats, [masks])
    assert distance() < plain
