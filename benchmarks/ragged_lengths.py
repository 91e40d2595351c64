"""Texts of awkward lengths: does the time of a token depend on more than the tile it is computed in?

The kernels compute tokens in registers of 16, so a text of T tokens costs the linear layers about as much as one of T
rounded up to 16. ``over_tile`` is the time of the linear layers divided by those rounded-up tokens, over the same at
128 tokens: 1 means that the tile explains everything, above 1 that a short or odd text pays more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lavolta.bench.peers.own_engine import LINEAR_OPS
from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.spread import spread
from lavolta.bench.synthetic import PRECISIONS, random_ids, random_weights, shape_spec, write_random_bundle
from lavolta.cli.progress import open_progress
from lavolta.runtime.engine import Model, open_bundle

LENGTHS = (1, 7, 15, 16, 17, 31, 47, 127, 128, 129, 384)
REFERENCE = 128
TILE = 16
SPARSITIES = (0.0, 0.75)
ROUNDS = {True: 5, False: 15}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All lengths take turns, for every precision and sparsity."""
    check_threads(args.threads)
    spec, progress = shape_spec(args.shape), open_progress()
    weights = random_weights(spec, args.seed)
    rows: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.lavolta"
            progress.say(f"make a random {precision} bundle")
            write_random_bundle(
                path, spec, SPARSITIES, weights=weights, cell_rows=args.cell_rows, precision=precision, seed=args.seed
            )
            with open_bundle(path, threads=args.threads) as model:
                rounds = ROUNDS[args.quick]
                with progress.stage(f"run {len(LENGTHS)} lengths in turn, {precision}", rounds) as stage:
                    whole = {(level, tokens): [] for level in range(len(SPARSITIES)) for tokens in LENGTHS}
                    linear = {key: [] for key in whole}
                    for _ in range(rounds):
                        one_round(model, whole, linear, args.seed)
                        stage.advance()
        rows += [
            row(
                precision,
                SPARSITIES[level],
                tokens,
                whole[level, tokens],
                linear[level, tokens],
                linear[level, REFERENCE],
            )
            for level, tokens in whole
        ]
    return {
        **head("ragged_lengths", args),
        "tile": TILE,
        "reference_tokens": REFERENCE,
        "repetitions": ROUNDS[args.quick],
        "worst_over_tile": max(entry["over_tile"] for entry in rows),
        "lengths": rows,
    }


def one_round(
    model: Model, whole: dict[tuple[int, int], list[float]], linear: dict[tuple[int, int], list[float]], seed: int
) -> None:
    """Run and time every length at every level once; the steps of the model are timed in runs of their own."""
    for level, tokens in whole:
        model.switch(level)
        ids = [random_ids(model.spec, tokens, seed)]
        model.run(ids)
        start = time.perf_counter()
        model.run(ids)
        whole[level, tokens].append(1e3 * (time.perf_counter() - start))
    for tokens in dict.fromkeys(tokens for _, tokens in whole):
        total = dict.fromkeys(model.levels, 0.0)
        for step in model.explain(measure_tokens=tokens):
            if step["op"] in LINEAR_OPS:
                total[step["level"]] += step["measured_ms"]
        for level, name in enumerate(model.levels):
            linear[level, tokens].append(total[name])


def row(
    precision: str, sparsity: float, tokens: int, whole: list[float], linear: list[float], reference: list[float]
) -> dict[str, Any]:
    """One length: what it took, and what the tile explains of it."""
    padded, padded_reference = -(-tokens // TILE) * TILE, -(-REFERENCE // TILE) * TILE
    times, linear_ms = spread(whole), statistics.median(linear)
    return {
        "precision": precision,
        "sparsity": sparsity,
        "tokens": tokens,
        "padded_tokens": padded,
        **asdict(times),
        "per_token_us": 1e3 * times.median_ms / tokens,
        "linear_ms": linear_ms,
        "tile_factor": padded / tokens,
        "over_tile": (linear_ms / padded) / (statistics.median(reference) / padded_reference),
    }


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    parts = []
    for precision in dict.fromkeys(entry["precision"] for entry in result["lengths"]):
        for sparsity in SPARSITIES:
            rows = [
                [
                    str(entry["tokens"]),
                    number(entry["median_ms"]),
                    number(entry["mad_ms"]),
                    number(entry["per_token_us"], 1),
                    number(entry["tile_factor"]),
                    number(entry["over_tile"]),
                ]
                for entry in result["lengths"]
                if (entry["precision"], entry["sparsity"]) == (precision, sparsity)
            ]
            heads = [f"tokens ({precision}, {100 * sparsity:.0f} %)", "median ms", "± ms", "microseconds a token"]
            parts.append(markdown([*heads, "the tile's share", "beyond the tile"], rows))
    return "\n\n".join(parts)


def main() -> None:
    args = options(__doc__ or "").parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
