"""What `Model.explain` tells of one token of a session, and how steps add up to parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavolta.runtime.engine import open_bundle
from lavolta.runtime.parts import PARTS, of_one_token, part_times_ms
from lavolta.sparsity.packing_int8 import PackedInt8
from reference_model import DECODERS, random_model


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
