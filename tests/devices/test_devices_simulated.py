"""The simulated device answers like a real one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices.cell import load_cell
from lavolta.devices.sources import Checked, Degree, SimulatedDevice
from lavolta.devices.sources.checked import in_range
from lavolta.errors import UserInputError

PROFILE = devices.load("freqbench-sm8250")
SOURCE = devices.Source(text="test", licence="none", label="assumption")
HOT = PROFILE.model_copy(
    update={"thermal": devices.Thermal(limit_c=60.0, resistance_c_per_w=10.0, time_constant_s=30.0, source=SOURCE)}
)


def _device(profile=PROFILE, **options) -> SimulatedDevice:
    return SimulatedDevice(profile, load_cell(), **options)


def test_it_starts_full_and_fast() -> None:
    reading = _device().read()
    assert (reading.charge_share, reading.on_ac, reading.power_mw) == (1.0, False, 0.0)
    # The battery is the profile's: 4 Ah at 3.85 V.
    assert reading.charge_mwh == pytest.approx(15_400.0)
    assert reading.freq_mhz == {c.name: c.max_mhz for c in PROFILE.clusters} == reading.freq_limit_mhz
    assert reading.temperature_c is None
    assert "no thermometer" in (reading.why("temperature_c") or "")


def test_a_load_empties_it_and_then_nothing_runs() -> None:
    device = _device()
    lasted_s = device.advance(1e6, 3000.0)
    # 15.4 Wh at 3 W are 5.13 h; some is heat, and some is left at the cut-off.
    assert 4.5 * 3600 < lasted_s < 5.13 * 3600
    assert device.read().time_s == lasted_s
    assert device.advance(10.0, 3000.0) == 0.0


def test_an_old_battery_lasts_shorter() -> None:
    lasted = [_device(cycles=cycles).advance(1e6, 3000.0) for cycles in (0, 80, 160)]
    assert lasted[0] > lasted[1] > lasted[2]


def test_a_charger_feeds_the_load_and_fills_the_battery() -> None:
    device = _device(charge=0.2)
    device.plug(True)
    assert device.advance(600.0, 3000.0) == 600.0
    reading = device.read()
    assert reading.on_ac is True
    assert (reading.charge_share or 0) > 0.2
    device.plug(False)
    assert device.read().on_ac is False


def test_a_suspend_is_told_once() -> None:
    device = _device()
    device.suspend(100.0, 10.0)
    reading = device.read()
    assert (reading.time_s, reading.slept_s) == (100.0, 100.0)
    assert device.read().slept_s == 0.0


def test_the_three_degrees() -> None:
    device = _device()
    assert device.degree is Degree.SETS
    assert device.why == ""
    steps = device.clusters["cortex-a77"]
    assert device.set_mhz("cortex-a77", steps[0])
    assert device.read().freq_mhz["cortex-a77"] == steps[0]
    assert not device.set_mhz("cortex-a77", 1.0)
    assert not device.set_mhz("cortex-z", steps[0])
    device.release()
    assert device.read().freq_mhz["cortex-a77"] == steps[-1]

    follows = _device(degree=Degree.FOLLOWS)
    assert not follows.set_mhz("cortex-a77", steps[0])
    follows.follow("cortex-a77", steps[3])
    assert follows.read().freq_mhz["cortex-a77"] == steps[3]
    assert "follows the clock" in follows.why
    with pytest.raises(UserInputError, match="no step of 1 MHz"):
        follows.follow("cortex-a77", 1.0)

    blind = _device(degree=Degree.NONE)
    assert blind.clusters == {}
    assert blind.read().freq_mhz == {}
    assert "relies on measured times" in (blind.read().why("freq_mhz") or "")


def test_heat_takes_steps_away_and_gives_them_back() -> None:
    device = _device(HOT)
    device.advance(300.0, 5000.0)
    reading = device.read()
    # 25 + 10 x 5 degrees in the end, far above the limit of 60.
    assert reading.temperature_c == pytest.approx(75.0, abs=0.1)
    assert reading.freq_limit_mhz == {c.name: c.steps[0].freq_mhz for c in HOT.clusters}
    assert reading.freq_mhz == reading.freq_limit_mhz
    device.advance(300.0, 100.0)
    assert device.read().freq_limit_mhz == {c.name: c.max_mhz for c in HOT.clusters}


def test_two_equal_devices_stay_equal() -> None:
    left, right = _device(HOT), _device(HOT)
    for device in (left, right):
        for k in range(50):
            device.advance(7.0, 100.0 * k)
    assert left.read() == right.read()


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.floats(0, 600), st.floats(0, 12_000), st.sampled_from(["run", "sleep", "plug", "unplug"])),
        max_size=15,
    ),
    charge=st.floats(0, 1),
)
def test_whatever_happens_readings_are_true(steps: list[tuple[float, float, str]], charge: float) -> None:
    device = _device(HOT, charge=charge)
    time_s = 0.0
    for seconds, load_mw, what in steps:
        if what == "sleep":
            device.suspend(seconds, load_mw)
        else:
            if what != "run":
                device.plug(what == "plug")
            device.advance(seconds, load_mw)
        reading = device.read()
        assert in_range(reading) == reading
        assert reading.time_s >= time_s
        time_s = reading.time_s


def test_an_honest_battery_is_believed() -> None:
    device = _device(charge=0.6)
    checked = Checked(device)
    while device.advance(30.0, 2500.0) == 30.0:
        assert checked.read().charge_share == device.cell.share


def test_wrong_loads_are_refused() -> None:
    with pytest.raises(UserInputError, match="is not possible"):
        _device().advance(-1.0, 5.0)
    with pytest.raises(UserInputError, match="is not possible"):
        _device().advance(1.0, float("nan"))
