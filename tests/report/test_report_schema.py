"""Reading `result.json`: every kind of broken file has a sentence; the reference page has every field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lavolta.errors import UserInputError
from lavolta.report.schema import Assumption, LevelResult, PolicyResult, Result, load_result, parse_result

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "result.md"


def test_what_was_written_is_read(sample_result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(sample_result), encoding="utf-8")
    result = parse_result(load_result(path))
    assert result.levels[3].kept_by_layer == sample_result["levels"][3]["kept_by_layer"]
    assert result.policies["dial"].inferences == 1_391_200


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not valid JSON"),
        (b'{"levels": [', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8 text at byte 0"),
        (b"[1, 2]", "a JSON list; a result is an object"),
    ],
)
def test_a_broken_file_is_named(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserInputError, match=sentence):
        load_result(path)


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="run `lavolta demo`"):
        load_result(tmp_path / "result.json")


def test_a_field_of_a_newer_writer_is_left_out(sample_result: dict[str, Any]) -> None:
    sample_result["color_of_the_box"] = "green"
    assert not hasattr(parse_result(sample_result), "color_of_the_box")


def test_without_names_the_first_policy_is_the_baseline_and_the_last_is_ours(sample_result: dict[str, Any]) -> None:
    del sample_result["our_policy"], sample_result["baseline_policy"]
    result = parse_result(sample_result)
    ours, base = result.ours(), result.base()
    assert ours is not None
    assert base is not None
    assert (base[0], ours[0]) == ("E1", "dial")


@pytest.mark.parametrize("part", [Result, LevelResult, PolicyResult, Assumption])
def test_the_reference_page_has_every_field(part: type[BaseModel]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, field in part.model_fields.items():
        assert f"| `{name}` |" in text, f"{part.__name__}.{name} is not in {PAGE.name}"
        if field.description:
            assert field.description in text, f"{PAGE.name} says something else about {part.__name__}.{name}"
