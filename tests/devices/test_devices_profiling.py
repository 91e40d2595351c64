"""The profiler on a device that is known: it finds the coefficients, says what it could not read, and goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lavolta import devices
from lavolta.devices.profiler import Machine, Options
from lavolta.devices.profiling import profile_device, safe_name
from lavolta.devices.rendering import render
from lavolta.devices.survey import survey
from lavolta.devices.work import LinearWork, Work
from lavolta.errors import UserInputError

CACHE = 16 * 1024
TRUTH = devices.LatencyCoefficients.model_validate(
    {
        "isa": "avx2",
        "cycles_fixed": 3000.0,
        "cycles_per_kept_mac": {"2": 0.4, "8": 0.2},
        "cycles_per_kept_mac_int8": {"2": 0.2, "8": 0.05},
        "cycles_per_far_mac": {"2": 0.1, "8": 0.03},
        "cycles_per_far_mac_int8": {"2": 0.05, "8": 0.01},
        "near_cache_bytes": CACHE,
        "cycles_per_cell": 3.0,
        "cycles_per_cell_int8": 2.0,
        "cycles_per_kept_mac_few": {"2": 2.5, "8": 0.9},
        "cycles_per_kept_weight_few": {"2": 4.0, "8": 1.5},
        "cycles_per_band": 40.0,
        "cycles_per_band_int8": 25.0,
        "tokens_per_register": 8,
        "cycles_per_rest_mac": 0.5,
        "bandwidth_gb_s": 4.0,
        "fixed_us": 10.0,
        "thread_efficiency": 0.8,
        "source": {"text": "made up", "licence": "none", "label": "assumption"},
    }
)


@dataclass(frozen=True)
class Case:
    hidden: int
    rows: int
    int8: bool
    tokens: int
    level: int

    @property
    def shape_name(self) -> str:
        return str(self.hidden)

    @property
    def key(self) -> str:
        return f"{self.hidden}/{'int8' if self.int8 else 'fp32'}/{self.rows}/{self.tokens}/{self.level}"


class KilledError(RuntimeError):
    pass


class FakeBench:
    """A device that takes exactly the time that `TRUTH` predicts, at the clock that its sysfs shows."""

    isa = "avx2"
    instruction_sets: Sequence[str] = ("reference", "avx2")
    tokens_per_register = 8

    def __init__(self, sysfs, killed_after: int | None = None) -> None:
        self.sysfs = sysfs
        self.killed_after = killed_after
        self.measured = 0
        self.used: list[tuple[int, ...]] = []
        self.idle_s = self.busy_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.idle_s += seconds
        self._power(600)

    def burn(self, threads: int, time_s: float) -> None:
        self.busy_s += time_s
        self._power(600 + threads * self._mhz())

    def _power(self, milliwatts: float) -> None:
        path = self.sysfs.root / "class/hwmon/hwmon0/power1_input"
        if path.exists():
            path.write_text(f"{1000 * milliwatts:.0f}")

    def _mhz(self) -> float:
        folder = self.sysfs.root / "devices/system/cpu/cpufreq/policy0"
        if not folder.exists():
            return 2300.0
        if (folder / "scaling_governor").read_text().strip() == "userspace":
            khz = (folder / "scaling_setspeed").read_text()
            (folder / "scaling_cur_freq").write_text(khz)
            return float(khz) / 1000
        return float((folder / "scaling_cur_freq").read_text()) / 1000

    def cases(self, quick: bool) -> list[Case]:
        return [
            Case(hidden, rows, int8, tokens, level)
            for hidden in ((64, 128, 256, 512, 768) if quick else (64, 96, 128, 256, 384, 512, 640, 768))
            for int8 in (False, True)
            for rows in (2, 8)
            for tokens in (1, 2, 4, 8, 30)
            for level in (0, 1)
        ]

    def work(self, case: Case) -> Work:
        macs = case.hidden * case.hidden * case.tokens * (1.0, 0.3)[case.level]
        part = LinearWork("x", macs, macs / case.tokens * 4, case.hidden, case.hidden, case.int8)
        rest = 50.0 * case.tokens * case.hidden
        return Work(
            case.rows, case.tokens, macs, part.streamed_bytes, rest, 1000.0, macs if case.int8 else 0.0, (part,)
        )

    def measure_ms(self, case: Case, threads: int) -> float:
        if self.killed_after is not None and self.measured >= self.killed_after:
            raise KilledError
        self.measured += 1
        return devices.coefficients_ms(TRUTH, self.work(case), self._mhz(), threads)

    def switch_us(self) -> float:
        return 0.25

    def use(self, cpus: Sequence[int]) -> None:
        self.used.append(tuple(cpus))


@pytest.fixture
def machine(sysfs, tmp_path):
    """A board with three clocks, a meter, a trip point, and a first cache of 32 KB."""
    sysfs.policy(0, "0 1", cpuinfo_transition_latency=150_000)
    sysfs.put("class/hwmon/hwmon0", name="ina231", power1_input=600_000)
    sysfs.put("devices/system/cpu/cpu0/cache/index0", level=1, type="Data", size="32K")
    sysfs.put("class/thermal/thermal_zone0", type="cpu", temp=40_000, trip_point_0_type="passive")
    (sysfs.root / "class/thermal/thermal_zone0/trip_point_0_temp").write_text("85000")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cpuinfo").write_text("vendor_id: A\ncpu family: 1\nmodel: 2\nmodel name: Board CPU\ncpu MHz: 2300\n")

    def make(bench: FakeBench) -> Machine:
        return Machine(sysfs.root, proc, bench.sleep, allowed=None)

    return make


def _profile(bench: FakeBench, machine, tmp_path: Path, **options):
    journal = tmp_path / "j"
    found = profile_device(bench, "board", journal, Options(power_s=3.0, rounds=2, **options), machine(bench))
    # The caller has not written the profile yet.
    journal.unlink()
    return found


def test_it_finds_the_device_again(sysfs, machine, tmp_path) -> None:
    bench = FakeBench(sysfs)
    profiled = _profile(bench, machine, tmp_path)
    cluster = profiled.profile.cluster()
    assert (cluster.name, cluster.cores, cluster.cpus) == ("cpu", 2, (0, 1))
    assert [step.freq_mhz for step in cluster.steps] == [400.0, 800.0, 1400.0]
    # 1 mW per MHz and busy core above 600 mW of idle, as the fake board draws.
    assert [step.active_mw for step in cluster.steps] == pytest.approx([400.0, 800.0, 1400.0])
    assert cluster.power_source.label == "measured"
    assert "meter ina231" in cluster.power_source.text
    assert (profiled.profile.power.idle_mw, profiled.profile.power.board_mw) == (0.0, 600.0)
    assert profiled.profile.switching.frequency_us == 150.0
    assert profiled.profile.switching.level_us == 0.25
    assert profiled.profile.thermal.limit_c == 85.0
    assert profiled.profile.cpu.parts == ("A:1:2",)
    found = cluster.latency[0]
    assert found.thread_efficiency == 0.8
    assert found.tokens_per_register == 8
    assert found.near_cache_bytes == CACHE
    assert found.cycles_per_cell == pytest.approx(3.0, rel=1e-3)
    assert found.cycles_per_band == pytest.approx(40.0, rel=1e-3)
    assert found.cycles_per_kept_mac == pytest.approx(TRUTH.cycles_per_kept_mac, rel=1e-3)
    assert found.cycles_per_kept_mac_int8 == pytest.approx(TRUTH.cycles_per_kept_mac_int8, rel=1e-3)
    assert found.cycles_per_kept_mac_few == pytest.approx({"2": 2.5, "8": 0.9}, rel=1e-3)
    assert found.cycles_per_kept_weight_few == pytest.approx({"2": 4.0, "8": 1.5}, rel=1e-3)
    assert found.p95_error_percent < 0.1
    # The report of the errors has a line for each number of tokens.
    kinds = {each.kind: each.samples for each in profiled.fits["cpu"].by_kind}
    assert [kind for kind in kinds if "token" in kind] == ["1 token", "2 tokens", "4 tokens", "8 tokens", "30 tokens"]
    assert kinds["1 token"] > 8 * 2 * 2
    assert profiled.notes == ("no battery is listed in sysfs.",)
    # The clock and the threads were given back.
    assert (sysfs.root / "devices/system/cpu/cpufreq/policy0/scaling_governor").read_text().strip() == "schedutil"
    # One look more than counts, each a third of the three seconds, at three clocks.
    assert bench.idle_s == bench.busy_s == pytest.approx(3 * 4.0)
    assert bench.used[-1] == ()
    assert set(bench.used[:-1]) == {(0, 1)}
    assert devices.parse(render(profiled.profile).encode(), "again") == profiled.profile


def test_a_killed_run_goes_on_and_ends_the_same(sysfs, machine, tmp_path) -> None:
    whole = FakeBench(sysfs)
    expected = _profile(whole, machine, tmp_path)
    killed = FakeBench(sysfs, killed_after=whole.measured // 2)
    with pytest.raises(KilledError):
        _profile(killed, machine, tmp_path)
    assert (sysfs.root / "devices/system/cpu/cpufreq/policy0/scaling_governor").read_text().strip() == "schedutil"
    second = FakeBench(sysfs)
    profiled = _profile(second, machine, tmp_path)
    assert killed.measured + second.measured == whole.measured
    assert profiled.resumed >= killed.measured
    assert profiled.profile == expected.profile


def test_quick_measures_less(sysfs, machine, tmp_path) -> None:
    quick, full = FakeBench(sysfs), FakeBench(sysfs)
    profiled = _profile(quick, machine, tmp_path, quick=True)
    _profile(full, machine, tmp_path)
    assert quick.measured < full.measured
    # Few shapes: without the one that is held out, some coefficients cannot be told apart, but most times still can.
    assert profiled.fits["cpu"].median_error_percent < 0.1


def test_a_journal_of_another_plan_is_refused(sysfs, machine, tmp_path) -> None:
    with pytest.raises(KilledError):
        _profile(FakeBench(sysfs, killed_after=3), machine, tmp_path)
    with pytest.raises(UserInputError, match=r"belongs to another run \(its options, plan differ\)"):
        _profile(FakeBench(sysfs), machine, tmp_path, quick=True)


def test_where_nothing_can_be_read_it_says_so(sysfs, machine, tmp_path) -> None:
    bench = FakeBench(sysfs)
    used = machine(bench)
    bare = Machine(tmp_path / "no-sysfs", used.proc, used.sleep, allowed=None)
    profiled = profile_device(bench, "bare", tmp_path / "j", Options(power_s=1.0, rounds=1, max_threads=1), bare)
    words = " ".join(profiled.notes)
    for part in (
        "has no cpufreq",
        "2300 MHz, the clock that procfs shows",
        "no driver says",
        "trip point",
        "no battery",
    ):
        assert part in words
    assert "power: no battery is listed in sysfs. no power meter" in words
    cluster = profiled.profile.cluster()
    assert cluster.power_source.label == "assumption"
    assert "energies of this profile mean nothing" in cluster.power_source.text
    assert [step.freq_mhz for step in cluster.steps] == [2300.0]


def test_a_clock_that_cannot_be_set_is_followed(sysfs, machine, tmp_path) -> None:
    folder = sysfs.root / "devices/system/cpu/cpufreq/policy0"
    (folder / "scaling_setspeed").unlink()
    bench = FakeBench(sysfs)
    profiled = _profile(bench, machine, tmp_path)
    assert "the clock cannot be set" in " ".join(profiled.notes)
    cluster = profiled.profile.cluster()
    assert [step.freq_mhz for step in cluster.steps] == [400.0, 800.0, 1400.0]
    # Timed at the 800 MHz that the system chose: cycles are those of the truth all the same.
    assert cluster.latency[0].cycles_per_kept_mac == pytest.approx(TRUTH.cycles_per_kept_mac, rel=1e-3)


def test_an_idle_power_that_could_not_be_read_is_no_zero(sysfs, machine, tmp_path) -> None:
    class Plugged(FakeBench):
        """A charger that hides what the device draws while it idles at the first clock."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self._mhz() == 400.0:
                (self.sysfs.root / "class/hwmon/hwmon0/power1_input").write_text("none")

    bench = Plugged(sysfs)
    options = Options(quick=True, power_s=3.0, rounds=1, max_threads=1)
    profile = profile_device(bench, "board", tmp_path / "j", options, machine(bench)).profile
    assert (profile.power.idle_mw, profile.power.board_mw) == (0.0, 600.0)
    assert profile.cluster().power_source.label == "assumption"


