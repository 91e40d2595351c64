"""The battery benchmark on charges of a few requests: promised keys, fair cases, and nobody above the oracle."""

from __future__ import annotations

import json
import runpy
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from lavolta.devices import Accounting

FOLDER = Path(__file__).parents[2] / "benchmarks"
KEYS = {
    "odroid_xu3_improvement",
    "median_soc_vs_best_non_reconfiguring",
    "misses_ours",
    "oracle_gap",
    "by_device",
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "battery_life.py"))


@pytest.mark.parametrize("kind", ["periodic", "poisson", "bursty", "day"])
def test_a_case_is_fair(script: dict[str, Any], kind: str) -> None:
    case = script["run_case"]("freqbench-sm8250", "demo", kind, 0, 15, Accounting.CPU)
    assert case["misses_ours"] == case["misses_unavoidable"] == 0
    assert 0.0 <= case["oracle_gap"] < 0.2
    assert case["vs_best_non_reconfiguring"] > 1.0
    assert case["best_non_reconfiguring"] in case["policies"]
    if kind == "periodic":
        # The deadline leaves room for the noise: the baseline keeps it too.
        assert case["policies"]["no-reconfiguration"][1] == 0
        assert case["vs_dense_best_clock"] <= case["vs_no_reconfiguration"]
    again = script["run_case"]("freqbench-sm8250", "demo", kind, 0, 15, Accounting.CPU)
    assert again == case


def test_what_foresight_is_worth(script: dict[str, Any]) -> None:
    case = script["run_case"]("freqbench-sm7225", "wikitext2", "periodic", 0, 15, Accounting.CPU)
    # Nobody can know how long a run takes; what is left is mostly the price of changes.
    assert 0.0 < case["oracle_gap_of_foresight"] < case["oracle_gap"]
    assert case["oracle_gap_without_foresight_with_free_changes"] < 0.05 < case["oracle_gap_without_foresight"]
    assert case["misses_ours"] == 0


def test_a_run_that_was_ended_goes_on(script: dict[str, Any], tmp_path: Path) -> None:
    kept = sys.modules["battery_journal"].Kept
    path, asked = tmp_path / "journal", []

    class Pool:
        def map(self, function: Any, *arguments: Any) -> Any:
            return map(function, *arguments)

    def half(number: int, name: str) -> list[Any]:
        asked.append(number)
        if number == 6:
            raise KeyboardInterrupt
        return [number / 2, name]

    numbers, names = [4, 5, 6], ["a", "b", "c"]
    with pytest.raises(KeyboardInterrupt):
        kept(path).map(Pool(), half, numbers, names)
    # The last line was being written when it was ended.
    path.write_text(path.read_text(encoding="utf-8") + '["half 6 c", [3.', encoding="utf-8")
    numbers[2] = 8
    assert kept(path).map(Pool(), half, numbers, names) == [[2.0, "a"], [2.5, "b"], [4.0, "c"]]
    assert kept(path).map(Pool(), half, numbers, names)[2] == [4.0, "c"]
    assert asked == [4, 5, 6, 8]
    # Of other code nothing is believed; without a file nothing is kept.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(['"other"', *lines[1:]]) + "\n", encoding="utf-8")
    kept(path).map(Pool(), half, [4], ["a"])
    kept(None).map(Pool(), half, [4], ["a"])
    assert asked == [4, 5, 6, 8, 4, 4]
    assert script["Kept"] is kept


def test_a_mission_lasts(script: dict[str, Any]) -> None:
    mission = script["run_mission"]("odroid-xu3-a7", "demo", 0, 40)
    assert mission["lasted"]
    assert mission["misses_ours"] == 0
    assert mission["mean_score"] <= mission["mean_score_oracle"]
    assert mission["oracle_gap"] < 0.05


def test_the_same_score_costs_less(script: dict[str, Any]) -> None:
    ratios = script["run_same_score"]("freqbench-sm8250", "demo", 0, 60)
    assert list(ratios) == ["dense", "L0", "L1", "L2", "L3", "L4", "L5"]
    # Keeping the dense model leaves nothing to gain, and a switch costs a little.
    assert all(ratio is None or ratio > 0.95 for ratio in ratios.values())
    # A level that is late at a clock with a little noise has to take the next one all the time; a mixture need not.
    assert max(ratio for ratio in ratios.values() if ratio is not None) > 1.1


def test_the_stored_result_has_the_promised_keys() -> None:
    result = json.loads((FOLDER / "results" / "battery_life.json").read_text(encoding="utf-8"))
    assert result.keys() >= KEYS
    assert result["misses_ours"] == 0
    assert not result["quick"]
    assert "1400 MHz" in result["baseline"]


def test_the_stored_result_is_what_the_script_gives(script: dict[str, Any]) -> None:
    result = json.loads((FOLDER / "results" / "battery_life.json").read_text(encoding="utf-8"))
    case = script["run_case"]("odroid-xu3-a7", "demo", "periodic", 0, 150, Accounting.CPU)
    stored = result["by_device"]["odroid-xu3-a7"]["demo"]["periodic"]["inferences_misses_score"]
    assert case["policies"] == stored, "run `python benchmarks/all.py --only battery_life`, about ten minutes"


def test_the_first_page_quotes_the_stored_result(script: dict[str, Any]) -> None:
    result = json.loads((FOLDER / "results" / "battery_life.json").read_text(encoding="utf-8"))
    text = " ".join((FOLDER.parent / "README.md").read_text(encoding="utf-8").split())
    chips = [models["demo"] for name, models in result["by_device"].items() if not name.startswith("odroid")]

    def median(kind: str, key: str) -> float:
        return statistics.median(models[kind][key] for models in chips if models[kind][key] is not None)

    odroid = result["odroid_xu3_improvement_by_model"]
    for words in (
        f"median of {len(chips)} measured phone chips a charge gives "
        f"{median('periodic', 'vs_no_reconfiguration'):.2f} times",
        f"{median('periodic', 'vs_dense_best_clock'):.2f} times those of the dense model at its best clock",
        f"{median('periodic', 'vs_best_non_reconfiguring'):.2f} times those of the best stock governor",
        f"more than {median('periodic', 'oracle_vs_best_non_reconfiguring'):.2f} is impossible",
        f"Odroid-XU3 it is {odroid['demo']:.2f} times the dense model (target: 4), with fp32 levels "
        f"{odroid['demo-fp32']:.2f} times",
        f"first of these medians is {median('periodic, whole board', 'vs_no_reconfiguration'):.2f} and the last "
        f"{median('periodic, whole board', 'vs_best_non_reconfiguring'):.2f}.",
    ):
        assert words in text, words
    assert script["BASELINE_WORDS"] == result["baseline"]


def test_the_demo_s_levels_are_made_from_a_run(script: dict[str, Any]) -> None:
    subjects = script["subjects"]()
    assert {"demo", "wikitext2", "stsb", "rte"} <= subjects.keys()
    for subject in subjects.values():
        macs = [level.work.kept_macs for level in subject.levels]
        assert macs == sorted(macs, reverse=True)
        assert subject.levels[0].name == "dense"
    assert "battery_models" in sys.modules
