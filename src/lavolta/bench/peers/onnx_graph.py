"""The canonical encoder as an ONNX graph, for the peers that read one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavolta.runtime.spec import ModelSpec

OPSET = 20
"""The first that has GELU as one operation."""
IR_VERSION = 9
_FUSED_DOMAIN = "com.microsoft"


class _Graph:
    """Nodes and constants, added in the order of the computation; a value is known by the name of its tensor."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.fused = False

    def add(self, operation: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [output], domain=domain, **attributes))
        self.fused |= domain != ""
        return output

    def constant(self, name: str, value: NDArray[Any] | None = None) -> str:
        self.constants[name] = self.weights[name] if value is None else value
        return name

    def linear(self, x: str, name: str) -> str:
        # MatMul with the weight on the right is what exporters write and what every peer's fusions look for.
        weight = self.constant(f"{name}.weight_t", np.ascontiguousarray(self.weights[f"{name}.weight"].T))
        return self.add("Add", [self.add("MatMul", [x, weight]), self.constant(f"{name}.bias")])

    def norm(self, x: str, name: str, eps: float) -> str:
        parts = [x, self.constant(f"{name}.weight"), self.constant(f"{name}.bias")]
        return self.add("LayerNormalization", parts, axis=-1, epsilon=eps)


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
    from onnx import TensorProto, helper, numpy_helper

    graph = _Graph(weights)
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
        up = _activation(graph, graph.linear(x, f"{prefix}.ffn.up"), spec.activation)
        x = graph.norm(
            graph.add("Add", [x, graph.linear(up, f"{prefix}.ffn.down")]), f"{prefix}.ffn_norm", spec.norm_eps
        )
    axes = graph.constant("pooled_axes", np.array([1], np.int64))
    pooled = graph.add("ReduceMean", [x, axes], keepdims=0)
    made = helper.make_graph(
        graph.nodes,
        spec.name,
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, tokens])],
        [helper.make_tensor_value_info(pooled, TensorProto.FLOAT, [1, spec.hidden])],
        [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    if graph.fused:
        opsets.append(helper.make_opsetid(_FUSED_DOMAIN, 1))
    return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)


def _activation(graph: _Graph, x: str, name: str) -> str:
    if name == "relu":
        return graph.add("Relu", [x])
    return graph.add("Gelu", [x], approximate="tanh" if name == "gelu_tanh" else "none")


def _attention(graph: _Graph, x: str, name: str, spec: ModelSpec, tokens: int) -> str:
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


def _fused_attention(graph: _Graph, x: str, name: str, spec: ModelSpec) -> str:
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([graph.weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([graph.weights[f"{part}.bias"] for part in parts])
    inputs = [x, graph.constant(f"{name}.qkv", np.ascontiguousarray(weight)), graph.constant(f"{name}.qkv_bias", bias)]
    return graph.add("Attention", inputs, domain=_FUSED_DOMAIN, num_heads=spec.heads)
