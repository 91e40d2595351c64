"""Shipped profiles: complete, labelled, and equal to the published tables they come from."""

import csv
from pathlib import Path

import pytest

from lavolta import devices
from lavolta.devices import freqbench
from lavolta.devices.freqbench_chips import UNUSABLE
from lavolta.errors import UserInputError

# RT3's table as the papers sheet has it (2.3, unverified: medium), and Linux exynos5800.dtsi (confirmed).
VOLTAGES = {
    "odroid-xu3-a7": {400: 916.25, 600: 917.5, 800: 992.5, 1000: 1066.25, 1200: 1141.25, 1400: 1240},
    "odroid-xu3-a7-devicetree": {400: 1000, 600: 1000, 800: 1100, 1000: 1100, 1200: 1250, 1400: 1275},
}
# Papers sheet of RT3, 2.4: mW per core from P = 90 f V^2, printed without decimals.
CORE_MW = {
    "odroid-xu3-a7": {1400: 194, 1200: 141, 1000: 102, 800: 71, 600: 45, 400: 30},
    "odroid-xu3-a7-devicetree": {1400: 205, 1200: 169, 1000: 109, 800: 87, 600: 54, 400: 36},
}


@pytest.mark.parametrize("name", devices.names())
def test_every_shipped_profile_loads_and_labels_its_numbers(name: str) -> None:
    profile = devices.load(name)
    assert profile.name == name
    for source in (profile.power.source, profile.switching.source, profile.battery.source):
        assert source.text
        assert source.licence
    for cluster in profile.clusters:
        assert {entry.isa for entry in cluster.latency} == {"neon"}
        assert all(cluster.active_mw(step.freq_mhz) > 0 for step in cluster.steps)
        entry = cluster.latency[0]
        assert set(entry.cycles_per_kept_mac) == set(entry.cycles_per_kept_mac_int8 or {}) == {"1", "2", "4", "8", "16"}
        assert all(entry.kept_cycles(rows, int8=True) < entry.kept_cycles(rows) for rows in (1, 2, 4, 8, 16))
    # The shipped devices number their CPUs without a gap.
    assert sorted(cpu for c in profile.clusters for cpu in c.cpus or ()) == list(
        range(sum(c.cores for c in profile.clusters))
    )


def test_the_default_is_the_papers_board() -> None:
    assert devices.load().name == "odroid-xu3-a7"


@pytest.mark.parametrize("name", VOLTAGES)
def test_voltages_and_power_are_those_of_the_sheet(name: str) -> None:
    cluster = devices.load(name).cluster()
    assert {step.freq_mhz: step.voltage_mv for step in cluster.steps} == VOLTAGES[name]
    for freq, milliwatts in CORE_MW[name].items():
        assert cluster.active_mw(freq) == pytest.approx(milliwatts, abs=0.5)


def test_unverified_numbers_say_so() -> None:
    paper, tree = devices.load("odroid-xu3-a7").cluster(), devices.load("odroid-xu3-a7-devicetree").cluster()
    assert paper.steps_source.label == "unverified: medium"
    assert tree.steps_source.label == "confirmed"
    assert paper.power_source.label == tree.power_source.label == "confirmed"
    assert paper.latency[0].source.label == "assumption"


def test_an_unknown_device_names_the_closest() -> None:
    with pytest.raises(UserInputError, match=r"unknown device 'odroid-xu3'; the closest are odroid-xu3-a7"):
        devices.load("odroid-xu3")
    with pytest.raises(UserInputError, match="freqbench-sdm845"):
        devices.load("???")


def test_a_path_is_read_as_a_file(tmp_path) -> None:
    path = tmp_path / "board.toml"
    path.write_bytes((Path(freqbench.__file__).parent / "profiles" / "odroid-xu3-a7.toml").read_bytes())
    assert devices.load(path) == devices.load(str(path)) == devices.load("odroid-xu3-a7")


@pytest.mark.parametrize("chip", freqbench.CHIPS, ids=lambda chip: chip.soc)
def test_generated_profiles_are_fresh(chip: freqbench.Chip, shared_data) -> None:
    folder = Path(freqbench.__file__).parent / "profiles"
    shipped = (folder / f"{freqbench.profile_name(chip)}.toml").read_text(encoding="utf-8")
    assert shipped == freqbench.render(chip, shared_data / "freqbench"), (
        "refresh with: python -m lavolta.devices.freqbench ../shared/data/freqbench"
    )


def test_every_soc_with_usable_power_has_a_profile(shared_data) -> None:
    power: dict[str, float] = {}
    with (shared_data / "freqbench" / "freqbench_all.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            power[row["soc"]] = max(power.get(row["soc"], 0.0), float(row["Power (mW)"]))
    assert {chip.soc for chip in freqbench.CHIPS} == {soc for soc, most in power.items() if most >= 1}
    assert set(UNUSABLE) == {soc for soc, most in power.items() if most < 1}


def test_voltages_are_those_of_the_kernel_where_known() -> None:
    # From voltages.txt of the same data: the lowest and the highest step of the Cortex-A15.
    steps = devices.load("freqbench-exynos5250").cluster().steps
    assert [(step.freq_mhz, step.voltage_mv) for step in (steps[0], steps[-1])] == [(200.0, 925.0), (1700.0, 1300.0)]


def test_a_reading_below_zero_is_no_step() -> None:
    # The Exynos 7904 drew -0.7 mW above idle at 449 MHz: noise.
    cluster = devices.load("freqbench-exynos7904").cluster("cortex-a53")
    assert cluster.steps[0].freq_mhz == 546.0


def test_generated_power_is_that_of_the_measurements(shared_data) -> None:
    with (shared_data / "freqbench" / "freqbench_all.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["soc"] == "sdm845" and row["run"] == "main"]
    profile = devices.load("freqbench-sdm845")
    steps = {cluster.name: cluster for cluster in profile.clusters}
    assert sum(len(cluster.steps) for cluster in profile.clusters) == len(rows)
    for row in rows:
        cluster = steps["kryo-385-silver" if row["CPU"] == "1" else "kryo-385-gold"]
        measured = float(row["Power (mW)"])
        assert cluster.active_mw(int(row["Frequency (kHz)"]) / 1000) == pytest.approx(measured, abs=0.005)


def test_the_generator_writes_nothing_without_its_data(tmp_path, capsys) -> None:
    assert freqbench.main([str(tmp_path)]) == 2
    assert "give the folder of the freqbench data" in capsys.readouterr().err
    assert freqbench.main([]) == 2


def test_lookups_name_what_there_is() -> None:
    profile = devices.load("freqbench-sm8250")
    assert profile.cluster().name == "cortex-a77"
    with pytest.raises(UserInputError, match="has no cluster 'a99'; it has cortex-a55"):
        profile.cluster("a99")
    with pytest.raises(UserInputError, match="no latency model for 'sve'; it has neon"):
        profile.cluster().coefficients("sve")
    with pytest.raises(UserInputError, match="no step of 1 MHz"):
        profile.cluster().active_mw(1)


def test_the_example_of_the_reference_page_is_a_valid_profile() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "device-profile.md"
    example = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    profile = devices.parse(example.encode(), "example")
    assert profile.cluster().active_mw(1500.0) == 820.0
    assert all(f"`{name}`" in page.read_text(encoding="utf-8") for name in devices.names())
    assert profile.cluster().cpus == (0, 1, 2, 3)
    assert profile.thermal is not None
    assert profile.thermal.limit_c == 85.0
