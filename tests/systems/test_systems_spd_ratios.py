"""`prune` where layers differ: ratios of their own, found under a budget, and ladders of levels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lavolta.cli import main, ratio_search
from lavolta.devices.latency import latency_ms
from lavolta.devices.loading import load as load_device
from lavolta.errors import UserInputError
from lavolta.models.hf import load_encoder
from lavolta.models.loaded import LoadedModel
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.work import dense_cells, work_of
from lavolta.systems.spd.output import FoundRatios, RatioSearch
from lavolta.systems.spd.recipe import prune
from lavolta.training import proxies
from lavolta.training.task_data import TaskSplits

STEPS = 6


def run(folder: Path, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    return prune(str(folder), task="rte", data=data, out=out, **{"quick": True, "steps": STEPS, **options})


def test_a_quick_command_under_a_deadline_of_a_device(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, spec = load_device("odroid-xu3-a7"), load_encoder(str(tiny_folder), "embedding").spec
    whole = dense_cells(spec, 4)
    dense_ms, empty_ms = (
        latency_ms(profile, work_of(spec, kept, 4, 16), profile.cluster().max_mhz)
        for kept in (whole, dict.fromkeys(whole, 0))
    )
    words = ["--task", "rte", "--data", str(tiny_glue), "--method", "aebert+gmp-kd", "--quick", "--cell-rows", "4"]
    words += ["--device", profile.name, "--deadline-ms", str(0.5 * (dense_ms + empty_ms)), "--tokens", "16"]
    out = tmp_path / "out"
    assert main(["prune", str(tiny_folder), *words, "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["method"] == "aebert+gmp-kd"
    kept = BundleFile.open(out / "model.lavolta").manifest["levels"][0]["kept_cells"]
    # The head that the task adds takes a little more than the embedding that the deadline was made from.
    took_ms = latency_ms(profile, work_of(spec, kept, 4, 16), profile.cluster().max_mhz)
    assert empty_ms < took_ms <= 0.5 * (dense_ms + empty_ms) * (1 + 1e-9)
    assert result["search"]["overall_ratio"] == pytest.approx(result["encoder_sparsity"])
    assert "(predicted)" in (out / "report.html").read_text(encoding="utf-8")


def test_the_command_knows_every_proxy() -> None:
    assert ratio_search.PROXIES == proxies.PROXIES


def test_a_deadline_that_nothing_meets_is_told_before_the_fine_tuning(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--task", "rte", "--data", str(tiny_glue), "--method", "aebert", "--quick", "--out", str(tmp_path / "out")]
    assert main(["prune", str(tiny_folder), *words, "--device", "odroid-xu3-a7", "--deadline-ms", "0.001"]) == 2
    told = capsys.readouterr().err
    assert "no sparsity meets 0.001 ms on odroid-xu3-a7" in told
    assert "fine-tune" not in told
    assert not list(tmp_path.iterdir())


def test_layers_may_have_targets_of_their_own(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    names = load_encoder(str(tiny_folder), "embedding").linear_shapes
    ratios = {name: (0.25 if "ffn" in name else 0.75) for name in names}

    def found(dense: LoadedModel, splits: TaskSplits, *_: object) -> FoundRatios:
        assert (dense.spec.outputs, len(splits.train) > len(splits.held_out) > 0) == (2, True)
        return FoundRatios(ratios, {"seconds": 1.0})

    checked: list[int] = []
    search = RatioSearch("looking", "by hand", lambda model: checked.append(model.spec.layers), found)
    for given in (ratios, search):
        out = tmp_path / "out.lavolta"
        result = run(tiny_folder, tiny_glue, out, ratios=given)
        bundle = BundleFile.open(out)
        for name, (rows, columns) in bundle.linears.items():
            assert bundle.manifest["levels"][0]["kept_cells"][name] == round((1 - ratios[name]) * rows * columns)
        assert 0.25 < result["encoder_sparsity"] < 0.75
        assert checked == ([2] if given is search else [])
        assert result["method"] == ("looking+gradual-sparsegpt" if given is search else "gradual-sparsegpt")
        assert result.get("search") == ({"seconds": 1.0} if given is search else None)
        out.unlink()
    with pytest.raises(UserInputError, match="two answers to one question"):
        run(tiny_folder, tiny_glue, tmp_path / "two.lavolta", ratios=ratios, sparsity=0.5)
    with pytest.raises(UserInputError, match="neither a sparsity nor ratios"):
        run(tiny_folder, tiny_glue, tmp_path / "none.lavolta", sparsity=None)
    with pytest.raises(
        UserInputError, match=r"layers\.0\.attention\.key has no target sparsity; give one for every layer"
    ):
        run(tiny_folder, tiny_glue, tmp_path / "few.lavolta", ratios={"layers.0.ffn.up": 0.5})
    with pytest.raises(UserInputError, match=r"layers\.9\.ffn\.up is no layer of the model"):
        run(tiny_folder, tiny_glue, tmp_path / "few.lavolta", ratios={**ratios, "layers.9.ffn.up": 0.5})
    # Refused before anything was trained.
    assert not (tmp_path / "few.lavolta.work").exists()


def test_a_ladder_of_levels_shares_one_set_of_weights(tiny_folder: Path, tiny_glue: Path, tmp_path: Path) -> None:
    result = run(tiny_folder, tiny_glue, tmp_path / "out", sparsity=0.75, levels=(0.25, 0.5), cell_rows=2)
    assert result["method"] == "spd"
    assert [level["encoder_sparsity"] for level in result["levels"]] == [0.25, 0.5, 0.75]
    bundle = BundleFile.open(tmp_path / "out" / "model.lavolta")
    assert bundle.manifest["sparsity"]["kind"] == "ranked"
    assert [level["name"] for level in bundle.levels] == ["L0", "L1", "L2"]


def test_the_levels_of_a_ladder_are_shares_of_what_uneven_ratios_come_to(
    tiny_folder: Path, tiny_glue: Path, tmp_path: Path
) -> None:
    shapes = load_encoder(str(tiny_folder), "embedding").linear_shapes
    ratios = {name: (0.25 if "ffn" in name else 0.75) for name in shapes}
    overall = sum(ratios[name] * r * c for name, (r, c) in shapes.items()) / sum(r * c for r, c in shapes.values())
    result = run(tiny_folder, tiny_glue, tmp_path / "out.lavolta", ratios=ratios, levels=(0.25,))
    # A cell of the smallest layer is a 256th of it: rounding is at most half of one in each layer.
    assert [level["encoder_sparsity"] for level in result["levels"]] == pytest.approx([0.25, overall], abs=0.5 / 256)
    with pytest.raises(UserInputError, match=rf"the levels \[0.5\] do not lead to {overall:.3g}, which the ratios"):
        run(tiny_folder, tiny_glue, tmp_path / "other.lavolta", ratios=ratios, levels=(0.5,))
    # Refused before anything was trained.
    assert not (tmp_path / "other.lavolta.work").exists()
