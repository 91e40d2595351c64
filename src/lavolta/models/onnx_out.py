"""Write an encoder as a normal dense ONNX graph, at any level, for runtimes that know nothing of levels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from lavolta import __version__
from lavolta.errors import UserInputError
from lavolta.files import write_whole
from lavolta.models.loaded import LoadedModel, masked_linears
from lavolta.models.onnx_graph import Graph
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.ranking import LevelMasks

NOTICE = (
    "This is a dense graph: pruned weights are zeros in it, and a runtime other than La Volta multiplies them like all "
    "others, so it is not faster for the pruning."
)
MOST_BYTES = (1 << 31) - (1 << 24)
"""Of weights: a protobuf message cannot be longer than 2 GiB, and nodes and names take far less than 16 MiB of it."""


def save_onnx(loaded: LoadedModel, path: str | Path, masks: LevelMasks | None = None, cell_rows: int = 1) -> None:
    """Write one ``.onnx`` file, completely or not at all.

    Inputs are ``input_ids``, ``attention_mask`` and, for models with two token types, ``token_type_ids``, int64
    ``(batch, tokens)`` of any batch and length. The output is ``sentence_embedding (batch, hidden)`` or ``logits``
    (``(batch, outputs)``, ``(batch, tokens, outputs)`` for models with one output per token).

    Args:
        loaded: an encoder; it is not changed.
        masks: cell masks ``(bands, in_features)`` of a level; the weights that it drops are zeros in the graph.
        cell_rows: height of the masks' cells.

    Raises:
        UserInputError: no BERT-like encoder, masks that do not fit, NaN weights, a graph above 2 GB, a file that cannot
            be written.
    """
    path = Path(path)
    loaded.check_finite()
    model = encoder_model(loaded, masks, cell_rows)
    if path.is_dir():
        raise UserInputError(f"{path} is a folder; give the name of a file in it, such as {path / 'model.onnx'}.")
    write_whole(path, model.SerializeToString())


def encoder_model(loaded: LoadedModel, masks: LevelMasks | None = None, cell_rows: int = 1) -> Any:
    """The `onnx.ModelProto` that `save_onnx` writes; it has passed ONNX's own checker."""
    import onnx
    from onnx import TensorProto, helper

    spec = loaded.spec
    if spec.norm != "layer" or spec.norm_first or spec.causal or spec.position != "learned" or not spec.embedding_norm:
        raise UserInputError(f"{spec.name} is no BERT-like encoder; only those are written as ONNX graphs.")
    weights = loaded.dense_tensors()
    for name, weight in masked_linears(loaded, masks, cell_rows).items():
        weights[f"{name}.weight"] = weight.numpy()
    weights |= {f"{name}.bias": bias for name, bias in loaded.biases().items()}
    # Before the graph is made: ONNX's own checker cannot even read one that is too large.
    if sum(weight.nbytes for weight in weights.values()) > MOST_BYTES:
        raise UserInputError(f"{spec.name} is too large for one ONNX file (2 GB); write a Hugging Face folder.")
    graph = Graph(weights)
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if spec.types > 1 else [])]
    mask = graph.add("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    x = _embeddings(graph, spec)
    hidden = _layers(graph, spec, x, mask)
    output = _output(graph, spec, hidden, mask)
    name = "logits" if spec.outputs else "sentence_embedding" if spec.pooling != "none" else "last_hidden_state"
    graph.nodes.append(helper.make_node("Identity", [output], [name]))
    width = spec.outputs or spec.hidden
    shape = ["batch", "tokens", width] if spec.pooling == "none" else ["batch", width]
    model = graph.model(
        spec.name or "encoder",
        [helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "tokens"]) for each in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
    )
    model.producer_name, model.producer_version, model.doc_string = "lavolta", __version__, NOTICE
    onnx.checker.check_model(model)
    return model


