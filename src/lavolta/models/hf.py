"""Encoders of the BERT, DistilBERT and RoBERTa families, read through transformers from this machine only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavolta.errors import UserInputError
from lavolta.models.hf_files import find_model, load_config, load_model, load_tokenizer, pooling_of
from lavolta.models.loaded import LoadedModel, check_cuttable
from lavolta.models.transformer import Dropout, Transformer
from lavolta.runtime.spec import ModelSpec

LOAD_TASKS = (None, "embedding", "classification", "regression")


@dataclass(frozen=True)
class Family:
    """Where one model type keeps what the canonical model has; paths are relative to the base model of transformers.

    Args:
        word, position, type, norm: the embeddings; ``type`` may be ``None``.
        layers: the list of layers.
        parts: canonical name inside a layer to path inside a layer.
        base: attribute that holds the base model in the classification model.
        head_dense, head_out: paths in the classification model.
        head_activation: between these two.
        fields: canonical configuration name to the name in this family's configuration.
    """

    base: str
    layers: str
    parts: Mapping[str, str]
    head_dense: str
    head_out: str
    head_activation: str
    fields: Mapping[str, str]
    type: str | None = "embeddings.token_type_embeddings"
    word: str = "embeddings.word_embeddings"
    position: str = "embeddings.position_embeddings"
    norm: str = "embeddings.LayerNorm"
    pooler: str | None = "pooler.dense"


_BERT_PARTS = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_BERT_FIELDS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_DISTILBERT_PARTS = {
    "attention.query": "attention.q_lin",
    "attention.key": "attention.k_lin",
    "attention.value": "attention.v_lin",
    "attention.output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "ffn.up": "ffn.lin1",
    "ffn.down": "ffn.lin2",
    "ffn_norm": "output_layer_norm",
}
_DISTILBERT_FIELDS = {
    "layers": "n_layers",
    "hidden": "dim",
    "heads": "n_heads",
    "ffn": "hidden_dim",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
}
FAMILIES = {
    "bert": Family("bert", "encoder.layer", _BERT_PARTS, "bert.pooler.dense", "classifier", "tanh", _BERT_FIELDS),
    "distilbert": Family(
        "distilbert",
        "transformer.layer",
        _DISTILBERT_PARTS,
        "pre_classifier",
        "classifier",
        "relu",
        _DISTILBERT_FIELDS,
        type=None,
        pooler=None,
    ),
    "roberta": Family(
        "roberta", "encoder.layer", _BERT_PARTS, "classifier.dense", "classifier.out_proj", "tanh", _BERT_FIELDS
    ),
}


def load_encoder(source: str, task: str | None = None) -> LoadedModel:
    """Load a pretrained encoder without the network.

    Args:
        source: a folder with ``config.json`` and weights, a packaged model (``all-MiniLM-L6-v2``), or a name that
            transformers finds in its local cache.
        task: ``"embedding"`` (pooled and normalised sentence vectors), ``"classification"`` or ``"regression"`` (the
            checkpoint's own head), or ``None`` for what the checkpoint was saved as.

    Raises:
        UserInputError: an unknown model or family, a damaged checkpoint, NaN weights, a layer that cannot be cut.
    """
    if task not in LOAD_TASKS:
        raise UserInputError(f"task is {task!r}; choose one of {', '.join(map(str, LOAD_TASKS))}.")
    folder = find_model(source)
    config = load_config(folder, source)
    names = config.architectures if isinstance(config.architectures, list) else []
    has_head = any(str(name).endswith("ForSequenceClassification") for name in names)
    if task in ("classification", "regression") and not has_head:
        raise UserInputError(
            f"{source} has no classification head; load it with task='embedding' and add one with with_head()."
        )
    with_classifier = has_head if task is None else task != "embedding"
    model, missing = load_model(folder, source, "classifier" if with_classifier else "base")
    loaded = from_transformers(model, name=Path(source).name, missing=missing, pooling=pooling_of(folder, source))
    if task in ("classification", "regression") and loaded.spec.task != task:
        raise UserInputError(
            f"{source} has {loaded.spec.outputs} outputs and is a {loaded.spec.task} model, not {task}."
        )
    loaded.tokenizer = load_tokenizer(folder, loaded.spec.max_tokens)
    loaded.provenance = {"source": source, "architecture": type(model).__name__}
    return loaded


def from_transformers(
    model: Any, *, name: str, missing: frozenset[str] = frozenset(), pooling: tuple[str, bool] = ("mean", True)
) -> LoadedModel:
    """A canonical copy of a model of transformers, float32, without tokenizer.

    Args:
        model: a base model or a ``...ForSequenceClassification`` of a supported family.
        name: for the spec and for messages.
        missing: parameters that the checkpoint lacked; needing one of them is an error.
        pooling: of a base model, the kind of pooling and whether the vector is normalised.

    Raises:
        UserInputError: an unsupported family or option, NaN weights, a layer that cannot be cut.
    """
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UserInputError(
            f"{name} is a {config.model_type} model; the supported families are {', '.join(sorted(FAMILIES))}."
        )
    classifier = hasattr(model, family.base)
    base = model.get_submodule(family.base) if classifier else model
    prefix = f"{family.base}." if classifier else ""
    spec = _spec(config, family, base, name, pooling, classifier)
    module = Transformer(spec, _dropout(config, family, classifier))
    copier = _Copier(missing)
    word, position = base.get_submodule(family.word), base.get_submodule(family.position)
    copier.copy(module.embeddings.word, word, prefix + family.word)
    # RoBERTa's first real token has position padding_idx + 1: the rows before it are never used.
    skipped = position.weight.shape[0] - spec.max_tokens
    copier.copy(module.get_submodule("embeddings.position"), position, prefix + family.position, skip_rows=skipped)
    if family.type is not None and module.embeddings.token_type is not None:
        copier.copy(module.embeddings.token_type, base.get_submodule(family.type), prefix + family.type)
    if module.embeddings.norm is not None:
        copier.copy(module.embeddings.norm, base.get_submodule(family.norm), prefix + family.norm)
    for index in range(spec.layers):
        for part, path in family.parts.items():
            canonical, full = f"layers.{index}.{part}", f"{family.layers}.{index}.{path}"
            theirs = base.get_submodule(full)
            if not part.endswith("_norm"):
                check_cuttable(canonical, theirs)
            copier.copy(module.get_submodule(canonical), theirs, prefix + full)
    if classifier:
        copier.copy(module.get_submodule("head.dense"), model.get_submodule(family.head_dense), family.head_dense)
        copier.copy(module.get_submodule("head.out"), model.get_submodule(family.head_out), family.head_out)
    loaded = LoadedModel(module.eval(), spec, pooler=None if classifier else _pooler(base, family, missing))
    loaded.check_finite()
    return loaded


def with_head(
    loaded: LoadedModel,
    outputs: int,
    task: str,
    seed: int,
    *,
    labels: list[str] | None = None,
    pooling: str = "cls",
    dropout: float = 0.1,
) -> LoadedModel:
    """A copy of an encoder with a new head: pooling, dense with tanh, dropout, linear (BERT's own kind of head).

    Args:
        outputs: number of classes, or 1 for a regression.
        task: ``"classification"`` or ``"regression"``.
        seed: of the new weights (normal, standard deviation 0.02); the dense layer starts from the pretrained pooler if
            there is one and pooling is ``"cls"``.
        labels: names of the classes.
        pooling: ``"cls"`` or ``"mean"``.
        dropout: before the last layer, while training.
    """
    if task not in ("classification", "regression") or (task == "regression" and outputs != 1) or outputs < 1:
        raise UserInputError(
            f"a head for {task!r} with {outputs} outputs cannot be made; use classification with at least one "
            "output or regression with exactly one."
        )
    spec = replace(
        loaded.spec,
        pooling=pooling,
        normalize=False,
        head_dense="tanh",
        outputs=outputs,
        task=task,
        labels=list(labels or []),
    )
    module = Transformer(
        spec, replace(loaded.module.dropout_rates, head=dropout), word_scale=loaded.module.embeddings.word_scale
    )
    encoder = {key: value for key, value in loaded.module.state_dict().items() if not key.startswith("head.")}
    module.load_state_dict(encoder, strict=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (module.head.dense, module.head.out):
            if part is not None:
                part.weight.normal_(0.0, 0.02, generator=generator)
                part.bias.zero_()
        if loaded.pooler is not None and pooling == "cls" and module.head.dense is not None:
            module.head.dense.weight.copy_(loaded.pooler[0])
            module.head.dense.bias.copy_(loaded.pooler[1])
    module.to(next(loaded.module.parameters()).device)
    return LoadedModel(module.eval(), spec, loaded.tokenizer, provenance={**loaded.provenance, "head_seed": seed})


class _Copier:
    """Copies parameters and refuses those that the checkpoint did not have."""

    def __init__(self, missing: frozenset[str]) -> None:
        self.missing = missing

    def copy(self, ours: nn.Module, theirs: Any, path: str, skip_rows: int = 0) -> None:
        for name, parameter in ours.named_parameters(recurse=False):
            if f"{path}.{name}" in self.missing:
                raise UserInputError(f"the checkpoint has no {path}.{name}; it is damaged or of another model.")
            source = getattr(theirs, name, None)
            if source is None or source[skip_rows:].shape != parameter.shape:
                shape = None if source is None else tuple(source.shape)
                raise UserInputError(f"{path}.{name} has shape {shape}, not {tuple(parameter.shape)}.")
            with torch.no_grad():
                parameter.copy_(source[skip_rows:])


def _spec(config: Any, family: Family, base: Any, name: str, pooling: tuple[str, bool], classifier: bool) -> ModelSpec:
    get = {ours: getattr(config, theirs) for ours, theirs in family.fields.items()}
    if get["activation"] not in ("gelu", "relu"):
        raise UserInputError(f"{name} uses the activation {get['activation']!r}; gelu (exact) and relu are supported.")
    if getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
        raise UserInputError(
            f"{name} uses {config.position_embedding_type} positions; only absolute ones are supported."
        )
    if getattr(config, "is_decoder", False):
        raise UserInputError(f"{name} is configured as a decoder; set is_decoder to false in its config.json.")
    types = 0 if family.type is None else base.get_submodule(family.type).weight.shape[0]
    if types > 2:
        raise UserInputError(f"{name} has {types} token types; at most 2 are supported.")
    positions = int(base.get_submodule(family.position).weight.shape[0])
    if config.model_type == "roberta":
        positions -= int(config.pad_token_id) + 1
    norm = base.get_submodule(family.norm)
    outputs = int(config.num_labels) if classifier else 0
    regression = outputs == 1 or getattr(config, "problem_type", None) == "regression"
    label_names = getattr(config, "id2label", None) or {}
    return ModelSpec(
        name=name,
        layers=int(get["layers"]),
        hidden=int(get["hidden"]),
        heads=int(get["heads"]),
        ffn=int(get["ffn"]),
        vocab=int(base.get_submodule(family.word).weight.shape[0]),
        max_tokens=positions,
        types=int(types),
        activation=str(get["activation"]),
        norm_eps=float(norm.eps),
        pooling="cls" if classifier else pooling[0],
        normalize=False if classifier else pooling[1],
        head_dense=family.head_activation if classifier else None,
        outputs=outputs,
        task=("regression" if regression else "classification") if classifier else "embedding",
        labels=[str(label_names.get(i, f"LABEL_{i}")) for i in range(outputs)] if classifier and not regression else [],
    )


def _dropout(config: Any, family: Family, classifier: bool) -> Dropout:
    hidden = float(getattr(config, family.fields["dropout"]))
    head = getattr(config, "seq_classif_dropout", getattr(config, "classifier_dropout", None)) if classifier else None
    return Dropout(
        hidden,
        float(getattr(config, family.fields["attention_dropout"])),
        # DistilBERT drops after the second linear of its feed-forward part, like the others: nothing inside.
        0.0,
        hidden if head is None else float(head),
    )


def _pooler(base: Any, family: Family, missing: frozenset[str]) -> tuple[torch.Tensor, torch.Tensor] | None:
    if family.pooler is None or f"{family.pooler}.weight" in missing or getattr(base, "pooler", None) is None:
        return None
    dense = base.get_submodule(family.pooler)
    weight, bias = dense.weight.detach().float().clone(), dense.bias.detach().float().clone()
    return (weight, bias) if bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()) else None
