"""ONNX out: ONNX Runtime computes what the canonical model computes, at any level, batch and length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_models_hf_out import HEADS, LENGTHS, batch_of, cut, headed, our_logits
from tiny_families import FAMILIES, random_masks, tiny_model, tolerance

from lavolta.errors import UserInputError
from lavolta.models.export import export_bundle
from lavolta.models.from_bundle import level_index, model_of_level
from lavolta.models.hf import from_transformers, with_head
from lavolta.models.hf_sentence import SentenceModules
from lavolta.models.lm import END_OF_LINE, UNKNOWN, LmConfig, Vocabulary, build_lm
from lavolta.models.loaded import LoadedModel
from lavolta.models.onnx_out import NOTICE, save_onnx
from lavolta.runtime.bundle import BundleFile

onnxruntime = pytest.importorskip("onnxruntime")
EPS32 = float(np.finfo(np.float32).eps)


def run(path: Path, batch: dict[str, torch.Tensor]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    named = {entry.name for entry in session.get_inputs()}
    assert named == set(batch)
    return session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]


def compare(loaded: LoadedModel, path: Path, family: str) -> None:
    batch = batch_of(family)
    want = our_logits(loaded, batch).numpy()
    got = run(path, batch)
    real = batch["attention_mask"].bool().numpy() if loaded.spec.pooling == "none" else slice(None)
    limit = tolerance(loaded.spec, max(LENGTHS), want, EPS32)
    np.testing.assert_allclose(got[real], want[real], rtol=0, atol=limit)
    # Batch and length are open: one row of one token gives what it gave beside longer ones.
    alone = run(path, {name: tensor[:1, :1] for name, tensor in batch.items()})
    first = got[:1, :1] if loaded.spec.pooling == "none" else got[:1]
    np.testing.assert_allclose(alone, first, rtol=0, atol=limit)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_runtime_computes_the_level(family: str, kind: str, tmp_path: Path) -> None:
    loaded = from_transformers(headed(family, kind), name="m")
    save_onnx(loaded, tmp_path / "m.onnx", random_masks(loaded, 4, (0.4,))[0], 4)
    compare(cut(loaded), tmp_path / "m.onnx", family)


@pytest.mark.parametrize("pooling", [("mean", True), ("cls", False)])
def test_sentence_vectors_are_pooled_in_the_graph(pooling: tuple[str, bool], tmp_path: Path) -> None:
    loaded = from_transformers(tiny_model("bert"), name="m", modules=SentenceModules(*pooling))
    save_onnx(loaded, tmp_path / "m.onnx")
    compare(loaded, tmp_path / "m.onnx", "bert")
    model = onnx.load(tmp_path / "m.onnx")
    assert [entry.name for entry in model.graph.output] == ["sentence_embedding"]
    assert model.doc_string == NOTICE


def test_a_mean_pooled_head_is_in_the_graph(tmp_path: Path) -> None:
    loaded = with_head(from_transformers(tiny_model("roberta"), name="m"), 3, "classification", 0, pooling="mean")
    save_onnx(loaded, tmp_path / "m.onnx")
    compare(loaded, tmp_path / "m.onnx", "roberta")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_of_a_bundle_is_what_it_packs(level: int, tmp_path: Path) -> None:
    loaded = from_transformers(tiny_model("distilbert", 3), name="m")
    masks = random_masks(loaded, 4, (1.0, 0.6, 0.0))
    export_bundle(loaded, masks, [{"name": f"L{i}"} for i in range(3)], 4, tmp_path / "m.lavolta")
    bundle = BundleFile.open(tmp_path / "m.lavolta")
    found = model_of_level(bundle, level_index(bundle, f"L{level}"))
    for name, weight in found.weights().items():
        want = np.where(loaded.grids(4)[name].expand(masks[level][name]), loaded.weights()[name], 0.0)
        np.testing.assert_array_equal(weight, want)
    save_onnx(found, tmp_path / "m.onnx")
    compare(found, tmp_path / "m.onnx", "distilbert")


def test_levels_are_found_by_name_and_number(tmp_path: Path) -> None:
    loaded = from_transformers(tiny_model("bert"), name="m")
    export_bundle(
        loaded, random_masks(loaded, 4, (1.0, 0.5)), [{"name": "1"}, {"name": "b"}], 4, tmp_path / "m.lavolta"
    )
    bundle = BundleFile.open(tmp_path / "m.lavolta")
    # A name goes before a number.
    assert [level_index(bundle, wanted) for wanted in (None, "1", "b", "0")] == [0, 0, 1, 0]
    for wanted in ("2", "L0", "-1"):
        with pytest.raises(UserInputError, match=f"no level '{wanted}'; the bundle has 1, b"):
            level_index(bundle, wanted)


def test_what_is_no_encoder_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    words = Vocabulary((UNKNOWN, END_OF_LINE))
    lm = build_lm(LmConfig(hidden=8, heads=2, ffn=4, layers=1, max_tokens=5), words, seed=0)
    with pytest.raises(UserInputError, match="is no BERT-like encoder"):
        save_onnx(lm, tmp_path / "m.onnx")
    loaded = from_transformers(tiny_model("bert"), name="m")
    with pytest.raises(UserInputError, match="is a folder"):
        save_onnx(loaded, tmp_path)
    with pytest.raises(UserInputError, match="was not written"):
        save_onnx(loaded, tmp_path / "absent" / "m.onnx")
    with torch.no_grad():
        loaded.linears["layers.0.ffn.up"].weight[0, 0] = float("inf")
    with pytest.raises(UserInputError, match="contains NaN or infinity"):
        save_onnx(loaded, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavolta.models.onnx_out.MOST_BYTES", 1000)

    def cannot(_: object) -> None:
        raise ValueError("this is what the checker says of 2 GB")

    monkeypatch.setattr("onnx.checker.check_model", cannot)
    with pytest.raises(UserInputError, match="too large for one ONNX file"):
        save_onnx(from_transformers(tiny_model("bert"), name="m"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
