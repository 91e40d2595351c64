"""The engines that are compared: one module for each, imported only in the process that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Job:
    """What a worker process is to run; it travels to the process as JSON.

    Args:
        engine: a key of `ENGINES`.
        precision: ``fp32``, ``bf16`` or ``int8``.
        spec: of the model, as `ModelSpec.as_dict` gives it.
        model: path of a bundle (our engine) or of a safetensors file with `random_weights` (peers).
        tokens: length of the one sequence.
        threads: threads of a run.
        isa: the best instruction set allowed, by our engine's name; ``None`` allows all. Peers that cannot be limited
            refuse.
        seed: of the token ids.
    """

    engine: str
    precision: str
    spec: dict[str, Any]
    model: str
    tokens: int
    threads: int = 1
    isa: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run.

    Args:
        run: one inference; returns the mean of the last layer, ``(hidden,)`` or ``(1, hidden)``. Of a language model:
            the last token behind the others, whose keys and values are cached; returns its logits.
        about: ``version``, ``instruction_set`` (what it computes linear layers with), and ``amx`` (whether that uses
            matrix tiles; ``None`` where the library does not tell).
        switch: choose a level by index; only our engine has levels.
        linear_ms: time of all linear layers of one inference, for every level; only our engine tells.
    """

    run: Callable[[], NDArray[np.float32]]
    about: dict[str, Any] = field(default_factory=dict)
    switch: Callable[[int], None] | None = None
    linear_ms: Callable[[], list[float]] | None = None


ENGINES = {
    "llama.cpp": "lavolta.bench.peers.llama_cpp_q8",
    "lavolta": "lavolta.bench.peers.own_engine",
    "onnxruntime": "lavolta.bench.peers.onnx_runtime",
    "openvino": "lavolta.bench.peers.open_vino",
    "pytorch": "lavolta.bench.peers.py_torch",
}
"""Module of each engine; it has ``load(job: Job) -> Loaded``."""
PEERS = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("pytorch", "fp32"),
    ("pytorch", "bf16"),
)
"""What users would run instead: engine and precision."""
