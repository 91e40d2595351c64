"""The benchmark scripts: the keys that are promised, numbers where there are peers, reasons where there are none."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lavolta.bench import lineup, synthetic
from lavolta.bench.burner import burners
from lavolta.errors import UserInputError

FOLDER = Path(__file__).parents[2] / "benchmarks"
HEAD = {"benchmark", "date", "machine", "shape", "tokens", "threads", "cell_rows", "seed", "quick"}
MACHINE = {"cpu", "cpu_flags", "instruction_sets", "amx", "cores", "governor", "load_before"}
RATIOS = (
    "int8_75_vs_ort_int8",
    "int8_75_vs_openvino_int8",
    "fp32_75_vs_best_fp32",
    "dense_fp32_vs_best",
    "dense_int8_vs_best_no_amx",
    "threads_2_over_1",
)


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def arguments(**changes: Any) -> argparse.Namespace:
    usual = {"shape": "odd", "tokens": 5, "threads": 1, "cell_rows": 4, "seed": 0, "quick": True}
    return argparse.Namespace(**{**usual, **changes})


@pytest.fixture(autouse=True)
def odd_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that nothing fits, and no wait for rounds."""
    monkeypatch.setitem(synthetic.SHAPES, "odd", (1, 24, 3, 40))


@pytest.fixture
def no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that find neither ONNX Runtime nor OpenVINO."""
    for module in ("onnxruntime", "openvino"):
        (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('gone', name='{module}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    present = tuple(peer for peer in lineup.PEERS if peer[0] != "pytorch")
    monkeypatch.setattr(lineup, "PEERS", present)


def check_head(result: dict[str, Any], name: str) -> None:
    assert result.keys() >= HEAD
    assert result["machine"].keys() >= MACHINE
    assert result["benchmark"] == name
    assert result["repetitions"] >= 1
    json.dumps(result, allow_nan=False)


def record(name: str, median_ms: float | None, amx: bool = False) -> dict[str, Any]:
    """A contestant's record, its facts read off its name."""
    engine, _, rest = name.partition("-")
    precision = rest.split()[0]
    found = {"name": name, "engine": engine, "precision": precision, "median_ms": median_ms, "amx": amx}
    found["threads"] = 2 if "threads" in name else 1
    found["sparsity"] = float(rest.split()[1]) / 100 if engine == "lavolta" else 0.0
    return found if median_ms is not None else {**found, "reason": "it is not here."}


def test_ratios_by_hand() -> None:
    records = [
        record("lavolta-fp32 0 %", 100.0),
        record("lavolta-fp32 75 %", 30.0),
        record("lavolta-fp32 75 %, 2 threads", 16.0),
        record("lavolta-int8 0 %", 40.0),
        record("lavolta-int8 75 %", 15.0),
        record("lavolta-int8 75 %, 2 threads", 10.0),
        record("onnxruntime-fp32", 160.0),
        record("onnxruntime-int8", 60.0),
        record("openvino-fp32", 120.0),
        record("openvino-int8", 36.0, amx=True),
        record("openvino-int8 without amx", 50.0),
        record("pytorch-fp32", 90.0),
    ]
    found = script("encoder_latency")["ratios"](records, 1)
    assert found["int8_75_vs_ort_int8"] == 4.0
    assert found["int8_75_vs_openvino_int8"] == pytest.approx(2.4)
    assert found["fp32_75_vs_best_fp32"] == 4.0  # PyTorch is no part of that target
    assert found["dense_fp32_vs_best"] == pytest.approx(0.9)
    assert found["dense_int8_vs_best_no_amx"] == pytest.approx(1.25)
    assert found["threads_2_over_1"] == pytest.approx(1.5)
    assert found["threads_2_over_1_by_name"]["lavolta-fp32 75 %"] == pytest.approx(1.875)
    assert found["reasons"] == {}


def test_a_ratio_that_cannot_be_formed_is_null_with_the_reason() -> None:
    records = [record("lavolta-fp32 0 %", 2.0), record("lavolta-fp32 75 %", 1.0), record("onnxruntime-int8", None)]
    records += [record("onnxruntime-fp32", None), record("openvino-fp32", 4.0), record("openvino-int8", 3.0, amx=True)]
    found = script("encoder_latency")["ratios"](records, 1)
    assert found["fp32_75_vs_best_fp32"] == 4.0
    for key in ("int8_75_vs_ort_int8", "int8_75_vs_openvino_int8", "dense_int8_vs_best_no_amx", "threads_2_over_1"):
        assert found[key] is None
        assert found["reasons"][key]


