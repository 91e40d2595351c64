"""A model in memory with its description, its tokenizer, and its weights under canonical names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lavolta.errors import UserInputError
from lavolta.models.transformer import EncoderOutput, Transformer
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import MAX_IN_FEATURES, CellGrid

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from lavolta.models.lm import Vocabulary


@dataclass(frozen=True)
class Batch:
    """One batch of token sequences, padded on the right.

    Args:
        input_ids: ``(b, t) int64``.
        attention_mask: ``(b, t) bool``, true for a real token.
        type_ids: ``(b, t) int64``, or ``None`` for a model without token types.
        rows: ``(b,) int64``, the place of each sequence in what was batched.
        labels: ``(b,)``, int64 classes or float32 scores; ``None`` where there are none.
    """

    input_ids: Tensor
    attention_mask: Tensor
    type_ids: Tensor | None
    rows: Tensor
    labels: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``; ``rows`` stays where it is."""
        return Batch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            None if self.type_ids is None else self.type_ids.to(device),
            self.rows,
            None if self.labels is None else self.labels.to(device),
        )


@dataclass
class LoadedModel:
    """A model that can be trained, cut and exported.

    Args:
        module: the canonical Transformer, float32.
        spec: what it computes.
        tokenizer: truncates to the model's length and does not pad; ``None`` for a model without one.
        vocabulary: the words of a word-level language model.
        pooler: weight ``(hidden, hidden)`` and bias ``(hidden,)`` of a pretrained pooler that the spec does not use,
            from which `with_head` starts.
        provenance: where the weights come from, plain JSON values.
    """

    module: Transformer
    spec: ModelSpec
    tokenizer: Tokenizer | None = None
    vocabulary: Vocabulary | None = None
    pooler: tuple[Tensor, Tensor] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def linears(self) -> dict[str, nn.Linear]:
        """The live prunable layers, canonical name to module, in the order of ``spec.linear_shapes()``."""
        found: dict[str, nn.Linear] = {}
        for name in self.spec.linear_shapes():
            module = self.module.get_submodule(name)
            if not isinstance(module, nn.Linear):
                raise UserInputError(f"{name} is a {type(module).__name__}, not a Linear layer; it cannot be cut.")
            found[name] = module
        return found

    @property
    def tokenizer_json(self) -> bytes | None:
        """The bytes of ``tokenizer.json`` as the bundle carries them."""
        return None if self.tokenizer is None else self.tokenizer.to_str().encode("utf-8")

    def grids(self, cell_rows: int) -> dict[str, CellGrid]:
        """The cells of every prunable layer."""
        return {name: CellGrid(*shape, cell_rows) for name, shape in self.spec.linear_shapes().items()}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the prunable weights, name to ``(out_features, in_features)``."""
        return {name: to_numpy(linear.weight) for name, linear in self.linears.items()}

    def biases(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the prunable layers' biases, name to ``(out_features,)``."""
        return {name: to_numpy(linear.bias) for name, linear in self.linears.items()}

    def dense_tensors(self) -> dict[str, NDArray[np.float32]]:
        """Copies of everything that is not pruned, under the canonical names of the architecture page."""
        module, tensors = self.module, dict[str, Tensor]()
        tensors["embeddings.word"] = module.embeddings.word.weight.detach() * module.embeddings.word_scale
        tensors["embeddings.position"] = module.embeddings.position.weight
        if module.embeddings.token_type is not None:
            tensors["embeddings.type"] = module.embeddings.token_type.weight
        wanted = [f"layers.{i}.{part}" for i in range(self.spec.layers) for part in ("attention_norm", "ffn_norm")]
        for name in ("embeddings.norm", *wanted, "head.dense", "head.out"):
            # A part that the model lacks is an attribute set to None.
            parent, _, leaf = name.rpartition(".")
            part = getattr(module.get_submodule(parent), leaf)
            if part is not None:
                tensors[f"{name}.weight"], tensors[f"{name}.bias"] = part.weight, part.bias
        return {name: to_numpy(tensor) for name, tensor in tensors.items()}

    def check_finite(self) -> None:
        """Refuse NaN and infinite weights.

        Raises:
            UserInputError: names the first such tensor.
        """
        for name, tensor in self.module.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise UserInputError(
                    f"{name} of {self.spec.name} contains NaN or infinity; the checkpoint is damaged or its training "
                    "diverged, so take an earlier one."
                )


def run_module(loaded: LoadedModel, batch: Batch) -> EncoderOutput:
    """One forward pass of a batch, in the module's present mode and on its device."""
    out: EncoderOutput = loaded.module(batch.input_ids, batch.attention_mask, batch.type_ids)
    return out


def to_numpy(tensor: Tensor) -> NDArray[np.float32]:
    """A float32 copy on the CPU."""
    copied: NDArray[np.float32] = np.array(tensor.detach().to("cpu", torch.float32).numpy(), order="C")
    return copied


def check_cuttable(name: str, module: nn.Module) -> nn.Linear:
    """The module as a plain Linear layer.

    Raises:
        UserInputError: it is another kind of layer (Conv1D, quantised, an adapter), has integer weights, or has more
             inputs than a packed column index holds.
    """
    if type(module) is not nn.Linear:
        raise UserInputError(
            f"layer {name} is a {type(module).__name__} and cannot be cut; load a checkpoint whose layers are plain "
            "floating-point Linear layers (merge adapters, undo quantisation)."
        )
    if not module.weight.is_floating_point():
        raise UserInputError(
            f"layer {name} has {module.weight.dtype} weights and cannot be cut; load the floating-point checkpoint."
        )
    if module.in_features > MAX_IN_FEATURES:
        raise UserInputError(
            f"layer {name} has {module.in_features} inputs and cannot be cut; packed columns hold at most "
            f"{MAX_IN_FEATURES}."
        )
    return module
