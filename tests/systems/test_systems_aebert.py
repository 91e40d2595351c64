"""AE-BERT: the choice meets its budget, is never worse than uniform by its own score, and can be taken up again."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tiny_files import save_model, sentences

from lavolta.devices.energy import energy_mj
from lavolta.devices.latency import latency_ms
from lavolta.devices.loading import load as load_device
from lavolta.errors import InfeasibleError, UserInputError
from lavolta.models.batching import Encoded, encode_pairs
from lavolta.models.hf import load_encoder, with_head
from lavolta.models.loaded import LoadedModel
from lavolta.models.tasks import Split
from lavolta.runtime.work import work_of
from lavolta.sparsity.ranking import model_sparsity
from lavolta.systems import aebert

DEVICE = "odroid-xu3-a7"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    base = load_encoder(str(save_model(tmp_path_factory.mktemp("model"))), "embedding")
    return with_head(base, 2, "classification", 0)


@pytest.fixture(scope="module")
def train(dense: LoadedModel) -> Encoded:
    return encode_pairs(dense, Split(tuple(sentences(80)), tuple(sentences(80, 1)), np.arange(80) % 2))


@pytest.fixture(scope="module")
def held_out(dense: LoadedModel) -> Encoded:
    return encode_pairs(dense, Split(tuple(sentences(40, 2)), tuple(sentences(40, 3)), np.arange(40) % 2))


@pytest.mark.parametrize("proxy", ["kl", "loss", "ladder", "reconstruction"])
def test_the_choice_meets_the_budget_and_beats_uniform_by_its_own_score(
    proxy: str, dense: LoadedModel, train: Encoded, held_out: Encoded
) -> None:
    found = aebert.choose_ratios(dense, train, held_out, overall_ratio=0.6, proxy=proxy, candidates=8)
    weights = sum(grid.cells for grid in dense.grids(1).values())
    assert found.overall_ratio == pytest.approx(0.6, abs=1.0 / weights)
    assert model_sparsity(dense.grids(1), found.masks(dense)) == found.overall_ratio
    assert list(found.per_linear) == list(dense.linear_shapes)
    assert found.score == max(candidate.score for candidate in found.finalists)
    assert "uniform" in [candidate.origin for candidate in found.finalists]
    assert all(0.25 - 1e-3 <= ratio <= 0.85 + 1e-3 for ratio in found.per_linear.values())
    assert aebert.Ratios.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize("bounds", [{}, {"low": 0.8}, {"high": 0.95}, {"low": 0.85, "high": 0.92}])
def test_a_sparse_budget_is_compared_at_a_ratio_that_proxies_tell_apart(
    bounds: dict[str, float], dense: LoadedModel, train: Encoded, held_out: Encoded
) -> None:
    found = aebert.choose_ratios(dense, train, held_out, overall_ratio=0.9, candidates=8, **bounds)
    weights = sum(grid.cells for grid in dense.grids(1).values())
    assert found.overall_ratio == pytest.approx(0.9, abs=1.0 / weights)
    assert found.compared_ratio == pytest.approx(0.6)
    # A cell of the smallest layer is a 256th of it.
    low, high = found.budget["low"] - 1 / 256, found.budget["high"] + 1 / 256
    assert all(low <= ratio <= high for ratio in found.per_linear.values())
    assert bounds.get("low", 0.55) - 1e-9 <= found.budget["low"] < 0.9 < found.budget["high"]
    assert found.budget["high"] <= bounds.get("high", 0.98) + 1e-9
    denser = aebert.choose_ratios(dense, train, held_out, overall_ratio=0.6, candidates=8)
    assert denser.compared_ratio == pytest.approx(denser.overall_ratio, abs=1.0 / weights)
    if not bounds:
        # The same candidates were seen, and the choice keeps its proportions.
        assert found.score == denser.score
        for name, kept in found.kept_cells.items():
            assert abs(kept - 0.25 * denser.kept_cells[name]) <= 1.0 + 1e-6


def test_equal_calls_choose_equally_in_memory_in_a_file_and_cut_off(
    dense: LoadedModel, train: Encoded, held_out: Encoded, tmp_path: Path
) -> None:
    def choose(**changes: object) -> aebert.Ratios:
        found = aebert.choose_ratios(
            dense, train, held_out, overall_ratio=0.5, **{"seed": 3, "candidates": 7, **changes}
        )
        return replace(found, seconds=0.0, calibration_seconds=0.0)

    whole = choose()
    storage = tmp_path / "search.db"
    # A call with fewer candidates leaves what a call that was cut off leaves.
    choose(candidates=4, storage=storage)
    assert choose(storage=storage) == whole
    assert choose(seed=4).per_linear != whole.per_linear


def test_time_and_energy_of_a_device_are_budgets(dense: LoadedModel, train: Encoded, held_out: Encoded) -> None:
    profile = load_device(DEVICE)
    whole = {name: grid.cells for name, grid in dense.grids(4).items()}
    dense_ms = latency_ms(profile, work_of(dense.spec, whole, 4, 16), profile.cluster().max_mhz)
    empty_ms = latency_ms(profile, work_of(dense.spec, dict.fromkeys(whole, 0), 4, 16), profile.cluster().max_mhz)
    deadline_ms = 0.5 * (dense_ms + empty_ms)
    found = aebert.choose_ratios(
        dense, train, held_out, device=DEVICE, deadline_ms=deadline_ms, tokens=16, cell_rows=4, candidates=4
    )
    took_ms = latency_ms(profile, work_of(dense.spec, found.kept_cells, 4, 16), found.budget["freq_mhz"])
    # The budget is used up but for a cell of the largest layer.
    cell_ms = (dense_ms - empty_ms) / sum(whole.values()) * 10
    assert deadline_ms - cell_ms <= took_ms <= deadline_ms * (1 + 1e-9)
    with pytest.raises(InfeasibleError, match="no sparsity meets"):
        aebert.choose_ratios(dense, train, held_out, device=DEVICE, deadline_ms=0.1 * empty_ms, tokens=16, cell_rows=4)
    with pytest.raises(UserInputError, match="there is nothing to prune"):
        aebert.choose_ratios(dense, train, held_out, device=DEVICE, energy_mj=1e6, tokens=16, cell_rows=4)
    assert found.budget["allowed_ms"] == deadline_ms


def test_the_deadline_holds_on_a_device_whose_bands_cost_time(
    dense: LoadedModel, train: Encoded, held_out: Encoded, tmp_path: Path
) -> None:
    # As `lavolta device profile` measures it; at so many cycles, bands are a good part of the time of a small model.
    measured = tmp_path / "measured.toml"
    shipped = (resources.files("lavolta.devices") / "profiles" / f"{DEVICE}.toml").read_text(encoding="utf-8")
    assert shipped.count("cycles_per_rest_mac") == 1
    measured.write_text(
        shipped.replace("cycles_per_rest_mac", "cycles_per_band = 400.0\ncycles_per_rest_mac"), encoding="utf-8"
    )
    profile = load_device(measured)
    whole = {name: grid.cells for name, grid in dense.grids(4).items()}

    def took_ms(kept: dict[str, int]) -> float:
        return latency_ms(profile, work_of(dense.spec, kept, 4, 16), profile.cluster().max_mhz)

    deadline_ms = 0.5 * (took_ms(whole) + took_ms(dict.fromkeys(whole, 1)))
    found = aebert.choose_ratios(
        dense, train, held_out, device=str(measured), deadline_ms=deadline_ms, tokens=16, cell_rows=4, candidates=4
    )
    assert took_ms(found.kept_cells) <= deadline_ms * (1 + 1e-9)


def test_energy_is_kept_at_the_clock_that_was_picked(dense: LoadedModel, train: Encoded, held_out: Encoded) -> None:
    profile = load_device(DEVICE)
    whole = {name: grid.cells for name, grid in dense.grids(4).items()}

    def least_mj(kept: dict[str, int]) -> float:
        """Over all clocks."""
        work = work_of(dense.spec, kept, 4, 64)
        clocks = [step.freq_mhz for step in profile.cluster().steps]
        return min(energy_mj(profile, freq, latency_ms(profile, work, freq)) for freq in clocks)

    # Between what nothing kept and what everything kept draw at their best clocks: something has to go.
    budget_mj = 0.5 * (least_mj(dict.fromkeys(whole, 0)) + least_mj(whole))
    found = aebert.choose_ratios(
        dense, train, held_out, device=DEVICE, energy_mj=budget_mj, tokens=64, cell_rows=4, candidates=3
    )
    freq = found.budget["freq_mhz"]
    took_ms = latency_ms(profile, work_of(dense.spec, found.kept_cells, 4, 64), freq)
    assert energy_mj(profile, freq, took_ms) <= budget_mj * (1 + 1e-9)
    assert 0.0 < found.overall_ratio < 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overall_ratio": 0.0}, "the overall ratio is 0; give a share above 0"),
        ({"overall_ratio": 1.0}, "the overall ratio is 1; give"),
        ({"overall_ratio": float("nan")}, "the overall ratio is nan"),
        ({"overall_ratio": 0.9, "high": 0.8}, "0.9 cannot be reached with ratios from"),
        ({"overall_ratio": 0.6, "proxy": "luck"}, "the proxy 'luck' is unknown"),
        ({"overall_ratio": 0.6, "candidates": 0}, "0 candidates"),
        ({"overall_ratio": 0.6, "sampler": "luck"}, "sampler is 'luck'"),
        ({"overall_ratio": 0.6, "workers": 2}, "share a study by its file"),
        ({"overall_ratio": 0.6, "cell_rows": 3}, "cell_rows is 3"),
        ({"overall_ratio": 0.6, "device": DEVICE, "deadline_ms": 5.0}, "give either overall_ratio"),
        ({"device": DEVICE}, "give either overall_ratio"),
        ({"deadline_ms": 5.0}, "give either overall_ratio"),
        ({}, "give either overall_ratio"),
        ({"device": DEVICE, "deadline_ms": -1.0}, "deadline_ms is -1.0"),
        ({"device": "odroid-xu9", "deadline_ms": 5.0}, "unknown device"),
    ],
)
def test_impossible_questions_are_refused(
    options: dict[str, object], words: str, dense: LoadedModel, train: Encoded, held_out: Encoded
) -> None:
    with pytest.raises((UserInputError, InfeasibleError), match=words):
        aebert.choose_ratios(dense, train, held_out, **options)


def test_too_little_data_is_refused(dense: LoadedModel, train: Encoded, held_out: Encoded) -> None:
    with pytest.raises(UserInputError, match="there are 5 training rows; the search needs at least 8"):
        aebert.choose_ratios(dense, train.take(range(5)), held_out, overall_ratio=0.5)
    with pytest.raises(UserInputError, match="there are 1 held-out rows; the search needs at least 2"):
        aebert.choose_ratios(dense, train, held_out.take([0]), overall_ratio=0.5)
    with pytest.raises(UserInputError, match="no ratios of a search"):
        aebert.Ratios.from_dict({"per_linear": {}})