def test_a_round_that_heat_slowed_down_relabels_no_other(sysfs, machine, tmp_path) -> None:
    class Throttled(FakeBench):
        """Cool in the first round of its six settings, then no faster than 800 MHz."""

        def _mhz(self) -> float:
            mhz = super()._mhz()
            if len(self.used) <= 6:
                return mhz
            folder = self.sysfs.root / "devices/system/cpu/cpufreq/policy0"
            (folder / "scaling_cur_freq").write_text("800000")
            return min(mhz, 800.0)

    bench = Throttled(sysfs)
    options = Options(power_s=0.0, rounds=2)
    profiled = profile_device(bench, "board", tmp_path / "j", options, machine(bench))
    assert "asked for 1400 MHz, cluster cpu ran at 800 MHz in a round." in profiled.notes
    cycles = profiled.profile.cluster().latency[0].cycles_per_kept_mac
    assert cycles == pytest.approx(TRUTH.cycles_per_kept_mac, rel=1e-3)
    # A journal without a clock for each round cannot tell.
    lines = (tmp_path / "j").read_text().splitlines()
    header = json.loads(lines[0])
    del header["header"]["format"]
    (tmp_path / "j").write_text("\n".join([json.dumps(header), *lines[1:], ""]))
    with pytest.raises(UserInputError, match=r"its format differ\); remove the file"):
        profile_device(bench, "board", tmp_path / "j", options, machine(bench))


