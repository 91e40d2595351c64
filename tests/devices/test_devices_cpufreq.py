"""The clock of a Linux device in its three degrees, and how they are lost."""

import pytest

from lavolta.devices.sources import Degree, LinuxFrequencyControl

ATTRIBUTES = ("scaling_governor", "scaling_setspeed", "scaling_min_freq", "scaling_max_freq")


def _content(folder) -> dict[str, str]:
    return {name: (folder / name).read_text().strip() for name in ATTRIBUTES}


def test_the_userspace_governor_is_used_and_put_back(sysfs) -> None:
    folder = sysfs.policy(0, "0-3")
    control = LinuxFrequencyControl(sysfs.root)
    assert control.degree is Degree.SETS
    assert control.why == ""
    assert control.clusters == {"policy0": (400.0, 800.0, 1400.0)}
    before = _content(folder)
    assert before["scaling_governor"] == "schedutil"
    assert control.set_mhz("policy0", 400.0)
    assert _content(folder)["scaling_governor"] == "userspace"
    assert _content(folder)["scaling_setspeed"] == "400000"
    assert control.set_mhz("policy0", 1400.0)
    assert _content(folder)["scaling_setspeed"] == "1400000"
    control.release()
    control.release()
    assert {**_content(folder), "scaling_setspeed": ""} == {**before, "scaling_setspeed": ""}


def test_without_userspace_both_limits_are_drawn_together(sysfs) -> None:
    folder = sysfs.policy(0, "0-3", scaling_available_governors="performance powersave")
    control = LinuxFrequencyControl(sysfs.root)
    before = _content(folder)
    for mhz in (800.0, 400.0, 1400.0):
        assert control.set_mhz("policy0", mhz)
        found = _content(folder)
        assert found["scaling_min_freq"] == found["scaling_max_freq"] == f"{1000 * mhz:.0f}"
        assert found["scaling_governor"] == "schedutil"
    control.release()
    assert _content(folder) == before


def test_a_cluster_of_many_policies_moves_together(sysfs) -> None:
    folders = [
        sysfs.policy(0, "0"),
        sysfs.policy(1, "1", scaling_available_frequencies="400000 1400000 2000000"),
    ]
    control = LinuxFrequencyControl(sysfs.root, {"main": (0, 1)})
    assert control.clusters == {"main": (400.0, 1400.0)}
    assert control.set_mhz("main", 1400.0)
    assert {_content(folder)["scaling_setspeed"] for folder in folders} == {"1400000"}


@pytest.mark.parametrize("cpus", [(0, 1, 2, 3), (1,), (1, 9)])
def test_a_cluster_of_a_part_of_a_policy_sets_its_clock(sysfs, cpus: tuple[int, ...]) -> None:
    folder = sysfs.policy(0, "0 1 2 3 4 5")
    control = LinuxFrequencyControl(sysfs.root, {"main": cpus})
    assert control.set_mhz("main", 400.0)
    assert _content(folder)["scaling_setspeed"] == "400000"


def test_a_policy_belongs_to_the_cluster_with_most_of_its_cpus(sysfs) -> None:
    sysfs.policy(0, "0 1 2")
    control = LinuxFrequencyControl(sysfs.root, {"one": (0,), "two": (1, 2)})
    assert set(control.clusters) == {"two"}
    # The clock of the other one is not its own.
    assert (control.degree, control.why) == (
        Degree.FOLLOWS,
        "cpufreq has no policy for cluster one: its clock cannot be set.",
    )
    assert not control.set_mhz("one", 400.0)
    assert LinuxFrequencyControl(sysfs.root, {"one": (0,), "two": (1, 2)}, used=["two"]).degree is Degree.SETS
    # A profile that names no CPUs has no policy either.
    assert LinuxFrequencyControl(sysfs.root, {}, used=["one"]).degree is Degree.FOLLOWS


def test_a_driver_without_a_list_gets_steps_between_its_ends(sysfs) -> None:
    sysfs.policy(0, "0", scaling_available_frequencies="", cpuinfo_min_freq=800_000, cpuinfo_max_freq=4_200_000)
    steps = LinuxFrequencyControl(sysfs.root).clusters["policy0"]
    assert (steps[0], steps[-1]) == (800.0, 4200.0)
    assert len(steps) == 8
    assert list(steps) == sorted(set(steps))


def test_unknown_clusters_and_steps_are_refused_without_harm(sysfs) -> None:
    folder = sysfs.policy(0, "0-3")
    control = LinuxFrequencyControl(sysfs.root)
    before = _content(folder)
    assert not control.set_mhz("policy7", 400.0)
    assert not control.set_mhz("policy0", 401.0)
    assert _content(folder) == before
    assert control.degree is Degree.SETS


def test_no_cpufreq_is_the_lowest_degree(tmp_path) -> None:
    control = LinuxFrequencyControl(tmp_path)
    assert control.degree is Degree.NONE
    assert "has no cpufreq" in control.why
    assert control.clusters == {}
    assert not control.set_mhz("policy0", 400.0)
    control.release()


