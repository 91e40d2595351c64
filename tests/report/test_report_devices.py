"""The page about devices is complete, escaped and needs no network."""

from __future__ import annotations

import json
import re

from lavolta.report.devices import ClusterFacts, DeviceFacts, StepFacts, render_devices

EVIL = "</script><script>alert(1)</script>"


def _device(name: str) -> DeviceFacts:
    steps = tuple(StepFacts(mhz, 0.1 * mhz, None, mhz / 500, 50.0, 900.0) for mhz in (400.0, 1400.0))
    cluster = ClusterFacts("little", 4, None, steps)
    return DeviceFacts(name, f"Board {EVIL}", (cluster,), 30.0, 4710.0, 11_100.0, (("power", "assumption", EVIL),))


def test_the_page_has_every_device_and_escapes_text() -> None:
    page = render_devices([_device("one"), _device("two")])
    assert EVIL not in page
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])
    assert set(figures) == {"power", "core", "board"}
    assert set(re.findall(r'id="chart-(\w+)"', page)) == set(figures)
    assert [line["name"] for line in figures["power"]["data"]] == ["one, little", "two, little"]
    assert figures["power"]["data"][0]["y"] == [40.0, 140.0]
    assert "2 devices side by side" in page
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="', page.split("<script type=")[0])


def test_one_device_has_its_title_as_headline() -> None:
    assert "<h1>Board &lt;/script&gt;" in render_devices([_device("one")])
