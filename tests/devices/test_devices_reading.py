"""The interface between devices and whoever turns the dial."""

from lavolta.devices.sources import MEASURED, Degree, FrequencyControl, NoFrequencyControl, Reading


def test_an_empty_reading_knows_nothing_and_says_what_it_was_told() -> None:
    reading = Reading(3.0, missing={"charge_share": "no battery.", "power_mw": "no battery."})
    assert all(getattr(reading, name) in (None, {}) for name in MEASURED)
    assert reading.why("charge_share") == "no battery."
    assert reading.why("on_ac") is None
    assert reading.words() == ["no battery."]


def test_the_lowest_degree_refuses_everything_politely() -> None:
    control: FrequencyControl = NoFrequencyControl("the kernel has no cpufreq.")
    assert control.degree is Degree.NONE
    assert control.why == "the kernel has no cpufreq."
    assert not control.set_mhz("policy0", 800.0)
    control.release()
    assert control.clusters == {}
    assert len({degree.words for degree in Degree}) == 3
