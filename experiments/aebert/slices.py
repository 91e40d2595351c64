"""How many rows a proxy needs: `python experiments/aebert/slices.py --task stsb --proxy kl`.

The candidates of `results/` that were fine-tuned are scored again on slices of several sizes, of which those of one
size share no row, and every slice's ranking is compared with the fine-tuned scores. The result is
`slices/<task>-<proxy>-<seed>.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run import HERE, STEPS, Bench, kept_of, prepare
from summarize import load

from lavolta.files import make_folder, write_whole
from lavolta.models.metrics import spearman
from lavolta.systems.aebert.judge import Proxy, batches_of
from lavolta.systems.spd.rows import SOURCE, TEACHERS
from lavolta.training.memory import keep_freed_memory
from lavolta.training.proxies import PROXIES, ForwardProxy

SIZES = (8, 16, 24, 32, 64, 128, 256)
SLICES = 3
"""Of each size, as far as the held-out rows go."""
LEAST = 3
"""Fewer candidates have no order to compare."""


def candidates(folder: Path, task: str, ratio: float, seed: int, steps: int) -> list[dict[str, Any]]:
    """The rows of one task, ratio and seed, fine-tuned for so many steps."""
    wanted = (task, ratio, seed, steps)
    return [row for row in load(folder) if (row["task"], row["ratio"], row["seed"], row.get("steps")) == wanted]


def compare(bench: Bench, proxy: Proxy, rows: list[dict[str, Any]]) -> float:
    """Spearman of a proxy with the fine-tuned scores of candidates."""
    scores = [float(proxy(kept_of(row, bench))[0]) for row in rows]
    return float(spearman(np.array(scores), np.array([row["score"] for row in rows])))


def slices_of(held_out: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Disjoint slices of one size."""
    return [held_out[at : at + size] for at in range(0, len(held_out) - size + 1, size)][:SLICES]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TEACHERS), required=True)
    parser.add_argument("--proxy", choices=PROXIES, default="kl")
    parser.add_argument("--ratio", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="of the rows' fine-tuning")
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/spd"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE / "slices")
    args = parser.parse_args()
    args.slice = min(SIZES)
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = candidates(args.results, args.task, args.ratio, args.seed, args.steps)
    if len(rows) < LEAST:
        print(
            f"{args.results} has {len(rows)} rows of {args.task} with {args.steps} steps; run {LEAST} first",
            file=sys.stderr,
        )
        return 2
    bench = prepare(args, (args.proxy,))
    compared = bench.judge.compared
    base = bench.proxies[args.proxy]
    found = []
    for size in SIZES:
        ranked = [
            # What looks at layers alone asks no rows.
            compare(bench, base.on(batches_of(compared, chosen)) if isinstance(base, ForwardProxy) else base, rows)
            for chosen in slices_of(np.arange(len(compared)), size)
        ]
        if not ranked:
            break
        found.append({"rows": size, "spearman": [round(rank, 3) for rank in ranked]})
        print(found[-1], flush=True)
    result = {"task": args.task, "proxy": args.proxy, "seed": args.seed, "candidates": len(rows), "slices": found}
    make_folder(args.out)
    target = args.out / f"{args.task}-{args.proxy}-{args.seed}.json"
    write_whole(target, f"{json.dumps(result, indent=1)}\n".encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
