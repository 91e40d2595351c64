"""Nodes and constants of an ONNX graph, in the order of the computation: what exports and peers build theirs with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET = 20
"""The first that has GELU as one operation."""
IR_VERSION = 9
FUSED_DOMAIN = "com.microsoft"


class Graph:
    """A graph in the making; a value is known by the name of its tensor.

    Args:
        weights: canonical names to arrays that `constant` and the layers take theirs from.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.fused = False

    def add(self, operation: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        """One operation; its output is what is returned."""
        from onnx import helper

        output = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [output], domain=domain, **attributes))
        self.fused |= domain != ""
        return output

    def constant(self, name: str, value: NDArray[Any] | None = None) -> str:
        """A constant of the graph: ``value``, or the weight of that name."""
        self.constants[name] = self.weights[name] if value is None else value
        return name

    def integers(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.constant("int64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def linear(self, x: str, name: str) -> str:
        """``x W^T + b`` of the linear ``name``."""
        # MatMul with the weight on the right is what exporters write and what every peer's fusions look for.
        weight = self.constant(f"{name}.weight_t", np.ascontiguousarray(self.weights[f"{name}.weight"].T))
        return self.add("Add", [self.add("MatMul", [x, weight]), self.constant(f"{name}.bias")])

    def norm(self, x: str, name: str, eps: float) -> str:
        """Layer norm over the last axis."""
        parts = [x, self.constant(f"{name}.weight"), self.constant(f"{name}.bias")]
        return self.add("LayerNormalization", parts, axis=-1, epsilon=eps)

    def activation(self, x: str, name: str) -> str:
        """``"relu"``, ``"tanh"``, ``"gelu"`` or ``"gelu_tanh"``."""
        if name in ("relu", "tanh"):
            return self.add(name.capitalize(), [x])
        return self.add("Gelu", [x], approximate="tanh" if name == "gelu_tanh" else "none")

    def model(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """The whole as an `onnx.ModelProto`."""
        from onnx import helper, numpy_helper

        constants = [numpy_helper.from_array(value, key) for key, value in self.constants.items()]
        made = helper.make_graph(self.nodes, name, list(inputs), list(outputs), constants)
        opsets = [helper.make_opsetid("", OPSET)]
        if self.fused:
            opsets.append(helper.make_opsetid(FUSED_DOMAIN, 1))
        return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)
