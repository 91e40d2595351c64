"""Measurements that were made are not made again, whatever happened to the program."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.devices.journal import Journal
from lavolta.errors import UserInputError

HEADER = {"plan": 5, "identity": {"parts": ["a"]}}


def _filled(path: Path, count: int) -> bytes:
    with Journal(path, HEADER) as journal:
        for k in range(count):
            journal.put(f"key{k}", {"ms": k / 8})
    return path.read_bytes()


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "j"
    _filled(path, 3)
    with Journal(path, HEADER) as journal:
        assert journal.resumed == 3
        assert journal.get("key2") == {"ms": 0.25}
        assert journal.get("key3") is None
        journal.put("key2", 7)
    with Journal(path, HEADER) as journal:
        assert journal.get("key2") == 7


def test_a_cut_at_any_byte_loses_at_most_the_last_line(tmp_path: Path) -> None:
    content = _filled(tmp_path / "whole", 3)
    for length in range(len(content)):
        path = tmp_path / "cut"
        path.write_bytes(content[:length])
        whole_lines = content[:length].count(b"\n")
        with Journal(path, HEADER) as journal:
            assert journal.resumed == max(whole_lines - 1, 0)
            journal.put("after", 1)
        with Journal(path, HEADER) as journal:
            assert journal.get("after") == 1


def test_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    before = _filled(path, 1)
    with pytest.raises(UserInputError, match=r"belongs to another run \(its plan differ\); remove the file"):
        Journal(path, {**HEADER, "plan": 6})
    assert path.read_bytes() == before


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="cannot be used"):
        Journal(tmp_path, HEADER)
    with pytest.raises(UserInputError, match="cannot be used"):
        Journal(tmp_path / "absent" / "j", HEADER)


@given(st.binary(max_size=60))
def test_any_other_content_is_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    path.write_bytes(content + b"\n")
    with pytest.raises(UserInputError, match=r"is damaged; remove the file|belongs to another run"):
        Journal(path, HEADER)
