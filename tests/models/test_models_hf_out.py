"""Encoders out: what transformers loads from the folder has the same weights and gives the same outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_families import FAMILIES, VOCAB, padded, random_masks, randomize, tiny_config, tiny_model, tolerance
from tiny_files import save_model

from lavolta.errors import UserInputError
from lavolta.models.batching import encode_texts, predict
from lavolta.models.export import export_bundle
from lavolta.models.from_bundle import model_of_level
from lavolta.models.hf import from_transformers, load_encoder, with_head
from lavolta.models.hf_out import save_pretrained
from lavolta.models.hf_sentence import SentenceModules, write_modules
from lavolta.models.lm import END_OF_LINE, UNKNOWN, LmConfig, Vocabulary, build_lm
from lavolta.models.loaded import LoadedModel, masked_linears
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.engine import open_bundle

EPS32 = float(np.finfo(np.float32).eps)
HEADS = {
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "masked-lm": "AutoModelForMaskedLM",
}
# One token, a prime, and as many as RoBERTa's 24 positions leave.
LENGTHS = (1, 7, 22)


def headed(family: str, kind: str, labels: int = 3) -> Any:
    config = tiny_config(family, num_labels=labels)
    model = getattr(transformers, HEADS[kind]).from_config(config).eval()
    randomize(model, 5)
    return model


def batch_of(family: str) -> dict[str, torch.Tensor]:
    generator = np.random.default_rng(3)
    rows = [generator.integers(2, VOCAB, length).tolist() for length in LENGTHS]
    ids, mask = padded(rows, 1 if family == "roberta" else 0)
    batch = {"input_ids": ids, "attention_mask": mask}
    if family == "bert":
        batch["token_type_ids"] = torch.from_numpy(generator.integers(0, 2, ids.shape))
    return batch


def our_logits(loaded: LoadedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    module = loaded.module.eval()
    with torch.no_grad():
        hidden = module.hidden(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
        return module.output(hidden, batch["attention_mask"])


def cut(loaded: LoadedModel) -> LoadedModel:
    """The model with random cells of four rows gone, in its own weights."""
    masks = random_masks(loaded, 4, (0.4,))[0]
    with torch.no_grad():
        for name, weight in masked_linears(loaded, masks, 4).items():
            loaded.linears[name].weight.copy_(weight)
    return loaded


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_what_was_cut_and_gives_the_same_outputs(family: str, kind: str, tmp_path: Path) -> None:
    theirs = headed(family, kind)
    loaded = from_transformers(theirs, name="m")
    masks = random_masks(loaded, 4, (0.4,))[0]
    saved = save_pretrained(loaded, tmp_path / "out", masks, 4)
    assert (saved.architecture, saved.head) == (type(theirs).__name__, "own")
    again = getattr(transformers, HEADS[kind]).from_pretrained(tmp_path / "out").eval()
    assert type(again) is type(theirs)
    assert set(again.state_dict()) == set(theirs.state_dict())
    want = cut(loaded)
    batch = batch_of(family)
    with torch.no_grad():
        got = again(**batch).logits
    wanted = our_logits(want, batch)
    real = batch["attention_mask"].bool() if kind != "sequence" else slice(None)
    limit = tolerance(loaded.spec, max(LENGTHS), wanted.numpy(), EPS32)
    assert float((got - wanted)[real].abs().max()) <= limit
    back = load_encoder(str(tmp_path / "out"))
    for name, tensor in back.module.state_dict().items():
        assert torch.equal(tensor, want.module.state_dict()[name]), name
    assert back.spec == load_encoder(str(tmp_path / "out"), None).spec
    assert {**back.spec.as_dict(), "name": "m"} == loaded.spec.as_dict()
    zeros = sum(int((weight == 0).sum()) for weight in want.weights().values())
    assert saved.sparsity == zeros / sum(weight.size for weight in want.weights().values())
    assert saved.whole_sparsity < saved.sparsity


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_that_was_not_cut_keeps_its_name_and_bits(family: str, tmp_path: Path) -> None:
    theirs = tiny_model(family, 3)
    save_pretrained(from_transformers(theirs, name="m"), tmp_path / "out")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    positions = "position_embeddings.weight"
    for name, tensor in theirs.state_dict().items():
        got = again.state_dict()[name]
        # RoBERTa never reads the rows before its first position, and La Volta does not keep them.
        skipped = 2 if family == "roberta" and name.endswith(positions) else 0
        assert torch.equal(got[skipped:], tensor[skipped:]), name
    assert not list((tmp_path / "out").glob("*.bin"))
    for field in ("hidden_act", "hidden_dropout_prob", "pad_token_id", "id2label", "max_position_embeddings"):
        if hasattr(theirs.config, field):
            assert getattr(again.config, field) == getattr(theirs.config, field), field


@pytest.mark.parametrize("family", FAMILIES)
def test_a_regression_stays_a_regression(family: str, tmp_path: Path) -> None:
    save_pretrained(from_transformers(tiny_model(family, 1), name="m"), tmp_path / "out")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").problem_type == "regression"
    assert load_encoder(str(tmp_path / "out"), "regression").spec.outputs == 1


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sentence_encoder_is_a_sentence_transformers_folder(family: str, pooling: str, tmp_path: Path) -> None:
    loaded = from_transformers(tiny_model(family), name="m", modules=SentenceModules(pooling, False))
    saved = save_pretrained(loaded, tmp_path / "out")
    assert saved.head == "modules"
    batch = batch_of(family)
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()(**batch).last_hidden_state
        want = loaded.module.hidden(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    real = batch["attention_mask"].bool()
    assert float((hidden - want)[real].abs().max()) <= tolerance(loaded.spec, max(LENGTHS), want.numpy(), EPS32)
    back = load_encoder(str(tmp_path / "out"))
    assert (back.spec.pooling, back.spec.normalize, back.spec.task) == (pooling, False, "embedding")
    if family != "distilbert":
        assert back.pooler is not None
        assert loaded.pooler is not None
        assert torch.equal(back.pooler[0], loaded.pooler[0])


@pytest.mark.parametrize(("task", "outputs", "labels"), [("regression", 1, []), ("classification", 2, ["no", "yes"])])
def test_a_mean_pooled_head_is_modules_that_sentence_transformers_runs(
    task: str, outputs: int, labels: list[str], tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    base = load_encoder(str(save_model(tmp_path / "base")), "embedding")
    loaded = cut(with_head(base, outputs, task, 0, labels=labels, pooling="mean"))
    saved = save_pretrained(loaded, tmp_path / "out")
    assert (saved.architecture, saved.head) == ("BertModel", "modules")
    texts = ["ba daeri", "gelun ko mari do"]
    got = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts)
    back = load_encoder(str(tmp_path / "out"))
    assert {**back.spec.as_dict(), "name": loaded.spec.name} == loaded.spec.as_dict()
    for name, tensor in back.module.state_dict().items():
        assert torch.equal(tensor, loaded.module.state_dict()[name]), name
    assert back.tokenizer is not None
    rows = [piece.ids for piece in back.tokenizer.encode_batch(texts)]
    ids, mask = padded(rows, 0)
    want = our_logits(loaded, {"input_ids": ids, "attention_mask": mask}).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(loaded.spec, 8, want, EPS32))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_on_the_first_token_has_a_class_of_its_own(family: str, tmp_path: Path) -> None:
    loaded = with_head(from_transformers(tiny_model(family), name="m"), 3, "classification", 0)
    assert save_pretrained(loaded, tmp_path / "out").head == "own"


def test_the_tokenizer_is_loaded_back_and_gives_the_same_ids(tmp_path: Path) -> None:
    loaded = load_encoder(str(save_model(tmp_path / "base")), "embedding")
    save_pretrained(loaded, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded.tokenizer is not None
    encoded = tokenizer("ba daeri", "gelun")
    assert encoded["input_ids"] == loaded.tokenizer.encode("ba daeri", "gelun").ids
    assert encoded["token_type_ids"] == loaded.tokenizer.encode("ba daeri", "gelun").type_ids
    assert (tokenizer.pad_token, tokenizer.model_max_length) == ("[PAD]", loaded.spec.max_tokens)
    # The model's own tokenizer still truncates.
    assert len(loaded.tokenizer.encode("ba " * 500).ids) == loaded.spec.max_tokens


def test_texts_are_cut_where_the_model_was_trained_in_the_folder_and_in_the_engine(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    write_modules(base, SentenceModules("mean", False), 16, 5)
    loaded = load_encoder(str(base))
    assert (loaded.text_tokens, loaded.spec.max_tokens) == (5, 128)
    save_pretrained(loaded, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "sentence_bert_config.json").read_text())["max_seq_length"] == 5
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer("ba " * 50, truncation=True)["input_ids"]) == 5
    path = tmp_path / "m.lavolta"
    export_bundle(loaded, random_masks(loaded, 4, (1.0,)), [{"name": "L0"}], 4, path)
    again = model_of_level(BundleFile.open(path), 0)
    texts = ["ba daeri gelun ko mari do", "ba"]
    with open_bundle(path) as engine:
        got = engine.encode(texts)
    want = predict(again, encode_texts(again, texts), 2)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(loaded.spec, 5, want, EPS32))


def test_untied_word_vectors_of_a_masked_language_model_stay_untied(tmp_path: Path) -> None:
    theirs = transformers.AutoModelForMaskedLM.from_config(tiny_config("bert", tie_word_embeddings=False)).eval()
    randomize(theirs, 7)
    save_pretrained(from_transformers(theirs, name="m"), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert not torch.equal(written["cls.predictions.decoder.weight"], written["bert.embeddings.word_embeddings.weight"])
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert torch.equal(again.cls.predictions.decoder.weight, theirs.cls.predictions.decoder.weight)


def test_a_masked_language_model_does_not_become_a_bundle(tmp_path: Path) -> None:
    loaded = from_transformers(headed("bert", "masked-lm"), name="filler")
    masks = random_masks(loaded, 4, (1.0,))
    with pytest.raises(UserInputError, match="filler has a masked language model's head"):
        export_bundle(loaded, masks, [{"name": "L0"}], 4, tmp_path / "m.lavolta")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    loaded = from_transformers(tiny_model("bert"), name="m")
    (tmp_path / "out").mkdir()
    save_pretrained(loaded, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(UserInputError, match="is there already"):
        save_pretrained(loaded, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserInputError, match="is there already"):
        save_pretrained(loaded, tmp_path / "file")
    with pytest.raises(UserInputError, match="there is no folder"):
        save_pretrained(loaded, tmp_path / "absent" / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lavolta.models.hf_out.os.fsync", full)
    with pytest.raises(UserInputError, match="was not written: No space left on device"):
        save_pretrained(from_transformers(tiny_model("bert"), name="m"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_models_that_no_folder_can_hold_are_refused(tmp_path: Path) -> None:
    lm = build_lm(
        LmConfig(hidden=8, heads=2, ffn=4, layers=1, max_tokens=5), Vocabulary((UNKNOWN, END_OF_LINE)), seed=0
    )
    with pytest.raises(UserInputError, match="is no BERT-like encoder"):
        save_pretrained(lm, tmp_path / "out")
    loaded = from_transformers(tiny_model("bert"), name="m")
    with pytest.raises(UserInputError, match="the masks do not fit the model: layers"):
        save_pretrained(loaded, tmp_path / "out", {}, 4)
    with torch.no_grad():
        loaded.linears["layers.0.ffn.up"].weight[0, 0] = float("nan")
    with pytest.raises(UserInputError, match="contains NaN"):
        save_pretrained(loaded, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["token-classification", "masked-lm"])
def test_a_head_that_is_not_there_is_refused(task: str, tmp_path: Path) -> None:
    tiny_model("bert", 2).save_pretrained(tmp_path)
    with pytest.raises(UserInputError, match=f"has no {task} head"):
        load_encoder(str(tmp_path), task)


def test_a_head_of_another_kind_is_refused() -> None:
    model = transformers.BertForMultipleChoice(tiny_config("bert"))
    with pytest.raises(UserInputError, match="is a BertForMultipleChoice; the supported heads are"):
        from_transformers(model, name="m")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation_function": "torch.nn.modules.activation.Sigmoid"}, "Dense module with Sigmoid"),
        ({"use_residual": True}, "Dense module with Tanh"),
    ],
)
def test_dense_modules_that_are_not_supported_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    base = from_transformers(tiny_model("bert"), name="m")
    save_pretrained(with_head(base, 1, "regression", 0, pooling="mean"), tmp_path / "out")
    path = tmp_path / "out" / "2_Dense" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(UserInputError, match=words):
        load_encoder(str(tmp_path / "out"))
    (tmp_path / "out" / "2_Dense" / "model.safetensors").write_bytes(b"damaged")
    path.write_text(json.dumps({"activation_function": "torch.nn.modules.activation.Tanh"}), encoding="utf-8")
    with pytest.raises(UserInputError, match=r"modules\.json cannot be read"):
        load_encoder(str(tmp_path / "out"))
