"""Turning the dial: microseconds of a switch, memory that it writes, and memory that 16 levels hold more than one.

The time is that of the native call, one by one over random switches. Memory is that of real processes that load the
engine's library and nothing else (`lavolta.bench.resident`); what a switch writes is watched page by page.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.switching import residence, switch_times_us
from lavolta.bench.synthetic import PRECISIONS, random_weights, shape_spec, write_random_bundle
from lavolta.cli.progress import open_progress
from lavolta.errors import EngineError
from lavolta.runtime.engine import open_bundle

LEVELS = 16
SPARSEST = 0.9
TARGETS = {"p99_us": 5.0, "bytes_moved": 0, "memory_16_over_1": 1.03, "memory_over_bundle_mb": 20.0}
MEANINGS = {
    "p50_us": "median time of a switch, microseconds",
    "p99_us": "99th percentile, microseconds",
    "bytes_moved": "bytes that a switch writes beside the index (whole pages, worst of those watched)",
    "memory_16_over_1": "resident memory that 16 levels add to a process, over that of one level",
    "memory_over_bundle_mb": "resident memory of the whole process beyond the bundle's bytes, MB",
    "first_run_over_next": "time of the first run after a switch over the next one",
}
SWITCHES = {True: 5_000, False: 100_000}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Both bundles of every precision; the keys of the targets have the worst precision."""
    check_threads(args.threads)
    spec, progress = shape_spec(args.shape, max(512, args.tokens)), open_progress()
    weights = random_weights(spec, args.seed)
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            paths = {count: Path(folder) / f"{count}.lavolta" for count in (1, LEVELS)}
            for count, path in paths.items():
                progress.say(f"make a random {precision} bundle with {count} level{'s' * (count > 1)}")
                sparsities = [SPARSEST * level / (LEVELS - 1) for level in range(count)]
                write_random_bundle(
                    path,
                    spec,
                    sparsities,
                    weights=weights,
                    cell_rows=args.cell_rows,
                    precision=precision,
                    seed=args.seed,
                )
            entry: dict[str, Any] = {}
            progress.say("switch")
            with open_bundle(paths[LEVELS], threads=args.threads) as model:
                entry |= switch_times_us(model, args.tokens, SWITCHES[args.quick], args.seed)
            try:
                progress.say("watch the memory")
                one, many = (residence(paths[count], args.tokens) for count in (1, LEVELS))
            except EngineError as error:
                reasons[precision] = str(error)
            else:
                entry |= {
                    "bytes_moved": many["moved_bytes"],
                    "memory_16_over_1": many["model_bytes"] / one["model_bytes"],
                    "memory_over_bundle_mb": (many["process_bytes"] - many["bundle_bytes"]) / 1e6,
                    "one_level": one,
                    "many_levels": many,
                }
            found[precision] = entry
    worst = {key: max((entry[key] for entry in found.values() if key in entry), default=None) for key in MEANINGS}
    return {
        **head("level_switch", args),
        "levels": LEVELS,
        "repetitions": SWITCHES[args.quick],
        **worst,
        "targets": TARGETS,
        "precisions": found,
        "reasons": reasons,
    }


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = []
    for key, meaning in MEANINGS.items():
        value, target = result[key], result["targets"].get(key)
        verdict = "-" if value is None or target is None else "met" if value <= target else "missed"
        digits = 0 if key == "bytes_moved" else 3
        own = [number(entry.get(key), digits) for entry in result["precisions"].values()]
        rows.append([meaning, *own, "-" if target is None else f"{target:g}", verdict])
    heads = ["", *result["precisions"], "at most", ""]
    words = "; ".join(f"{precision}: {reason}" for precision, reason in result["reasons"].items())
    return "\n\n".join([markdown(heads, rows), *([words] if words else [])])


def main() -> None:
    args = options(__doc__ or "").parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
