"""The page of a pruning run: what it says is computed from the curves, and names cannot break it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lavolta.errors import UserInputError
from lavolta.report.training import gap_sentence, read_prune_result, render_training, write_training_page


def curve(*points: tuple[int, float, float]) -> list[dict[str, float]]:
    return [{"step": step, "train": train, "held_out": dev, "dev": dev} for step, train, dev in points]


def result(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "prune",
        "task": "rte",
        "metric": "accuracy",
        "method": "spd",
        "title": "grafting",
        "dense_score": 70.0,
        "score": 66.5,
        "steps": 20,
        "levels": [{"name": "L0", "encoder_sparsity": 0.9, "model_sparsity": 0.42, "score": 66.5}],
        "curve": curve((10, 70.0, 64.0), (20, 75.0, 66.0)),
        "teacher_curve": curve((30, 90.0, 70.0)),
        "teacher_doubt": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("train", "words"), [(75.0, "overfits less"), (95.0, "overfits more"), (86.0, "overfits neither more nor less")]
)
def test_the_words_follow_the_curves(train: float, words: str) -> None:
    sentence = gap_sentence(result(curve=curve((20, train, 66.0))))
    assert f"is {train - 66.0:+.1f} points" in sentence
    assert "it was +20.0" in sentence
    assert words in sentence
    assert "dense" not in gap_sentence(result(teacher_curve=[]))


def test_the_page_has_both_sparsities_and_the_curves(tmp_path: Path) -> None:
    page = write_training_page(result(), tmp_path / "report.html").read_text(encoding="utf-8")
    for words in ("90 %", "42.0 %", "66.50", "70.00", 'id="chart-student-scores"', 'id="chart-teacher-scores"'):
        assert words in page
    assert '"y": [6.0, 9.0]' in page
    assert 'id="chart-teacher-scores"' not in render_training(result(teacher_curve=[]))


def test_the_page_says_where_it_was_pruned_and_under_which_budget() -> None:
    targets = {"layers.0.ffn.up": 0.5, "layers.0.ffn.down": 0.25, "layers.1.ffn.up": 0.75, "layers.1.ffn.down": 0.625}
    search = {
        "overall_ratio": 0.531,
        "budget": {"overall_ratio": 0.531},
        "origin": "searched",
        "candidates": 100,
        "proxy": "kl",
        "seconds": 41.6,
    }
    page = render_training(result(targets=targets, search=search))
    rows = [
        ['<th scope="row">0</th>', "<td>50.0 %</td>", "<td>25.0 %</td>"],
        ['<th scope="row">1</th>', "<td>75.0 %</td>", "<td>62.5 %</td>"],
    ]
    for row in rows:
        assert "".join(row) in page
    assert (
        "took away 53.1 % of the weights; of 100 candidates the proxy kl chose a vector that was drawn, in 42 s" in page
    )
    limited = {"device": "board", "deadline_ms": 20.0, "energy_mj": None, "tokens": 64, "freq_mhz": 1500.0}
    page = render_training(result(targets=targets, search={**search, "budget": limited, "origin": "uniform"}))
    assert "so that 64 tokens take at most 20.0 ms on board at 1,500 MHz (predicted); of" in page
    assert "chose the candidate uniform" in page
    alike = render_training(result(targets=dict.fromkeys(targets, 0.9)))
    assert "Where it was pruned" not in alike
    assert "The search" not in alike


def test_names_cannot_break_the_page() -> None:
    page = render_training(
        result(task="</script><script>alert(1)</script>", teacher_doubt="<b>doubt</b>", doubt="chance")
    )
    assert "<script>alert" not in page
    assert "<b>doubt" not in page
    assert "<li>chance.</li>" in page


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_prune_result(path) is None
    for content in ("{", "[]", '{"levels": []}'):
        path.write_text(content, encoding="utf-8")
        assert read_prune_result(path) is None
    path.write_text(json.dumps(result()), encoding="utf-8")
    assert read_prune_result(path) == result()
    with pytest.raises(UserInputError, match="it has no curve"):
        render_training({key: value for key, value in result().items() if key != "curve"})
