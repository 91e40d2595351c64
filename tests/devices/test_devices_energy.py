"""Energy, the paper's metric, and a charge that never creates or loses energy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices.charge import Charge, to_fj
from lavolta.errors import UserInputError

# Papers sheet of RT3, 2.4: MHz -> runs per joule against 1400 MHz with the latency stretched, and at constant latency.
SHEET_RUNS = {
    "odroid-xu3-a7": {
        1400: (1.00, 1.00),
        1200: (1.18, 1.38),
        1000: (1.35, 1.89),
        800: (1.56, 2.73),
        600: (1.83, 4.26),
        400: (1.83, 6.41),
    },
    "odroid-xu3-a7-devicetree": {
        1400: (1.00, 1.00),
        1200: (1.04, 1.21),
        1000: (1.34, 1.88),
        800: (1.34, 2.35),
        600: (1.63, 3.79),
        400: (1.63, 5.69),
    },
}
HALF_A_HUNDREDTH = 0.005


@pytest.mark.parametrize("name", SHEET_RUNS)
def test_runs_per_charge_are_those_of_the_sheet(name: str) -> None:
    cluster = devices.load(name).cluster()
    base = devices.charge_runs([1000.0], [cluster.active_mw(1400)], [100.0])
    for freq, (stretched, constant) in SHEET_RUNS[name].items():
        power = [cluster.active_mw(freq)]
        assert devices.charge_runs([1000.0], power, [100.0 * 1400 / freq]) / base == pytest.approx(
            stretched, abs=HALF_A_HUNDREDTH
        )
        assert devices.charge_runs([1000.0], power, [100.0]) / base == pytest.approx(constant, abs=HALF_A_HUNDREDTH)


def test_equal_shares_over_the_papers_modes_give_about_1_9() -> None:
    cluster = devices.load("odroid-xu3-a7").cluster()
    power = [cluster.active_mw(freq) for freq in (1400, 1000, 800)]
    runs = devices.charge_runs([1.0, 1.0, 1.0], power, [100.0] * 3, deadline_ms=100.0)
    # The sheet says "about 1.9x": the mean of 1.00, 1.89 and 2.73.
    assert runs / devices.charge_runs([3.0], power[:1], [100.0]) == pytest.approx((1 + 1.89 + 2.73) / 3, abs=0.01)


def test_a_level_that_misses_the_deadline_counts_as_nothing() -> None:
    assert devices.charge_runs([10.0, 10.0], [100.0, 100.0], [50.0, 51.0], deadline_ms=50.0) == pytest.approx(2.0)
    with pytest.raises(UserInputError, match="one value per level"):
        devices.charge_runs([1.0], [1.0, 2.0], [1.0])
    with pytest.raises(UserInputError, match="not possible"):
        devices.charge_runs([1.0], [0.0], [1.0])


def test_accounting_decides_what_counts() -> None:
    profile = devices.load("odroid-xu3-a7")
    core = 90 * 1400 * 1.24**2 / 1000
    assert devices.energy_mj(profile, 1400, 100.0) == pytest.approx((core + 30) / 10)
    assert devices.energy_mj(profile, 1400, 100.0, threads=4) == pytest.approx((4 * core + 30) / 10)
    board = devices.energy_mj(profile, 1400, 100.0, accounting=devices.Accounting.BOARD)
    assert board == pytest.approx((core + 30 + 4710) / 10)
    assert devices.Accounting("whole-board") is devices.Accounting.BOARD
    assert "left out" in devices.Accounting.CPU.words
    with pytest.raises(UserInputError, match="give 1 to 4"):
        devices.run_mw(profile, 1400, threads=5)


def _battery(**changes: float) -> devices.Battery:
    source = {"text": "test", "licence": "none", "label": "assumption"}
    return devices.Battery.model_validate({"nominal_mv": 3700.0, "source": source, **changes})


def test_capacity_in_either_unit() -> None:
    assert _battery(capacity_mah=1000.0).energy_mwh == pytest.approx(3700.0)
    assert _battery(capacity_mwh=3700.0).energy_mwh == 3700.0


@given(load=st.floats(1, 3000), resistance=st.floats(0.0, 1000.0))
def test_the_cell_gives_the_load_and_its_own_heat(load: float, resistance: float) -> None:
    battery = _battery(capacity_mwh=1000.0, internal_resistance_mohm=resistance)
    current = battery.current_ma(load) / 1000
    # Kirchhoff: V I = P + I^2 R, all in mW.
    assert 3700 * current == pytest.approx(load + current**2 * resistance, rel=1e-9)
    assert battery.cell_mw(load) == pytest.approx(3700 * current, rel=1e-9)
    assert battery.cell_mw(load) >= load


@given(
    share=st.floats(0, 1),
    draws=st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**13)), max_size=30),
    lumps=st.lists(st.integers(0, 10**18), max_size=5),
)
def test_conservation_is_exact(share: float, draws: list[tuple[int, int, int]], lumps: list[int]) -> None:
    charge = Charge(_battery(capacity_mwh=10.0), share)
    assert charge.initial_fj == to_fj(10.0 * share)
    for load_uw, extra_uw, time_ns in draws:
        before = charge.remaining_fj
        lasted = charge.draw(load_uw, load_uw + extra_uw, time_ns)
        assert 0 <= lasted <= time_ns
        assert lasted == time_ns or charge.remaining_fj == 0
        assert charge.remaining_fj <= before
    for lump in lumps:
        charge.draw_energy(lump)
    assert charge.initial_fj - charge.remaining_fj == charge.load_fj + charge.loss_fj
    assert charge.remaining_fj >= 0


def test_a_charge_outside_zero_to_one_is_refused() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserInputError, match="outside 0"):
            Charge(_battery(capacity_mwh=1.0), share)
