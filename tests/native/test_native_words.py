"""The C interface called as a C program would: a refusal has its name, and its sentence is the Python exception's."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.errors import BundleError, CancelledError, LavoltaError, UserInputError
from lavolta.runtime.engine import Model, open_bundle
from native_programs import ROOT, build
from reference_model import random_model

pytestmark = pytest.mark.slow

ClockFunction = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)


class Options(ctypes.Structure):
    _fields_ = (
        ("threads", ctypes.c_uint32),
        ("spin_us", ctypes.c_uint32),
        ("isa", ctypes.c_char_p),
        ("cores", ctypes.POINTER(ctypes.c_uint32)),
        ("core_count", ctypes.c_size_t),
    )


class Batch(ctypes.Structure):
    _fields_ = (
        ("token_ids", ctypes.POINTER(ctypes.c_int32)),
        ("type_ids", ctypes.POINTER(ctypes.c_int32)),
        ("lengths", ctypes.POINTER(ctypes.c_uint32)),
        ("sequences", ctypes.c_size_t),
        ("per_token", ctypes.c_int),
    )


class Deadline(ctypes.Structure):
    _fields_ = (("deadline_ms", ctypes.c_double), ("clock", ClockFunction), ("user", ctypes.c_void_p))


class Timing(ctypes.Structure):
    _fields_ = (("elapsed_ms", ctypes.c_double), ("met", ctypes.c_int))


class Calibration(ctypes.Structure):
    _fields_ = (
        ("tokens", ctypes.POINTER(ctypes.c_uint32)),
        ("token_counts", ctypes.c_size_t),
        ("repetitions", ctypes.c_uint32),
        ("clock", ClockFunction),
        ("user", ctypes.c_void_p),
    )


class Native:
    """One model behind the C interface; each call gives the name of its status and the sentence."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.lavolta_last_error.restype = ctypes.c_char_p
        library.lavolta_status_name.restype = ctypes.c_char_p
        self.model = ctypes.c_void_p()
        self.output = (ctypes.c_float * 4096)()

    def _said(self, status: int) -> tuple[str, str]:
        sentence = self.library.lavolta_last_error().decode() if status else ""
        return self.library.lavolta_status_name(status).decode(), sentence

    def open(self, path: Path, threads: int = 1, cores: list[int] | None = None) -> tuple[str, str]:
        listed = (ctypes.c_uint32 * len(cores or []))(*(cores or []))
        options = Options(threads, 0, None, listed, len(listed))
        return self._said(
            self.library.lavolta_open(str(path).encode(), ctypes.byref(options), ctypes.byref(self.model))
        )

    def close(self) -> None:
        self.library.lavolta_close(self.model)

    def switch(self, level: int) -> tuple[str, str]:
        return self._said(self.library.lavolta_switch(self.model, level))

    def calibrate(self, tokens: list[int], repetitions: int = 1) -> tuple[str, str]:
        counts = (ctypes.c_uint32 * len(tokens))(*tokens)
        options = Calibration(counts, len(tokens), repetitions, ClockFunction(), None)
        return self._said(self.library.lavolta_calibrate(self.model, ctypes.byref(options)))

    def set_plan(self, text: str) -> tuple[str, str]:
        return self._said(self.library.lavolta_set_plan(self.model, text.encode(), ctypes.c_size_t(len(text.encode()))))

    def run(
        self,
        rows: list[list[int]],
        types: list[list[int]] | None = None,
        deadline_ms: float | None = None,
        clock: Callable[[Any], int] | None = None,
        floats: int = 4096,
    ) -> tuple[str, str]:
        ids = np.array([i for row in rows for i in row], dtype=np.int32)
        kinds = None if types is None else np.array([kind for row in types for kind in row], dtype=np.int32)
        lengths = np.array([len(row) for row in rows], dtype=np.uint32)
        ints, counts = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_uint32)
        batch = Batch(
            ids.ctypes.data_as(ints),
            None if kinds is None else kinds.ctypes.data_as(ints),
            lengths.ctypes.data_as(counts),
            len(rows),
            0,
        )
        size = ctypes.c_size_t(floats)
        if deadline_ms is None:
            return self._said(self.library.lavolta_run(self.model, ctypes.byref(batch), self.output, size))
        deadline = Deadline(deadline_ms, ClockFunction(clock) if clock else ClockFunction(), None)
        self.timing = Timing()
        return self._said(
            self.library.lavolta_run_within(
                self.model,
                ctypes.byref(batch),
                ctypes.byref(deadline),
                self.output,
                size,
                None,
                ctypes.byref(self.timing),
            )
        )


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    built = build(ROOT / "build" / "shared", ("lavolta",), "-DLAVOLTA_SHARED=ON", "-DCMAKE_INSTALL_LIBDIR=lib")
    return ctypes.CDLL(str(built / "liblavolta.so"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(layers=3).write(tmp_path_factory.mktemp("words") / "model.lavolta")


@pytest.fixture
def native(library: ctypes.CDLL, path: Path) -> Iterator[Native]:
    opened = Native(library)
    assert opened.open(path) == ("ok", "")
    yield opened
    opened.close()


@pytest.fixture
def engine(path: Path) -> Iterator[Model]:
    with open_bundle(path) as model:
        yield model


def refusal(call: Callable[[], Any], kind: type[LavoltaError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "rows", "types"),
    [
        ("token-out-of-range", [[1, 2], [3, 50]], None),
        ("token-out-of-range", [[-1]], None),
        ("token-out-of-range", [[1]], [[2]]),
        ("too-long", [[1] * 141], None),
        ("empty-input", [], None),
        ("empty-input", [[1], []], None),
    ],
)
def test_inputs(native: Native, engine: Model, name: str, rows: list[list[int]], types: Any) -> None:
    status, sentence = native.run(rows, types)
    assert status == name
    assert refusal(lambda: engine.run(rows, types), UserInputError) == sentence
    # Nothing was written.
    assert not any(native.output)
    assert native.run([[1, 2]])[0] == "ok"


def test_levels(native: Native, engine: Model) -> None:
    status, sentence = native.switch(4)
    assert status == "no-such-level"
    assert refusal(lambda: engine.switch(4), UserInputError) == sentence


def test_deadlines_that_are_not_a_number(native: Native, engine: Model) -> None:
    assert native.calibrate([1]) == ("ok", "")
    engine.calibrate([1], 1)
    status, sentence = native.run([[1]], deadline_ms=math.nan)
    assert status == "invalid-argument"
    assert refusal(lambda: engine.run_within([[1]], math.nan), UserInputError) == sentence
    assert native.run([[1]], deadline_ms=math.inf)[0] == "ok"
    assert native.timing.met


def test_plans(native: Native, engine: Model, tmp_path: Path) -> None:
    status, sentence = native.run([[1]], deadline_ms=1.0)
    assert status == "no-plan"
    assert refusal(lambda: engine.run_within([[1]], 1.0), UserInputError) == sentence
    assert refusal(lambda: engine.save_plan(tmp_path / "plan"), UserInputError) == sentence
    status, sentence = native.set_plan("{}")
    assert status == "plan-invalid"
    (tmp_path / "plan").write_text("{}")
    assert refusal(lambda: engine.load_plan(tmp_path / "plan"), UserInputError) == sentence
    status, sentence = native.calibrate([141])
    assert status == "invalid-argument"
    assert refusal(lambda: engine.calibrate([141]), UserInputError) == sentence
    status, sentence = native.calibrate([1], repetitions=1001)
    assert status == "invalid-argument"
    assert refusal(lambda: engine.calibrate([1], 1001), UserInputError) == sentence


def test_a_plan_of_c_serves_python(native: Native, engine: Model, tmp_path: Path) -> None:
    native.library.lavolta_plan.restype = ctypes.c_void_p
    assert native.library.lavolta_plan(native.model) is None
    assert native.calibrate([1, 20]) == ("ok", "")
    text = native.library.lavolta_plan(native.model)
    kept = ctypes.string_at(text).decode()
    native.library.lavolta_free(ctypes.c_void_p(text))
    (tmp_path / "plan.json").write_text(kept)
    engine.load_plan(tmp_path / "plan.json")
    assert engine.plan == json.loads(kept)


def test_cancelled(native: Native, engine: Model) -> None:
    assert native.calibrate([1]) == ("ok", "")
    engine.calibrate([1], 1)
    reads = []

    def cancel_native(_user: object) -> int:
        reads.append(0)
        if len(reads) == 3:
            native.library.lavolta_cancel(native.model)
        return 0

    status, sentence = native.run([[1]], deadline_ms=1.0, clock=cancel_native)
    assert status == "cancelled"
    assert all(math.isnan(x) for x in native.output[: engine.spec.hidden])
    reads.clear()

    def cancel_engine() -> int:
        reads.append(0)
        if len(reads) == 3:
            engine.cancel()
        return 0

    assert refusal(lambda: engine.run_within([[1]], 1.0, clock=cancel_engine), CancelledError) == sentence
    assert native.run([[1]])[0] == "ok"


def test_options(library: ctypes.CDLL, path: Path) -> None:
    wrong: tuple[dict[str, Any], ...] = ({"threads": 257}, {"cores": [0, 0]}, {"cores": [4096]})
    for options in wrong:
        closed = Native(library)
        status, sentence = closed.open(path, **options)
        assert status == "invalid-argument"
        assert not closed.model
        with pytest.raises(UserInputError) as caught:
            open_bundle(path, **options)
        assert str(caught.value) == sentence


def test_a_bundle_of_a_newer_version(library: ctypes.CDLL, path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    manifest = json.loads(header["__metadata__"]["lavolta"])
    manifest["format"] += 1
    header["__metadata__"]["lavolta"] = json.dumps(manifest)
    text = json.dumps(header).encode()
    newer = tmp_path / "newer.lavolta"
    newer.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    closed = Native(library)
    status, sentence = closed.open(newer)
    assert status == "version-unsupported"
    assert refusal(lambda: open_bundle(newer), BundleError) == f"{newer}: {sentence}"
    status, sentence = closed.open(tmp_path / "absent")
    assert status == "io"
    assert sentence in refusal(lambda: open_bundle(tmp_path / "absent"), BundleError)


def test_what_is_too_small_or_missing(native: Native) -> None:
    status, sentence = native.run([[1], [2]], floats=39)
    assert status == "output-too-small"
    assert sentence == "the output has room for 39 numbers, 2 x 20 are needed."
    assert not any(native.output)
    missing = native._said(native.library.lavolta_run_within(native.model, None, None, None, 0, None, None))
    assert missing == ("invalid-argument", "model, batch, deadline and timing must not be NULL.")
    native.library.lavolta_close(None)
    assert native._said(native.library.lavolta_cancel(None))[0] == "invalid-argument"


def test_every_status_has_a_name(library: ctypes.CDLL) -> None:
    text = (ROOT / "native" / "include" / "lavolta.h").read_text()
    page = (ROOT / "docs" / "reference" / "c-api.md").read_text()
    library.lavolta_status_name.restype = ctypes.c_char_p
    entries = [line.split("=") for line in text.splitlines() if line.strip().startswith("LAVOLTA_") and " = " in line]
    assert len(entries) > 25
    for name, value in entries:
        number = int(value.strip(" ,"))
        printed = library.lavolta_status_name(number).decode()
        assert printed == name.strip().removeprefix("LAVOLTA_").lower().replace("_", "-")
        assert f"`{printed}`" in page
    assert library.lavolta_status_name(1000) == b"unknown"