def test_model_parts_add_up() -> None:
    module = script("model_parts")
    result = module["measure"](arguments(), shapes=("odd",))
    check_head(result, "model_parts")
    found = [(row["precision"], row["tokens"], row["sparsity"]) for row in result["rows"]]
    assert found == [(p, n, s) for p in ("fp32", "int8") for n in (128, 384) for s in (0.0, 0.75)]
    for row in result["rows"]:
        assert ("quantization" in row["parts_ms"]) == (row["precision"] == "int8")
        assert sum(row["parts_ms"].values()) == pytest.approx(row["whole_ms"])
        assert row["outside_linear"] == pytest.approx(1 - row["parts_ms"]["linear layers"] / row["whole_ms"])
    lines = module["table"](result).splitlines()
    assert len(lines) == 2 + len(result["rows"])
    assert "odd, 384 tokens, int8, 75 %" in lines[-1]


@pytest.mark.usefixtures("no_peers")
def test_encoder_latency_with_missing_peers() -> None:
    module = script("encoder_latency")
    result = module["measure"](arguments())
    check_head(result, "encoder_latency")
    assert set(RATIOS) <= result.keys()
    for key in RATIOS[:5]:
        assert result[key] is None
        assert "is not installed" in result["reasons"][key]
    assert result["median_ms"]["openvino-bf16"] is None
    assert result["median_ms"]["lavolta-int8 75 %"] > 0
    assert list(result["linear_scaling"]) == ["0.5", "0.7", "0.8", "0.9"]
    for sparsity, entry in result["linear_scaling"].items():
        assert entry["limit"] == pytest.approx((1 - float(sparsity)) / 0.85)
        assert entry["fp32"] > 0
        assert entry["int8"] > 0
    assert "is not installed" in module["table"](result)


def test_encoder_latency_of_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(lineup, "PEERS", (("onnxruntime", "fp32"), ("onnxruntime", "int8")))
    module = script("encoder_latency")
    result = module["measure"](arguments())
    for key in ("int8_75_vs_ort_int8", "fp32_75_vs_best_fp32", "dense_fp32_vs_best", "dense_int8_vs_best_no_amx"):
        if key == "dense_int8_vs_best_no_amx" and result["machine"]["amx"]:
            continue
        assert isinstance(result[key], float)
        assert key not in result["reasons"]
    for entry in result["contestants"]:
        assert entry["agreement"] > 0.9 or entry["sparsity"] > 0
        assert entry["repetitions"] == result["repetitions"]


def test_ragged_lengths() -> None:
    module = script("ragged_lengths")
    module["ROUNDS"][True] = 1
    result = module["measure"](arguments())
    check_head(result, "ragged_lengths")
    lengths = [row["tokens"] for row in result["lengths"] if (row["precision"], row["sparsity"]) == ("int8", 0.75)]
    assert lengths == [1, 7, 15, 16, 17, 31, 47, 127, 128, 129, 384]
    for row in result["lengths"]:
        assert row["padded_tokens"] % 16 == 0
        assert 0 <= row["padded_tokens"] - row["tokens"] < 16
        assert row["per_token_us"] == pytest.approx(1e3 * row["median_ms"] / row["tokens"])
        assert row["over_tile"] > 0
    assert result["worst_over_tile"] == max(row["over_tile"] for row in result["lengths"])
    assert module["table"](result).count("| 384 |") == 4


def test_cells(tmp_path: Path) -> None:
    module = script("cells")
    module["ROUNDS"][True] = 1
    points = [("50 %", 80.0, 2.0), ("75 %", 79.0, 2.0), ("90 %", 70.0, 1.0), ("0 %", None, 3.0)]
    scores = tmp_path / "result.json"
    scores.write_text(
        json.dumps({"rows": [{"cell_rows": 4, "level": name, "score": score, "ms": ms} for name, score, ms in points]})
    )
    result = module["measure"](arguments(), scores)
    check_head(result, "cells")
    assert {row["cell_rows"] for row in result["cells"]} == {4}
    assert {row["precision"] for row in result["cells"]} == {"fp32", "int8"}
    assert "reference" not in {row["isa"] for row in result["cells"]}
    for row in result["cells"]:
        assert row["share_of_peak"] > 0
        assert row["min_ms"] <= row["median_ms"]
    # As good as another and no faster, or slower: beaten. Without a score: left out.
    assert [(row["level"], row["on_frontier"]) for row in result["frontier"]] == [
        ("90 %", True),
        ("50 %", True),
        ("75 %", False),
    ]
    assert "90 %" in module["table"](result)
    assert module["measure"](arguments(), tmp_path / "absent.json")["frontier"] is None


