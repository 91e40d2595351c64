"""The ladder made before any task: made once, resumed, refused for other options, and what a task takes from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lavolta.errors import UserInputError
from lavolta.sparsity.ranking import are_nested, level_masks
from lavolta.systems.rt3 import upstream
from lavolta.systems.rt3.rows import RowOptions, run_row
from lavolta.systems.rt3.subjects import GlueSubject, GlueTraining, fresh_student, glue_subject
from lavolta.systems.rt3.upstream import Upstream, UpstreamOptions, pair_text, upstream_ladder

OPTIONS = UpstreamOptions(steps=4, lr=1e-3, batch_size=8, max_tokens=16)


class InterruptedLadderError(Exception):
    pass


@pytest.fixture(scope="module")
def pairs(tiny_glue: Path) -> list[tuple[str, str]]:
    return pair_text(tiny_glue, ["rte", "rte"])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ladder") / "ladder.safetensors"


@pytest.fixture(scope="module")
def ladder(tiny_folder: Path, pairs: list[tuple[str, str]], file: Path) -> Upstream:
    return upstream_ladder(str(tiny_folder), pairs, file, OPTIONS)


@pytest.fixture(scope="module")
def subject(tiny_folder: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> GlueSubject:
    training = GlueTraining(epochs=1, batch_size=8, max_tokens=16)
    return glue_subject(str(tiny_folder), "rte", tiny_glue, tmp_path_factory.mktemp("dense"), training)


def test_a_pair_stands_once(pairs: list[tuple[str, str]]) -> None:
    assert len(pairs) == len(set(pairs)) == 24


def test_a_finished_ladder_is_read_back_whole(
    tiny_folder: Path, pairs: list[tuple[str, str]], file: Path, ladder: Upstream
) -> None:
    def never(step: int, loss: float) -> None:
        raise AssertionError(f"step {step} was trained again, loss {loss}")

    again = upstream_ladder(str(tiny_folder), pairs, file, OPTIONS, never)
    assert again.cuts == ladder.cuts
    assert again.weights.keys() == ladder.weights.keys() == ladder.base.keys()
    assert all(torch.equal(again.weights[name], weight) for name, weight in ladder.weights.items())
    for name, ranking in ladder.rankings.items():
        assert (again.rankings[name].rank == ranking.rank).all()
    assert are_nested([level_masks(ladder.rankings, cut) for cut in ladder.cuts])
    assert not file.with_suffix(".checkpoint").exists()


def test_an_interrupted_ladder_gives_the_same_weights(
    tiny_folder: Path,
    pairs: list[tuple[str, str]],
    tmp_path: Path,
    ladder: Upstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = upstream.JointConfig
    monkeypatch.setattr(
        upstream, "JointConfig", lambda *args, **fields: config(*args, **{**fields, "checkpoint_every": 1})
    )

    def stop(step: int, _: float) -> None:
        if step == 2:
            raise InterruptedLadderError

    out = tmp_path / "ladder.safetensors"
    with pytest.raises(InterruptedLadderError):
        upstream_ladder(str(tiny_folder), pairs, out, OPTIONS, stop)
    assert not out.exists()
    seen: list[int] = []
    # `checkpoint_every` is a part of a checkpoint's mark, so what is compared is made with the same one.
    resumed = upstream_ladder(str(tiny_folder), pairs, out, OPTIONS, lambda step, _: seen.append(step))
    assert seen == [2, 3]
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in ladder.weights.items())


@pytest.mark.parametrize("damage", ["options", "half"])
def test_a_ladder_that_does_not_fit_is_refused(
    damage: str, tiny_folder: Path, pairs: list[tuple[str, str]], file: Path, ladder: Upstream, tmp_path: Path
) -> None:
    del ladder
    copy = tmp_path / "copy.safetensors"
    content = file.read_bytes()
    copy.write_bytes(content[: len(content) // 2] if damage == "half" else content)
    options = replace(OPTIONS, lr=2e-3) if damage == "options" else OPTIONS
    words = {"options": "was made with other options or text", "half": "cannot be read"}[damage]
    with pytest.raises(UserInputError, match=words):
        upstream_ladder(str(tiny_folder), pairs, copy, options)


def test_a_task_begins_with_the_ladder_and_what_fine_tuning_changed(subject: GlueSubject, ladder: Upstream) -> None:
    student = fresh_student(subject)
    tuned = {name: p.detach().clone() for name, p in student.module.named_parameters()}
    ladder.begin(student)
    moved = 0
    for name, weight in student.module.named_parameters():
        expected = tuned[name]
        if name in ladder.weights:
            expected = tuned[name] + (ladder.weights[name] - ladder.base[name])
            moved += not torch.equal(expected, tuned[name])
        assert torch.equal(weight, expected)
    assert moved > 20
    assert torch.equal(student.module.head.out.weight, tuned["head.out.weight"])


def test_a_ladder_of_another_encoder_is_refused(subject: GlueSubject, ladder: Upstream) -> None:
    deeper = {name.replace("layers.1.", "layers.7."): weight for name, weight in ladder.weights.items()}
    with pytest.raises(UserInputError, match=r"the ladder has a weight layers\.7\..* that the model lacks"):
        replace(ladder, weights=deeper).begin(fresh_student(subject))


def test_the_row_takes_levels_and_weights_from_the_ladder(
    subject: GlueSubject, ladder: Upstream, tmp_path: Path
) -> None:
    row = RowOptions("ranked-upstream", steps=2, lr=1e-3)
    run = run_row(subject, row, tmp_path, ladder=ladder)
    assert run.result["upstream"]["steps"] == 4
    assert run.result["cell_rows"] == 4
    wanted = [level_masks(ladder.rankings, cut) for cut in ladder.cuts]
    for masks, expected in zip(run.masks, wanted, strict=True):
        assert all((masks[name] == mask).all() for name, mask in expected.items())
    for level, sparsity in zip(run.result["levels"], row.sparsities, strict=True):
        assert level["sparsity"] >= sparsity - 1e-9
    for options, given in ((row, None), (RowOptions("ranked"), ladder)):
        with pytest.raises(UserInputError, match="does not fit the ladder"):
            run_row(subject, options, tmp_path, ladder=given)
    other = replace(ladder, options=replace(OPTIONS, cell_rows=1))
    with pytest.raises(UserInputError, match="the ladder has levels of"):
        run_row(subject, row, tmp_path, ladder=other)
