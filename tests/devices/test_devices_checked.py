"""A battery that lies is not believed, and is believed again when it makes sense."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta.devices.sources import Checked, Plausible, Reading


class Script:
    """A source that gives what a test puts into it."""

    def __init__(self, **first: object) -> None:
        self.now = Reading(0.0, capacity_mwh=10_000.0, power_mw=1000.0, power_from="battery", on_ac=False)
        self.set(**first)

    def set(self, **changes: object) -> None:
        self.now = replace(self.now, **changes)

    def read(self) -> Reading:
        return self.now

    def after(self, seconds: float, **changes: object) -> None:
        self.set(time_s=self.now.time_s + seconds, **changes)


def test_a_jump_is_not_believed_until_it_is_confirmed() -> None:
    script = Script(charge_share=0.8, charge_mwh=8000.0)
    checked = Checked(script)
    assert checked.read().charge_share == 0.8
    script.after(1, charge_share=0.2, charge_mwh=2000.0)
    for _ in range(Plausible.settle - 1):
        reading = checked.read()
        assert reading.charge_share is None
        assert reading.charge_mwh is None
        assert reading.why("charge_share") == "the charge jumped from 80.0 % to 20.0 %, faster than a battery can."
        script.after(1)
    assert checked.read().charge_share == 0.2


def test_one_absurd_value_between_good_ones_is_left_out() -> None:
    script = Script(charge_share=0.8)
    checked = Checked(script)
    shares = []
    for share in (0.8, 0.0, 0.799, 1.0, 0.798):
        script.after(1, charge_share=share)
        shares.append(checked.read().charge_share)
    assert shares == [0.8, None, 0.799, None, 0.798]


def test_time_that_passed_explains_a_change() -> None:
    script = Script(charge_share=0.8)
    checked = Checked(script)
    checked.read()
    # Eight hours of suspend: a change of 60 % is nothing strange.
    script.after(8 * 3600, slept_s=8 * 3600.0, charge_share=0.2)
    assert checked.read().charge_share == 0.2


def test_stuck_at_full_while_energy_is_drawn() -> None:
    script = Script(charge_share=1.0)
    checked = Checked(script)
    reading = checked.read()
    minutes = 0
    while reading.charge_share is not None:
        script.after(60)
        reading = checked.read()
        minutes += 1
    # 1 W from 10 Wh: 2.5 % are gone after 15 minutes.
    assert minutes == 16
    assert "stays at 100.0 % although 2.7 % of the battery was drawn" in (reading.why("charge_share") or "")
    script.after(60, charge_share=0.97)
    assert checked.read().charge_share == 0.97


def test_full_on_a_charger_is_no_lie() -> None:
    script = Script(charge_share=1.0, on_ac=True)
    checked = Checked(script)
    for _ in range(10):
        script.after(3600)
        assert checked.read().charge_share == 1.0


def test_stuck_without_a_known_power_counts_time() -> None:
    script = Script(charge_share=0.5, power_mw=None, power_from=None)
    checked = Checked(script)
    checked.read()
    script.after(3600)
    assert checked.read().charge_share == 0.5
    script.after(1)
    reading = checked.read()
    assert reading.charge_share is None
    assert reading.why("charge_share") == "the charge stays at 50.0 % for 60 minutes on battery."


def test_stuck_where_nothing_tells_of_a_charger() -> None:
    script = Script(charge_share=0.5, power_mw=None, power_from=None, on_ac=None)
    checked = Checked(script)
    checked.read()
    script.after(3601)
    assert checked.read().charge_share is None


def test_an_energy_far_from_the_share_is_removed_alone() -> None:
    # A gauge that counts percent, and a counter of charge that lost its count.
    script = Script(charge_share=0.8, charge_mwh=0.0, capacity_mwh=None)
    checked = Checked(script, capacity_mwh=10_000.0)
    reading = checked.read()
    assert (reading.charge_share, reading.charge_mwh) == (0.8, None)
    assert reading.why("charge_mwh") == "the battery claims 80.0 % of a charge, and 0.0 % in energy."
    # An aged battery that holds two thirds of what it held when it was new.
    aged = Script(charge_share=0.8, charge_mwh=5300.0, capacity_mwh=None)
    assert Checked(aged, capacity_mwh=10_000.0).read().charge_mwh == 5300.0


def test_an_energy_that_jumps_beside_a_steady_share() -> None:
    script = Script(charge_share=0.8, charge_mwh=8000.0)
    checked = Checked(script)
    checked.read()
    script.after(1, charge_mwh=6000.0)
    reading = checked.read()
    assert (reading.charge_share, reading.charge_mwh) == (0.8, None)
    assert reading.why("charge_mwh") == "the charge jumped from 80.0 % to 60.0 %, faster than a battery can."


def test_an_energy_without_any_share_is_judged_too() -> None:
    script = Script(charge_mwh=8000.0)
    checked = Checked(script)
    assert checked.read().charge_mwh == 8000.0
    script.after(1, charge_mwh=0.0)
    assert checked.read().charge_mwh is None
    script.after(1, charge_mwh=8000.0)
    assert checked.read().charge_mwh == 8000.0
    script.after(1800)
    assert "although 5.0 % of the battery was drawn" in (checked.read().why("charge_mwh") or "")


def test_sleep_does_not_count_as_stuck() -> None:
    script = Script(charge_share=0.5, power_mw=None)
    checked = Checked(script)
    checked.read()
    script.after(9000, slept_s=9000.0)
    assert checked.read().charge_share == 0.5


def test_the_capacity_of_the_profile_helps_where_the_battery_does_not_say() -> None:
    script = Script(charge_share=1.0, capacity_mwh=None)
    checked = Checked(script, capacity_mwh=1000.0)
    checked.read()
    script.after(120)
    assert "although 3.3 % of the battery" in (checked.read().why("charge_share") or "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("charge_share", -0.2),
        ("charge_share", 1.5),
        ("charge_share", math.nan),
        ("charge_mwh", -1.0),
        ("charge_mwh", math.inf),
        ("capacity_mwh", 0.0),
        ("power_mw", -5.0),
        ("power_mw", 1e9),
        ("temperature_c", 900.0),
    ],
)
def test_values_outside_their_range_are_removed(field: str, value: float) -> None:
    script = Script(**{field: value})
    reading = Checked(script).read()
    assert getattr(reading, field) is None
    assert reading.why(field) == f"{field} was {value:g}, which cannot be."
    if field == "power_mw":
        assert reading.power_from is None


def test_clocks_that_are_not_positive_are_removed_one_by_one() -> None:
    script = Script(freq_mhz={"big": 1000.0, "little": 0.0}, freq_limit_mhz={"big": math.nan})
    reading = Checked(script).read()
    assert reading.freq_mhz == {"big": 1000.0}
    assert reading.freq_limit_mhz == {}
    assert reading.why("freq_mhz.little") == "the clock of little was 0 MHz."
    assert reading.why("freq_limit_mhz.big") == "the clock of big was nan MHz."


def test_time_never_falls() -> None:
    script = Script(charge_share=0.5, time_s=100.0)
    checked = Checked(script)
    checked.read()
    script.set(time_s=40.0)
    reading = checked.read()
    assert reading.time_s == 100.0
    assert reading.why("time_s") == "the clock went back by 60 s."


@given(
    shares=st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=30),
    gaps=st.lists(st.floats(0, 1000), min_size=30, max_size=30),
)
def test_what_is_believed_is_always_possible(shares: list[float], gaps: list[float]) -> None:
    script = Script()
    checked = Checked(script)
    believed: list[tuple[float, float]] = []
    refused = 0
    for share, gap in zip(shares, gaps, strict=False):
        script.after(gap, charge_share=share)
        reading = checked.read()
        if reading.charge_share is None:
            refused += 1
            assert reading.why("charge_share")
            continue
        assert reading.charge_share == share
        assert 0 <= share <= 1
        if believed and refused < Plausible.settle - 1:
            # Too few were refused for a new start: it follows from the one before.
            before_s, before = believed[-1]
            assert abs(share - before) <= 0.03 + 6.0 * (reading.time_s - before_s) / 3600 + 1e-12
        believed.append((reading.time_s, share))
        refused = 0
