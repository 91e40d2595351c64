"""`compress` on a decoder: one bundle that writes at every level."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny_families import randomize
from tiny_files import WORDS, sentences
from tokenizers import Tokenizer, models, pre_tokenizers

from lavolta.cli import main
from lavolta.models.hf_decoders import load_decoder
from lavolta.models.text import user_text
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.engine import open_bundle
from lavolta.systems.rt3.recipe import compress


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocab = {word: place for place, word in enumerate(["<unk>", *WORDS])}
    if request.param == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=len(vocab), n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=None
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=len(vocab),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=24,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=None,
        )
    with torch.random.fork_rng():
        model = transformers.AutoModelForCausalLM.from_config(config)
    randomize(model, 0)
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("\n".join(sentences(80)), encoding="utf-8")
    return path


def engine_word(bundle: Path, token_id: int) -> str:
    """What a token is in words; special ones have none."""
    with open_bundle(bundle) as engine:
        return engine.codec().decode([token_id]) or f"#{token_id}"


def test_one_shot(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.lavolta"
    result = compress(str(folder), out=out, text=text_file(tmp_path), mode="one-shot", levels=3, tokens=16)
    assert [level["name"] for level in result["levels"]] == ["L0", "L1", "L2"]
    bundle = BundleFile.open(out)
    assert bundle.spec == load_decoder(str(folder)).spec
    dense = load_decoder(str(folder))
    ids = list(range(1, 12))
    with torch.no_grad():
        expected = dense.module.logits(dense.module.hidden(torch.tensor([ids])))[0].numpy()
    with open_bundle(out) as engine:
        errors = []
        for level in engine.levels:
            engine.switch(level)
            errors.append(float(np.abs(engine.run([ids]) - expected).mean()))
            assert len(list(engine.generate(WORDS[3], 4))) == 4
        engine.switch(0)
        logits = engine.run([engine.codec().prompt(f"{WORDS[3]} {WORDS[5]}")])[-1]
    # The command names what follows the whole text, though no vocabulary of words is in the bundle.
    assert main(["run", str(out), "--text", f"{WORDS[3]} {WORDS[5]}", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["next"][0]["word"] == engine_word(out, int(np.argmax(logits)))
    # The dense level is the model itself but for what all levels' shared weights gave up for the sparser ones.
    assert errors[0] < errors[-1]


def test_fidelity_is_how_often_dense_and_level_can_write_the_same(folder: Path, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    out = tmp_path / "m.lavolta"
    result = compress(str(folder), out=out, text=text, mode="one-shot", levels=2, tokens=16)
    dense = load_decoder(str(folder))
    held_out = user_text(text).held_out
    with open_bundle(out) as engine:
        for index, level in enumerate(result["levels"]):
            engine.switch(index)
            shared = []
            for ids in engine.tokenize(held_out)[0]:
                with torch.no_grad():
                    logits = dense.module.logits(dense.module.hidden(torch.tensor([ids])))[0]
                both = torch.stack([logits, torch.from_numpy(engine.run([ids]))]).softmax(dim=2)
                shared.extend(both.amin(dim=0).sum(dim=1).tolist())
            assert level["fidelity"] == pytest.approx(float(np.mean(shared)), abs=1e-5)
    assert result["levels"][0]["fidelity"] > result["levels"][1]["fidelity"]


def test_distilling_brings_the_sparsest_level_nearer(folder: Path, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    dense = load_decoder(str(folder))
    ids = list(range(1, 20))
    with torch.no_grad():
        expected = dense.module.logits(dense.module.hidden(torch.tensor([ids])))[0].numpy()

    def error(mode: str) -> float:
        out = tmp_path / f"{mode}.lavolta"
        compress(str(folder), out=out, text=text, mode=mode, levels=2, tokens=16, steps=60, batch_size=8, lr=3e-3)
        with open_bundle(out) as engine:
            engine.switch(engine.levels[-1])
            difference = engine.run([ids]) - expected
            return float(np.square(difference - difference.mean(axis=1, keepdims=True)).mean())

    assert error("distill") < error("one-shot")
