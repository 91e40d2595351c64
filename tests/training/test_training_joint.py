"""The loop that trains all levels: what it computes, and that no interruption shows in the result."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_toys import IN, OUT, Toy, toy_masks, toy_ranking

from lavolta.errors import UserInputError
from lavolta.training.joint import JointConfig, train_joint
from lavolta.training.levels import DenseOnly, FixedLevels, LevelSet, RankedLevels

CONFIG = JointConfig(steps=8, lr=0.05, checkpoint_every=3)
CUTS = [{"a": 20}, {"a": 12}, {"a": 5}]


class StoppedError(Exception):
    pass


def ranked() -> LevelSet:
    return RankedLevels(toy_ranking(), CUTS)


def train(toy: Toy, levels: LevelSet, config: JointConfig = CONFIG, **more: object) -> list[float]:
    return train_joint(toy.masked, levels, toy, toy.trainable, config, **more)


def weights(toy: Toy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in toy.trainable]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture
def whole() -> list[torch.Tensor]:
    """Weights after an uninterrupted run with dropout."""
    toy = Toy(dropout=0.3)
    train(toy, ranked())
    return weights(toy)


def test_it_is_the_hand_written_loop() -> None:
    toy, masks = Toy(), toy_masks(0.7, 0.3)
    expanded = [torch.from_numpy(toy.masked.grids["a"].expand(m["a"])) for m in masks]
    weight, bias = (p.detach().clone().double().requires_grad_() for p in toy.trainable)
    config = JointConfig(steps=10, lr=0.1, warmup=0.3, weight_decay=0.1, grad_clip=0.5, split=False)
    found = train(toy, FixedLevels(toy.masked, masks), config)
    # Ten steps, three of warm-up, then linearly down: the peak is reached, the last step is a seventh of it.
    rates = [1 / 3, 2 / 3, 1, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (weight, bias)]
    for step, rate in enumerate(rates):
        x, y = (t.double() for t in toy.batch(step))
        losses = [((x @ (weight * m).T + bias - y) ** 2).mean() for m in expanded]
        loss = (losses[0] + losses[1]) / 2
        assert found[step] == pytest.approx(loss.item(), rel=1e-5)
        gradients = torch.autograd.grad(loss, [weight, bias])
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        with torch.no_grad():
            # AdamW (Loshchilov and Hutter 2019, algorithm 2), the bias without decay.
            for p, g, (m, v), decay in zip((weight, bias), gradients, moments, (0.1, 0.0), strict=True):
                g = g * min(1.0, 0.5 / (norm + 1e-6))
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p.mul_(1 - 0.1 * rate * decay)
                p.sub_(0.1 * rate * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8))
    torch.testing.assert_close(toy.trainable[0].detach().double(), weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(toy.trainable[1].detach().double(), bias.detach(), rtol=1e-4, atol=1e-5)


def test_splitting_equal_rows_changes_nothing() -> None:
    results = []
    for split in (True, False):
        toy = Toy(rows=12, equal_rows=True)
        history = train(toy, FixedLevels(toy.masked, toy_masks(0.8, 0.5, 0.2)), replace(CONFIG, split=split))
        results.append((history, weights(toy)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    for left, right in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_every_level_sees_every_part_in_turn() -> None:
    # The loss of a part tells which level saw it: with three levels, three steps show each part to each level.
    toy, masks = Toy(rows=9), toy_masks(0.9, 0.5, 0.1)
    expanded = [torch.from_numpy(toy.masked.grids["a"].expand(m["a"])) for m in masks]
    seen = []
    original = toy.loss

    def loss(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        live = toy.linear.weight.detach()
        seen.append(next(i for i, m in enumerate(expanded) if torch.equal(live, toy.trainable[0].detach() * m)))
        return original(batch)

    toy.loss = loss
    train(toy, FixedLevels(toy.masked, masks), replace(CONFIG, steps=3))
    assert seen == [0, 1, 2, 1, 2, 0, 2, 0, 1]


def test_a_batch_of_fewer_rows_than_levels_trains_some_of_them() -> None:
    toy = Toy(rows=2)
    assert len(train(toy, FixedLevels(toy.masked, toy_masks(0.9, 0.5, 0.1)))) == CONFIG.steps


@given(st.integers(0, CONFIG.steps - 1), st.sampled_from([1, 3, 100]), st.integers(0, CONFIG.steps - 1))
@settings(max_examples=20)
def test_interruptions_do_not_show(
    tmp_path_factory: pytest.TempPathFactory, first: int, every: int, second: int
) -> None:
    config = replace(CONFIG, checkpoint_every=every)
    straight = Toy(dropout=0.3)
    train(straight, ranked(), config)
    checkpoint = tmp_path_factory.mktemp("joint") / "new" / "run.pt"

    def stop_at(wanted: int) -> object:
        def on_step(step: int, _: float) -> None:
            if step == wanted:
                raise StoppedError

        return on_step

    for wanted in (first, second):
        toy = Toy(dropout=0.3)
        try:
            train(toy, ranked(), config, checkpoint=checkpoint, on_step=stop_at(wanted))
        except StoppedError:
            assert torch.equal(toy.linear.weight, toy.trainable[0])  # No mask is left on.
    toy = Toy(dropout=0.3)
    train(toy, ranked(), config, checkpoint=checkpoint)
    assert same(weights(toy), weights(straight))
    again = Toy(dropout=0.3)
    assert train(again, ranked(), config, checkpoint=checkpoint) == []
    assert same(weights(again), weights(straight))
    assert [p.name for p in checkpoint.parent.iterdir()] == ["run.pt"]


def test_a_killed_run_continues(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    script = Path(__file__).with_name("joint_killed.py")
    source = Path(__file__).parents[2] / "src"
    paths = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run([sys.executable, script, checkpoint], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert ended.returncode == -signal.SIGKILL
    # It died with the second checkpoint in its temporary file; the first one is whole.
    assert len(list(tmp_path.iterdir())) == 2
    config = JointConfig(steps=8, checkpoint_every=3)
    steps: list[int] = []
    toy = Toy(dropout=0.3)
    train(toy, ranked(), config, checkpoint=checkpoint, on_step=lambda step, _: steps.append(step))
    assert steps == [3, 4, 5, 6, 7]
    straight = Toy(dropout=0.3)
    train(straight, ranked(), config)
    assert same(weights(toy), weights(straight))


@pytest.mark.parametrize(
    ("change", "identity"), [({"lr": 0.04}, ""), ({"steps": 9}, ""), ({"seed": 1}, ""), ({}, "another text")]
)
def test_the_checkpoint_of_another_run_is_refused(change: dict[str, float], identity: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    train(Toy(), ranked(), checkpoint=checkpoint)
    toy = Toy()
    before = weights(toy)
    with pytest.raises(UserInputError, match=r"run\.pt was made with another configuration or model; delete it"):
        train(toy, ranked(), replace(CONFIG, **change), checkpoint=checkpoint, identity=identity)
    assert same(weights(toy), before)


def test_no_damage_passes_for_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    train(Toy(), ranked(), checkpoint=checkpoint)
    good = checkpoint.read_bytes()
    rng = np.random.default_rng(0)
    broken = [good[:size] for size in (0, 1, 31, 32, 33, len(good) // 2, len(good) - 1)]
    for position in rng.integers(0, len(good), 40):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        broken.append(bytes(flipped))
    broken += [b"hello", good + b"\0", good[32:]]
    for data in broken:
        checkpoint.write_bytes(data)
        toy = Toy()
        before = weights(toy)
        with pytest.raises(UserInputError, match=r"run\.pt is damaged or of another version; delete it"):
            train(toy, ranked(), checkpoint=checkpoint)
        assert same(weights(toy), before)
    checkpoint.unlink()
    checkpoint.mkdir()
    with pytest.raises(UserInputError, match="cannot be read: Is a directory"):
        train(Toy(), ranked(), checkpoint=checkpoint)


def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: list[torch.Tensor]
) -> None:
    checkpoint = tmp_path / "run.pt"
    saves = 0

    def full(_: int) -> None:
        nonlocal saves
        saves += 1
        if saves == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UserInputError, match="disk is full; free 1 MB and run the command again"):
            train(Toy(dropout=0.3), ranked(), checkpoint=checkpoint)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    toy = Toy(dropout=0.3)
    assert len(train(toy, ranked(), checkpoint=checkpoint)) == 5
    assert same(weights(toy), whole)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserInputError, match=r"the folder .*file cannot be made"):
        train(Toy(), ranked(), checkpoint=tmp_path / "file" / "run.pt")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_before_it_reaches_the_weights(bad: float, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    toy = Toy()
    original, step_of = toy.loss, {"now": -1}
    batch = toy.batch

    def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        step_of["now"] = step
        return batch(step)

    toy.batch = batch_of
    toy.loss = lambda b: original(b) * (bad if step_of["now"] == 4 else 1.0)
    kept: list[list[torch.Tensor]] = []
    with pytest.raises(UserInputError, match=r"at step 4; lower the learning rate \(now 0\.05\)"):
        train(toy, DenseOnly(), checkpoint=checkpoint, on_step=lambda *_: kept.append(weights(toy)))
    assert same(weights(toy), kept[-1])
    assert all(torch.isfinite(p).all() for p in weights(toy))


def test_a_gradient_that_is_not_finite_is_refused_too() -> None:
    toy = Toy()
    # The square root of a loss of zero is fine, its slope is not.
    toy.loss = lambda batch: (toy.linear(batch[0]) * 0.0).sum().sqrt()
    before = weights(toy)
    with pytest.raises(UserInputError, match=r"became 0 and its gradient nan at step 0"):
        train(toy, DenseOnly())
    assert same(weights(toy), before)


def test_what_no_level_keeps_touches_nothing() -> None:
    # Weights that no level keeps get no gradient; decay shrinks them, and whatever they are changes no other weight.
    masks = toy_masks(0.6, 0.3)
    results = []
    for junk in (0.0, 100.0):
        toy = Toy()
        grid = toy.masked.grids["a"]
        used = torch.from_numpy(grid.expand(masks[0]["a"] | masks[1]["a"]))
        assert 0 < int(used.sum()) < OUT * IN
        with torch.no_grad():
            toy.trainable[0][~used] = junk
        train(toy, FixedLevels(toy.masked, masks))
        results.append((toy.trainable[0].detach()[used], toy.trainable[1].detach()))
        rates = [1.0, *(1 - i / 7 for i in range(7))]
        shrunk = junk * np.prod([1 - 0.05 * rate * CONFIG.weight_decay for rate in rates])
        np.testing.assert_allclose(toy.trainable[0].detach()[~used].numpy(), shrunk, rtol=1e-5)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    toy = Toy()
    before = weights(toy)[0]
    train(toy, FixedLevels(toy.masked, masks), replace(CONFIG, weight_decay=0.0))
    assert torch.equal(toy.trainable[0].detach()[~used], before[~used])
    assert not torch.equal(toy.trainable[0].detach()[used], before[used])


def test_vectors_do_not_decay() -> None:
    toy = Toy()
    toy.loss = lambda batch: (toy.linear(batch[0]) * 0.0).sum()
    before = weights(toy)
    train(toy, DenseOnly())
    assert torch.equal(toy.trainable[1], before[1])
    assert float(toy.trainable[0].detach().abs().sum()) < float(before[0].abs().sum())
