"""What `Model.explain` tells of every step, of one token of a session too, and how steps add up to parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavolta.runtime.engine import instruction_sets, open_bundle
from lavolta.runtime.parts import PARTS, of_one_token, part_times_ms
from lavolta.sparsity.packing_int8 import PackedInt8
from reference_model import DECODERS, random_model


def test_explain_counts_what_the_packing_keeps(tmp_path: Path) -> None:
    model = random_model()
    with open_bundle(model.write(tmp_path / "small.lavolta")) as engine:
        rows = engine.explain()
        linear = [row for row in rows if row["op"] == "linear"]
        assert len(linear) == model.levels * len(model.spec.linear_shapes())
        for row in linear:
            packed = model.packed[row["layer"]]
            level = engine.levels.index(row["level"])
            assert row["cells_kept"] == packed.kept_cells(level)
            assert row["macs_per_token"] == row["cells_kept"] * model.cell_rows
            assert row["sparsity"] == pytest.approx(1 - row["cells_kept"] / packed.grid.cells, abs=1e-6)
            # The dot products of bytes add nothing to fp32.
            assert row["isa"] == [isa for isa in instruction_sets() if not isa.endswith("vnni")][-1]
            assert row["precision"] == "fp32"
            assert row["kernel"] == f"linear_{row['isa']}"
        assert {row["op"] for row in rows} == {"linear", "attention", "norm", "dense"}
        assert all(row["measured_ms"] is None for row in rows)
        engine.switch(1)
        assert all(row["measured_ms"] > 0 for row in engine.explain(measure_tokens=9) if row["op"] == "linear")
        assert engine.level == 1
        assert all(row["measured_ms"] is None for row in engine.explain())


def test_explain_tells_int8_layers_and_their_quantization(tmp_path: Path) -> None:
    model = random_model(precision="mixed")
    with open_bundle(model.write(tmp_path / "mixed.lavolta")) as engine:
        rows = engine.explain(measure_tokens=9)
        for row in rows:
            if row["op"] == "linear":
                packed = model.packed[row["layer"]]
                int8 = isinstance(packed, PackedInt8)
                assert row["precision"] == ("int8" if int8 else "fp32")
                assert row["kernel"].startswith("linear_int8_") == int8
                assert row["cells_kept"] == packed.kept_cells(engine.levels.index(row["level"]))
        quantize = [row for row in rows if row["op"] == "quantize"]
        assert len(quantize) == model.levels * model.spec.layers
        assert all(row["measured_ms"] > 0 for row in quantize)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("isa", instruction_sets())
def test_explain_expects_what_the_peak_allows(tmp_path: Path, isa: str, precision: str) -> None:
    """All expected times are the kept work over one peak; they are printed with six decimals."""
    model = random_model(precision=precision)
    with open_bundle(model.write(tmp_path / "expected.lavolta"), isa=isa) as engine:
        assert all(row["expected_ms"] is None for row in engine.explain() if row["op"] == "linear")
        rows = [row for row in engine.explain(measure_tokens=33) if row["op"] == "linear"]
    assert all(row["share_of_peak"] == pytest.approx(row["expected_ms"] / row["measured_ms"]) for row in rows)
    largest = max(rows, key=lambda row: row["macs_per_token"])
    for row in rows:
        share = row["macs_per_token"] / largest["macs_per_token"]
        assert row["expected_ms"] == pytest.approx(share * largest["expected_ms"], abs=2e-6)
    assert largest["expected_ms"] > 0


def test_explain_says_why_a_kernel_runs(tmp_path: Path) -> None:
    best, path = instruction_sets()[-1], random_model().write(tmp_path / "small.lavolta")
    with open_bundle(path) as engine:
        for row in engine.explain():
            assert row["reason"] == "the fastest of this build" or row["reason"].startswith("the fastest for this CPU")
    if best == "reference":
        pytest.skip("this CPU has nothing faster that could be forbidden")
    with open_bundle(path, isa="reference") as engine:
        for row in engine.explain():
            assert row["reason"].startswith("limited to reference; this CPU could run ")
            assert row["reason"].rsplit(" ", 1)[1] in instruction_sets()


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_explain_tells_what_one_token_of_a_session_runs(tmp_path: Path, family: str, precision: str) -> None:
    model = random_model(**DECODERS[family], precision=precision)
    with open_bundle(model.write(tmp_path / f"{family}.lavolta")) as engine:
        rows = engine.explain()
        linear = [row for row in rows if row["op"] == "token_linear"]
        assert len(linear) == model.levels * len(model.packed)
        for row in linear:
            packed, level = model.packed[row["layer"]], engine.levels.index(row["level"])
            assert row["kernel"].startswith("token_linear_int8_" if isinstance(packed, PackedInt8) else "token_linear_")
            # Every weight that is kept is read once, with its column, and fillers of a quad as well.
            cell_bytes = model.cell_rows * (1 if isinstance(packed, PackedInt8) else 4) + 2
            assert row["bytes_per_token"] >= packed.kept_cells(level) * cell_bytes
            assert isinstance(packed, PackedInt8) or row["bytes_per_token"] == packed.kept_cells(level) * cell_bytes
            assert row["expected_ms"] is row["share_of_bandwidth"] is row["measured_ms"] is None
        engine.switch(1)
        measured = engine.explain(measure_tokens=engine.spec.max_tokens)
        assert engine.level == 1
    assert [(row["layer"], row["op"]) for row in measured] == [(row["layer"], row["op"]) for row in rows]
    token = [row for row in measured if row["op"] == "token_linear"]
    assert all(row["share_of_bandwidth"] == pytest.approx(row["expected_ms"] / row["measured_ms"]) for row in token)
    largest = max(token, key=lambda row: row["bytes_per_token"])
    for row in token:
        share = row["bytes_per_token"] / largest["bytes_per_token"]
        assert row["expected_ms"] == pytest.approx(share * largest["expected_ms"], abs=2e-6)
    # A run of the whole sequence is measured beside it, and neither counts for the other.
    assert all(row["measured_ms"] > 0 for row in measured if row["op"] in ("linear", "attention", "cached_attention"))


def test_only_language_models_have_steps_of_one_token(tmp_path: Path) -> None:
    with open_bundle(random_model().write(tmp_path / "encoder.lavolta")) as engine:
        assert not any(map(of_one_token, engine.explain()))


def test_parts_are_all_steps(tmp_path: Path) -> None:
    model = random_model(**DECODERS["llama"], precision="mixed")
    with open_bundle(model.write(tmp_path / "parts.lavolta")) as engine:
        rows = engine.explain(measure_tokens=3)
    for token in (False, True):
        chosen = [row for row in rows if of_one_token(row) == token]
        for level in engine.manifest["levels"]:
            times = part_times_ms(chosen, level["name"])
            assert tuple(times) == PARTS
            assert sum(times.values()) == pytest.approx(
                sum(row["measured_ms"] for row in chosen if row["level"] == level["name"])
            )
