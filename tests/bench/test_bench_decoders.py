"""The benchmark of decoders: the keys that are promised, the weights that a peer gets, and what a turn is."""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.bench.decoders import DECODERS, decoder_spec, decoder_weights, one_token, write_decoder
from lavolta.bench.peers.llama_cpp_q8 import gguf_tensors
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.engine import open_bundle

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decode_throughput.py"
KEYS = ("sparse_75_over_dense", "dense_int8_vs_llama_cpp")


def spec_of(kind: str) -> Any:
    return decoder_spec(kind, 32, vocab=40, layers=2, hidden=48)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_turn_is_the_last_token_of_a_run(kind: str, precision: str, tmp_path: Path) -> None:
    spec = spec_of(kind)
    path = tmp_path / "m.lavolta"
    write_decoder(path, spec, decoder_weights(spec), (0.0, 0.75), precision=precision)
    assert list(BundleFile.open(path).linears)[-1] == "head.out"
    ids = np.arange(20) % spec.vocab
    with open_bundle(path) as model:
        turn = one_token(model, ids)
        first = turn()
        assert (turn() == first).all()
        expected = model.run([ids])[-1]
        assert np.corrcoef(first, expected)[0, 1] > 0.999


def test_llama_cpp_turns_the_pairs_that_we_turn() -> None:
    """Its neighbors 2 i and 2 i + 1 of a head are our features i and i + half, so scores are equal."""
    spec = spec_of("llama")
    weights = decoder_weights(spec)
    theirs = gguf_tensors(spec, weights, True)
    x = np.random.default_rng(0).standard_normal(spec.hidden)
    angle = 5 * weights["rope.inv_freq"].astype(np.float64)
    ours = (weights["layers.1.attention.query.weight"] @ x).reshape(spec.heads, 2, -1)
    neighbors = (theirs["blk.1.attn_q.weight"] @ x).reshape(spec.heads, -1, 2)
    turned = ours[:, 0] * np.cos(angle) - ours[:, 1] * np.sin(angle)
    np.testing.assert_allclose(
        neighbors[:, :, 0] * np.cos(angle) - neighbors[:, :, 1] * np.sin(angle), turned, atol=1e-12
    )


def test_every_weight_goes_to_the_peer() -> None:
    for kind in DECODERS:
        spec = spec_of(kind)
        weights = decoder_weights(spec)
        given = sum(array.size for name, array in weights.items() if name not in ("head.out.bias", "rope.inv_freq"))
        assert sum(array.size for array in gguf_tensors(spec, weights, kind == "llama").values()) == given


def test_the_script_without_its_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise ModuleNotFoundError('gone', name='llama_cpp')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module = runpy.run_path(str(SCRIPT))
    given = {"kinds": ["gpt2", "llama"], "tokens": 9, "layers": 1, "hidden": 24, "vocab": 40, "cell_rows": 4, "seed": 0}
    result = module["measure"](argparse.Namespace(**given, quick=True))
    assert result["sparse_75_over_dense"] > 0
    assert result["dense_int8_vs_llama_cpp"] is None
    assert result["reasons"]["dense_int8_vs_llama_cpp"] == (
        "llama_cpp is not installed; `pip install llama-cpp-python gguf` brings it."
    )
    assert set(KEYS) <= result.keys()
    assert {"machine", "threads", "repetitions"} <= result.keys()
    names = [record["name"] for record in result["decoders"]["llama"]["contestants"]]
    assert {"lavolta int8 75 %, 1 thread", "lavolta fp32 90 %, 1 thread", "llama.cpp q8_0, 1 thread"} <= set(names)
    json.dumps(result, allow_nan=False)
    assert "| llama | lavolta int8 0 %, 1 thread |" in module["table"](result)


def test_llama_cpp_computes_the_same_model() -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    module = runpy.run_path(str(SCRIPT))
    # Q8_0 scales 32 weights together.
    given = {
        "kinds": ["gpt2", "llama"],
        "tokens": 9,
        "layers": 2,
        "hidden": 192,
        "vocab": 64,
        "cell_rows": 4,
        "seed": 0,
    }
    result = module["measure"](argparse.Namespace(**given, quick=True))
    assert result["dense_int8_vs_llama_cpp"] > 0
    for decoder in result["decoders"].values():
        theirs = [record for record in decoder["contestants"] if record["engine"] == "llama.cpp"]
        assert len(theirs) >= 1
        assert all(record["agreement"] > 0.995 for record in theirs)
