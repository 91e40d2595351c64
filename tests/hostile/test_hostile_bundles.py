"""Every kind of broken bundle is refused with its own name, in one sentence, whatever was done to the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_bundles import hostile_bundles, main
from valid_bundles import write_tiny

from lavolta.errors import BundleError
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.container import KINDS

FILES = hostile_bundles()


def kind_of(name: str) -> str:
    return name.removeprefix("strict.").split(".")[0]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "changed.lavolta"


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def valid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "valid.lavolta"
    write_tiny(path, decoder=request.param == "decoder")
    return path.read_bytes()


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_broken_file_has_its_kind(name: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.lavolta"
    path.write_bytes(FILES[name])
    with pytest.raises(BundleError) as caught:
        BundleFile.open(path)
    assert caught.value.kind == kind_of(name), str(caught.value)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 600


def test_every_kind_has_a_broken_file() -> None:
    # `io` is not in a file: it is a file that cannot be read, below.
    assert {kind_of(name) for name in FILES} | {"io"} == set(KINDS)


def test_the_script_writes_the_same_files(tmp_path: Path, valid: bytes) -> None:
    main(tmp_path)
    assert valid in {(tmp_path / f"{name}.lavolta").read_bytes() for name in ("valid", "valid-decoder")}
    assert len(list(tmp_path.iterdir())) == len(FILES) + 2


def test_what_is_no_readable_file_is_io(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.lavolta", tmp_path / "no" / "folder"):
        with pytest.raises(BundleError) as caught:
            BundleFile.open(path)
        assert caught.value.kind == "io"


def test_every_truncation_is_refused(tmp_path: Path, valid: bytes) -> None:
    path = tmp_path / "cut.lavolta"
    path.write_bytes(valid)
    for size in reversed(range(len(valid))):
        os.truncate(path, size)
        with pytest.raises(BundleError) as caught:
            BundleFile.open(path)
        assert caught.value.kind == "truncated"


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_an_error_or_a_bundle(data: st.DataObject, scratch: Path, valid: bytes) -> None:
    changed = bytearray(valid)
    header = 8 + int.from_bytes(valid[:8], "little")
    # Half of the flips go to the header, where there is more to break than in as many places of the whole file.
    place = st.one_of(st.integers(0, header - 1), st.integers(0, len(valid) - 1))
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)):
        changed[at] = value
    scratch.write_bytes(changed)
    try:
        bundle = BundleFile.open(scratch)
    except BundleError as error:
        kind = error.kind
    else:
        kind = None
    if kind is not None:
        assert kind in KINDS
        return
    # What opens is usable: every weight of every level can be read.
    for name, shape in bundle.linears.items():
        for level in range(len(bundle.levels)):
            assert bundle.dense_weight(name, level).shape == shape


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes, scratch: Path) -> None:
    scratch.write_bytes(data)
    with pytest.raises(BundleError):
        BundleFile.open(scratch)
