"""`lavolta export` and `lavolta import`: what they write, what they say, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lavolta


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sys

    tests = Path(__file__).parents[1]
    sys.path[:0] = [str(tests), str(tests / "models"), str(tests / "systems")]
    from tiny_families import random_masks
    from tiny_files import save_model

    from lavolta.models.export import export_bundle
    from lavolta.models.hf import load_encoder, with_head

    folder = tmp_path_factory.mktemp("bundle")
    base = load_encoder(str(save_model(folder / "model")), "embedding")
    loaded = with_head(base, 2, "classification", 0, labels=["no", "yes"])
    levels = [{"name": "full"}, {"name": "thin"}]
    export_bundle(loaded, random_masks(loaded, 1, (1.0, 0.3)), levels, 1, folder / "m.lavolta")
    return folder / "m.lavolta"


def test_a_level_goes_out_and_comes_back_as_a_bundle(bundle: Path, invoke: Any, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    done = invoke("export", bundle, "--level", "thin", "--format", "hf", "--out", out, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["architecture"], said["head"], said["level"]) == ("BertForSequenceClassification", "own", "thin")
    assert said["encoder_sparsity"] > said["whole_sparsity"] > 0.0
    back = tmp_path / "back.lavolta"
    done = invoke("import", out, "--out", back, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["sparsity"] == said["encoder_sparsity"]
    ids = np.array([2, 5, 7, 3])
    with lavolta.open(bundle) as first, lavolta.open(back) as second:
        first.switch("thin")
        np.testing.assert_array_equal(first.run([ids]), second.run([ids]))


def test_onnx_says_that_others_are_not_faster(bundle: Path, invoke: Any, tmp_path: Path) -> None:
    done = invoke("export", bundle, "--format", "onnx", "--out", tmp_path / "m.onnx")
    assert done.code == 0, done.err
    assert "level full of" in done.out
    assert "not faster for the pruning" in done.out
    assert (tmp_path / "m.onnx").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "{bundle}", "--format", "hf", "--level", "none", "--out", "{dir}/x"], "no level 'none'"),
        (["export", "{model}", "--format", "hf", "--level", "thin", "--out", "{dir}/x"], "has no levels"),
        (["export", "{dir}/absent", "--format", "hf", "--out", "{dir}/x"], "is no folder, no packaged model"),
        (["export", "{bundle}", "--format", "gguf", "--out", "{dir}/x"], "--format"),
        (["export", "{bundle}", "--format", "onnx", "--out", "{dir}"], "is a folder"),
        (["export", "{bundle}", "--format", "hf", "--out", "{model}"], "is there already"),
        (["import", "{model}", "--out", "{dir}/x"], "has no sparsity to import"),
        (["import", "{model}", "--cell-rows", "3", "--out", "{dir}/x"], "--cell-rows is 3"),
    ],
)
def test_what_cannot_be_done_is_refused(
    words: list[str], sentence: str, bundle: Path, invoke: Any, tmp_path: Path
) -> None:
    places = {"{bundle}": str(bundle), "{model}": str(bundle.parent / "model"), "{dir}": str(tmp_path)}
    given = list(words)
    for mark, path in places.items():
        given = [word.replace(mark, path) for word in given]
    done = invoke(*given)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert not list(tmp_path.iterdir())
