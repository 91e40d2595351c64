"""The native engine as Python sees it: a float64 model's results at every level, for any shape, threads and CPU."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_bundles import hostile_bundles
from numpy.typing import NDArray

from lavolta import _native
from lavolta.errors import BundleError, EngineError, LavoltaError, UserInputError
from lavolta.runtime.engine import Model, instruction_sets, open_bundle
from lavolta.sparsity.cells import CELL_ROWS
from reference_model import DECODERS, LANGUAGE_MODEL, RandomModel, random_ids, random_model, rounding

# One less and one more than a register (8, 16 tokens) and a tile (48), and longer than two tiles.
LENGTHS = (1, 2, 7, 15, 16, 17, 31, 33, 47, 49, 129)
VARIANTS: dict[str, dict[str, Any]] = {
    "embedding": {},
    "mixed": {"precision": "mixed"},
    "int8": {"precision": "int8", "causal": True, "activation": "relu"},
    "classifier": {"pooling": "cls", "head_dense": "tanh", "outputs": 3, "normalize": False},
    "language-model": LANGUAGE_MODEL,
    # `down` reads more than 512 inputs: its bands have several blocks of columns where cells have 4 rows or more.
    "wide": {"layers": 1, "ffn": 517},
    "gelu-head": {"head_dense": "gelu", "types": 1, "norm_eps": 1e-5},
    **DECODERS,
    "llama-mixed": {**DECODERS["llama"], "precision": "mixed"},
}


def tolerance(model: RandomModel) -> float:
    return rounding(model, max(LENGTHS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def small(folder: Path) -> tuple[RandomModel, Path]:
    model = random_model()
    return model, model.write(folder / "small.lavolta")


@pytest.fixture
def engine(small: tuple[RandomModel, Path]) -> Iterator[Model]:
    with open_bundle(small[1]) as model:
        yield model


def batch(model: RandomModel, lengths: Sequence[int] = LENGTHS) -> tuple[list[list[int]], list[list[int]]]:
    generator = np.random.default_rng(0)
    ids = random_ids(generator, model.spec, lengths)
    return ids, [generator.integers(0, max(model.spec.types, 1), len(row)).tolist() for row in ids]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cell_rows", CELL_ROWS)
def test_every_level_equals_the_float64_model(folder: Path, variant: str, cell_rows: int) -> None:
    model = random_model(seed=cell_rows, cell_rows=cell_rows, **VARIANTS[variant])
    path = model.write(folder / "variant.lavolta")
    ids, types = batch(model)
    expected = [[model.run(level, ids, types, raw) for raw in (False, True)] for level in range(model.levels)]
    for isa in instruction_sets():
        with open_bundle(path, isa=isa) as engine:
            for level in range(model.levels):
                engine.switch(level)
                for raw in (False, True):
                    result = engine.run(ids, types, per_token=raw)
                    assert result.dtype == np.float32
                    assert result.shape == expected[level][raw].shape
                    assert np.abs(result - expected[level][raw]).max() <= tolerance(model), (isa, level, raw)


def test_levels_that_are_not_nested(folder: Path) -> None:
    """RT3 as published: independent masks, so a band has many runs."""
    model = random_model(keep=(0.6, 0.5, 0.4, 0.4, 0.3), nested=False, cell_rows=2)
    ids, types = batch(model)
    with open_bundle(model.write(folder / "sets.lavolta")) as engine:
        for level in range(model.levels):
            engine.switch(level)
            assert np.abs(engine.run(ids, types) - model.run(level, ids, types)).max() <= tolerance(model)
        assert max(row["runs"] for row in engine.explain() if row["op"] == "linear") > 4 * (model.spec.ffn // 2)


@pytest.mark.parametrize("cell_rows", [1, 4, 8])
def test_the_order_of_groups_is_free(folder: Path, cell_rows: int) -> None:
    """A level has the same bits alone in a file and among others that keep more, less, all and nothing of a block."""
    model = random_model(layers=1, ffn=517, precision="mixed", cell_rows=cell_rows, keep=(1.0, 0.9, 0.02, 0.01, 0.0))
    ids, types = batch(model, [1, 17, 64])
    path = model.write(folder / "nested.lavolta")
    for isa in instruction_sets():
        with open_bundle(path, isa=isa) as engine:
            for level in (3, 0, 4, 2, 1):
                engine.switch(level)
                assert np.abs(engine.run(ids, types) - model.run(level, ids, types)).max() <= tolerance(model)
            kept = {
                (row["level"], row["layer"]): row["cells_kept"] for row in engine.explain() if row["op"] == "linear"
            }
    assert kept == {
        (f"L{level}", name): packed.kept_cells(level) for name, packed in model.packed.items() for level in range(5)
    }


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_do_not_change_a_bit(small: tuple[RandomModel, Path], threads: int) -> None:
    model, path = small
    ids, types = batch(model)
    with open_bundle(path) as one, open_bundle(path, threads=threads, spin_us=20) as many:
        for level in range(model.levels):
            one.switch(level)
            many.switch(level)
            for raw in (False, True):
                assert (one.run(ids, types, raw) == many.run(ids, types, raw)).all()


@pytest.mark.parametrize("isa", instruction_sets())
def test_a_batch_does_not_change_a_bit(folder: Path, isa: str) -> None:
    """Sequences neither see each other nor padding; more tokens than one pass takes are split without a trace."""
    model = random_model(layers=1, max_tokens=600)
    ids, _ = batch(model, [*LENGTHS, 600, 599, 3])
    with open_bundle(model.write(folder / "long.lavolta"), isa=isa) as engine:
        together = engine.run(ids)
        for row, sequence in zip(together, ids, strict=True):
            assert (engine.run([sequence])[0] == row).all()


def test_a_thousand_switches_equal_fresh_loads(small: tuple[RandomModel, Path]) -> None:
    model, path = small
    ids, types = batch(model, [5, 17])
    fresh = []
    for level in range(model.levels):
        with open_bundle(path) as engine:
            engine.switch(level)
            fresh.append(engine.run(ids, types))
    with open_bundle(path) as engine:
        for level in np.random.default_rng(7).integers(0, model.levels, 1000).tolist():
            assert engine.switch(level) >= 0
            assert engine.level == level
            assert (engine.run(ids, types) == fresh[level]).all()


def test_concurrent_runs_and_switches(small: tuple[RandomModel, Path]) -> None:
    """A run keeps the level that it began with: every result is that of one level, bit by bit."""
    model, path = small
    ids, types = batch(model, [9, 33])
    with open_bundle(path, threads=2) as engine:
        allowed: list[NDArray[np.float32]] = []
        for level in range(model.levels):
            engine.switch(level)
            allowed.append(engine.run(ids, types))
        wrong: list[int] = []

        def use(seed: int) -> None:
            for level in np.random.default_rng(seed).integers(0, model.levels, 50).tolist():
                engine.switch(level)
                result = engine.run(ids, types)
                if not any((result == one).all() for one in allowed):
                    wrong.append(level)

        threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_two_models_are_independent(small: tuple[RandomModel, Path]) -> None:
    model, path = small
    ids, types = batch(model, [5])
    with open_bundle(path) as first, open_bundle(path) as second:
        second.switch(2)
        assert first.level == 0
        assert (first.run(ids, types) != second.run(ids, types)).any()


def test_switch_by_name(engine: Model) -> None:
    assert engine.levels == ["L0", "L1", "L2", "L3"]
    engine.switch("L2")
    assert engine.level == 2


@pytest.mark.parametrize("level", [-1, 4, "L9", ""])
def test_a_level_that_does_not_exist(engine: Model, level: int | str) -> None:
    with pytest.raises(UserInputError, match="there is no level"):
        engine.switch(level)
    assert engine.level == 0


@pytest.mark.parametrize(
    ("ids", "types", "message"),
    [
        ([], None, "the batch is empty"),
        ([[1], []], None, "sequence 1 has no tokens"),
        ([[1, 50]], None, "token 1 of sequence 0 has id 50; ids go from 0 to 49"),
        ([[1], [-1]], None, "token 0 of sequence 1 has id -1"),
        ([[2**40]], None, "ids go from 0 to 49"),
        ([[-(2**40)]], None, "ids go from 0 to 49"),
        ([[0] * 141], None, "sequence 0 has 141 tokens, the model's limit is 140"),
        ([[1.5]], None, "give a flat list of integers"),
        ([[[1]]], None, "give a flat list of integers"),
        ([["a"]], None, "give a flat list of integers"),
        ([[1, 2]], [[0]], "one type per token"),
        ([[1, 2]], [[0, 2]], "token 1 of sequence 0 has type 2; types go from 0 to 1"),
    ],
)
def test_wrong_ids(engine: Model, ids: Any, types: Any, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        engine.run(ids, types)


def test_ids_of_any_integer_kind(engine: Model) -> None:
    expected = engine.run([[1, 2, 3]])
    for dtype in (np.int64, np.uint8, np.uint64):
        assert (engine.run([np.array([1, 2, 3], dtype=dtype)]) == expected).all()
    assert (engine.run(np.array([[1, 2, 3]])) == expected).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": 257}, "threads is 257"),
        ({"spin_us": -1}, "spin_us is -1"),
        ({"isa": "sse9"}, "has no 'sse9'"),
    ],
)
def test_wrong_options(small: tuple[RandomModel, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        open_bundle(small[1], **options)


def test_a_closed_model_refuses(small: tuple[RandomModel, Path]) -> None:
    engine = open_bundle(small[1])
    engine.close()
    engine.close()
    for call in (lambda: engine.run([[1]]), lambda: engine.switch(0), engine.explain, lambda: engine.encode(["a"])):
        with pytest.raises(EngineError, match="closed"):
            call()


def test_the_environment_limits_the_instruction_set(
    small: tuple[RandomModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVOLTA_ISA", "reference")
    with open_bundle(small[1]) as engine:
        assert {row["isa"] for row in engine.explain()} == {"reference"}
    monkeypatch.setenv("LAVOLTA_ISA", "sse9")
    with pytest.raises(UserInputError, match="'sse9' is unknown"):
        open_bundle(small[1])


def test_manifest_and_spec(small: tuple[RandomModel, Path], engine: Model) -> None:
    assert engine.spec == small[0].spec
    assert engine.manifest["levels"][3]["name"] == "L3"


HOSTILE_FILES = hostile_bundles()


@pytest.mark.parametrize("name", [name for name in HOSTILE_FILES if not name.startswith("strict.")])
def test_hostile_bundles_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE_FILES[name])
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.kind == name.split(".")[0]
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", [name for name in HOSTILE_FILES if name.startswith("strict.")])
def test_what_only_the_strict_reader_refuses_is_harmless(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE_FILES[name])
    with contextlib.suppress(BundleError), open_bundle(path) as engine:
        for level in range(len(engine.levels)):
            engine.switch(level)
            assert engine.run([[0, 1]]).shape[0] == (2 if engine.spec.pooling == "none" else 1)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.lavolta"):
        with pytest.raises(BundleError) as caught:
            open_bundle(path)
        assert caught.value.kind == "io"


def test_tensors_that_the_file_does_not_align(small: tuple[RandomModel, Path], tmp_path: Path) -> None:
    """A writer may order tensors as it likes: one byte before the floats shifts them all."""
    model, path = small
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [offset + 1 for offset in entry["data_offsets"]]
    header["tokenizer"] = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    text = json.dumps(header).encode()
    shifted = tmp_path / "shifted.lavolta"
    shifted.write_bytes(len(text).to_bytes(8, "little") + text + b" " + data[8 + length :])
    ids, types = batch(model, [17])
    with open_bundle(path) as plain, open_bundle(shifted) as odd:
        assert (plain.run(ids, types) == odd.run(ids, types)).all()


def test_status_names_are_those_of_the_python_reader() -> None:
    from lavolta.runtime.container import KINDS

    header = (Path(__file__).parents[2] / "native" / "include" / "lavolta.h").read_text()
    for kind in KINDS:
        assert f"LAVOLTA_{kind.upper().replace('-', '_')} = " in header


def test_native_errors_stay_inside(small: tuple[RandomModel, Path], engine: Model) -> None:
    """Whatever the binding raises is translated to the one exception family."""
    assert not issubclass(_native.NativeError, LavoltaError)
    with pytest.raises(LavoltaError):
        engine.run([[10**6]])
    with pytest.raises(LavoltaError):
        open_bundle(small[1].with_name("absent"))
