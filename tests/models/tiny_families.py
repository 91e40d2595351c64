"""Tiny models of every supported family with random weights, and what all of them are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from lavolta.models.export import export_bundle
from lavolta.models.loaded import LoadedModel
from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.ranking import LevelMasks
from reference_model import RandomModel

VOCAB, POSITIONS = 50, 24
# Odd on purpose: 5 heads of 4 features, and 33 inner features leave a ragged last band for every cell above one row.
BERT_SIZES = {
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 33,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
}
DISTILBERT_SIZES = {
    "dim": 20,
    "n_layers": 2,
    "n_heads": 5,
    "hidden_dim": 33,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
}
FAMILIES = ("bert", "distilbert", "roberta")


def tiny_config(family: str, **changes: Any) -> Any:
    sizes = DISTILBERT_SIZES if family == "distilbert" else BERT_SIZES
    extra = {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5} if family == "roberta" else {}
    kind = {"bert": "BertConfig", "distilbert": "DistilBertConfig", "roberta": "RobertaConfig"}[family]
    return getattr(transformers, kind)(**{**sizes, **extra, **changes})


def tiny_model(family: str, labels: int = 0, seed: int = 0, **changes: Any) -> Any:
    """A model of transformers; every parameter is random, also those that start as zeros or ones."""
    config = tiny_config(family, **({"num_labels": labels} if labels else {}), **changes)
    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    model = auto.from_config(config).eval()
    randomize(model, seed)
    return model


def randomize(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 1.0 if "embeddings" in name else parameter.shape[-1] ** -0.5
            is_norm_weight = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1.0 + 0.1 * noise if is_norm_weight else noise * (scale if parameter.dim() > 1 else 0.1))


def padded(rows: list[list[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded on the right with ``fill``, and the mask, ``(rows, longest)``."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def random_masks(loaded: LoadedModel, cell_rows: int, keep: tuple[float, ...], seed: int = 1) -> list[LevelMasks]:
    """Independent masks per level, densest first (equal sizes aside, so not nested); a share of 1 keeps all."""
    generator = np.random.default_rng(seed)
    grids = loaded.grids(cell_rows)
    return [{name: generator.random(grid.shape) < share for name, grid in grids.items()} for share in keep]


def reference_of(path: Path) -> RandomModel:
    """The float64 NumPy model of a bundle's tensors."""
    bundle = BundleFile.open(path)
    names = bundle.spec.linear_shapes()
    return RandomModel(
        bundle.spec,
        bundle.tensors,
        {name: bundle.packed(name) for name in names},
        {name: bundle.bias(name) for name in names},
        len(bundle.levels),
        bundle.cell_rows,
    )


def export(loaded: LoadedModel, path: Path, keep: tuple[float, ...] = (1.0, 0.5), cell_rows: int = 4) -> RandomModel:
    masks = random_masks(loaded, cell_rows, keep)
    export_bundle(loaded, masks, [{"name": f"L{i}"} for i in range(len(keep))], cell_rows, path)
    return reference_of(path)


def tolerance(spec: ModelSpec, tokens: int, expected: NDArray[np.floating], eps: float) -> float:
    """Rounding of one pass: a reduction of n terms adds at most n eps of what it sums, and the layers' errors add up.

    Factor 4: a norm divides by a spread that can be smaller than the values (unit weights give spreads near one).
    """
    per_layer = 4 * spec.hidden + spec.hidden // spec.heads + tokens + spec.hidden + spec.ffn + 4 * spec.hidden
    reductions = spec.layers * per_layer + tokens + 3 * spec.hidden
    return 4.0 * eps * reductions * float(np.abs(expected).max())
