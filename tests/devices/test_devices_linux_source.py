"""What sysfs shows becomes a reading; what goes wrong becomes a sentence."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices.sources import MEASURED, LinuxClocks, LinuxSource, cluster_cpus
from lavolta.devices.sources.checked import in_range


def test_a_laptop_on_battery(sysfs, clock) -> None:
    sysfs.battery()
    sysfs.charger(0)
    sysfs.policy(0, "0 1", cur_khz=800_000)
    sysfs.zone(0, "x86_pkg_temp", 61_000)
    sysfs.zone(1, "iwlwifi_1", 99_000)
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert reading.time_s == 5000.0
    assert (reading.charge_share, reading.charge_mwh, reading.capacity_mwh) == (0.5, 25_000.0, 50_000.0)
    assert (reading.power_mw, reading.power_from, reading.on_ac) == (10_000.0, "battery", False)
    assert reading.freq_mhz == {"policy0": 800.0}
    assert reading.freq_limit_mhz == {"policy0": 1400.0}
    assert reading.temperature_c == 61.0
    assert reading.missing == {}


def test_a_phone_counts_charge_and_a_negative_current(sysfs, clock) -> None:
    battery = sysfs.battery(
        charge_now=2_000_000, charge_full=4_000_000, current_now=-500_000, voltage_min_design=3_850_000
    )
    for name in ("energy_now", "energy_full", "power_now"):
        (battery / name).unlink()
    sysfs.put("class/power_supply/usb", type="USB", online=0)
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert reading.charge_share == 0.5
    # 2 Ah and 4 Ah at 3.85 V; 0.5 A at the present 11 V.
    assert reading.charge_mwh == pytest.approx(7700.0)
    assert reading.capacity_mwh == pytest.approx(15_400.0)
    assert reading.power_mw == pytest.approx(5500.0)
    assert reading.on_ac is False


def test_two_batteries_are_one_and_a_mouse_is_none(sysfs, clock) -> None:
    sysfs.battery("BAT0")
    sysfs.battery("BAT1", energy_now=5_000_000, energy_full=10_000_000, status="Not charging")
    sysfs.battery("hidpp_battery_0", scope="Device", capacity=3, energy_now=1, energy_full=100)
    sysfs.battery("BAT2", present=0, energy_now=0)
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert reading.charge_share == pytest.approx(30 / 60)
    assert reading.charge_mwh == 30_000.0
    # The second one rests: only the first gives power.
    assert reading.power_mw == 10_000.0


def test_only_percent_is_known(sysfs, clock) -> None:
    sysfs.put("class/power_supply/BAT0", type="Battery", capacity=42, status="Discharging")
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert reading.charge_share == 0.42
    assert reading.charge_mwh is None
    assert "energy_now is not there" in (reading.why("charge_mwh") or "")
    assert "current_now is not there" in (reading.why("power_mw") or "")


@pytest.mark.parametrize(
    ("status", "online", "expected"),
    [
        ("Discharging", None, False),
        ("Charging", None, True),
        ("Full", None, True),
        ("Unknown", None, None),
        ("Unknown", 1, True),
        ("Unknown", 0, False),
        # The charger's own word wins: some batteries discharge on a weak charger.
        ("Discharging", 1, True),
        ("Discharging", "nonsense", False),
    ],
)
def test_who_feeds_the_device(sysfs, clock, status: str, online: object, expected: bool | None) -> None:
    sysfs.battery(status=status)
    if online is not None:
        sysfs.charger(online)
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert reading.on_ac is expected
    assert (reading.why("on_ac") is None) == (expected is not None)


def test_plug_and_unplug_are_seen_at_the_next_look(sysfs, clock) -> None:
    battery = sysfs.battery()
    charger = sysfs.charger(0)
    source = LinuxSource(sysfs.root, clock.clocks)
    assert source.read().on_ac is False
    (charger / "online").write_text("1\n")
    (battery / "status").write_text("Charging\n")
    reading = source.read()
    assert reading.on_ac is True
    # The battery's current is what the charger puts in, not what the device draws.
    assert reading.power_mw is None
    assert "no battery is being discharged" in (reading.why("power_mw") or "")
    (charger / "online").write_text("0\n")
    (battery / "status").write_text("Discharging\n")
    assert source.read().power_mw == 10_000.0


@pytest.mark.parametrize(
    ("attributes", "field", "words"),
    [
        ({"energy_now": -5_000_000}, "charge_share", "claims a charge of -10 %, which cannot be"),
        ({"energy_now": -5_000_000}, "charge_mwh", "claims an energy of -5000 mWh, which cannot be"),
        ({"energy_now": 60_000_000}, "charge_share", "claims a charge of 120 %, which cannot be"),
        ({"energy_full": 0}, "charge_share", "claims a full charge of 0"),
        ({"energy_full": 0}, "capacity_mwh", "claims a full charge of 0 mWh"),
    ],
)
def test_a_battery_that_lies_outright(sysfs, clock, attributes: dict[str, int], field: str, words: str) -> None:
    sysfs.battery(**attributes)
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert getattr(reading, field) is None
    assert words in (reading.why(field) or "")


def test_a_little_more_than_full_is_full(sysfs, clock) -> None:
    sysfs.battery(energy_now=51_000_000)
    assert LinuxSource(sysfs.root, clock.clocks).read().charge_share == 1.0


def test_a_file_that_disappears_and_comes_back(sysfs, clock) -> None:
    policy = sysfs.policy(0, "0-3")
    source = LinuxSource(sysfs.root, clock.clocks)
    assert source.read().freq_mhz == {"policy0": 800.0}
    (policy / "scaling_cur_freq").unlink()
    reading = source.read()
    assert reading.freq_mhz == {}
    assert "scaling_cur_freq is not there" in (reading.why("freq_mhz.policy0") or "")
    (policy / "cpuinfo_cur_freq").write_text("400000")
    assert source.read().freq_mhz == {"policy0": 400.0}


def test_a_battery_that_is_taken_out(sysfs, clock) -> None:
    battery = sysfs.battery()
    source = LinuxSource(sysfs.root, clock.clocks)
    assert source.read().charge_share == 0.5
    for path in battery.iterdir():
        path.unlink()
    battery.rmdir()
    reading = source.read()
    assert reading.charge_share is None
    assert reading.why("charge_share") == "no battery is listed in sysfs."


def test_permission_denied_is_a_sentence(sysfs, clock, unprivileged) -> None:
    battery = sysfs.battery()
    (battery / "energy_now").chmod(0)
    (battery / "capacity").chmod(0)
    with unprivileged():
        reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert reading.charge_share is None
    assert "capacity may not be used by this user" in (reading.why("charge_share") or "")
    assert reading.power_mw == 10_000.0


def test_text_where_a_number_should_be(sysfs, clock) -> None:
    sysfs.policy(0, "0", cur_khz="<unknown>")
    sysfs.zone(0, "cpu-thermal", "nan")
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert "holds '<unknown>', not a number" in (reading.why("freq_mhz.policy0") or "")
    assert "holds 'nan', not a number" in (reading.why("temperature_c") or "")


def test_nothing_at_all(tmp_path, clock) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        reading = LinuxSource(root, clock.clocks).read()
        assert all(getattr(reading, name) in (None, {}) for name in MEASURED)
        assert set(MEASURED) == set(reading.missing)
        assert all(words.endswith(".") for words in reading.words())


def test_clusters_take_the_names_of_the_profile(sysfs, clock) -> None:
    profile = devices.load("freqbench-sm8250")
    sysfs.policy(0, "0 1 2 3", cur_khz=600_000)
    sysfs.policy(4, "4 5 6", cur_khz=1_200_000)
    reading = LinuxSource(sysfs.root, clock.clocks, cluster_cpus(profile)).read()
    assert reading.freq_mhz == {"cortex-a55": 600.0, "cortex-a77": 1200.0}
    assert reading.why("freq_mhz.cortex-a77-prime") == "cpufreq has no policy for cluster cortex-a77-prime."


def test_a_cluster_of_many_policies_has_the_clock_of_its_busy_core(sysfs, clock) -> None:
    for cpu, khz in enumerate((400_000, 1_400_000, "broken")):
        sysfs.policy(cpu, str(cpu), cur_khz=khz)
    reading = LinuxSource(sysfs.root, clock.clocks, {"main": (0, 1, 2)}).read()
    assert reading.freq_mhz == {"main": 1400.0}
    assert reading.why("freq_mhz.main") is None


def test_clocks_alone_look_at_nothing_else(sysfs, clock) -> None:
    sysfs.battery()
    sysfs.policy(0, "0 1", cur_khz=800_000)
    source = LinuxClocks(sysfs.root, clock.clocks)
    reading = source.read()
    assert (reading.time_s, reading.freq_mhz, reading.charge_share) == (5000.0, {"policy0": 800.0}, None)
    sysfs.put("devices/system/cpu/cpufreq/policy0", scaling_cur_freq=1_200_000)
    assert source.read().freq_mhz == {"policy0": 1200.0}


def test_suspend_is_told_once(sysfs, clock) -> None:
    source = LinuxSource(sysfs.root, clock.clocks)
    assert source.read().slept_s == 0.0
    clock.tick(10)
    clock.sleep(3600)
    reading = source.read()
    assert (reading.time_s, reading.slept_s) == (8610.0, 3600.0)
    clock.tick(1)
    assert source.read().slept_s == 0.0


def test_a_clock_that_jumps_back_never_makes_time_fall(sysfs, clock) -> None:
    source = LinuxSource(sysfs.root, clock.clocks)
    source.read()
    clock.elapsed_s -= 100
    reading = source.read()
    assert reading.time_s == 5000.0
    assert reading.why("time_s") == "the clock went back by 100 s."
    clock.tick(5)
    reading = source.read()
    assert reading.time_s == 5005.0
    assert reading.why("time_s") is None


def test_a_meter_on_the_board(sysfs, clock) -> None:
    sysfs.put("class/hwmon/hwmon0", name="ina231", power1_input=2_500_000)
    sysfs.put("class/hwmon/hwmon1", name="ina3221", curr1_input=500, in1_input=5000, curr2_input=100, in2_input=3300)
    sysfs.put("class/hwmon/hwmon2", name="coretemp", temp1_input=55_000, temp2_input=57_500)
    reading = LinuxSource(sysfs.root, clock.clocks).read()
    # 0.5 A x 5 V + 0.1 A x 3.3 V is more than the other chip's 2.5 W.
    assert reading.power_mw == pytest.approx(2830.0)
    assert reading.power_from == "meter ina3221"
    assert reading.temperature_c == 57.5


def test_energy_counters_wrap_and_need_two_looks(sysfs, clock) -> None:
    zone = sysfs.put("class/powercap/intel-rapl:0", name="package-0", energy_uj=900, max_energy_range_uj=1000)
    sysfs.put("class/powercap/intel-rapl:0:0", name="core", energy_uj=5, max_energy_range_uj=1000)
    source = LinuxSource(sysfs.root, clock.clocks)
    assert "from the second look on" in (source.read().why("power_mw") or "")
    clock.tick(0.001)
    (zone / "energy_uj").write_text("400")
    reading = source.read()
    # From 900 over 1000 to 400 are 500 uJ in a millisecond: 500 mW.
    assert reading.power_mw == pytest.approx(500.0)
    assert reading.power_from == "RAPL, the processor only"
    clock.tick(1)
    clock.sleep(100)
    assert source.read().power_mw is None


def test_the_whole_platform_wins_over_the_processor(sysfs, clock) -> None:
    package = sysfs.put("class/powercap/intel-rapl:0", name="package-0", energy_uj=0, max_energy_range_uj=10**9)
    psys = sysfs.put("class/powercap/intel-rapl:1", name="psys", energy_uj=0, max_energy_range_uj=10**9)
    source = LinuxSource(sysfs.root, clock.clocks)
    source.read()
    clock.tick(1)
    (package / "energy_uj").write_text("1000000")
    (psys / "energy_uj").write_text("3000000")
    reading = source.read()
    assert reading.power_mw == pytest.approx(3000.0)
    assert reading.power_from == "RAPL, the whole platform"


def test_counters_without_permission_say_so(sysfs, clock, unprivileged) -> None:
    zone = sysfs.put("class/powercap/intel-rapl:0", name="package-0", energy_uj=0)
    (zone / "energy_uj").chmod(0o400)
    with unprivileged():
        reading = LinuxSource(sysfs.root, clock.clocks).read()
    assert "energy_uj may not be used by this user" in (reading.why("power_mw") or "")


def test_the_processors_thermometer_is_found_among_others(sysfs, clock) -> None:
    sysfs.zone(0, "acpitz", 28_000)
    sysfs.zone(1, "battery", 45_000)
    sysfs.zone(2, "cpu1-thermal", -300_000)
    source = LinuxSource(sysfs.root, clock.clocks)
    # The processor's own one is absurd, so the board's counts.
    assert source.read().temperature_c == 28.0
    sysfs.zone(3, "cpu0-thermal", 66_000)
    assert source.read().temperature_c == 66.0


@pytest.mark.parametrize("claimed_uw", [1_000_000_001, 10**20, -(10**20)])
def test_a_battery_that_claims_kilowatts_is_not_believed_and_a_meter_is_asked(sysfs, clock, claimed_uw: int) -> None:
    sysfs.battery(power_now=claimed_uw)
    source = LinuxSource(sysfs.root, clock.clocks)
    assert source.read().power_mw is None
    assert "which cannot be" in source.read().missing["power_mw"]
    sysfs.put("class/hwmon/hwmon0", name="ina", power1_input=5_000_000)
    found = source.read()
    assert (found.power_mw, found.power_from) == (5000.0, "meter ina")
    # Two channels that are believable apart, and not together.
    sysfs.put("class/hwmon/hwmon0", name="ina", power1_input=600_000_000, power2_input=600_000_000)
    assert source.read().power_mw is None


_CONTENT = st.one_of(
    st.binary(max_size=40), st.integers(-(10**20), 10**20).map(lambda value: str(value).encode()), st.just(b"1e999")
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_content_of_any_file_ever_raises(sysfs, clock, data: st.DataObject) -> None:
    folders = [sysfs.battery(), sysfs.charger(0), sysfs.policy(0, "0"), sysfs.zone(0, "cpu", 1)]
    folders.append(sysfs.put("class/powercap/intel-rapl:0", name="package-0", energy_uj=0, max_energy_range_uj=9))
    folders.append(sysfs.put("class/hwmon/hwmon0", name="ina", power1_input=5))
    source = LinuxSource(sysfs.root, clock.clocks)
    paths = sorted(path for folder in folders for path in folder.iterdir())
    for path in data.draw(st.lists(st.sampled_from(paths), max_size=6)):
        path.write_bytes(data.draw(_CONTENT))
    for _ in range(2):
        clock.tick(1.0)
        reading = source.read()
        # Whatever is left is finite and in range.
        assert in_range(reading) == reading
