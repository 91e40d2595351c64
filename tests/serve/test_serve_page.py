"""The web monitor: self-contained, and alive in a real browser at a desk and on a phone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from serve_tools import PROFILE, Client, Fake, ManualClock, governed_by, serving

from lavolta.devices.sources import Reading
from lavolta.runtime.engine import Model
from lavolta.runtime.governed import Governed, simulated
from lavolta.runtime.governor import Goal
from lavolta.runtime.scenario import Scenario
from lavolta.serve import page
from lavolta.serve.pace import RealTime, SimulatedTime
from lavolta.serve.service import Service

needs_browser = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on this machine; install it to see the monitor drawn"
)


def test_the_page_loads_nothing_from_anywhere() -> None:
    text = page.text()
    assert "/*css*/" not in text
    assert "/*js*/" not in text
    addresses = set(re.findall(r"https?://[^\s\"']+", text))
    # The name of a kind of drawing is no address that anybody asks.
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", text) == ["data:,"]
    assert "url(" not in text
    assert "innerHTML" not in text
    for rule in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert rule in page.POLICY


def test_the_server_gives_the_page_with_its_policy(client: Client) -> None:
    reply = client.get("/")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == page.POLICY
    assert reply.body.decode() == page.text()


def ask(text: str) -> str:
    """What a person does to ask a text."""
    return f"document.getElementById('text').value = '{text}'; document.querySelector('#ask button').click()"


def at_port(port: int) -> str:
    return f"http://127.0.0.1:{port}/"


@needs_browser
def test_the_monitor_lives_in_a_browser(model: Model, tmp_path: Path) -> None:
    levels = governed_by(model, ManualClock()).governor.scenario.levels
    place = simulated(Scenario(PROFILE, levels, 1000.0, 1000.0, gap_ms=0.0), Goal(), model, 8, charge=0.8)
    with (
        Service(model, place, SimulatedTime(place, 10.0), look_s=0.1) as service,
        serving(service, tmp_path / "s.sock", 0) as connect,
        connect() as client,
        Browser(tmp_path / "browser") as browser,
    ):
        for _ in range(5):
            assert client.encode(text="a cat sleeps").status == 200
        browser.size(1100, 900)
        browser.open(at_port(connect.port))
        browser.wait("document.querySelectorAll('#plot-latency circle').length === 5")
        browser.wait("document.querySelectorAll('#plot-charge path').length === 1")
        words = browser.words()
        assert "odroid-xu3-a7 (simulated, 10 times as fast)" in words
        assert "tiny, due after 1,000 ms" in words
        assert browser.run("document.getElementById('state').textContent") == "live"
        assert re.fullmatch(r"[78]\d\.\d %", browser.run("document.getElementById('charge').textContent"))
        assert browser.run("document.getElementById('level').textContent") == "L2"
        assert "set by the governor" in words
        # Live: what happens now is shown without asking again.
        client.encode(text="a dog")
        browser.wait("document.querySelectorAll('#plot-latency circle').length === 6")
        # The dial is turned, and a text is asked at that level.
        browser.run("document.querySelector('#dial button').click()")
        browser.wait("document.getElementById('dial-more').textContent.startsWith('Held at L0')")
        browser.run(ask("the cat"))
        browser.wait("document.getElementById('answer').textContent.includes('answered after')")
        assert browser.run("document.getElementById('answer').textContent").startswith("L0 at ")
        browser.run("document.getElementById('plug').click()")
        browser.wait("document.getElementById('charge-more').textContent.startsWith('on mains')")
        browser.run(ask(" "))
        browser.wait("document.getElementById('answer').textContent.includes('only white space')")
        browser.complaints = [text for text in browser.complaints if "422" not in text]
        # On a phone nothing is wider than the screen, and a finger hits every button.
        for dark in (False, True):
            browser.size(360, 740, dark=dark)
            browser.wait("document.querySelectorAll('#plot-latency circle').length >= 7")
            assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
            heights = browser.run(
                "[...document.querySelectorAll('button:not([hidden])')].map((each) => each.offsetHeight)"
            )
            assert min(heights) >= 44
            ground = browser.run("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(16, 19, 23)") == dark
        assert browser.complaints == []


@needs_browser
def test_what_is_not_known_is_said_and_a_server_that_ends_is_seen(model: Model, tmp_path: Path) -> None:
    clock = ManualClock()
    reading = Reading(0.0, missing={"charge_share": "<b>no battery</b> is listed."})
    place: Governed = governed_by(model, clock, source=Fake(reading))
    with Browser(tmp_path / "browser") as browser:
        with (
            Service(model, place, RealTime(clock)) as service,
            serving(service, tmp_path / "s.sock", 0) as connect,
        ):
            browser.open(at_port(connect.port))
            browser.wait("document.getElementById('state') && document.getElementById('state').textContent === 'live'")
            assert "<b>no battery</b> is listed." in browser.words()
            assert browser.run("document.getElementById('charge').textContent") == "–"
            assert browser.run("document.getElementById('level-more').textContent") == "no answer yet"
            assert browser.words().count("nothing yet") == 6
        browser.wait("document.getElementById('state').textContent === 'no answer, trying again'")
