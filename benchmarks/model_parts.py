"""Where the time of an encoder goes: linear layers, and everything that is left outside them.

Two shapes that people run, two lengths, both precisions, dense and at 75 %, as the engine times its own steps. Sparsity
shrinks the linear layers and nothing else, so the rest is what remains to be gained once they are fast.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.synthetic import PRECISIONS, level_name, random_weights, shape_spec, write_random_bundle
from lavolta.cli.progress import open_progress
from lavolta.runtime.engine import open_bundle
from lavolta.runtime.parts import PARTS, part_times_ms

LENGTHS = (128, 384)
SPARSITIES = (0.0, 0.75)
SHAPES = ("minilm", "distilbert")
ROUNDS = {True: 1, False: 5}


def measure(args: argparse.Namespace, shapes: tuple[str, ...] = SHAPES) -> dict[str, Any]:
    """All lengths and levels of a bundle take turns; every step's median over the rounds."""
    check_threads(args.threads)
    progress, rows = open_progress(), []
    for shape in shapes:
        spec = shape_spec(shape)
        weights = random_weights(spec, args.seed)
        for precision in PRECISIONS:
            progress.say(f"time the steps of {shape} in {precision}")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.lavolta"
                write_random_bundle(
                    path,
                    spec,
                    SPARSITIES,
                    weights=weights,
                    cell_rows=args.cell_rows,
                    precision=precision,
                    seed=args.seed,
                )
                rows += parts_of(path, args.threads, ROUNDS[args.quick], {"shape": shape, "precision": precision})
    top = head("model_parts", args)
    machine, rounds = top["machine"], ROUNDS[args.quick]
    return {
        **top,
        "conditions": (
            f"{machine['cpu']} ({' '.join(machine['cpu_flags'])}); {args.threads} thread{'s' * (args.threads > 1)}; "
            f"cells of {args.cell_rows} rows; medians of {rounds} times five runs; {top['date']}"
        ),
        "repetitions": rounds,
        "rows": rows,
    }


def parts_of(path: Path, threads: int, rounds: int, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """One record for each length and level of a bundle: milliseconds by part, the share outside linear layers."""
    times: dict[tuple[int, float], list[dict[str, float]]] = {}
    with open_bundle(path, threads=threads) as model:
        for _ in range(rounds):
            for tokens in LENGTHS:
                records = model.explain(measure_tokens=tokens)
                for sparsity in SPARSITIES:
                    found = part_times_ms(records, level_name(sparsity))
                    times.setdefault((tokens, sparsity), []).append(found)
    rows = []
    for (tokens, sparsity), found in times.items():
        parts = {part: statistics.median(one[part] for one in found) for part in PARTS if part in found[0]}
        whole = sum(parts.values())
        rows.append(
            {
                **facts,
                "tokens": tokens,
                "sparsity": sparsity,
                "whole_ms": whole,
                "parts_ms": parts,
                "outside_linear": 1 - parts["linear layers"] / whole,
            }
        )
    return rows


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = [
        [
            f"{row['shape']}, {row['tokens']} tokens, {row['precision']}, {100 * row['sparsity']:.0f} %",
            number(row["whole_ms"]),
            *(number(100 * row["parts_ms"].get(part, 0.0) / row["whole_ms"], 1) for part in PARTS),
        ]
        for row in result["rows"]
    ]
    return markdown(["model", "ms", *(f"{part}, %" for part in PARTS)], rows)


def main() -> None:
    args = options(__doc__ or "").parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
