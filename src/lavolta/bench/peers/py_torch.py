"""PyTorch, eager, with its fused attention: fp32 and bf16."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lavolta.bench.machine import cpu_flags
from lavolta.bench.peers import Job, Loaded
from lavolta.bench.synthetic import random_ids
from lavolta.errors import UserInputError
from lavolta.runtime.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

# ATen's own kernels, oneDNN and MKL each read their own limit.
_LIMITS = {"avx2": ("avx2", "AVX2", "AVX2"), "avx512": ("avx512", "AVX512_CORE", "AVX512")}


def load(job: Job) -> Loaded:
    """The encoder as calls of functions on tensors, without the modules around them.

    Raises:
        UserInputError: another precision, or an instruction set that it cannot be limited to.
    """
    if job.precision not in ("fp32", "bf16"):
        raise UserInputError(f"PyTorch is compared in fp32 and bf16, not in {job.precision}.")
    if job.isa is not None:
        if job.isa not in _LIMITS:
            raise UserInputError(f"PyTorch cannot be limited to {job.isa}; choose one of {', '.join(_LIMITS)}.")
        names = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
        os.environ.update(zip(names, _LIMITS[job.isa], strict=True))
    import torch
    from torch.nn import functional

    torch.set_num_threads(job.threads)
    torch.set_num_interop_threads(1)
    spec = ModelSpec.from_dict(job.spec)
    kind = torch.bfloat16 if job.precision == "bf16" else torch.float32
    weights = {name: torch.from_numpy(array).to(kind) for name, array in load_file(job.model).items()}
    ids = torch.from_numpy(random_ids(spec, job.tokens, job.seed))[None]

    def activate(x: Tensor) -> Tensor:
        if spec.activation == "relu":
            return functional.relu(x)
        return functional.gelu(x, approximate="tanh" if spec.activation == "gelu_tanh" else "none")

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        parts = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.layer_norm(x, (spec.hidden,), *parts, eps=spec.norm_eps)

    def heads(x: Tensor, name: str) -> Tensor:
        return linear(x, name).view(1, job.tokens, spec.heads, -1).transpose(1, 2)

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            x = functional.embedding(ids, weights["embeddings.word"]) + weights["embeddings.position"][: job.tokens]
            x = norm(x, "embeddings.norm")
            for layer in range(spec.layers):
                part = f"layers.{layer}.attention"
                query, key, value = (heads(x, f"{part}.{which}") for which in ("query", "key", "value"))
                mixed = functional.scaled_dot_product_attention(query, key, value)
                mixed = mixed.transpose(1, 2).reshape(1, job.tokens, spec.hidden)
                x = norm(x + linear(mixed, f"{part}.output"), f"{part}_norm")
                part = f"layers.{layer}.ffn"
                x = norm(x + linear(activate(linear(x, f"{part}.up")), f"{part}.down"), f"{part}_norm")
            output: NDArray[np.float32] = x.mean(dim=1).float().numpy()
            return output

    capability = torch.backends.cpu.get_cpu_capability()
    uses_amx = job.precision == "bf16" and "amx_bf16" in cpu_flags() and job.isa is None
    about = {
        "version": torch.__version__,
        "instruction_set": f"{capability.lower()}{', amx' if uses_amx else ''}",
        "amx": uses_amx,
    }
    return Loaded(run, about)