def test_without_permission_it_follows(sysfs, unprivileged) -> None:
    folder = sysfs.policy(0, "0-3")
    for name in ATTRIBUTES:
        (folder / name).chmod(0o444)
    with unprivileged():
        control = LinuxFrequencyControl(sysfs.root)
        assert control.degree is Degree.FOLLOWS
        assert control.why.endswith("scaling_governor may not be written by this user.")
        assert not control.set_mhz("policy0", 400.0)
    assert control.clusters == {"policy0": (400.0, 800.0, 1400.0)}


def test_who_is_asked_to_follow_follows(sysfs) -> None:
    folder = sysfs.policy(0, "0-3")
    control = LinuxFrequencyControl(sysfs.root, allowed=False)
    assert control.degree is Degree.FOLLOWS
    assert not control.set_mhz("policy0", 400.0)
    assert _content(folder)["scaling_governor"] == "schedutil"


@pytest.mark.parametrize("clocks", ["", "800000"])
def test_a_policy_without_a_choice_is_followed(sysfs, clocks: str) -> None:
    folder = sysfs.policy(0, "0-3", scaling_available_frequencies=clocks)
    (folder / "cpuinfo_min_freq").unlink()
    control = LinuxFrequencyControl(sysfs.root)
    assert control.degree is Degree.FOLLOWS
    assert control.why == "cpufreq names no clocks to choose from for cluster policy0."


def test_a_permission_that_is_taken_away_lowers_the_degree_for_good(sysfs, unprivileged) -> None:
    folder = sysfs.policy(0, "0-3")
    for path in folder.iterdir():
        path.chmod(0o666)
    with unprivileged():
        control = LinuxFrequencyControl(sysfs.root)
        assert control.set_mhz("policy0", 400.0)
    (folder / "scaling_setspeed").chmod(0o444)
    with unprivileged():
        assert not control.set_mhz("policy0", 800.0)
        assert control.degree is Degree.FOLLOWS
        assert "scaling_setspeed may not be used by this user" in control.why
        assert not control.set_mhz("policy0", 400.0)
    # The system got its governor back.
    assert _content(folder)["scaling_governor"] == "schedutil"


def test_a_file_that_disappears_lowers_the_degree_and_is_not_made_anew(sysfs) -> None:
    folder = sysfs.policy(0, "0-3")
    other = sysfs.policy(4, "4-7")
    control = LinuxFrequencyControl(sysfs.root)
    assert control.set_mhz("policy0", 400.0)
    assert control.set_mhz("policy4", 400.0)
    (folder / "scaling_setspeed").unlink()
    assert not control.set_mhz("policy0", 800.0)
    assert control.degree is Degree.FOLLOWS
    assert "scaling_setspeed is not there" in control.why
    assert not (folder / "scaling_setspeed").exists()
    # The other cluster is not left behind at its low clock.
    assert _content(other)["scaling_governor"] == "schedutil"


def test_release_gets_over_what_is_gone(sysfs) -> None:
    folder = sysfs.policy(0, "0-3")
    control = LinuxFrequencyControl(sysfs.root)
    assert control.set_mhz("policy0", 400.0)
    for path in list(folder.iterdir()):
        path.unlink()
    control.release()
    assert list(folder.iterdir()) == []


def test_a_limit_that_the_system_lowered_meanwhile_does_not_break_release(sysfs) -> None:
    folder = sysfs.policy(0, "0-3", scaling_available_governors="", scaling_min_freq=400_000, scaling_max_freq=800_000)
    control = LinuxFrequencyControl(sysfs.root)
    assert control.set_mhz("policy0", 1400.0)
    control.release()
    assert _content(folder)["scaling_min_freq"] == "400000"
    assert _content(folder)["scaling_max_freq"] == "800000"


def test_what_heat_took_is_no_limit_of_the_user_afterwards(sysfs) -> None:
    # With the userspace governor the limits are not touched, so none of them is put back.
    folder = sysfs.policy(0, "0-3", scaling_max_freq=800_000)
    control = LinuxFrequencyControl(sysfs.root)
    assert control.set_mhz("policy0", 400.0)
    sysfs.policy(0, "0-3", scaling_governor="userspace", scaling_max_freq=1_400_000)
    control.release()
    assert _content(folder)["scaling_max_freq"] == "1400000"


@pytest.mark.parametrize(
    ("hot", "firmware_khz", "left"), [(2, 1_400_000, "1400000"), (0, 800_000, "1400000"), (0, 1_400_000, "800000")]
)
def test_a_limit_found_hot_is_not_put_back(sysfs, hot: int, firmware_khz: int, left: str) -> None:
    folder = sysfs.policy(0, "0-3", scaling_available_governors="", scaling_max_freq=800_000, bios_limit=firmware_khz)
    sysfs.put("class/thermal/cooling_device0", type="cpufreq-cpu0", cur_state=hot)
    sysfs.put("class/thermal/cooling_device1", type="Fan", cur_state=1)
    control = LinuxFrequencyControl(sysfs.root)
    assert control.set_mhz("policy0", 400.0)
    control.release()
    assert (_content(folder)["scaling_min_freq"], _content(folder)["scaling_max_freq"]) == ("400000", left)
