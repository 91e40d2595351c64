"""Where `prune` puts its result: what is refused, and what an end in the middle leaves."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lavolta.errors import UserInputError
from lavolta.systems.spd.recipe import prune

STEPS = 6


def run(folder: Path, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    return prune(str(folder), task="rte", data=data, out=out, **{"quick": True, "steps": STEPS, **options})


class ReachedError(Exception):
    pass


def test_a_place_that_holds_something_else_is_left_alone(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserInputError, match="is no result of prune"):
        run(tiny_folder, tiny_glue, tmp_path / "notes")
    with pytest.raises(UserInputError, match="a folder that exists"):
        run(tiny_folder, tiny_glue, tmp_path / "absent" / "out")
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["diary.txt"]
    for place in (".", ".."):
        with pytest.raises(UserInputError, match="is no name for a result"):
            run(tiny_folder, tiny_glue, Path(place))


def test_an_end_while_a_result_is_replaced_leaves_nothing_that_cannot_be_repeated(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, moved = tmp_path / "out", list[Path]()
    run(tiny_folder, tiny_glue, out)

    def ending(source: Path, target: Path) -> None:
        if target == out:
            raise ReachedError
        moved.append(source)
        os.rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(
            "lavolta.systems.spd.output.os", SimpleNamespace(replace=ending, access=os.access, W_OK=os.W_OK)
        )
        with pytest.raises(ReachedError):
            run(tiny_folder, tiny_glue, out, seed=1)
    assert (moved, out.exists()) == ([out], False)
    assert run(tiny_folder, tiny_glue, out, seed=1)["options"]["seed"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
