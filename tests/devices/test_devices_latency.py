"""Predicted latency and its inverse."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta import devices
from lavolta.errors import InfeasibleError, UserInputError

PROFILE = devices.load("odroid-xu3-a7")
WORK = devices.Work(cell_rows=8, tokens=32, kept_macs=3e8, kept_bytes=4e7, rest_macs=1e7, rest_bytes=1e6)


def test_the_formula_by_hand() -> None:
    # 1.667 x 3e8 + 3.333 x 1e7 cycles at 1000 MHz, and 41 MB at 1.5 GB/s.
    expected = (1.667 * 3e8 + 3.333 * 1e7) / 1e6 + 41e6 / 1.5e6
    assert devices.latency_ms(PROFILE, WORK, 1000) == pytest.approx(expected)
    # Three more threads at 85 % each: only the cycles shrink.
    threaded = (1.667 * 3e8 + 3.333 * 1e7) / (1 + 3 * 0.85) / 1e6 + 41e6 / 1.5e6
    assert devices.latency_ms(PROFILE, WORK, 1000, threads=4) == pytest.approx(threaded)


def test_memory_time_does_not_scale_with_the_clock() -> None:
    slow, fast = devices.latency_ms(PROFILE, WORK, 700), devices.latency_ms(PROFILE, WORK, 1400)
    memory = 41e6 / 1.5e6
    assert slow - memory == pytest.approx(2 * (fast - memory))
    assert slow < 2 * fast


def test_small_cells_are_slower_in_the_prototypes_ratios() -> None:
    only_kept = replace(WORK, kept_bytes=0, rest_macs=0, rest_bytes=0)
    base = devices.latency_ms(PROFILE, only_kept, 1400)
    for rows, speed in {1: 0.3, 2: 0.55, 4: 0.8, 8: 1.0, 16: 1.0}.items():
        # The profile prints three decimals.
        assert base / devices.latency_ms(PROFILE, replace(only_kept, cell_rows=rows), 1400) == pytest.approx(
            speed, rel=1e-3
        )


def test_int8_work_has_its_own_speed_and_mixes() -> None:
    only_kept = replace(WORK, kept_bytes=0, rest_macs=0, rest_bytes=0)
    half = replace(only_kept, int8_macs=only_kept.kept_macs / 2)
    # 1.667 and 0.833 cycles for each half of 3e8 products, at 1000 MHz.
    assert devices.latency_ms(PROFILE, half, 1000) == pytest.approx((1.667 + 0.833) * 1.5e8 / 1e6)
    assert half.scaled(0.5).int8_macs == half.int8_macs / 2
    with pytest.raises(UserInputError, match=r"int8_macs is 4.*it is a part of kept_macs"):
        replace(WORK, int8_macs=4e8)
    cluster = PROFILE.cluster()
    without = cluster.latency[0].model_copy(update={"cycles_per_kept_mac_int8": None})
    with pytest.raises(UserInputError, match="no coefficient for int8 cells of 8 rows; it has none"):
        devices.coefficients_ms(without, half, 1000.0)


def test_the_finer_terms_by_hand() -> None:
    plain = PROFILE.cluster().latency[0]
    finer = plain.model_copy(
        update={
            "cycles_per_far_mac": {"8": 2.0},
            "near_cache_bytes": 8192,
            "cycles_per_cell": 5.0,
            "cycles_per_band": 100.0,
            "tokens_per_register": 16,
        }
    )
    # 20 tokens are computed as 32; 256 inputs of 32 tokens in fp32 are 32 KB, of which 8 fit: 3/4 of the work is far.
    part = devices.LinearWork("x", 256 * 80 * 20, 0.0, in_features=256, out_features=77)
    work = devices.Work(8, 20, part.kept_macs, 0.0, 0.0, 0.0, linears=(part,))
    kept = part.kept_macs * 32 / 20
    # 77 rows are 10 bands of 8 rows, visited once for up to 48 tokens.
    cycles = kept * (1.667 + 0.75 * 2.0) + 5.0 * part.kept_macs / (8 * 20) + 100.0 * 10
    assert devices.coefficients_ms(finer, work, 1000.0) == pytest.approx(cycles / 1e6)
    assert devices.coefficients_ms(finer, replace(work, tokens=49), 1000.0) > devices.coefficients_ms(
        plain, work, 1000.0
    )
    # Half of the cells: everything but the visits of bands is halved, so the inverse stays exact.
    half = devices.coefficients_ms(finer, work.scaled(0.5), 1000.0)
    assert half == pytest.approx((cycles - 1000.0) / 2e6 + 1000.0 / 1e6)
    # Down to nothing kept, where bands are visited still.
    assert devices.coefficients_ms(finer, work.scaled(0.0), 1000.0) == pytest.approx(1000.0 / 1e6)


def test_no_work_takes_no_time_here() -> None:
    assert devices.latency_ms(PROFILE, devices.Work(4, 0, 0, 0, 0, 0), 400) == 0.0


@given(share=st.floats(0, 1), freq=st.sampled_from([400.0, 777.7, 1400.0]), threads=st.integers(1, 4))
def test_less_work_is_never_slower(share: float, freq: float, threads: int) -> None:
    less = devices.latency_ms(PROFILE, WORK.scaled(share), freq, threads)
    assert less <= devices.latency_ms(PROFILE, WORK, freq, threads)
    assert less >= devices.latency_ms(PROFILE, WORK.scaled(share), freq * 2, threads)


@given(deadline=st.floats(40, 2000), freq=st.sampled_from([400.0, 1000.0, 1400.0]))
def test_the_inverse_meets_the_deadline_and_nothing_denser_does(deadline: float, freq: float) -> None:
    try:
        share = devices.max_kept_share(PROFILE, WORK, deadline, freq)
    except InfeasibleError:
        assert devices.latency_ms(PROFILE, WORK.scaled(0.0), freq) > deadline
        return
    assert devices.latency_ms(PROFILE, WORK.scaled(share), freq) <= deadline * (1 + 1e-12)
    if share < 1:
        assert devices.latency_ms(PROFILE, WORK.scaled(share), freq) == pytest.approx(deadline)


def test_an_impossible_deadline_says_what_would_do() -> None:
    with pytest.raises(InfeasibleError, match=r"no sparsity meets 5 ms .* at 400 MHz .* 1400 MHz with 4 threads it is"):
        devices.max_kept_share(PROFILE, WORK, 5, 400)
    with pytest.raises(InfeasibleError, match="no faster setting exists"):
        devices.max_kept_share(PROFILE, WORK, 0.5, 1400, threads=4)
    with pytest.raises(UserInputError, match="deadline of nan"):
        devices.max_kept_share(PROFILE, WORK, float("nan"), 1400)


def test_no_feasible_level_names_the_closest() -> None:
    levels = {"dense": WORK, "sparse": WORK.scaled(0.25)}
    devices.require_feasible(PROFILE, levels, 200)
    message = r"closest is sparse at 1400 MHz with 1 thread\(s\), 120\.\d ms; allow 121 ms, more than 1 .* at most \d"
    with pytest.raises(InfeasibleError, match=message):
        devices.require_feasible(PROFILE, levels, 100)
    with pytest.raises(InfeasibleError, match="fewer tokens"):
        devices.require_feasible(PROFILE, levels, 1)
    with pytest.raises(UserInputError, match="no level"):
        devices.require_feasible(PROFILE, {}, 100)


def test_wrong_arguments() -> None:
    for freq in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UserInputError, match="is not positive"):
            devices.latency_ms(PROFILE, WORK, freq)
    for threads in (0, 5):
        with pytest.raises(UserInputError, match="give 1 to 4"):
            devices.latency_ms(PROFILE, WORK, 400, threads)
    with pytest.raises(UserInputError, match="cell_rows is 3"):
        replace(WORK, cell_rows=3)
    with pytest.raises(UserInputError, match="kept_macs is nan"):
        replace(WORK, kept_macs=float("nan"))
    with pytest.raises(UserInputError, match="outside 0 to 1"):
        WORK.scaled(1.1)


def test_a_profile_without_a_cell_height_says_so() -> None:
    cluster = PROFILE.cluster()
    only_eight = cluster.latency[0].model_copy(update={"cycles_per_kept_mac": {"8": 1.0}})
    with pytest.raises(UserInputError, match="no coefficient for fp32 cells of 4 rows; it has 8"):
        only_eight.kept_cycles(4)
