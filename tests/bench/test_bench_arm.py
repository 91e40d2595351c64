"""The estimate of Arm loops: the right loop, its products, and a reason where a core has no model."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

MODULE: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "arm_throughput.py"))

AARCH64 = """
\t.type\t_ZN7lavolta4tileEv, %function
_ZN7lavolta4tileEv:
.L1:
\tmov\tx0, 4
.L2:
\tldr\tq1, [x1], 16
\tfmla\tv0.4s, v1.4s, v2.s[0]
\tsdot\tv3.4s, v1.16b, v2.4b[1]
\tsmull\tv4.8h, v1.8b, v2.8b
\tsmlal2\tv4.8h, v1.16b, v2.16b
\tsadalp\tv3.4s, v4.8h
\tsubs\tx0, x0, 1
\tbne\t.L2
.L3:
\tfmla\tv0.4s, v1.4s, v2.s[0]
\tcbnz\tx2, .L3
\tcbnz\tx2, .L1
\tret
\t.size\t_ZN7lavolta4tileEv, .-_ZN7lavolta4tileEv
\t.type\tother, %function
other:
\tfmla\tv0.4s, v1.4s, v2.s[0]
\tret
\t.size\tother, .-other
"""
ARMV7 = """
.L5:
\tvld1.32\t{d16-d17}, [r1]!
\tvmla.f32\tq0, q8, d4[0]
\tvmla.f32\td2, d3, d4
\tvmull.s8\tq9, d16, d5
\tvmlal.s8\tq9, d17, d5
\tvpadal.s16\tq0, q9
\tsubs\tr0, r0, #1
\tbne\t.L5
"""


def test_the_inner_loop_that_multiplies_most_is_found() -> None:
    bodies = MODULE["functions"](AARCH64)
    assert set(bodies) == {"_ZN7lavolta4tileEv", "other"}
    loop = MODULE["hottest_loop"](bodies["_ZN7lavolta4tileEv"])
    assert (loop.instructions, loop.multiplies, loop.products) == (8, 4, 4 + 16 + 8 + 8)
    assert MODULE["hottest_loop"](bodies["other"]) is None


def test_products_of_armv7() -> None:
    loop = MODULE["hottest_loop"](ARMV7.splitlines())
    assert (loop.instructions, loop.multiplies, loop.products) == (8, 4, 4 + 2 + 8 + 8)


@pytest.mark.skipif(not shutil.which("llvm-mca"), reason="no llvm-mca; install Debian's package llvm")
def test_a_core_without_a_model_is_null_with_the_reason() -> None:
    aarch64, armv7 = MODULE["FAMILIES"]
    loop = MODULE["hottest_loop"](MODULE["functions"](AARCH64)["_ZN7lavolta4tileEv"])
    # At most two instructions a cycle.
    simulated, bound = MODULE["cycles"](loop, aarch64, "cortex-a55")
    assert simulated >= bound >= 7 / 2
    loop = MODULE["hottest_loop"](ARMV7.splitlines())
    assert "cortex-a7" in MODULE["cycles"](loop, armv7, "cortex-a7")
    rows = [{"isa": "neon", "kernel": kernel, "cell_rows": 0, "loop": loop} for kernel in ("linear", "peak")]
    for record in MODULE["core_records"](armv7, "cortex-a7", rows):
        assert record["cycles_simulated"] is record["cycles_bound"] is record["share_of_peak_bound"] is None
        assert "cortex-a7" in record["reason"]
    records = MODULE["core_records"](armv7, "cortex-a9", rows)
    assert {r["kernel"]: r["share_of_peak_bound"] for r in records} == {"linear": pytest.approx(1.0), "peak": None}
    assert all(r["products_per_cycle_simulated"] <= r["products_per_cycle_bound"] for r in records)
