"""What an operator sees and sets: levels, the charger, status and metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve_tools import LONG_MS, Client, Fake, ManualClock, governed_by, serving

from lavolta.devices.sources import Reading
from lavolta.runtime.engine import Model
from lavolta.serve.pace import RealTime
from lavolta.serve.service import Service


def test_an_operator_holds_a_level(client: Client) -> None:
    assert client.get("/v1/levels").data["pinned"] is None
    assert client.post("/v1/level", {"level": "L0"}).data == {"pinned": "L0"}
    answer = client.encode(text="a").data
    assert (answer["level"], answer["reason"]) == ("L0", "level set by the operator")
    assert client.get("/v1/status").data["pinned"] == "L0"
    assert client.post("/v1/level", {"level": None}).data == {"pinned": None}
    assert client.encode(text="a").data["level"] == "L2"
    for wrong in ({}, {"level": 0}, {"level": ["L0"]}):
        assert client.post("/v1/level", wrong).error[:2] == (422, "invalid-input")
    message = "there is no level 'L9'; the bundle has L0, L1, L2."
    assert client.post("/v1/level", {"level": "L9"}).error == (422, "invalid-input", message)
    assert client.post("/v1/level", {"levels": "L0"}).error[2].startswith("the field 'levels' is unknown")
    # A page of another origin can send this without being asked first.
    assert client.post("/v1/level", {"level": "L0"}, content_type="text/plain").status == 415


def test_the_dial_is_described(client: Client) -> None:
    found = client.get("/v1/levels").data
    assert [level["name"] for level in found["levels"]] == ["L0", "L1", "L2"]
    times = [level["predicted_ms"] for level in found["levels"]]
    assert times == sorted(times, reverse=True)
    assert found["freq_mhz"] == 1400.0
    assert found["model"]["max_tokens"] == 16


def test_a_real_device_is_not_plugged(client: Client) -> None:
    assert client.post("/v1/plug", {"on_ac": True}).error[:2] == (409, "not-simulated")
    assert client.post("/v1/plug", {"on_ac": "yes"}).error[2] == '"on_ac" is "yes"; give true or false.'
    assert client.post("/v1/plug", {}).error[2] == '"on_ac" is null; give true or false.'


def test_status_tells_what_a_monitor_needs(model: Model, tmp_path: Path) -> None:
    reading = Reading(
        5.0,
        charge_share=0.42,
        charge_mwh=420.0,
        capacity_mwh=1000.0,
        power_mw=1500.0,
        power_from="battery",
        on_ac=False,
        freq_mhz={"cortex-a7": 800.0},
        temperature_c=61.5,
        missing={"freq_limit_mhz": "nobody says the limit."},
    )
    clock = ManualClock()
    with (
        Service(model, governed_by(model, clock, source=Fake(reading)), RealTime(clock)) as service,
        serving(service, tmp_path / "s.sock") as connect,
        connect() as client,
    ):
        before = client.get("/v1/status").data
        client.encode(text="a cat")
        client.encode(text=7)
        after = client.get("/v1/status").data
        text = client.get("/metrics").body.decode()
    assert (before["level"], before["last"], before["recent"]["answers"]) == (None, None, 0)
    assert (after["charge_share"], after["temperature_c"], after["on_ac"]) == (0.42, 61.5, False)
    assert after["freq_mhz"] == {"cortex-a7": 800.0}
    assert after["unknown"] == ["nobody says the limit."]
    assert (after["model"], after["device"]["name"], after["device"]["simulated"]) == ("tiny", "odroid-xu3-a7", False)
    assert (after["clock"], after["clock_why"]) == ("none", "this device offers no frequency control.")
    assert after["queue"] == {"depth": 0, "limit": 16}
    assert (after["totals"]["answers"], after["totals"]["by_level"]) == (1, {"L0": 0, "L1": 0, "L2": 1})
    assert after["totals"]["refused"]["invalid"] == 1
    assert after["level"] == after["last"]["level"] == "L2"
    assert after["recent"]["within_p99"] == 1.0

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["lavolta_answers_total", "L2"] == 1
    assert samples["lavolta_refused_total", "invalid"] == 1
    assert samples["lavolta_deadline_misses_total",] == 0
    assert samples["lavolta_charge_ratio",] == 0.42
    assert samples["lavolta_charge_joules",] == pytest.approx(1512.0)
    assert samples["lavolta_power_watts",] == 1.5
    assert samples["lavolta_on_mains",] == 0
    assert samples["lavolta_temperature_celsius",] == 61.5
    assert samples["lavolta_frequency_hertz", "cortex-a7"] == 8e8
    assert (samples["lavolta_level", "L2"], samples["lavolta_level", "L0"]) == (1, 0)
    assert samples["lavolta_response_seconds_count",] == 1
    assert samples["lavolta_response_seconds_bucket", "+Inf"] == 1
    assert samples["lavolta_deadline_seconds",] == LONG_MS / 1e3
    assert samples["lavolta_queue_limit",] == 16
    assert samples["lavolta_energy_per_inference_joules",] == pytest.approx(after["last"]["energy_mj"] / 1e3)


def test_what_is_not_known_is_no_metric(client: Client) -> None:
    text = client.get("/metrics").body.decode()
    assert "lavolta_charge_ratio" not in text
    assert "lavolta_energy_per_inference_joules" not in text
    assert "NaN" not in text
    assert 'lavolta_answers_total{level="L0"} 0.0' in text
