"""One broken profile per error: a sentence that names the key and the way out."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices import loading
from lavolta.errors import InfeasibleError, UserInputError

GOOD = (Path(loading.__file__).parent / "profiles" / "odroid-xu3-a7.toml").read_text(encoding="utf-8")


def _replace(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


def _drop(line_start: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        kept = [line for line in text.splitlines() if not line.startswith(line_start)]
        assert len(kept) < len(text.splitlines())
        return "\n".join(kept)

    return edit


BROKEN = {
    "not TOML": (lambda text: text + "\n[", r"is not valid TOML"),
    "empty": (lambda _: "", r"the key format is missing; add it"),
    "future format": (_replace("format = 1", "format = 2"), r"format is 2"),
    "unknown key": (_replace("idle_mw", "idel_mw"), r"unknown key power.idel_mw; did you mean idle_mw\?"),
    "strange key": (_replace("cores = 4", "cores = 4\nzzz = 1"), r"unknown key clusters\[0\].zzz; known keys here are"),
    "missing key": (_drop("board_mw"), r"the key power.board_mw is missing; add it"),
    "missing source": (_drop("power_source"), r"the key clusters\[0\].power_source is missing"),
    "text for number": (
        _replace("idle_mw = 30.0", 'idle_mw = "30"'),
        r"power.idle_mw is '30'; input should be a valid",
    ),
    "truth for number": (_replace("idle_mw = 30.0", "idle_mw = true"), r"power.idle_mw is True"),
    "NaN": (_replace("idle_mw = 30.0", "idle_mw = nan"), r"power.idle_mw is nan; input should be a finite number"),
    "infinity": (_replace("board_mw = 4710.0", "board_mw = inf"), r"power.board_mw is inf"),
    "negative": (_replace("idle_mw = 30.0", "idle_mw = -1.0"), r"power.idle_mw is -1.0; .* greater than or equal to 0"),
    "zero capacity": (_replace("3000.0", "0.0"), r"battery.capacity_mah is 0.0; .* greater than 0"),
    "two capacities": (_replace("nominal_mv", "capacity_mwh = 1.0\nnominal_mv"), r"give exactly one of capacity_mwh"),
    "no capacity": (_drop("capacity_mah"), r"battery: give exactly one of"),
    "cut-off above nominal": (
        _replace("nominal_mv = 3700.0", "nominal_mv = 3700.0\ncutoff_mv = 3800.0"),
        r"below nominal",
    ),
    "no cores": (_replace("cores = 4", "cores = 0"), r"clusters\[0\].cores is 0"),
    "half a core": (
        _replace("cores = 4", "cores = 1.5"),
        r"clusters\[0\].cores is 1.5; input should be a valid integer",
    ),
    "unsorted steps": (_replace("freq_mhz = 400.0", "freq_mhz = 4000.0"), r"steps must be sorted by freq_mhz"),
    "step twice": (_replace("freq_mhz = 600.0", "freq_mhz = 400.0"), r"each frequency once"),
    "step without power": (_drop("k_uw"), r"the step of 400 MHz has no power; give active_mw, or voltage_mv"),
    "zero frequency": (_replace("freq_mhz = 400.0", "freq_mhz = 0.0"), r"clusters\[0\].steps\[0\].freq_mhz is 0.0"),
    "unknown label": (_replace('"confirmed"', '"sure"'), r"clusters\[0\].power_source.label is 'sure'"),
    "unknown default": (_replace('default_cluster = "cortex-a7"', 'default_cluster = "a15"'), r"'a15' is not the name"),
    "cell height": (_replace('"2" = 3.030', '"3" = 3.030'), r"cycles_per_kept_mac.3 is '3'; input should be '1', '2'"),
    "free work": (_replace('"2" = 3.030', '"2" = 0.0'), r"cycles_per_kept_mac.2 is 0.0"),
    "efficiency": (_replace("thread_efficiency = 0.85", "thread_efficiency = 1.5"), r"thread_efficiency is 1.5"),
    "bad name": (_replace('name = "odroid-xu3-a7"', 'name = "Odroid XU3"'), r"name is 'Odroid XU3'"),
    "two latencies": (
        lambda text: text + text[text.index("[[clusters.latency]]") :],
        r"two latency entries have the same isa",
    ),
    "two clusters": (lambda text: text + text[text.index("[[clusters]]") :], r"two clusters have the same name"),
    "too few CPUs": (_replace("cpus = [0, 1, 2, 3]", "cpus = [0, 1, 2]"), r"cpus must name 4 different CPUs"),
    "a CPU twice": (_replace("cpus = [0, 1, 2, 3]", "cpus = [0, 1, 2, 2]"), r"cpus must name 4 different CPUs"),
    "a negative CPU": (_replace("cpus = [0, 1, 2, 3]", "cpus = [-1, 1, 2, 3]"), r"clusters\[0\].cpus\[0\] is -1"),
    "a CPU of two clusters": (
        lambda text: text + text[text.index("[[clusters]]") :].replace('name = "cortex-a7"', 'name = "twin"'),
        r"a CPU belongs to two clusters",
    ),
    "cold limit": (_replace("limit_c = 85.0", "limit_c = 20.0"), r"thermal: limit_c must be above ambient_c"),
    "half a thermal model": (
        _replace("limit_c = 85.0", "limit_c = 85.0\ntime_constant_s = 9.0"),
        r"give resistance_c_per_w and time_constant_s together",
    ),
    "a processor without parts": (
        lambda text: text + '\n[cpu]\narchitecture = "aarch64"\nparts = []',
        r"cpu.parts is \[\]",
    ),
    "no clusters": (lambda text: text[: text.index("[[clusters]]")], r"the key clusters is missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_defect_is_one_sentence(case: str, tmp_path: Path) -> None:
    edit, message = BROKEN[case]
    path = tmp_path / "broken.toml"
    path.write_text(edit(GOOD), encoding="utf-8")
    with pytest.raises(UserInputError, match=message) as caught:
        devices.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in re.sub(r"is not valid TOML.*", "", str(caught.value), flags=re.S)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    with pytest.raises(UserInputError, match="No such file"):
        devices.load(path)
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(UserInputError, match="is not UTF-8 text"):
        devices.load(path)
    path.write_bytes(b"#" * (loading.MAX_BYTES + 1))
    with pytest.raises(UserInputError, match="at most"):
        devices.load(path)
    with pytest.raises(UserInputError, match="cannot read"):
        devices.load(tmp_path)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_never_a_crash(content: bytes) -> None:
    with pytest.raises(UserInputError):
        devices.parse(content, "random")


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(devices.DeviceProfile.model_fields)), _PLAIN)
def test_any_plain_value_in_any_table_is_accepted_or_refused_with_a_sentence(key: str, value: object) -> None:
    data = loading.tomllib.loads(GOOD)
    data[key] = value
    assert (_refusal(data) or "mutated: ").startswith("mutated: ")


def _refusal(data: dict[str, object]) -> str | None:
    try:
        devices.validate(data, "mutated")
    except UserInputError as error:
        return str(error)
    return None


def test_a_battery_that_cannot_supply() -> None:
    source = {"text": "test", "licence": "none", "label": "assumption"}
    weak = devices.Battery.model_validate(
        {"capacity_mwh": 1000.0, "nominal_mv": 3700.0, "internal_resistance_mohm": 1000.0, "source": source}
    )
    # Mathematics: at most V^2 / 4R = 3.7^2 / 4 = 3.4225 W.
    with pytest.raises(InfeasibleError, match=r"cannot give 3430 mW.*at most 3422 mW"):
        weak.cell_mw(3430)
    sagging = weak.model_copy(update={"cutoff_mv": 3500.0})
    # 0.2 V sag is 0.2 A through 1 ohm: the load gets 3.5 V x 0.2 A = 700 mW.
    assert sagging.cell_mw(699.9) == pytest.approx(3.7 * 199.97, rel=1e-4)
    with pytest.raises(InfeasibleError, match="below its cut-off of 3500 mV"):
        sagging.cell_mw(701)
