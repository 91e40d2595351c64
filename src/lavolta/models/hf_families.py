"""Where transformers keeps what the canonical model has, for every supported encoder family and kind of head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HeadPlace:
    """One class of transformers with a head; paths are relative to its model.

    Args:
        architecture: the class.
        out: the last linear layer.
        dense, norm: the layers before it, ``None`` where the head has none.
        activation: after ``dense``; ``None`` for that of the encoder.
    """

    architecture: str
    out: str
    dense: str | None = None
    norm: str | None = None
    activation: str | None = None


@dataclass(frozen=True)
class Family:
    """One model type; paths are relative to the base model.

    Args:
        base: attribute that holds the base model in a model with a head.
        base_class: class of the base model.
        layers: the list of layers.
        parts: canonical name inside a layer to path inside a layer.
        heads: kind of head (``"sequence"``, ``"token"``, ``"masked-lm"``) to its place.
        fields: canonical configuration name to the name in this family's configuration.
        word, position, type, norm: the embeddings; ``type`` may be ``None``.
        pooler: dense layer of the pretrained pooler, or ``None``.
    """

    base: str
    base_class: str
    layers: str
    parts: Mapping[str, str]
    heads: Mapping[str, HeadPlace]
    fields: Mapping[str, str]
    type: str | None = "embeddings.token_type_embeddings"
    word: str = "embeddings.word_embeddings"
    position: str = "embeddings.position_embeddings"
    norm: str = "embeddings.LayerNorm"
    pooler: str | None = "pooler.dense"

    def encoder_pairs(self, layers: int, types: int) -> Iterator[tuple[str, str]]:
        """Canonical module and its path in the base model; the positions, whose rows differ, are not among them."""
        yield "embeddings.word", self.word
        if self.type is not None and types:
            yield "embeddings.token_type", self.type
        yield "embeddings.norm", self.norm
        for index in range(layers):
            for part, path in self.parts.items():
                yield f"layers.{index}.{part}", f"{self.layers}.{index}.{path}"

    def head_pairs(self, kind: str) -> Iterator[tuple[str, str]]:
        """Canonical module and its path in the model with this head."""
        place = self.heads[kind]
        if place.dense is not None:
            yield "head.dense", place.dense
        if place.norm is not None:
            yield "head.norm", place.norm
        yield "head.out", place.out


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
_MASKED_BERT = "cls.predictions"
FAMILIES = {
    "bert": Family(
        "bert",
        "BertModel",
        "encoder.layer",
        _BERT_PARTS,
        {
            "sequence": HeadPlace(
                "BertForSequenceClassification", "classifier", "bert.pooler.dense", activation="tanh"
            ),
            "token": HeadPlace("BertForTokenClassification", "classifier"),
            "masked-lm": HeadPlace(
                "BertForMaskedLM",
                f"{_MASKED_BERT}.decoder",
                f"{_MASKED_BERT}.transform.dense",
                f"{_MASKED_BERT}.transform.LayerNorm",
            ),
        },
        _BERT_FIELDS,
    ),
    "distilbert": Family(
        "distilbert",
        "DistilBertModel",
        "transformer.layer",
        _DISTILBERT_PARTS,
        {
            "sequence": HeadPlace(
                "DistilBertForSequenceClassification", "classifier", "pre_classifier", activation="relu"
            ),
            "token": HeadPlace("DistilBertForTokenClassification", "classifier"),
            "masked-lm": HeadPlace("DistilBertForMaskedLM", "vocab_projector", "vocab_transform", "vocab_layer_norm"),
        },
        _DISTILBERT_FIELDS,
        type=None,
        pooler=None,
    ),
    "roberta": Family(
        "roberta",
        "RobertaModel",
        "encoder.layer",
        _BERT_PARTS,
        {
            "sequence": HeadPlace(
                "RobertaForSequenceClassification", "classifier.out_proj", "classifier.dense", activation="tanh"
            ),
            "token": HeadPlace("RobertaForTokenClassification", "classifier"),
            "masked-lm": HeadPlace(
                "RobertaForMaskedLM", "lm_head.decoder", "lm_head.dense", "lm_head.layer_norm", activation="gelu"
            ),
        },
        _BERT_FIELDS,
    ),
}
HEAD_KINDS = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForMaskedLM": "masked-lm",
}
"""How the name of a class with a head ends, and the kind of that head."""


def head_kind(architecture: str) -> str | None:
    """The kind of head of a class of transformers; ``None`` for a base model or a head of another kind."""
    return next((kind for ending, kind in HEAD_KINDS.items() if architecture.endswith(ending)), None)


def family_name(architecture: str) -> str | None:
    """The model type of a class of transformers, such as ``"roberta"`` of ``"RobertaModel"``."""
    known = {family.base_class.removesuffix("Model"): name for name, family in FAMILIES.items()}
    return next((name for start, name in known.items() if architecture.startswith(start)), None)
