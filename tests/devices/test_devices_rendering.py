"""A profile that is written is read back unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices.rendering import render


@pytest.mark.parametrize("name", devices.names())
def test_every_shipped_profile_survives(name: str) -> None:
    profile = devices.load(name)
    assert devices.parse(render(profile, "two\nlines").encode(), "again") == profile


@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    number=st.floats(0, allow_nan=False, allow_infinity=False),
)
def test_any_text_and_number_survives(text: str, number: float) -> None:
    profile = devices.load("odroid-xu3-a7")
    power = profile.power.model_copy(
        update={"idle_mw": number, "source": devices.Source(text=text, licence=text, label="measured")}
    )
    changed = profile.model_copy(update={"power": power, "title": text})
    assert devices.parse(render(changed).encode(), "again") == changed
