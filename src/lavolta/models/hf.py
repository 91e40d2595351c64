"""Encoders of the BERT, DistilBERT and RoBERTa families, read through transformers from this machine only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavolta.errors import UserInputError
from lavolta.models.hf_families import FAMILIES, Family, family_name, head_kind
from lavolta.models.hf_files import find_model, load_config, load_model, load_tokenizer
from lavolta.models.hf_sentence import SentenceModules, read_modules
from lavolta.models.loaded import LoadedModel, check_cuttable
from lavolta.models.transformer import Dropout, Transformer
from lavolta.runtime.spec import ModelSpec

LOAD_TASKS = (None, "embedding", "classification", "regression", "token-classification", "masked-lm")
_NEEDED = {
    "classification": ("sequence", "sentence"),
    "regression": ("sequence", "sentence"),
    "token-classification": ("token",),
    "masked-lm": ("masked-lm",),
}
"""Task to the kinds of head that serve it; ``"sentence"`` is the dense layers of a sentence-transformers folder."""


def load_encoder(source: str, task: str | None = None) -> LoadedModel:
    """Load a pretrained encoder without the network.

    Args:
        source: a folder with ``config.json`` and weights, a packaged model (``all-MiniLM-L6-v2``), or a name that
            transformers finds in its local cache.
        task: ``"embedding"`` (pooled and normalised sentence vectors, without the checkpoint's head),
            ``"classification"``, ``"regression"``, ``"token-classification"`` or ``"masked-lm"`` (with it), or ``None``
            for what the checkpoint was saved as.

    Raises:
        UserInputError: an unknown model or family, a damaged checkpoint, NaN weights, a layer that cannot be cut.
    """
    if task not in LOAD_TASKS:
        raise UserInputError(f"task is {task!r}; choose one of {', '.join(map(str, LOAD_TASKS))}.")
    folder = find_model(source)
    config = load_config(folder, source)
    names = config.architectures if isinstance(config.architectures, list) else []
    modules = read_modules(folder, source)
    kind = "sentence" if modules.dense else next(filter(None, (head_kind(str(name)) for name in names)), None)
    if task in _NEEDED and kind not in _NEEDED[task]:
        words = "classification" if task == "regression" else task
        raise UserInputError(
            f"{source} has no {words} head; load it with task='embedding' and add one with with_head()."
        )
    if task == "embedding":
        kind = None
    model, missing = load_model(folder, source, "base" if kind in (None, "sentence") else str(kind))
    loaded = from_transformers(model, name=Path(source).name, missing=missing, modules=modules)
    if kind == "sentence":
        loaded = _with_sentence_head(loaded, modules, config, source)
    if task in ("classification", "regression") and loaded.spec.task != task:
        raise UserInputError(
            f"{source} has {loaded.spec.outputs} outputs and is a {loaded.spec.task} model, not {task}."
        )
    loaded.tokenizer = load_tokenizer(folder, loaded.spec.max_tokens)
    loaded.provenance |= {"source": source}
    return loaded


def from_transformers(
    model: Any,
    *,
    name: str,
    missing: frozenset[str] = frozenset(),
    modules: SentenceModules | None = None,
) -> LoadedModel:
    """A canonical copy of a model of transformers, float32, without tokenizer.

    Args:
        model: a base model, or one for sequence classification, token classification or masked language modelling, of a
            supported family.
        name: for the spec and for messages.
        missing: parameters that the checkpoint lacked; needing one of them is an error.
        modules: what follows a base model; by default mean pooling and normalisation. Its dense layers are not copied.

    Raises:
        UserInputError: an unsupported family, class or option, NaN weights, a layer that cannot be cut.
    """
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UserInputError(
            f"{name} is a {config.model_type} model; the supported families are {', '.join(sorted(FAMILIES))}."
        )
    headed = hasattr(model, family.base)
    kind = head_kind(type(model).__name__) if headed else None
    if headed and kind is None:
        raise UserInputError(
            f"{name} is a {type(model).__name__}; the supported heads are sequence classification, token "
            "classification and masked language modelling; load it with task='embedding' to leave its head out."
        )
    base = model.get_submodule(family.base) if headed else model
    prefix = f"{family.base}." if headed else ""
    spec = _spec(config, family, base, name, modules or SentenceModules(), kind)
    tied = kind == "masked-lm" and model.get_output_embeddings().weight is model.get_input_embeddings().weight
    module = Transformer(spec, _dropout(config, family, kind), tie=tied)
    copier = _Copier(missing)
    position = base.get_submodule(family.position)
    # RoBERTa's first real token has position padding_idx + 1: the rows before it are never used.
    skipped = position.weight.shape[0] - spec.max_tokens
    copier.copy(module.get_submodule("embeddings.position"), position, prefix + family.position, skip_rows=skipped)
    linears = spec.linear_shapes()
    for canonical, path in family.encoder_pairs(spec.layers, spec.types):
        theirs = base.get_submodule(path)
        if canonical in linears:
            check_cuttable(canonical, theirs)
        copier.copy(module.get_submodule(canonical), theirs, prefix + path)
    for canonical, path in family.head_pairs(kind) if kind is not None else ():
        copier.copy(module.get_submodule(canonical), model.get_submodule(path), path)
    provenance = {"architecture": type(model).__name__, "pad_token_id": config.pad_token_id}
    pooler = None if headed else _pooler(base, family, missing)
    loaded = LoadedModel(module.eval(), spec, pooler=pooler, provenance=provenance)
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
    """A copy of an encoder with a new head: pooling, dense with activation, dropout, linear.

    The activation is tanh; a DistilBERT pooled by its first token gets the relu of its own class, so that transformers
    has a class for the result.

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
    own = FAMILIES.get(family_name(str(loaded.provenance.get("architecture"))) or "")
    activation = own.heads["sequence"].activation if own is not None and pooling == "cls" else "tanh"
    spec = replace(
        loaded.spec,
        pooling=pooling,
        normalize=False,
        head_dense=activation,
        head_norm=False,
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


def _with_sentence_head(loaded: LoadedModel, modules: SentenceModules, config: Any, source: str) -> LoadedModel:
    """The encoder with the dense layers of its folder as its head."""
    hidden = loaded.spec.hidden
    first, last = modules.dense[:-1], modules.dense[-1]
    fits = len(first) <= 1 and last.activation is None and last.weight.shape[1] == hidden
    if not fits or any(layer.activation is None or layer.weight.shape != (hidden, hidden) for layer in first):
        raise UserInputError(
            f"{source} has {len(modules.dense)} Dense modules; supported are one without activation, and before it one "
            "of the encoder's width with an activation."
        )
    problem = getattr(config, "problem_type", None)
    tasks = {"regression": "regression", "single_label_classification": "classification"}
    task = tasks.get(str(problem), "embedding")
    outputs = int(last.weight.shape[0])
    spec = replace(
        loaded.spec,
        head_dense=first[0].activation if first else None,
        outputs=outputs,
        task=task,
        labels=_labels(config, outputs) if task == "classification" else [],
    )
    module = Transformer(spec, loaded.module.dropout_rates)
    module.load_state_dict(loaded.module.state_dict(), strict=False)
    with torch.no_grad():
        parts = [module.head.dense, module.head.out] if first else [module.head.out]
        for part, layer in zip(parts, modules.dense, strict=True):
            if part is not None:
                part.weight.copy_(layer.weight)
                part.bias.copy_(layer.bias)
    made = replace(loaded, module=module.eval(), spec=spec, pooler=None)
    made.check_finite()
    return made


def _labels(config: Any, outputs: int) -> list[str]:
    names = getattr(config, "id2label", None) or {}
    return [str(names.get(i, f"LABEL_{i}")) for i in range(outputs)]


def _spec(config: Any, family: Family, base: Any, name: str, modules: SentenceModules, kind: str | None) -> ModelSpec:
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
    vocab = int(base.get_submodule(family.word).weight.shape[0])
    encoder = ModelSpec(
        name=name,
        layers=int(get["layers"]),
        hidden=int(get["hidden"]),
        heads=int(get["heads"]),
        ffn=int(get["ffn"]),
        vocab=vocab,
        max_tokens=positions,
        types=int(types),
        activation=str(get["activation"]),
        norm_eps=float(base.get_submodule(family.norm).eps),
        pooling=modules.pooling,
        normalize=modules.normalize,
    )
    if kind is None:
        return encoder
    place = family.heads[kind]
    head = replace(encoder, pooling="cls" if kind == "sequence" else "none", normalize=False)
    if kind == "masked-lm":
        activation = place.activation or encoder.activation
        return replace(head, head_dense=activation, head_norm=True, outputs=vocab, task="language-model")
    outputs = int(config.num_labels)
    one_score = outputs == 1 or getattr(config, "problem_type", None) == "regression"
    regression = kind == "sequence" and one_score
    return replace(
        head,
        head_dense=place.activation,
        outputs=outputs,
        task="regression" if regression else "classification",
        labels=[] if regression else _labels(config, outputs),
    )


def _dropout(config: Any, family: Family, kind: str | None) -> Dropout:
    hidden = float(getattr(config, family.fields["dropout"]))
    head = None
    if kind == "masked-lm":
        head = 0.0
    elif kind is not None:
        head = getattr(config, "classifier_dropout", None)
        if kind == "sequence":
            head = getattr(config, "seq_classif_dropout", head)
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
