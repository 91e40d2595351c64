"""The modules of a sentence-transformers folder after its encoder: pooling, dense layers, normalisation; in and out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavolta.errors import UserInputError

_ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "gelu": "GELU"}
_IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True)
class DenseModule:
    """One dense layer: ``weight (out_features, in_features)``, ``bias (out_features,)``, ``None`` is no activation."""

    activation: str | None
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class SentenceModules:
    """What follows the encoder.

    Args:
        pooling: ``"mean"`` or ``"cls"``.
        normalize: whether the vector is l2-normalised at the end.
        dense: layers between the two.
    """

    pooling: str = "mean"
    normalize: bool = True
    dense: tuple[DenseModule, ...] = field(default_factory=tuple)


def read_modules(folder: str, source: str) -> SentenceModules:
    """What ``modules.json`` describes; mean pooling and normalisation where there is no such file.

    Raises:
        UserInputError: a damaged file, or a module that is not supported.
    """
    modules_file = Path(folder) / "modules.json"
    if not modules_file.is_file():
        return SentenceModules()
    settings: dict[str, Any] = {}
    dense: list[DenseModule] = []
    try:
        modules = json.loads(modules_file.read_text(encoding="utf-8"))
        kinds = [str(entry["type"]).rpartition(".")[2] for entry in modules]
        if unknown := set(kinds) - {"Transformer", "Pooling", "Dense", "Normalize"}:
            raise UserInputError(f"{source} has a {min(unknown)} module after its encoder, which is not supported.")
        for entry, kind in zip(modules, kinds, strict=True):
            if kind == "Pooling":
                settings = json.loads((Path(folder) / entry["path"] / "config.json").read_text(encoding="utf-8"))
            if kind == "Dense":
                dense.append(_read_dense(Path(folder) / entry["path"], source))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserInputError(f"{modules_file} cannot be read: {error}; repair or delete it.") from error
    return SentenceModules(_pooling(settings, source), "Normalize" in kinds, tuple(dense))


def _pooling(settings: dict[str, Any], source: str) -> str:
    modes = {
        key.removeprefix("pooling_mode_") for key, on in settings.items() if key.startswith("pooling_mode_") and on
    }
    if modes <= {"mean_tokens"}:
        return "mean"
    if modes == {"cls_token"}:
        return "cls"
    raise UserInputError(f"{source} pools by {', '.join(sorted(modes))}; mean and cls are supported.")


def _read_dense(folder: Path, source: str) -> DenseModule:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    word = str(settings["activation_function"]).rpartition(".")[2]
    names = {theirs: ours for ours, theirs in _ACTIVATIONS.items()} | {"Identity": None}
    if word not in names or settings.get("use_residual"):
        raise UserInputError(f"{source} has a Dense module with {word}; tanh, relu, gelu and none are supported.")
    tensors = load_file(folder / "model.safetensors")
    weight = tensors["linear.weight"].float()
    return DenseModule(names[word], weight, tensors.get("linear.bias", torch.zeros(len(weight))).float())


def write_modules(folder: Path, modules: SentenceModules, hidden: int, max_tokens: int) -> None:
    """Write ``modules.json`` and the folders that it names, beside an encoder that is in ``folder`` already."""
    listed = [("", "Transformer"), ("1_Pooling", "Pooling")]
    pooling = {f"pooling_mode_{mode}_tokens": False for mode in ("max", "mean_sqrt_len")}
    pooling |= {
        "pooling_mode_cls_token": modules.pooling == "cls",
        "pooling_mode_mean_tokens": modules.pooling == "mean",
    }
    (folder / "1_Pooling").mkdir()
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **pooling})
    for layer in modules.dense:
        path = f"{len(listed)}_Dense"
        listed.append((path, "Dense"))
        (folder / path).mkdir()
        kind = _IDENTITY
        if layer.activation is not None:
            kind = f"torch.nn.modules.activation.{_ACTIVATIONS[layer.activation]}"
        rows, columns = layer.weight.shape
        sizes = {"in_features": columns, "out_features": rows, "bias": True}
        _write_json(folder / path / "config.json", {**sizes, "activation_function": kind})
        tensors = {"linear.weight": layer.weight.contiguous(), "linear.bias": layer.bias.contiguous()}
        save_file(tensors, folder / path / "model.safetensors")
    if modules.normalize:
        path = f"{len(listed)}_Normalize"
        listed.append((path, "Normalize"))
        (folder / path).mkdir()
    entries = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(listed)
    ]
    _write_json(folder / "modules.json", entries)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
