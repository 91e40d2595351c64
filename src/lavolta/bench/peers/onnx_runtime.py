"""ONNX Runtime, fp32 and dynamically quantized int8, as its users run encoders on a CPU."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lavolta.bench.machine import cpu_flags, has_amx
from lavolta.bench.peers import Job, Loaded
from lavolta.bench.peers.onnx_graph import encoder_graph
from lavolta.bench.synthetic import random_ids
from lavolta.errors import UserInputError
from lavolta.runtime.spec import ModelSpec

_TRIALS = 3


def load(job: Job) -> Loaded:
    """The faster of two graphs: standard operations, or its own fused attention.

    Raises:
        UserInputError: another precision, or a limit on the instruction set, which it does not have.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if job.precision not in ("fp32", "int8"):
        raise UserInputError(f"ONNX Runtime runs no {job.precision} on a CPU; choose fp32 or int8.")
    if job.isa is not None:
        raise UserInputError("ONNX Runtime cannot be limited to an instruction set; leave it out.")
    spec = ModelSpec.from_dict(job.spec)
    weights = load_file(job.model)
    feed = {"input_ids": random_ids(spec, job.tokens, job.seed)[None]}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    # Threads that spin between runs would take the core from whoever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if job.threads == 1 else "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # It advises to prepare the graph for static quantization, which this is not.
    logging.getLogger().setLevel(logging.ERROR)

    def session(folder: Path, fused: bool) -> Callable[[], NDArray[np.float32]]:
        path = folder / "model.onnx"
        onnx.save(encoder_graph(spec, weights, job.tokens, fused_attention=fused), path)
        if job.precision == "int8":
            float_type = {"DefaultTensorType": onnx.TensorProto.FLOAT}
            quantized = folder / "quantized.onnx"
            quantize_dynamic(path, quantized, weight_type=QuantType.QInt8, extra_options=float_type)
            path = quantized
        made = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def run() -> NDArray[np.float32]:
            output: NDArray[np.float32] = made.run(None, feed)[0]
            return output

        return run

    found: dict[str, tuple[float, Callable[[], NDArray[np.float32]]]] = {}
    for graph in ("standard attention", "fused attention"):
        with tempfile.TemporaryDirectory() as folder:
            run = session(Path(folder), graph == "fused attention")
        found[graph] = (_fastest_ms(run), run)
    best = min(found, key=lambda graph: found[graph][0])
    uses_amx = job.precision == "int8" and has_amx()
    allowed = [flag for flag in ("amx_int8", "avx512_vnni", "avx512f", "avx_vnni", "avx2") if flag in cpu_flags()]
    about = {
        "version": onnxruntime.__version__,
        "instruction_set": f"not reported, this CPU has {allowed[0]}" if allowed else "not reported",
        "amx": uses_amx,
        "graph": best,
    }
    return Loaded(found[best][1], about)


def _fastest_ms(run: Callable[[], NDArray[np.float32]]) -> float:
    run()
    times = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)
