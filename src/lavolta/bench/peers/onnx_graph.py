"""The canonical encoder as an ONNX graph, for the peers that read one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.models.onnx_graph import FUSED_DOMAIN, Graph
from lavolta.runtime.spec import ModelSpec


def encoder_graph(
    spec: ModelSpec, weights: Mapping[str, NDArray[np.float32]], tokens: int, *, fused_attention: bool = False
) -> Any:
    """An `onnx.ModelProto`: ``input_ids (1, tokens) int64`` to the mean of the last layer ``(1, hidden)``.

    The length is fixed and there is no padding mask: peers do no more work than the engine does.

    Args:
        spec: an encoder that `lavolta.bench.synthetic.peer_spec` made.
        weights: `lavolta.bench.synthetic.random_weights` of it.
        tokens: length of the sequence.
        fused_attention: use ONNX Runtime's own attention operation instead of the standard ones.
    """
    from onnx import TensorProto, helper

    graph = Graph(weights)
    word = graph.add("Gather", [graph.constant("embeddings.word"), "input_ids"])
    position = graph.constant("positions", weights["embeddings.position"][None, :tokens])
    x = graph.norm(graph.add("Add", [word, position]), "embeddings.norm", spec.norm_eps)
    for layer in range(spec.layers):
        prefix = f"layers.{layer}"
        name = f"{prefix}.attention"
        if fused_attention:
            context = _fused_attention(graph, x, name, spec)
        else:
            context = _attention(graph, x, name, spec, tokens)
        branch = graph.linear(context, f"{name}.output")
        x = graph.norm(graph.add("Add", [x, branch]), f"{name}_norm", spec.norm_eps)
        up = graph.activation(graph.linear(x, f"{prefix}.ffn.up"), spec.activation)
        x = graph.norm(
            graph.add("Add", [x, graph.linear(up, f"{prefix}.ffn.down")]), f"{prefix}.ffn_norm", spec.norm_eps
        )
    axes = graph.constant("pooled_axes", np.array([1], np.int64))
    pooled = graph.add("ReduceMean", [x, axes], keepdims=0)
    return graph.model(
        spec.name,
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, tokens])],
        [helper.make_tensor_value_info(pooled, TensorProto.FLOAT, [1, spec.hidden])],
    )


def _attention(graph: Graph, x: str, name: str, spec: ModelSpec, tokens: int) -> str:
    size = spec.hidden // spec.heads
    split = graph.constant("split_heads", np.array([1, tokens, spec.heads, size], np.int64))
    merge = graph.constant("merge_heads", np.array([1, tokens, spec.hidden], np.int64))
    scale = graph.constant("score_scale", np.array(1.0 / math.sqrt(size), np.float32))

    def heads(part: str, order: list[int]) -> str:
        return graph.add("Transpose", [graph.add("Reshape", [graph.linear(x, f"{name}.{part}"), split])], perm=order)

    query, key = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1])
    scores = graph.add("Mul", [graph.add("MatMul", [query, key]), scale])
    mixed = graph.add("MatMul", [graph.add("Softmax", [scores], axis=-1), heads("value", [0, 2, 1, 3])])
    return graph.add("Reshape", [graph.add("Transpose", [mixed], perm=[0, 2, 1, 3]), merge])


def _fused_attention(graph: Graph, x: str, name: str, spec: ModelSpec) -> str:
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([graph.weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([graph.weights[f"{part}.bias"] for part in parts])
    inputs = [x, graph.constant(f"{name}.qkv", np.ascontiguousarray(weight)), graph.constant(f"{name}.qkv_bias", bias)]
    return graph.add("Attention", inputs, domain=FUSED_DOMAIN, num_heads=spec.heads)
