"""What the profiler times is what it says: whole runs of real bundles, of every height and precision."""

import pytest

from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.engine import instruction_sets
from lavolta.runtime.kernel_timing import KEPT_SHARES, SHAPES, Case, KernelBench, Shape, write_random
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CELL_ROWS

# Odd on purpose: ragged bands, one head.
SMALL = Shape(1, 10, 1, 7)


@pytest.mark.parametrize("int8", [False, True])
def test_a_case_is_timed_and_its_work_counted(int8: bool) -> None:
    with KernelBench() as bench:
        case = Case(SMALL, 4, int8, 3, 1)
        assert bench.measure_ms(case, 1) > 0
        assert bench.measure_ms(case, 2) > 0
        work = bench.work(case)
        assert (work.cell_rows, work.tokens) == (4, 3)
        assert work.int8_macs == (work.kept_macs if int8 else 0)
        # Half of the cells, give or take the chance of the draw; 4 x 10 x 10 and 2 x 10 x 7, bands padded to 4 rows.
        assert 0.3 < work.kept_macs / (3 * (4 * 12 * 10 + 8 * 10 + 12 * 7)) < 0.7
        assert {part.in_features for part in work.linears} == {10, 7}
        assert all(part.int8 == int8 for part in work.linears)
        bench.use((0,))
        assert bench.measure_ms(case, 1) > 0
        assert bench.switch_us(50) > 0
        bench.burn(1, 0.0)
        assert bench.isa == instruction_sets()[-1]
        folder = bench._folder
        assert any(folder.iterdir())
    assert not folder.exists()


def test_cases_cover_every_height_precision_and_enough_shapes() -> None:
    with KernelBench() as bench:
        for quick in (True, False):
            cases = bench.cases(quick)
            assert {(case.cell_rows, case.int8) for case in cases} == {(r, p) for r in CELL_ROWS for p in (False, True)}
            assert len({case.key for case in cases}) == len(cases)
            # Shapes are held out one by one, which needs five of them.
            assert len({case.shape_name for case in cases}) >= 5
        assert len(bench.cases(True)) < len(bench.cases(False))
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)


def test_random_levels_are_nested_and_close_to_their_shares(tmp_path) -> None:
    spec = ModelSpec("t", 1, 64, 2, 128, 8, 16)
    kept = write_random(tmp_path / "m.lavolta", spec, 8)
    assert len(BundleFile.open(tmp_path / "m.lavolta").levels) == len(KEPT_SHARES)
    for name in kept[0]:
        counts = [level[name] for level in kept]
        assert counts == sorted(counts, reverse=True)
