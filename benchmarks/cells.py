"""How near the kernels of linear layers come to the machine's peak: by height of a cell, sparsity and instruction set.

One layer of a random encoder, its six linear layers timed one by one inside the engine. ``share_of_peak`` is the kept
work at the peak of the same instructions, measured in the same run from registers alone, over the time that it took. An
instruction set is left out where no kernel of that precision is made for it. Where ``experiments/cells/result.json`` is
present, its scores are put beside its times: ``frontier`` says which heights and levels nothing beats in both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lavolta.bench.peers.own_engine import LINEAR_OPS
from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.spread import spread
from lavolta.bench.synthetic import PRECISIONS, random_weights, shape_spec, write_random_bundle
from lavolta.cli.progress import open_progress
from lavolta.runtime.engine import Model, instruction_sets, open_bundle
from lavolta.sparsity.cells import CELL_ROWS

SPARSITIES = (0.0, 0.5, 0.75, 0.9)
ROUNDS = {True: 2, False: 6}
SCORES = Path(__file__).parents[1] / "experiments" / "cells" / "result.json"

Key = tuple[str, str, int]
"""Precision, instruction set, height of a cell."""


def measure(args: argparse.Namespace, scores: Path = SCORES) -> dict[str, Any]:
    """All heights and instruction sets take turns, one precision after the other."""
    check_threads(args.threads)
    spec, progress = dataclasses.replace(shape_spec(args.shape, max(512, args.tokens)), layers=1), open_progress()
    weights = random_weights(spec, args.seed)
    rounds = ROUNDS[args.quick]
    rows: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            models: dict[Key, Model] = {}
            for cell_rows in [args.cell_rows] if args.cell_rows else CELL_ROWS:
                progress.say(f"make a random {precision} bundle, cells of {cell_rows}")
                path = Path(folder) / f"{cell_rows}.lavolta"
                write_random_bundle(
                    path, spec, SPARSITIES, weights=weights, cell_rows=cell_rows, precision=precision, seed=args.seed
                )
                for isa in instruction_sets():
                    if isa == "reference":
                        continue
                    model = stack.enter_context(open_bundle(path, threads=args.threads, isa=isa))
                    if any(step["isa"] == isa for step in model.explain() if step["op"] in LINEAR_OPS):
                        models[precision, isa, cell_rows] = model
            taken: dict[tuple[Key, str], list[tuple[float, float]]] = {}
            with progress.stage(f"{len(models)} kernels in turn, {precision}", rounds) as stage:
                for _ in range(rounds):
                    for key, model in models.items():
                        for level, times in linear_times(model, args.tokens).items():
                            taken.setdefault((key, level), []).append(times)
                    stage.advance()
            for key, model in models.items():
                for sparsity, level in zip(SPARSITIES, model.levels, strict=True):
                    rows.append(row(key, sparsity, taken[key, level]))
    return {
        **head("cells", args),
        "repetitions": rounds,
        "cells": rows,
        "frontier": frontier(scores),
    }


def linear_times(model: Model, tokens: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of all linear layers, quantizing included, and of their kept work at the peak, by level."""
    found = dict.fromkeys(model.levels, (0.0, 0.0))
    for step in model.explain(measure_tokens=tokens):
        if step["op"] in LINEAR_OPS:
            took, least = found[step["level"]]
            found[step["level"]] = took + step["measured_ms"], least + step.get("expected_ms", 0.0)
    return found


def row(key: Key, sparsity: float, times: list[tuple[float, float]]) -> dict[str, Any]:
    """One kernel at one sparsity: times of its layers, and the share of the peak in the median round."""
    precision, isa, cell_rows = key
    return {
        "precision": precision,
        "isa": isa,
        "cell_rows": cell_rows,
        "sparsity": sparsity,
        **asdict(spread([took for took, _ in times])),
        "share_of_peak": statistics.median(least / took for took, least in times),
    }


def frontier(scores: Path) -> list[dict[str, Any]] | None:
    """Score and milliseconds of every height and level of the experiment; `None` where it has not been run."""
    if not scores.is_file():
        return None
    found = [entry for entry in json.loads(scores.read_text(encoding="utf-8"))["rows"] if entry["score"] is not None]

    def beaten(entry: dict[str, Any]) -> bool:
        return any(
            other["score"] >= entry["score"] and other["ms"] <= entry["ms"] and other != entry for other in found
        )

    return [
        {**{name: entry[name] for name in ("cell_rows", "level", "score", "ms")}, "on_frontier": not beaten(entry)}
        for entry in sorted(found, key=lambda entry: entry["ms"])
    ]


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    shares: dict[tuple[str, str, int], dict[float, float]] = {}
    for entry in result["cells"]:
        shares.setdefault((entry["precision"], entry["isa"], entry["cell_rows"]), {})[entry["sparsity"]] = entry[
            "share_of_peak"
        ]
    rows = [
        [precision, isa, str(cell_rows), *(f"{100 * share[sparsity]:.0f} %" for sparsity in SPARSITIES)]
        for (precision, isa, cell_rows), share in shares.items()
    ]
    heads = ["precision", "instructions", "cell rows", *(f"{100 * sparsity:.0f} %" for sparsity in SPARSITIES)]
    parts = [markdown(heads, rows)]
    if result["frontier"] is not None:
        points = [
            [str(entry["cell_rows"]), entry["level"], number(entry["score"]), number(entry["ms"], 1)]
            for entry in result["frontier"]
            if entry["on_frontier"]
        ]
        parts.append(markdown(["cell rows", "level", "score", "ms"], points))
    return "\n\n".join(parts)


def main() -> None:
    parser = options(__doc__ or "")
    parser.set_defaults(cell_rows=None)  # every height
    args = parser.parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
