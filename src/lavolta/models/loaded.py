"""A model in memory with its description, its tokenizer, and its weights under canonical names."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lavolta.errors import UserInputError
from lavolta.models.transformer import EncoderOutput, Transformer
from lavolta.runtime.spec import HEAD_LINEAR, ModelSpec, dense_shapes
from lavolta.sparsity.cells import MAX_IN_FEATURES, CellGrid
from lavolta.sparsity.ranking import LevelMasks

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
        packed_head: the output layer ``head.out`` is one of the linears: pruned, and packed in the bundle. Its weight
            must be its own, not tied to the word vectors; see `with_packed_head`.
    """

    module: Transformer
    spec: ModelSpec
    tokenizer: Tokenizer | None = None
    vocabulary: Vocabulary | None = None
    pooler: tuple[Tensor, Tensor] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    packed_head: bool = False

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """The prunable layers, in order: canonical name to ``(out_features, in_features)``."""
        return self.spec.linear_shapes(packed_head=self.packed_head)

    @property
    def linears(self) -> dict[str, nn.Linear]:
        """The live prunable layers, canonical name to module, in the order of `linear_shapes`."""
        found: dict[str, nn.Linear] = {}
        for name in self.linear_shapes:
            module = self.module.get_submodule(name)
            if not isinstance(module, nn.Linear):
                raise UserInputError(f"{name} is a {type(module).__name__}, not a Linear layer; it cannot be cut.")
            found[name] = module
        return found

    @property
    def tokenizer_json(self) -> bytes | None:
        """The bytes of ``tokenizer.json`` as the bundle carries them."""
        return None if self.tokenizer is None else self.tokenizer.to_str().encode("utf-8")

    @property
    def text_tokens(self) -> int:
        """Tokens that a text is cut to: what the tokenizer truncates to, at most ``spec.max_tokens``."""
        own = None if self.tokenizer is None else self.tokenizer.truncation
        return min(self.spec.max_tokens, int(own["max_length"])) if own else self.spec.max_tokens

    def grids(self, cell_rows: int) -> dict[str, CellGrid]:
        """The cells of every prunable layer."""
        return {name: CellGrid(*shape, cell_rows) for name, shape in self.linear_shapes.items()}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the prunable weights, name to ``(out_features, in_features)``."""
        return {name: to_numpy(linear.weight) for name, linear in self.linears.items()}

    def biases(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the prunable layers' biases, name to ``(out_features,)``."""
        return {name: to_numpy(linear.bias) for name, linear in self.linears.items()}

    def dense_tensors(self) -> dict[str, NDArray[np.float32]]:
        """Copies of everything that is not pruned, under the canonical names of the architecture page."""
        module = self.module
        own = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
        own["embeddings.word"] = module.embeddings.word.weight.detach() * module.embeddings.word_scale
        elsewhere = {
            "embeddings.position": "embeddings.position.weight",
            "embeddings.type": "embeddings.token_type.weight",
        }
        names = dense_shapes(self.spec, packed_head=self.packed_head)
        tensors = {name: own[elsewhere.get(name, name)] for name in names}
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


def with_packed_head(loaded: LoadedModel) -> LoadedModel:
    """A copy whose output layer is pruned and packed like the other linears; it no longer shares the word vectors.

    Raises:
        UserInputError: the model has no output layer, or one that cannot be cut.
    """
    out = loaded.module.head.out
    if out is None:
        raise UserInputError(f"{loaded.spec.name} has no output layer that could be packed.")
    check_cuttable(HEAD_LINEAR, out)
    copied = copy.deepcopy(loaded)
    copied.packed_head = True
    if copied.module.head.out is not None:
        copied.module.head.out.weight = nn.Parameter(out.weight.detach().clone())
    return copied


def masked_linears(loaded: LoadedModel, masks: LevelMasks | None, cell_rows: int) -> dict[str, Tensor]:
    """Copies of the prunable weights, on the CPU, as a level computes with them: what it dropped is zero.

    Args:
        masks: cell masks ``(bands, in_features)`` of every linear, ``None`` for the weights as they are.
        cell_rows: height of the cells.

    Raises:
        UserInputError: masks of other layers or shapes.
    """
    weights = {name: linear.weight.detach().float().cpu().clone() for name, linear in loaded.linears.items()}
    if masks is None:
        return weights
    if different := sorted(set(masks) ^ set(weights)):
        raise UserInputError(f"the masks do not fit the model: {different[0]} is on one side only.")
    for name, grid in loaded.grids(cell_rows).items():
        weights[name] *= torch.from_numpy(grid.expand(masks[name]))
    return weights


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