def test_cpus_that_may_not_be_used_are_not_timed(sysfs, machine, tmp_path) -> None:
    bench = FakeBench(sysfs)
    used = machine(bench)
    narrow = Machine(used.root, used.proc, used.sleep, allowed={1, 7})
    profiled = profile_device(bench, "board", tmp_path / "j", Options(power_s=0.0, rounds=1), narrow)
    cluster = profiled.profile.cluster()
    assert cluster.cpus == (1,)
    # The clock is set all the same, though CPU 0 shares it: otherwise these cycles would be off by the clock.
    assert cluster.latency[0].cycles_per_kept_mac == pytest.approx(TRUTH.cycles_per_kept_mac, rel=1e-3)
    assert "this program may not use CPU 0: not timed." in profiled.notes
    nothing = Machine(used.root, used.proc, used.sleep, allowed={7})
    with pytest.raises(UserInputError, match="may use none of the CPUs"):
        profile_device(bench, "board", tmp_path / "j2", Options(), nothing)


def test_the_limit_of_heat_is_the_processor_s(sysfs) -> None:
    def zone(place: int, kind: str, trip: int) -> None:
        folder = sysfs.zone(place, kind, 40_000)
        (folder / "trip_point_0_type").write_text("passive")
        (folder / "trip_point_0_temp").write_text(str(trip))

    assert survey(sysfs.root, sysfs.root).limit_c is None
    zone(0, "battery", 45_000)
    assert survey(sysfs.root, sysfs.root).limit_c is None
    zone(1, "skin", 46_000)
    zone(2, "cpu-0-0", 95_000)
    zone(3, "cpu-1-0", 85_000)
    # The hottest of the processor's sensors is what is compared with it.
    assert survey(sysfs.root, sysfs.root).limit_c == 85.0


def test_names_are_checked_before_anything_is_measured(sysfs, machine, tmp_path) -> None:
    bench = FakeBench(sysfs)
    with pytest.raises(UserInputError, match="cannot be called 'My Board'"):
        profile_device(bench, "My Board", tmp_path / "j", Options(), machine(bench))
    assert bench.measured == 0
    assert safe_name("My Board (2)") == "my-board-2"
    assert safe_name("***") == "this-device"


def test_two_kinds_of_cores_are_two_clusters(sysfs, machine, tmp_path) -> None:
    for cpu, capacity in ((0, 400), (1, 400), (4, 1024)):
        sysfs.put(f"devices/system/cpu/cpu{cpu}", cpu_capacity=capacity)
    sysfs.policy(4, "4", scaling_available_frequencies="1000000 2000000", cpuinfo_max_freq=2_000_000)
    profiled = _profile(FakeBench(sysfs), machine, tmp_path, quick=True)
    assert {cluster.name: cluster.cpus for cluster in profiled.profile.clusters} == {
        "cluster0": (0, 1),
        "cluster1": (4,),
    }
