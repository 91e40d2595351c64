"""OpenVINO: fp32, bf16, and int8 quantized after training by NNCF."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lavolta.bench.peers import Job, Loaded
from lavolta.bench.peers.onnx_graph import encoder_graph
from lavolta.bench.synthetic import random_ids
from lavolta.errors import UserInputError
from lavolta.runtime.spec import ModelSpec

_PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
_CALIBRATION_SEQUENCES = 4
ONEDNN_LIMITS = {
    "avx2": "AVX2",
    "avx2_vnni": "AVX2_VNNI",
    "avx512": "AVX512_CORE",
    "avx512_vnni": "AVX512_CORE_VNNI",
    "avx512_bf16": "AVX512_CORE_BF16",
}
"""Our name of an instruction set, and the limit that its library of kernels (oneDNN) reads from the environment."""


def load(job: Job) -> Loaded:
    """Compile the model for latency on one stream.

    Raises:
        UserInputError: an unknown precision or limit.
    """
    if job.precision not in _PRECISION_HINTS:
        raise UserInputError(f"OpenVINO is compared in {', '.join(_PRECISION_HINTS)}, not in {job.precision}.")
    if job.isa is not None:
        if job.isa not in ONEDNN_LIMITS:
            raise UserInputError(f"OpenVINO cannot be limited to {job.isa}; choose one of {', '.join(ONEDNN_LIMITS)}.")
        # Read when the library loads its kernels, so before it is imported.
        os.environ["ONEDNN_MAX_CPU_ISA"] = ONEDNN_LIMITS[job.isa]
    import openvino

    spec = ModelSpec.from_dict(job.spec)
    core = openvino.Core()
    # Quantization takes long and does not depend on the limit: the next worker on these weights finds it here.
    stored = Path(job.model).with_name(f"quantized-{job.tokens}.xml")
    if job.precision == "int8" and stored.exists():
        model = core.read_model(stored)
    else:
        weights = load_file(job.model)
        model = core.read_model(encoder_graph(spec, weights, job.tokens).SerializeToString())
        if job.precision == "int8":
            model = _quantize(model, spec, job)
            openvino.save_model(model, stored, compress_to_fp16=False)
    settings = {
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[job.precision],
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    feed = {0: random_ids(spec, job.tokens, job.seed)[None]}

    def run() -> NDArray[np.float32]:
        output: NDArray[np.float32] = request.infer(feed)[0]
        return output

    run()
    kernels = _kernels(compiled)
    about = {
        "version": openvino.__version__.partition("-")[0],
        "instruction_set": ", ".join(kernels),
        "amx": any("amx" in kernel for kernel in kernels),
    }
    return Loaded(run, about)


def _quantize(model: Any, spec: ModelSpec, job: Job) -> Any:
    """Weights and activations in int8, with NNCF's recipe for Transformers."""
    import nncf

    sequences = [random_ids(spec, job.tokens, job.seed + i)[None] for i in range(_CALIBRATION_SEQUENCES)]
    # The correction of biases changes their values only: time is the same, and it takes long.
    advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
    return nncf.quantize(
        model,
        nncf.Dataset(sequences, lambda ids: {"input_ids": ids}),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=_CALIBRATION_SEQUENCES,
        advanced_parameters=advanced,
    )


def _kernels(compiled: Any) -> list[str]:
    """What the compiled model runs its matrix products with, most used first."""
    count: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if "layerType" in info and str(info["layerType"].astype(str)) in ("FullyConnected", "MatMul"):
            name = str(info["primitiveType"].astype(str)).lower()
            count[name] = count.get(name, 0) + 1
    return sorted(count, key=lambda name: -count[name])
