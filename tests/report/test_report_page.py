"""The page: complete, self-contained, escaped, atomic, and drawn by a real browser where there is one."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lavolta.errors import UserInputError
from lavolta.report import write_report

LOADING_ATTRIBUTES = {"src", "href", "srcset", "data", "poster", "action", "background"}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


class Page(HTMLParser):
    """What a browser would load, show and run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.loads += [value or "" for name, value in attrs if name in LOADING_ATTRIBUTES]
        self.styles.append(found.get("style") or "")
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag == "meta":
            self.metas.append(found)
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside.removesuffix(tag)

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside == "style":
            self.styles.append(data)
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def rendered(result: dict[str, Any], folder: Path) -> Page:
    path = write_report(result, folder / "report.html")
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_says_the_numbers_in_words(sample_result: dict[str, Any], tmp_path: Path) -> None:
    words = rendered(sample_result, tmp_path).words
    assert "answers 3.46 times as many requests in time: 1,391,200 instead of 402,113." in words
    assert "the dense model at the highest clock" in words
    assert "The battery lasts 38 h 36 min instead of 11 h 12 min." in words
    assert "moves 0 bytes" in words
    assert "No deadline of 95 ms was missed under our policy." in words
    assert "CPU only, one core" in words
    assert "Memory and board power are not counted. assumed" in words
    assert words.count("How to read this:") == 11  # 9 charts and 2 tables


