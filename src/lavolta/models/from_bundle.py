"""One level of a bundle as a model that torch computes with, to export or to look at."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from lavolta.errors import UserInputError
from lavolta.models.lm import Vocabulary
from lavolta.models.loaded import LoadedModel
from lavolta.models.transformer import Transformer
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.spec import HEAD_LINEAR

_PARAMETERS = {
    "embeddings.word": "embeddings.word.weight",
    "embeddings.position": "embeddings.position.weight",
    "embeddings.type": "embeddings.token_type.weight",
}
"""Tensors of a bundle whose module path is another."""


def level_index(bundle: BundleFile, level: str | None) -> int:
    """Place of a level by name or number; the densest where none is named.

    Raises:
        UserInputError: there is no such level.
    """
    names = [str(entry["name"]) for entry in bundle.levels]
    if level is None:
        return 0
    if level in names:
        return names.index(level)
    if level.isdigit() and int(level) < len(names):
        return int(level)
    raise UserInputError(f"there is no level {level!r}; the bundle has {', '.join(names)}.")


def model_of_level(bundle: BundleFile, level: int) -> LoadedModel:
    """The model with the weights that a level computes with: what it dropped is zero.

    Weights of int8 linears are what their integers stand for; activations are not quantized here.
    """
    module = Transformer(bundle.spec)
    tensors = {_PARAMETERS.get(name, name): array for name, array in bundle.tensors.items()}
    for name in bundle.linears:
        tensors[f"{name}.weight"] = bundle.dense_weight(name, level)
        tensors[f"{name}.bias"] = bundle.bias(name)
    # A copy: the arrays are views of the file.
    module.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    blob, words = bundle.tokenizer_json, bundle.vocab
    return LoadedModel(
        module.eval(),
        bundle.spec,
        None if blob is None else Tokenizer.from_str(blob.decode("utf-8")),
        None if words is None else Vocabulary.from_bytes(words),
        provenance=dict(bundle.manifest["provenance"]),
        packed_head=HEAD_LINEAR in bundle.linears,
    )
