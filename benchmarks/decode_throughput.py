"""Tokens a second of 12-layer decoders, one at a time: dense and pruned, fp32 and int8, beside llama.cpp's Q8_0.

Everybody runs in a process of its own, on the same weights (random, from the seed), behind the same context, which is
read once and cached, and takes turns. The output layer is packed and pruned like the other linears. Ratios are of
medians; above 1, ours is faster. A ratio that cannot be formed is null, with the reason in ``reasons``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
from pathlib import Path
from typing import Any

from lavolta.bench.decoders import DECODERS, VOCAB, decoder_spec, decoder_weights, write_decoder
from lavolta.bench.lineup import Lineup
from lavolta.bench.machine import machine
from lavolta.bench.script import finish, markdown, number
from lavolta.bench.synthetic import CELL_ROWS, PRECISIONS
from lavolta.cli.progress import open_progress
from lavolta.sparsity.cells import CELL_ROWS as HEIGHTS

SPARSITIES = (0.0, 0.5, 0.75, 0.9)
TARGETS = {"sparse_75_over_dense": 3.0, "dense_int8_vs_llama_cpp": 1.0}
FULL, QUICK = (20, 6), (6, 5)
QUICK_VOCAB = 8192


def own(precision: str, sparsity: float, threads: int) -> str:
    """Name of one of our contestants."""
    return f"lavolta {precision} {100 * sparsity:g} %, {threads} thread{'s' * (threads > 1)}"


def peer(threads: int) -> str:
    """Name of the peer's."""
    return f"llama.cpp q8_0, {threads} thread{'s' * (threads > 1)}"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every kind of decoder by itself; the promised ratios are the worst of them, with one thread."""
    threads = sorted({1, min(2, len(os.sched_getaffinity(0)))})
    rounds, repeat = QUICK if args.quick else FULL
    vocab = QUICK_VOCAB if args.quick and args.vocab == VOCAB else args.vocab
    found = {kind: measure_kind(args, kind, vocab, threads, rounds, repeat) for kind in args.kinds}
    reasons = {key: reason for result in found.values() for key, reason in result["reasons"].items()}
    return {
        "benchmark": "decode_throughput",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "layers": args.layers,
        "hidden": args.hidden,
        "vocab": vocab,
        "tokens": args.tokens,
        "threads": max(threads),
        "cell_rows": args.cell_rows,
        "seed": args.seed,
        "quick": args.quick,
        "repetitions": rounds * repeat,
        **worst(list(found.values())),
        "reasons": reasons,
        "targets": TARGETS,
        "decoders": found,
    }


def worst(found: list[dict[str, Any]]) -> dict[str, float | None]:
    """The promised ratios, of the decoder that has the smallest."""
    values = {key: [result[key] for result in found] for key in TARGETS}
    return {key: None if None in each else min(each) for key, each in values.items()}


def measure_kind(
    args: argparse.Namespace, kind: str, vocab: int, threads: list[int], rounds: int, repeat: int
) -> dict[str, Any]:
    """All contestants on one decoder."""
    spec, progress = decoder_spec(kind, max(512, args.tokens), vocab, args.layers, args.hidden), open_progress()
    weights = decoder_weights(spec, args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Lineup(folder, spec, weights, args.tokens, progress) as lineup:
            for precision in PRECISIONS:
                path = folder / f"{precision}.lavolta"
                progress.say(f"make a random {precision} bundle of {spec.name}")
                write_decoder(
                    path, spec, weights, SPARSITIES, cell_rows=args.cell_rows, precision=precision, seed=args.seed
                )
                for count in threads:
                    levels = {own(precision, s, count): (i, s) for i, s in enumerate(SPARSITIES)}
                    lineup.add_own(path, precision, levels, threads=count)
            for count in threads:
                lineup.add_peer("llama.cpp", "q8_0", name=peer(count), threads=count)
            times = lineup.race(rounds, repeat)
            records = lineup.records(times, own("fp32", 0.0, 1))
    for record in records:
        record["tokens_per_s"] = None if record["median_ms"] is None else 1e3 / record["median_ms"]
    return {"ffn": spec.ffn, **ratios_of(records), "contestants": records}


def ratios_of(records: list[dict[str, Any]], time: str = "median_ms") -> dict[str, Any]:
    """The ratios of one thread, of a field of the records in milliseconds; of two precisions the worse one."""
    by_name = {record["name"]: record for record in records}
    by_precision = {
        precision: by_name[own(precision, 0.0, 1)][time] / by_name[own(precision, 0.75, 1)][time]
        for precision in PRECISIONS
    }
    theirs = by_name[peer(1)]
    against = theirs["median_ms"] and theirs[time] / by_name[own("int8", 0.0, 1)][time]
    return {
        "sparse_75_over_dense": min(by_precision.values()),
        "sparse_75_over_dense_by_precision": by_precision,
        "dense_int8_vs_llama_cpp": against,
        "reasons": {} if against else {"dense_int8_vs_llama_cpp": theirs["reason"]},
    }


def table(result: dict[str, Any]) -> str:
    """Tokens a second of every contestant, and the targets."""
    rows = []
    for kind, found in result["decoders"].items():
        for record in found["contestants"]:
            reason = record.get("reason", "")
            spread_ms = number(record.get("mad_ms"), 3)
            rows.append(
                [
                    kind,
                    record["name"],
                    number(record["tokens_per_s"], 1),
                    number(record["median_ms"], 2),
                    spread_ms,
                    reason,
                ]
            )
    fastest = worst([ratios_of(found["contestants"], "min_ms") for found in result["decoders"].values()])
    goals = [
        [key, number(result[key]), number(fastest[key]), f"at least {least:g}"]
        for key, least in result["targets"].items()
    ]
    heads = ["decoder", "who", "tokens/s", "median ms", "± ms", "why not"]
    return f"{markdown(heads, rows)}\n\n{markdown(['ratio', 'found', 'by the fastest runs', 'wanted'], goals)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=sorted(DECODERS), default=sorted(DECODERS), help="of decoders")
    parser.add_argument("--tokens", type=int, default=128, help="length of the context, the new token included")
    parser.add_argument("--layers", type=int, default=12, help="layers of the decoder")
    parser.add_argument("--hidden", type=int, default=768, help="width of the decoder, a multiple of 24")
    parser.add_argument(
        "--vocab", type=int, default=VOCAB, help=f"tokens of the output layer; {QUICK_VOCAB} with --quick"
    )
    parser.add_argument("--cell-rows", type=int, choices=HEIGHTS, default=CELL_ROWS, help="height of a cell")
    parser.add_argument("--seed", type=int, default=0, help="of weights, masks and token ids")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, a smaller output layer")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - prints it as the last line")
    args = parser.parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