def test_nothing_is_loaded_from_anywhere(sample_result: dict[str, Any], tmp_path: Path) -> None:
    page = rendered(sample_result, tmp_path)
    assert page.loads == []
    assert not {"link", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert not any(re.search(r"url\(|@import|https?:|//", style) for style in page.styles)
    policy = [meta["content"] for meta in page.metas if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")
    own_code = page.scripts[-1]
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(", own_code)
    assert sum("plotly.js v" in script for script in page.scripts) == 1


def test_every_chart_has_a_place_a_title_and_units(sample_result: dict[str, Any], tmp_path: Path) -> None:
    page = rendered(sample_result, tmp_path)
    assert set(page.figures) == {
        "quality-here",
        "quality-device",
        "latency-here",
        "latency-device",
        "energy-device",
        "battery",
        "our-time",
        "our-energy",
        "kept",
    }
    assert [f"chart-{key}" for key in page.figures] == [name for name in page.ids if name.startswith("chart-")]
    without_unit = {"level", "linear layer", "fidelity (cosine to dense)"}
    for figure in page.figures.values():
        for axis in ("xaxis", "yaxis"):
            title = figure["layout"][axis]["title"]["text"]
            assert title in without_unit or re.search(r"\((ms|mJ|J|h|%)\)$", title), title


def test_plotly_accepts_every_figure(sample_result: dict[str, Any], tmp_path: Path) -> None:
    import plotly.graph_objects as go

    for figure in rendered(sample_result, tmp_path).figures.values():
        assert len(go.Figure(figure, skip_invalid=False).data) >= 1


def test_the_charts_hold_the_numbers_of_the_result(sample_result: dict[str, Any], tmp_path: Path) -> None:
    figures = rendered(sample_result, tmp_path).figures
    levels = sample_result["levels"]
    assert figures["quality-here"]["data"][0]["x"] == [level["latency_ms"] for level in levels]
    assert figures["quality-here"]["data"][0]["y"] == [level["fidelity"] for level in levels]
    assert figures["energy-device"]["data"][0]["y"] == [level["device_energy_mj"] for level in levels]
    deadline = figures["latency-device"]["layout"]["shapes"][0]
    assert (deadline["y0"], deadline["y1"]) == (95.0, 95.0)
    assert figures["latency-device"]["layout"]["yaxis"]["range"][1] > 95.0
    assert [trace["line"]["dash"] for trace in figures["battery"]["data"]].count("solid") == 1
    assert figures["our-energy"]["data"][0]["y"][0] == pytest.approx(4000.0)  # 4e6 mJ
    assert len(figures["kept"]["data"][0]["z"]) == 36
    assert figures["kept"]["data"][0]["z"][2][0] == 100.0


def test_a_long_curve_is_thinned_but_keeps_its_ends(sample_result: dict[str, Any], tmp_path: Path) -> None:
    points = 1009  # a prime, so that no even step fits
    sample_result["policies"]["dial"]["curve"] = [[i / 7, 1 - i / (points - 1)] for i in range(points)]
    trace = rendered(sample_result, tmp_path).figures["battery"]["data"][3]
    assert len(trace["x"]) == 400
    assert (trace["x"][0], trace["y"][0]) == (0.0, 100.0)
    assert (trace["x"][-1], trace["y"][-1]) == ((points - 1) / 7, 0.0)
    assert trace["x"] == sorted(set(trace["x"]))


def test_the_smallest_result_makes_a_page(tmp_path: Path) -> None:
    page = rendered({"levels": [{"name": "only", "sparsity": 0.5}]}, tmp_path)
    assert page.figures == {}
    assert "with a dial of 1 levels" not in page.words
    assert "only" in page.words


@pytest.mark.parametrize(
    "part",
    [
        "model",
        "device",
        "deadline_ms",
        "period_ms",
        "switch_us_p50",
        "switch_us_p99",
        "bytes_moved_per_switch",
        "policies",
        "our_policy",
        "baseline_policy",
        "improvement",
        "baseline",
        "assumptions",
        "environment",
        "seconds",
        "format",
    ],
)
def test_any_part_may_be_absent(part: str, sample_result: dict[str, Any], tmp_path: Path) -> None:
    del sample_result[part]
    assert "How to read this:" in rendered(sample_result, tmp_path).words


@pytest.mark.parametrize("part", ["fidelity", "latency_ms", "dense_latency_ms", "device_latency_ms", "kept_by_layer"])
def test_any_part_of_a_level_may_be_absent(part: str, sample_result: dict[str, Any], tmp_path: Path) -> None:
    del sample_result["levels"][2][part]
    assert "How to read this:" in rendered(sample_result, tmp_path).words


def test_a_level_that_misses_the_deadline_is_called_so(sample_result: dict[str, Any], tmp_path: Path) -> None:
    sample_result["levels"][0]["device_latency_ms"] = 95.001
    path = write_report(sample_result, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8").count('<span class="bad">no</span>') == 1


def test_a_score_takes_the_place_of_fidelity(sample_result: dict[str, Any], tmp_path: Path) -> None:
    for level in sample_result["levels"]:
        level["fidelity"] = None
        level["score"] = 81.5
    sample_result["score_name"] = "Spearman (x 100)"
    page = rendered(sample_result, tmp_path)
    assert page.figures["quality-here"]["layout"]["yaxis"]["title"]["text"] == "Spearman (x 100)"
    assert "81.5" in page.words


def test_text_in_the_data_stays_text(sample_result: dict[str, Any], tmp_path: Path) -> None:
    attack = "</script><script>alert(1)</script><img src=https://example.org/x>"
    sample_result["model"]["name"] = attack
    sample_result["baseline"] = attack
    sample_result["device"]["title"] = attack
    sample_result["levels"][0]["name"] = attack
    sample_result["levels"][0]["kept_by_layer"] = {attack: 0.5}
    sample_result["policies"]["dial"]["title"] = attack
    sample_result["policies"][attack] = copy.deepcopy(sample_result["policies"]["E1"])
    sample_result["environment"][attack] = attack
    page = rendered(sample_result, tmp_path)
    assert page.loads == []
    assert page.tags.count("script") == 3
    assert "alert(1)" not in page.scripts[-1]
    label = page.figures["battery"]["data"][3]["name"]
    assert "<img" not in label
    assert "&lt;img" in label.replace("<br>", " ")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"levels": []}, "levels"),
        ({"levels": [{"name": "L0", "sparsity": 1.5}]}, "levels.0.sparsity"),
        ({"levels": [{"name": "L0"}]}, "levels.0.sparsity"),
        ({"format": 2}, "format"),
        ({"our_policy": "nobody"}, "our_policy is 'nobody'"),
        ({"improvement": -1.0}, "improvement"),
    ],
)
def test_a_wrong_field_is_named(
    change: dict[str, Any], path: str, sample_result: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match=re.escape(path)):
        write_report({**sample_result, **change}, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_count_as_absent(sample_result: dict[str, Any], tmp_path: Path) -> None:
    sample_result["levels"][1]["latency_ms"] = float("nan")
    sample_result["improvement"] = float("inf")
    page = rendered(sample_result, tmp_path)
    assert len(page.figures["latency-here"]["data"][0]["x"]) == 5
    assert "inf" not in page.words.split()


def test_a_failed_write_leaves_the_old_page(
    sample_result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def full_disk(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_report(sample_result, path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_the_page_is_as_readable_as_other_files(sample_result: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    assert write_report(sample_result, tmp_path / "report.html").stat().st_mode == other.stat().st_mode


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine; install it to see the page drawn")
def test_a_browser_draws_every_chart(sample_result: dict[str, Any], tmp_path: Path) -> None:
    path = write_report(sample_result, tmp_path / "report.html")
    offline = ("quic", "background-networking", "component-update", "sync", "gpu")
    dump = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--no-first-run",
            *(f"--disable-{part}" for part in offline),
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'browser'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in dump.stderr
    drawn = dump.stdout.split('id="figures"')[0]
    assert drawn.count('class="main-svg"') >= 9
    assert "deadline 95 ms" in drawn
    for level in sample_result["levels"]:
        assert level["name"] in drawn