def _embeddings(graph: Graph, spec: ModelSpec) -> str:
    tokens = graph.add("Gather", [graph.add("Shape", ["input_ids"]), graph.integers(1)])
    zero = graph.integers(0)
    positions = graph.add("Slice", [graph.constant("embeddings.position"), zero, tokens, zero])
    x = graph.add("Add", [graph.add("Gather", [graph.constant("embeddings.word"), "input_ids"]), positions])
    if spec.types > 1:
        x = graph.add("Add", [x, graph.add("Gather", [graph.constant("embeddings.type"), "token_type_ids"])])
    elif spec.types:
        x = graph.add("Add", [x, graph.constant("embeddings.type", graph.weights["embeddings.type"][0])])
    return graph.norm(x, "embeddings.norm", spec.norm_eps)


def _layers(graph: Graph, spec: ModelSpec, x: str, mask: str) -> str:
    one = graph.constant("one", np.array(1.0, np.float32))
    lowest = graph.constant("lowest", np.array(np.finfo(np.float32).min, np.float32))
    hidden_keys = graph.add("Mul", [graph.add("Sub", [one, mask]), lowest])
    bias = graph.add("Unsqueeze", [hidden_keys, graph.integers(1, 2)])
    for layer in range(spec.layers):
        name = f"layers.{layer}"
        branch = graph.linear(_attention(graph, spec, x, f"{name}.attention", bias), f"{name}.attention.output")
        x = graph.norm(graph.add("Add", [x, branch]), f"{name}.attention_norm", spec.norm_eps)
        up = graph.activation(graph.linear(x, f"{name}.ffn.up"), spec.activation)
        branch = graph.linear(up, f"{name}.ffn.down")
        x = graph.norm(graph.add("Add", [x, branch]), f"{name}.ffn_norm", spec.norm_eps)
    return x


def _attention(graph: Graph, spec: ModelSpec, x: str, name: str, bias: str) -> str:
    # 0 keeps a dimension as it is: batch and length stay open.
    split, merge = graph.integers(0, 0, spec.heads, spec.head_size), graph.integers(0, 0, spec.hidden)
    scale = graph.constant("score_scale", np.array(1.0 / math.sqrt(spec.head_size), np.float32))

    def heads(part: str, order: list[int]) -> str:
        return graph.add("Transpose", [graph.add("Reshape", [graph.linear(x, f"{name}.{part}"), split])], perm=order)

    query, key = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1])
    scores = graph.add("Mul", [graph.add("MatMul", [query, key]), scale])
    shares = graph.add("Softmax", [graph.add("Add", [scores, bias])], axis=-1)
    mixed = graph.add("MatMul", [shares, heads("value", [0, 2, 1, 3])])
    return graph.add("Reshape", [graph.add("Transpose", [mixed], perm=[0, 2, 1, 3]), merge])


def _output(graph: Graph, spec: ModelSpec, hidden: str, mask: str) -> str:
    """Pooling, head and normalisation."""
    x = hidden
    if spec.pooling == "cls":
        first = graph.constant("first_token", np.array(0, np.int64))
        x = graph.add("Gather", [hidden, first], axis=1)
    elif spec.pooling == "mean":
        weight = graph.add("Unsqueeze", [mask, graph.integers(2)])
        axis = graph.integers(1)
        total = graph.add("ReduceSum", [graph.add("Mul", [hidden, weight]), axis], keepdims=0)
        x = graph.add("Div", [total, graph.add("ReduceSum", [weight, axis], keepdims=0)])
    if spec.head_dense is not None:
        x = graph.activation(graph.linear(x, "head.dense"), spec.head_dense)
    if spec.head_norm:
        x = graph.norm(x, "head.norm", spec.norm_eps)
    if spec.outputs:
        x = graph.linear(x, "head.out")
    if spec.normalize:
        length = graph.add("ReduceL2", [x, graph.integers(-1)], keepdims=1)
        least = graph.constant("least_length", np.array(1e-12, np.float32))
        x = graph.add("Div", [x, graph.add("Max", [length, least])])
    return x
