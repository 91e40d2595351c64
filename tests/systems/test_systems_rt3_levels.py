"""Which levels a device needs: every one keeps the deadline at its clock, and a refusal names what would work."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta.devices.latency import latency_ms
from lavolta.devices.loading import load, names
from lavolta.errors import InfeasibleError, UserInputError
from lavolta.runtime.spec import ModelSpec
from lavolta.runtime.work import dense_cells, work_of
from lavolta.systems.rt3.levels import MOST_SPARSITY, plan_levels

MINILM = ModelSpec("minilm", layers=6, hidden=384, heads=12, ffn=1536, vocab=30522, max_tokens=512, types=2)
DEVICE = load("odroid-xu3-a7")
DENSE_MS = latency_ms(DEVICE, work_of(MINILM, dense_cells(MINILM, 4), 4, 128), 1400.0)

heights = st.sampled_from([1, 2, 4, 8, 16])


@given(
    st.sampled_from(names()),
    st.floats(0.01, 3),
    st.integers(1, 32),
    st.integers(1, 512),
    st.integers(1, 2),
    heights,
    st.floats(0.3, MOST_SPARSITY),
)
@settings(max_examples=60)
def test_every_level_keeps_the_deadline_at_its_clock(
    device: str, factor: float, count: int, tokens: int, threads: int, cell_rows: int, cap: float
) -> None:
    profile = load(device)
    threads = min(threads, profile.cluster().cores)
    dense = work_of(MINILM, dense_cells(MINILM, cell_rows), cell_rows, tokens)
    top = profile.cluster().max_mhz
    deadline_ms = factor * latency_ms(profile, dense, top, threads)
    try:
        plan = plan_levels(profile, MINILM, cell_rows, tokens, deadline_ms, count, threads, max_sparsity=cap)
    except InfeasibleError as error:
        named = re.search(r"allow at least ([\d.e+-]+) ms", str(error))
        assert named is not None
        assert float(named[1]) > deadline_ms
        # What the message names works, and hardly less would.
        again = plan_levels(profile, MINILM, cell_rows, tokens, float(named[1]), count, threads, max_sparsity=cap)
        assert again.levels[0].sparsity <= cap + 1e-9
        with pytest.raises(InfeasibleError):
            plan_levels(profile, MINILM, cell_rows, tokens, 0.998 * float(named[1]), count, threads, max_sparsity=cap)
        return
    assert 1 <= len(plan.levels) <= count
    assert [level.name for level in plan.levels] == [f"L{i}" for i in range(len(plan.levels))]
    clocks = [step.freq_mhz for step in profile.cluster().steps]
    assert set(plan.skipped_mhz) <= set(clocks)
    for level in plan.levels:
        assert level.freq_mhz in clocks
        assert level.freq_mhz not in plan.skipped_mhz
        assert -1e-9 <= level.sparsity <= cap + 1e-9
        work = dense.scaled(1.0 - max(level.sparsity, 0.0))
        assert latency_ms(profile, work, level.freq_mhz, threads) <= deadline_ms * (1 + 1e-9)
        # It is meant for the lowest clock at which it is quick enough: the next lower one would be late.
        lower = [clock for clock in clocks if clock < level.freq_mhz]
        if lower:
            assert latency_ms(profile, work, lower[-1], threads) > deadline_ms * 0.99 * (1 - 1e-9)
    if plan.skipped_mhz and count > 1:
        assert plan.levels[-1].sparsity == pytest.approx(cap)
    for dense_level, sparse_level in pairwise(plan.levels):
        assert dense_level.sparsity < sparse_level.sparsity
        assert dense_level.freq_mhz >= sparse_level.freq_mhz


def test_the_papers_board_by_hand() -> None:
    # The dense model just keeps the shortest deadline at the top clock; six clocks, one per cent of margin.
    plan = plan_levels(DEVICE, MINILM, 4, 128, None, 6)
    assert plan.deadline_ms == pytest.approx(DENSE_MS / 0.99)
    assert plan.levels[0].sparsity == 0.0
    assert plan.levels[0].freq_mhz == 1400.0
    # Time is nearly proportional to kept work over clock: at 800 MHz about 800 / 1400 of all the work fits.
    at_800 = next(level for level in plan.levels if level.freq_mhz == 800.0)
    assert 1 - 800 / 1400 < at_800.sparsity < 1 - 800 / 1400 + 0.1


def test_one_level_for_each_clock_where_as_many_are_asked_for() -> None:
    plan = plan_levels(DEVICE, MINILM, 4, 128, DENSE_MS * 1.02, 6)
    assert plan.skipped_mhz == ()
    assert len({level.freq_mhz for level in plan.levels}) == len(plan.levels) == 6


def test_where_the_cap_leaves_a_clock_out_the_level_at_the_cap_takes_its_place() -> None:
    plan = plan_levels(DEVICE, MINILM, 4, 128, None, 6, max_sparsity=0.7)
    assert plan.skipped_mhz == (400.0,)
    assert [level.freq_mhz for level in plan.levels] == [1400.0, 1200.0, 1000.0, 800.0, 600.0, 600.0]
    assert plan.levels[-1].sparsity == pytest.approx(0.7)
    assert plan.levels[-2].sparsity < 0.7


def test_a_long_deadline_needs_one_dense_level_at_the_lowest_clock() -> None:
    plan = plan_levels(DEVICE, MINILM, 4, 128, 10 * DENSE_MS, 6)
    assert [(level.freq_mhz, level.sparsity) for level in plan.levels] == [(400.0, 0.0)]
    assert plan.skipped_mhz == ()


def test_wrong_values_are_refused_in_words() -> None:
    for count in (0, 33):
        with pytest.raises(UserInputError, match=f"{count} levels were asked for; choose 1 to 32"):
            plan_levels(DEVICE, MINILM, 4, 128, None, count)
    for deadline in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserInputError, match=f"a deadline of {deadline} ms"):
            plan_levels(DEVICE, MINILM, 4, 128, deadline, 3)
    for cap in (-0.1, 0.96, float("nan")):
        with pytest.raises(UserInputError, match=f"the sparsest level may drop 0 to 0.93, not {cap}"):
            plan_levels(DEVICE, MINILM, 4, 128, None, 3, max_sparsity=cap)
    with pytest.raises(UserInputError, match="513 tokens do not fit"):
        plan_levels(DEVICE, MINILM, 4, 513, None, 3)
    with pytest.raises(UserInputError, match="9 threads do not fit"):
        plan_levels(DEVICE, MINILM, 4, 128, None, 3, threads=9)
    with pytest.raises(
        InfeasibleError, match=r"no level meets 1 ms on odroid-xu3-a7: the sparsest that may be made \(80 %"
    ):
        plan_levels(DEVICE, MINILM, 4, 128, 1.0, 3)
