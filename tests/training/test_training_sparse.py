"""The loop under a pruning method: no interruption shows, no bad step counts, and the report's data chooses nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_toys import CONFIG, Toy, same

from lavolta.errors import UserInputError
from lavolta.training.schedules import RestartedDecay
from lavolta.training.sparse import train_sparse

KINDS = ["gradual", "compensated", "movement"]


class StoppedError(Exception):
    pass


@given(st.sampled_from(KINDS), st.lists(st.integers(0, 10), max_size=3), st.sampled_from([1, 3, 100]))
@settings(max_examples=10)
def test_interruptions_do_not_show(
    tmp_path_factory: pytest.TempPathFactory, kind: str, stops: list[int], every: int
) -> None:
    config = replace(CONFIG, checkpoint_every=every)
    straight = Toy(kind)
    wanted = straight.train(config=config)
    checkpoint = tmp_path_factory.mktemp("sparse") / "new" / "run.checkpoint"

    def stopper(at: int) -> object:
        def on_step(step: int, _: float) -> None:
            if step == at:
                raise StoppedError

        return on_step

    for stop in stops:
        toy = Toy(kind)
        with contextlib.suppress(StoppedError):
            toy.train(checkpoint, config, on_step=stopper(stop))
    toy = Toy(kind)
    assert toy.train(checkpoint, config) == wanted
    assert same(toy.weights(), straight.weights())
    again = Toy(kind)
    steps: list[int] = []
    assert again.train(checkpoint, config, on_step=lambda step, _: steps.append(step)) == wanted
    assert steps == []
    assert same(again.weights(), straight.weights())


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_continues(kind: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    script = Path(__file__).with_name("sparse_killed.py")
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(script), str(checkpoint), kind, "3"]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert ended.returncode == -signal.SIGKILL
    toy, steps = Toy(kind), list[int]()
    found = toy.train(checkpoint, on_step=lambda step, _: steps.append(step))
    assert steps == [6, 7, 8, 9, 10]
    straight = Toy(kind)
    assert straight.train() == found
    assert same(toy.weights(), straight.weights())


def test_the_best_look_at_held_out_data_with_the_final_masks_is_kept() -> None:
    toy = Toy()
    # Looks after steps 2, 4, 6, 8, 10, 11; the masks are final from step 5 on, so that 99 and 50 do not count.
    toy.looked = [99.0, 50.0, 7.0, 9.0, 9.0, 8.0]
    seen: dict[int, list[torch.Tensor]] = {}
    run = toy.train(on_step=lambda step, _: seen.update({step + 1: [p.detach().clone() for p in toy.trainable]}))
    assert [(record["step"], record["settled"]) for record in run.curve] == [
        (2, False),
        (4, False),
        (6, True),
        (8, True),
        (10, True),
        (11, True),
    ]
    # Of equals the later one: it has learned longer.
    assert run.chosen == 10
    assert same([p.detach() for p in toy.trainable], seen[10])
    assert not same(seen[10], seen[11])


def test_other_scores_choose_nothing() -> None:
    runs = []
    for dev in (lambda step: step, lambda step: -step):
        toy = Toy()
        places = iter(range(6))

        def look(toy: Toy = toy, places: object = places, dev: object = dev) -> dict[str, float]:
            return {**toy.look(), "dev": float(dev(next(places)))}  # type: ignore[operator,call-overload]

        runs.append((train_sparse(toy, toy.pruning, toy.trainable, CONFIG, look).chosen, toy.weights()))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


def test_a_look_leaves_no_trace() -> None:
    often, seldom = Toy(), Toy()
    last: list[list[torch.Tensor]] = []
    for toy, every in ((often, 1), (seldom, 100)):
        draws = torch.rand

        def look(toy: Toy = toy, draws: object = draws) -> dict[str, float]:
            draws(3)  # type: ignore[operator]
            return toy.look()

        config = replace(CONFIG, evaluate_every=every)
        seen: list[list[torch.Tensor]] = []
        train_sparse(
            toy,
            toy.pruning,
            toy.trainable,
            config,
            look,
            on_step=lambda *_, toy=toy, seen=seen: seen.append([p.detach().clone() for p in toy.trainable]),
        )
        last.append(seen[-1])
    assert same(last[0], last[1])


@pytest.mark.parametrize("saved", [True, False])
def test_a_cut_that_cannot_be_made_names_the_checkpoint_that_stays(saved: bool, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    toy, at = Toy(), 7 if saved else 1
    original = toy.pruning.before_step

    def before_step(step: int, optimizer: torch.optim.Optimizer | None) -> None:
        if step == at:
            raise UserInputError("nothing can be pruned; lower the learning rate.")
        original(step, optimizer)

    toy.pruning.before_step = before_step
    with pytest.raises(UserInputError) as found:
        toy.train(checkpoint)
    words = f"; the last good checkpoint stays in {checkpoint}" if saved else ""
    assert str(found.value) == f"nothing can be pruned; lower the learning rate{words}."
    assert checkpoint.exists() is saved


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_checkpoint(bad: float, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    toy, kept = Toy(), list[list[torch.Tensor]]()
    original = toy.loss
    toy.loss = lambda step: original(step) * (bad if step == 7 else 1.0)
    with pytest.raises(UserInputError, match=r"at step 7; the last good checkpoint stays in .*run\.checkpoint; lower"):
        toy.train(checkpoint, on_step=lambda *_: kept.append([p.detach().clone() for p in toy.trainable]))
    assert same([p.detach() for p in toy.trainable], kept[-1])
    assert all(bool(torch.isfinite(p).all()) for p in toy.trainable)
    well, steps = Toy(), list[int]()
    found = well.train(checkpoint, on_step=lambda step, _: steps.append(step))
    assert steps[0] == 6
    straight = Toy()
    assert straight.train() == found
    assert same(well.weights(), straight.weights())


@pytest.mark.parametrize("change", [{"seed": 4}, {"rate": RestartedDecay(0.04, (5, 11))}, {"grad_clip": 2.0}])
def test_the_checkpoint_of_another_run_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    Toy().train(checkpoint)
    toy = Toy()
    before = toy.weights()
    with pytest.raises(UserInputError, match="made with another configuration"):
        toy.train(checkpoint, replace(CONFIG, **change))  # type: ignore[arg-type]
    with pytest.raises(UserInputError, match="made with another configuration"):
        toy.train(checkpoint, identity="other data")
    assert same(toy.weights(), before)


def test_frozen_weights_do_not_tighten_the_clip() -> None:
    # The published code clips by the norm of all parameters; what is frozen must not count.
    toy = Toy()
    big = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    original = toy.loss
    toy.loss = lambda step: original(step) + 1e6 * big.sum()
    plain = Toy()
    config = replace(CONFIG, grad_clip=0.1)
    toy.train(config=config)
    plain.train(config=config)
    assert same(toy.weights(), plain.weights())


def test_the_dense_model_trains_through_the_same_loop() -> None:
    toy = Toy()
    run = train_sparse(toy, None, toy.trainable, CONFIG, toy.look)
    assert [record["settled"] for record in run.curve] == [True] * 6
    assert bool((toy.linear.weight != 0).all())
