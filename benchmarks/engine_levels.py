"""Time of the native engine at every sparsity and cell height, beside PyTorch fp32, in one interleaved run.

Weights and masks are random: time depends on how many cells are kept, not on which. ``--json -`` prints one JSON
object as the last line, ``--json FILE`` writes it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lavolta.bench.script import markdown
from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.engine import Model, instruction_sets, open_bundle
from lavolta.runtime.measure import cpu_name, switch_times
from lavolta.runtime.spec import ModelSpec
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.packing import pack_linear

SPARSITIES = (0.0, 0.5, 0.75, 0.9)
SHAPES = {"minilm": (6, 384, 12, 1536), "distilbert": (6, 768, 12, 3072)}


def write_random(path: Path, spec: ModelSpec, cell_rows: int) -> None:
    """A bundle with nested random levels at `SPARSITIES`."""
    generator = np.random.default_rng(0)
    tensors = {
        name: (0.02 * generator.standard_normal(shape) + name.endswith("norm.weight")).astype(np.float32)
        for name, shape in dense_shapes(spec).items()
    }
    packed = {}
    for name, shape in spec.linear_shapes().items():
        grid = CellGrid(*shape, cell_rows)
        shares = generator.random(grid.shape)
        weight = (0.02 * generator.standard_normal(shape)).astype(np.float32)
        packed[name] = pack_linear(weight, [shares < 1.0 - s for s in SPARSITIES], cell_rows)
    levels = [
        {
            "name": f"{s:.0%}",
            "sparsity": s,
            "kept_cells": {name: layer.kept_cells(index) for name, layer in packed.items()},
        }
        for index, s in enumerate(SPARSITIES)
    ]
    write_bundle(path, spec, tensors, packed, {}, levels, cell_rows, {"kind": "ranked"})


def torch_model(spec: ModelSpec, threads: int) -> Callable[[list[list[int]]], object]:
    """The same shape in PyTorch, through transformers, with its fused attention."""
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(threads)
    config = BertConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.ffn,
        max_position_embeddings=spec.max_tokens,
    )
    model = BertModel(config, add_pooling_layer=False).eval()

    def run(ids: list[list[int]]) -> object:
        with torch.inference_mode():
            return model(torch.tensor(ids)).last_hidden_state.mean(1)

    return run


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def summary(samples: list[float]) -> dict[str, float]:
    """Median, the quartiles around it, and the fastest."""
    low, median, high = statistics.quantiles(samples, n=4)
    return {"median_ms": median, "quartile_1_ms": low, "quartile_3_ms": high, "min_ms": min(samples)}


def linear_ms(model: Model, tokens: int, repetitions: int) -> list[float]:
    """Fastest total time of all linear layers, per level."""
    best = [float("inf")] * len(model.levels)
    for _ in range(repetitions):
        total = dict.fromkeys(model.levels, 0.0)
        for row in model.explain(measure_tokens=tokens):
            if row["op"] == "linear":
                total[row["level"]] += row["measured_ms"]
        best = [min(old, total[name]) for old, name in zip(best, model.levels, strict=True)]
    return best


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    layers, hidden, heads, ffn = SHAPES[args.shape]
    spec = ModelSpec("random", layers, hidden, heads, ffn, vocab=1000, max_tokens=max(512, args.tokens), types=2)
    models: dict[int, Model] = {}
    for cell_rows in args.cell_rows:
        path = folder / f"{cell_rows}.lavolta"
        write_random(path, spec, cell_rows)
        models[cell_rows] = open_bundle(path, threads=args.threads, isa=args.isa)
    ids = [[token % spec.vocab for token in range(args.tokens)]]
    peer = None if args.no_torch else torch_model(spec, args.threads)
    times: dict[Any, list[float]] = {}
    for repetition in range(args.repetitions + 1):
        calls: list[tuple[Any, Callable[[], object]]] = [("torch", lambda: peer(ids))] if peer else []
        for cell_rows, model in models.items():
            for level in range(len(SPARSITIES)):
                calls.append(((cell_rows, level), lambda m=model, n=level: (m.switch(n), m.run(ids))))
        for key, call in calls:
            taken = milliseconds(call)
            if repetition > 0:  # the first round warms caches
                times.setdefault(key, []).append(taken)
    rows = []
    for cell_rows, model in models.items():
        linear = linear_ms(model, args.tokens, 3)
        for level, sparsity in enumerate(SPARSITIES):
            row: dict[str, Any] = {"cell_rows": cell_rows, "sparsity": sparsity, **summary(times[cell_rows, level])}
            row["linear_min_ms"] = linear[level]
            row["linear_over_dense"] = linear[level] / linear[0]
            if peer:
                row["torch_over_this"] = statistics.median(times["torch"]) / row["median_ms"]
                row["torch_over_this_min"] = min(times["torch"]) / row["min_ms"]
            rows.append(row)
    return {
        "shape": args.shape,
        "tokens": args.tokens,
        "threads": args.threads,
        "isa": args.isa or instruction_sets()[-1],
        "cpu": cpu_name(),
        "repetitions": args.repetitions,
        "torch_fp32": summary(times["torch"]) if peer else None,
        "switch": asdict(switch_times(models[args.cell_rows[0]])),
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = [
        [
            str(row["cell_rows"]),
            f"{row['sparsity']:.0%}",
            f"{row['median_ms']:.2f}",
            f"{row['min_ms']:.2f}",
            f"{row['linear_min_ms']:.2f}",
            f"{row['linear_over_dense']:.2f}",
            f"{row['torch_over_this']:.2f}" if "torch_over_this" in row else "-",
        ]
        for row in result["rows"]
    ]
    heads = [
        "cell rows",
        "sparsity",
        "median ms",
        "fastest ms",
        "linear layers, fastest ms",
        "of dense",
        "PyTorch / this",
    ]
    peer = result["torch_fp32"]
    words = f"\n\nPyTorch fp32: {peer['median_ms']:.2f} ms." if peer else ""
    return markdown(heads, rows) + words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="minilm")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cell-rows", type=int, nargs="+", default=[8, 4, 1])
    parser.add_argument("--isa", help="the best instruction set allowed; default: all that the CPU has")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - prints it as the last line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    print(table(result), file=sys.stderr)
    if args.json == "-":
        print(json.dumps(result))
    elif args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
