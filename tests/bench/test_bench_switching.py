"""What a switch costs: the numbers are there, and the way in which written memory is found finds it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lavolta.bench.switching import residence, switch_times_us
from lavolta.bench.synthetic import write_random_bundle
from lavolta.errors import BundleError, EngineError
from lavolta.runtime.engine import open_bundle
from lavolta.runtime.spec import ModelSpec

SPEC = ModelSpec("odd", layers=1, hidden=24, heads=3, ffn=40, vocab=13, max_tokens=20)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of a process's memory")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "odd.lavolta"
    write_random_bundle(path, SPEC, (0.0, 0.5, 0.9))
    return path


def test_a_switch_writes_no_page_and_a_planted_write_is_seen(bundle: Path) -> None:
    found = residence(bundle, tokens=5, pairs=7)
    assert found["levels"] == 3
    assert found["switches_watched"] == 7
    assert found["moved_bytes"] == 0
    assert found["weights_writable"] is False
    # The planted bytes are the ones that were there: writing them again counts. Their buffer begins inside a page.
    method = found["method"]
    assert 0 <= method["planted_seen_bytes"] - method["planted_bytes"] <= 2 * method["page_bytes"]
    assert found["bundle_bytes"] == bundle.stat().st_size
    assert found["process_bytes"] == found["interpreter_bytes"] + found["model_bytes"]


def test_one_level_has_nothing_to_switch_to(tmp_path: Path) -> None:
    path = tmp_path / "one.lavolta"
    write_random_bundle(path, SPEC, (0.0,))
    found = residence(path, tokens=5)
    assert (found["levels"], found["switches_watched"], found["moved_bytes"]) == (1, 0, 0)


def test_times_of_switches(bundle: Path) -> None:
    with open_bundle(bundle) as model:
        found = switch_times_us(model, tokens=5, switches=50)
    assert set(found) == {"p50_us", "p99_us", "max_us", "first_run_over_next"}
    assert 0 <= found["p50_us"] <= found["p99_us"] <= found["max_us"]
    assert found["first_run_over_next"] > 0


def test_failures_are_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        residence(tmp_path / "absent.lavolta", tokens=5)
    with pytest.raises(EngineError, match="21 tokens"):
        residence(bundle, tokens=21)