def test_level_switch() -> None:
    module = script("level_switch")
    module["SWITCHES"][True] = 50
    result = module["measure"](arguments())
    check_head(result, "level_switch")
    assert result["levels"] == 16
    assert result["bytes_moved"] == 0
    assert 0 <= result["p50_us"] <= result["p99_us"]
    assert result["memory_16_over_1"] > 0
    assert result["precisions"]["int8"]["many_levels"]["levels"] == 16
    assert module["table"](result).count("\n") >= 6


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="a move needs two cores"
)
def test_core_move() -> None:
    module = script("core_move")
    module["ROUNDS"][True] = 2
    before = os.sched_getaffinity(0)
    result = module["measure"](arguments())
    check_head(result, "core_move")
    assert result["median_ms"].keys() == module["SETTINGS"].keys()
    assert result["over_stays"]["stays"] == 1.0
    assert all(value > 0 for value in result["over_stays"].values())
    assert os.sched_getaffinity(0) == before
    assert module["table"](result).count("\n") >= 6
    with pytest.raises(UserInputError, match="threads is 2"):
        module["measure"](arguments(threads=2))


def test_deadline() -> None:
    module = script("deadline")
    module["measure"].__globals__["QUICK"] = 3
    result = module["measure"](arguments(deadline_ms=None))
    check_head(result, "deadline")
    assert result["loads"].keys() == {"alone", "bursts", "always"}
    assert 0 <= result["met_share_with"] <= 1
    assert 0 <= result["met_share_without"] <= 1
    assert result["deadline_ms"] == pytest.approx(1.5 * result["densest_alone"]["median_ms"])
    assert module["table"](result).count("\n") >= 5
    # Nobody is late with a whole minute, and nobody in time with nothing.
    for deadline_ms, share in ((60_000.0, 1.0), (1e-9, 0.0)):
        result = module["measure"](arguments(deadline_ms=deadline_ms))
        assert result["met_share_with"] == result["met_share_without"] == share
        sparsity = result["loads"]["alone"]["with"]["mean_sparsity"]
        assert sparsity == (0.0 if share else 0.9)


def test_serving() -> None:
    pytest.importorskip("uvicorn")
    module = script("serving")
    module["measure"].__globals__.update(QUICK=8, WARM=1)
    result = module["measure"](arguments(clients=2))
    check_head(result, "serving")
    assert result["transports"].keys() == {"unix", "tcp"}
    for found in result["transports"].values():
        assert 0 < found["added_p50_ms"] <= found["added_p99_ms"]
        assert found["round_trip"]["median_ms"] > found["run"]["min_ms"]
        assert found["at_once_per_s"] > 0
    assert result["added_p99_ms"] == result["transports"]["unix"]["added_p99_ms"]
    assert module["table"](result).count("\n") >= 4


def test_burners_end_with_the_context() -> None:
    core = min(os.sched_getaffinity(0))
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    with burners([core], 5.0, 5.0, 0):
        (burner,) = set(children.read_text().split()) - set(before)
        assert os.sched_getaffinity(int(burner)) == {core}
    assert children.read_text().split() == before
    with burners([core], 0.0, 5.0, 0):
        assert children.read_text().split() == before


@pytest.mark.usefixtures("no_peers")
def test_where_it_loses_with_missing_peers() -> None:
    module = script("where_it_loses")
    result = module["measure"](arguments())
    check_head(result, "where_it_loses")
    assert {(row["shape"], row["precision"]) for row in result["rows"]} == {("odd", "fp32"), ("odd", "int8")}
    for row in result["rows"]:
        assert row["break_even_sparsity"] is None
        assert "is not installed" in row["reasons"]["openvino-int8"]
        assert len(row["ours_ms"]) == 5
    assert "no peer ran" in module["table"](result)


@pytest.mark.parametrize(
    ("peer_ms", "expected"), [(10.0, 0.0), (12.0, 0.0), (9.0, 0.25), (6.0, 0.625), (4.0, 0.75), (3.9, None)]
)
def test_break_even_lies_between_the_levels(peer_ms: float, expected: float | None) -> None:
    found = script("where_it_loses")["break_even"]([0.0, 0.5, 0.75], [10.0, 8.0, 4.0], peer_ms)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "name", ["encoder_latency", "ragged_lengths", "cells", "level_switch", "where_it_loses", "deadline", "serving"]
)
def test_wrong_arguments_are_refused(name: str) -> None:
    with pytest.raises(UserInputError, match="this process may use 1 to"):
        script(name)["measure"](arguments(threads=10_000))
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    for wrong in (["--shape", "round"], ["--tokens", "0"], ["--cell-rows", "3"], ["--threads", "one"]):
        done = subprocess.run([*command, *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert wrong[0] in done.stderr


def test_the_last_line_is_the_result(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "level_switch.py"), "--shape", "tiny", "--tokens", "5", "--quick"]
    done = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    check_head(result, "level_switch")
    assert len(done.stdout.splitlines()) == 1
    assert "99th percentile" in done.stderr
    assert not list(tmp_path.iterdir())
