"""Write an encoder as a plain Hugging Face folder, at any level: `from_pretrained` loads it back, weights and all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavolta.errors import UserInputError
from lavolta.models.hf_families import FAMILIES, Family, family_name
from lavolta.models.hf_files import quiet_transformers
from lavolta.models.hf_sentence import DenseModule, SentenceModules, write_modules
from lavolta.models.loaded import LoadedModel, masked_linears
from lavolta.sparsity.ranking import LevelMasks

_SPECIAL_TOKENS = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""Role to its name in the vocabularies of the BERT and RoBERTa families."""


@dataclass(frozen=True)
class SavedFolder:
    """What was written.

    Args:
        architecture: the class of transformers that loads ``folder``.
        head: ``"own"`` where that class computes the whole model, ``"modules"`` where pooling and head are modules of
            sentence-transformers beside it, ``"none"`` for an encoder without pooling.
        sparsity: share of zeros in the weights of the encoder's linears, 0 to 1.
        whole_sparsity: the same over all parameters of the folder.
    """

    folder: Path
    architecture: str
    head: str
    sparsity: float
    whole_sparsity: float


def save_pretrained(
    loaded: LoadedModel, folder: str | Path, masks: LevelMasks | None = None, cell_rows: int = 1
) -> SavedFolder:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer's files, all of them or none.

    BERT, DistilBERT and RoBERTa are written as the class of transformers that computes the same: sequence
    classification and regression pooled by the first token, token classification, masked language models. Transformers
    has no class for the rest of what La Volta makes, sentence vectors and mean-pooled heads: those are folders of
    sentence-transformers, whose encoder plain transformers loads too.

    Args:
        loaded: the model; it is not changed. Masks that are attached to its layers are applied.
        folder: must be absent or empty.
        masks: cell masks ``(bands, in_features)`` of a level; the weights that it drops are written as zeros.
        cell_rows: height of the masks' cells.

    Raises:
        UserInputError: a model that no such folder can hold, masks that do not fit, NaN weights, a folder that is not
            empty or cannot be written.
    """
    folder = Path(folder)
    name, family = _family(loaded)
    kind = _head_kind(loaded, family)
    loaded.check_finite()
    weights = masked_linears(loaded, masks, cell_rows)
    model = _built(loaded, name, family, kind, weights)
    if (folder.exists() and not folder.is_dir()) or (folder.is_dir() and any(folder.iterdir())):
        raise UserInputError(f"{folder} is there already; give a folder that does not exist, or an empty one.")
    if not folder.parent.is_dir():
        raise UserInputError(f"there is no folder {folder.parent} to write {folder.name} in; make it first.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        with quiet_transformers():
            model.save_pretrained(temporary)
        _save_tokenizer(loaded, family, temporary)
        if kind is None and loaded.spec.pooling != "none":
            write_modules(temporary, _modules(loaded, weights), loaded.spec.hidden, loaded.text_tokens)
        _flush(temporary)
        # An empty folder gives way to the new one; a full one was refused above.
        os.replace(temporary, folder)
    except OSError as error:
        raise UserInputError(
            f"{folder} was not written: {error.strerror or error}; choose a place with room that you may write to."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    head = "own" if kind is not None else "none" if loaded.spec.pooling == "none" else "modules"
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    total = sum(weight.numel() for weight in weights.values())
    everything = sum(parameter.numel() for parameter in model.parameters())
    return SavedFolder(folder, type(model).__name__, head, zeros / total, zeros / everything)


def _family(loaded: LoadedModel) -> tuple[str, Family]:
    """The family that the model came from; bundles of other origin are BERT, or DistilBERT without token types."""
    spec = loaded.spec
    if spec.norm != "layer" or spec.norm_first or spec.causal or spec.position != "learned" or not spec.embedding_norm:
        raise UserInputError(f"{spec.name} is no BERT-like encoder; only those are written as Hugging Face folders.")
    architecture = str(loaded.provenance.get("architecture", ""))
    name = family_name(architecture)
    if name is None:
        name = "bert" if spec.types else "distilbert"
    if name == "distilbert" and spec.norm_eps != 1e-12:
        raise UserInputError(
            f"{spec.name} adds {spec.norm_eps:g} in its norms where DistilBERT's class always adds 1e-12; no class of "
            "transformers computes it."
        )
    return name, FAMILIES[name]


def _head_kind(loaded: LoadedModel, family: Family) -> str | None:
    """The kind of head that a class of the family has too; ``None`` where it has none of the kind."""
    spec = loaded.spec
    if spec.task == "language-model":
        place = family.heads["masked-lm"]
        if spec.head_norm and spec.head_dense == (place.activation or spec.activation) and not spec.normalize:
            return "masked-lm"
        raise UserInputError(f"{spec.name} has a language model's head that no class of the {family.base} family has.")
    if spec.task == "embedding" or spec.normalize:
        return None
    if spec.pooling == "none" and spec.head_dense is None:
        return "token"
    if spec.pooling == "cls" and spec.head_dense == family.heads["sequence"].activation:
        return "sequence"
    if spec.pooling == "none":
        raise UserInputError(f"{spec.name} has a dense layer in its token head, which no class of transformers has.")
    return None


def _config(loaded: LoadedModel, name: str, family: Family, kind: str | None) -> Any:
    import transformers

    spec, rates = loaded.spec, loaded.module.dropout_rates
    pad = loaded.provenance.get("pad_token_id", 1 if name == "roberta" else 0)
    ours = {
        "layers": spec.layers,
        "hidden": spec.hidden,
        "heads": spec.heads,
        "ffn": spec.ffn,
        "activation": spec.activation,
        "dropout": rates.hidden,
        "attention_dropout": rates.attention,
    }
    fields: dict[str, Any] = {theirs: ours[key] for key, theirs in family.fields.items()}
    fields |= {"vocab_size": spec.vocab, "pad_token_id": pad, "max_position_embeddings": spec.max_tokens}
    if family.type is not None:
        fields |= {"type_vocab_size": max(1, spec.types), "layer_norm_eps": spec.norm_eps}
    if name == "roberta":
        fields["max_position_embeddings"] = spec.max_tokens + int(pad) + 1
    if kind in ("sequence", "token"):
        fields["seq_classif_dropout" if name == "distilbert" and kind == "sequence" else "classifier_dropout"] = (
            rates.head
        )
    if spec.task in ("classification", "regression"):
        labels = spec.labels or [f"LABEL_{place}" for place in range(spec.outputs)]
        fields |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        if kind != "token":
            fields["problem_type"] = "regression" if spec.task == "regression" else "single_label_classification"
    word_vectors = loaded.module.embeddings.word.weight
    out = loaded.module.head.out
    fields["tie_word_embeddings"] = kind != "masked-lm" or (out is not None and out.weight is word_vectors)
    prefix = family.base_class.removesuffix("Model")
    return getattr(transformers, f"{prefix}Config")(**fields)


def _built(loaded: LoadedModel, name: str, family: Family, kind: str | None, weights: Mapping[str, Tensor]) -> Any:
    """A model of transformers with these weights."""
    import transformers

    config = _config(loaded, name, family, kind)
    with torch.random.fork_rng(devices=[]):
        if kind is None:
            # DistilBERT has no pooler, and one that nobody trained should not be saved.
            options = {} if family.pooler is None else {"add_pooling_layer": loaded.pooler is not None}
            model = getattr(transformers, family.base_class)(config, **options)
        else:
            model = getattr(transformers, family.heads[kind].architecture)(config)
    base = model if kind is None else model.get_submodule(family.base)
    module, spec = loaded.module, loaded.spec
    with torch.no_grad():
        position = base.get_submodule(family.position).weight
        position.zero_()[len(position) - spec.max_tokens :] = module.get_parameter("embeddings.position.weight")
        if family.type is not None and not spec.types:
            base.get_submodule(family.type).weight.zero_()
        for canonical, path in family.encoder_pairs(spec.layers, spec.types):
            _put(base.get_submodule(path), module.get_submodule(canonical), weights.get(canonical))
        base.get_submodule(family.word).weight.mul_(module.embeddings.word_scale)
        for canonical, path in family.head_pairs(kind) if kind is not None else ():
            _put(model.get_submodule(path), module.get_submodule(canonical), weights.get(canonical))
        if kind is None and family.pooler is not None and loaded.pooler is not None:
            pooler = base.get_submodule(family.pooler)
            pooler.weight.copy_(loaded.pooler[0])
            pooler.bias.copy_(loaded.pooler[1])
    return model.eval()


def _put(theirs: Any, ours: nn.Module, weight: Tensor | None) -> None:
    theirs.weight.copy_(ours.weight if weight is None else weight)
    if getattr(theirs, "bias", None) is not None:
        theirs.bias.copy_(ours.bias)


def _modules(loaded: LoadedModel, weights: Mapping[str, Tensor]) -> SentenceModules:
    """Pooling, head and normalisation as modules of sentence-transformers."""
    head, spec = loaded.module.head, loaded.spec
    dense = []
    for name, layer, activation in (("head.dense", head.dense, spec.head_dense), ("head.out", head.out, None)):
        if layer is not None:
            weight = weights.get(name, layer.weight).detach().cpu().float()
            dense.append(DenseModule(activation, weight, layer.bias.detach().cpu().float()))
    return SentenceModules(spec.pooling, spec.normalize, tuple(dense))


def _save_tokenizer(loaded: LoadedModel, family: Family, folder: Path) -> None:
    if loaded.tokenizer is None:
        return
    from transformers import PreTrainedTokenizerFast

    # A copy: wrapped, the tokenizer would lose the truncation that the model's own user relies on.
    tokenizer = type(loaded.tokenizer).from_str(loaded.tokenizer.to_str())
    tokenizer.no_truncation()
    special = {
        role: next((word for word in words if tokenizer.token_to_id(word) is not None), None)
        for role, words in _SPECIAL_TOKENS.items()
    }
    inputs = ["input_ids", "attention_mask"]
    if family.type is not None and loaded.spec.types > 1:
        inputs.insert(1, "token_type_ids")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=loaded.text_tokens,
        model_input_names=inputs,
        **{role: word for role, word in special.items() if word is not None},
    )
    wrapped.save_pretrained(folder)


def _flush(folder: Path) -> None:
    """Bring every file to the disk before the folder takes its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
