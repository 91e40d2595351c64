"""La Volta's own engine as one of the contestants."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lavolta.bench.decoders import one_token
from lavolta.bench.peers import Job, Loaded
from lavolta.bench.synthetic import random_ids
from lavolta.runtime.engine import open_bundle

LINEAR_OPS = ("linear", "quantize")
"""Steps that belong to linear layers: those in int8 quantize their inputs."""


def load(job: Job) -> Loaded:
    """Open a bundle; `Job.model` is its path. A turn of a language model is one token behind a context."""
    model = open_bundle(job.model, threads=job.threads, isa=job.isa)
    ids = [random_ids(model.spec, job.tokens, job.seed)]
    writes = model.spec.causal and model.spec.pooling == "none"
    # The peers compute the mean of the last layer; a bundle's own pooling and head may differ.
    same = model.spec.pooling == "mean" and not model.spec.normalize and not model.spec.outputs
    same = same and model.spec.head_dense is None

    def run() -> NDArray[np.float32]:
        return model.run(ids) if same else model.run(ids, per_token=True).mean(axis=0)

    def switch(level: int) -> None:
        model.switch(level)

    def linear_ms() -> list[float]:
        total = dict.fromkeys(model.levels, 0.0)
        for row in model.explain(measure_tokens=job.tokens):
            if row["op"] in LINEAR_OPS:
                total[row["level"]] += row["measured_ms"]
        return list(total.values())

    rows = [row for row in model.explain() if row["op"] == "linear"]
    kernels = sorted({str(row["kernel"]) for row in rows})
    about = {"version": model.manifest["lavolta_version"], "instruction_set": ", ".join(kernels)}
    turn = one_token(model, ids[0]) if writes else run
    return Loaded(turn, {**about, "amx": any("amx" in kernel for kernel in kernels)}, switch, linear_ms)
