"""Rows of the AE-BERT experiments: `python experiments/aebert/run.py --task stsb --row uniform random-1 --seed 0`.

A row is one ratio vector under the overall ratio: it is scored by every proxy, then truly fine-tuned under fixed masks
of `lavolta prune --method magnitude`, then scored on the development split. `uniform`, `global-magnitude` and
`sensitivity` are the fixed candidates, `random-1` ... are drawn, and `chosen-hidden`, `chosen-kl`, `chosen-loss`,
`chosen-ladder`, `chosen-reconstruction` are what a search by that proxy chose. The result is
`experiments/aebert/results/<task>-<ratio>-<row>-<steps>-<seed>.json`; a row that is there is not run again, and an
interrupted one continues from its checkpoint in `runs/spd`, where the dense models of `experiments/spd` are too.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavolta.errors import LavoltaError
from lavolta.files import make_folder, write_whole
from lavolta.search.ratios import RatioSpace, ratios_of
from lavolta.stages import Clock
from lavolta.systems.aebert import choose_ratios
from lavolta.systems.aebert.budget import ratio_budget
from lavolta.systems.aebert.judge import Judge, Proxy
from lavolta.systems.aebert.ratios import magnitude_masks
from lavolta.systems.aebert.space import FIXED, bounds_of, fixed_candidates
from lavolta.systems.spd.recipe import Teacher, prune_teacher
from lavolta.systems.spd.rows import SOURCE, TEACHERS, Lines, row_options, row_teacher
from lavolta.training.masking import MaskedLinears
from lavolta.training.memory import keep_freed_memory
from lavolta.training.proxies import PROXIES
from lavolta.training.task_data import task_score

HERE = Path(__file__).parent
STEPS = 120
"""Of a candidate of which only the rank is asked for."""

BATCH = 8
SLICE = 128
SPREADS = (0.05, 0.1, 0.2, 0.3)
"""Standard deviations of the ratios of random candidates, in turn: from nearly uniform to very uneven."""
CHOSEN = "chosen-"
RANDOM = "random-"


@dataclass
class Bench:
    """The dense model of a task with what all its rows share."""

    teacher: Teacher
    space: RatioSpace
    judge: Judge
    fixed: dict[str, tuple[float, ...]]
    proxies: dict[str, Proxy]


def prepare(args: argparse.Namespace, wanted: Sequence[str] = PROXIES) -> Bench:
    """The dense model, fine-tuned where it is not there yet, calibrated; the proxies that are wanted."""
    options = row_options(args.task, args.data / "glue", args.source)
    teacher = row_teacher(options, args.teacher_seed, args.work, Lines(args.task))
    dense = teacher.loaded
    budget = ratio_budget(dense.grids(1), args.ratio)
    space = RatioSpace(budget.parts, budget.limit, *bounds_of(budget))
    judge = Judge.of(dense, teacher.splits.train, teacher.splits.held_out, 1, args.seed)
    fixed = dict(zip(FIXED, fixed_candidates(judge.calibration, judge.errors, space), strict=True))
    proxies = {proxy: judge.objective(proxy)(args.slice) for proxy in wanted}
    return Bench(teacher, space, judge, fixed, proxies)


def vector(row: str, bench: Bench, args: argparse.Namespace) -> tuple[dict[str, int], dict[str, Any]]:
    """Kept cells of a row, and what finding them cost."""
    space, teacher = bench.space, bench.teacher
    if row in bench.fixed:
        return space.decode(space.actions_of(bench.fixed[row])), {}
    if row.startswith(RANDOM):
        place = int(row.removeprefix(RANDOM))
        chance = np.random.default_rng([args.seed, place])
        drawn = space.mean + chance.normal(0.0, SPREADS[place % len(SPREADS)], len(space.parts))
        return space.decode(space.actions_of(drawn)), {}
    found = choose_ratios(
        teacher.loaded,
        teacher.splits.train,
        teacher.splits.held_out,
        overall_ratio=args.ratio,
        proxy=row.removeprefix(CHOSEN),
        candidates=args.candidates,
        seed=args.seed,
    )
    return found.kept_cells, {"search": found.as_dict()}


def score_before(teacher: Teacher, kept: Mapping[str, int]) -> float:
    """Of the cut model, before any training."""
    student = copy.deepcopy(teacher.loaded)
    masked = MaskedLinears(student.linears, student.grids(1))
    with masked.at(magnitude_masks(teacher.loaded, kept, 1)):
        return task_score(student, teacher.splits.task, teacher.splits.dev)


def run(row: str, bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """All that a row's file says."""
    teacher, space = bench.teacher, bench.space
    kept, cost = vector(row, bench, args)
    scores = {proxy: float(score(kept)[0]) for proxy, score in bench.proxies.items()}
    options = row_options(
        args.task,
        args.data / "glue",
        args.source,
        method="magnitude",
        sparsity=args.ratio,
        steps=args.steps,
        batch_size=BATCH,
        seed=args.seed,
    )
    clock, work = Clock(), args.work / f"aebert-{stem(row, args)}"
    make_folder(work)
    per_linear = ratios_of(kept, space.parts)
    facts = prune_teacher(options, teacher, per_linear, work, clock, Lines(stem(row, args))).facts
    shutil.rmtree(work)
    return {
        "task": args.task,
        "metric": facts["metric"],
        "row": row,
        "ratio": args.ratio,
        "seed": args.seed,
        "teacher_seed": args.teacher_seed,
        "source": args.source,
        "dense_score": teacher.score,
        "steps": args.steps,
        "batch_rows": BATCH,
        "lr": facts["lr"],
        "slice_rows": args.slice,
        "per_linear": per_linear,
        "encoder_sparsity": facts["encoder_sparsity"],
        "whole_sparsity": facts["model_sparsity"],
        "proxies": scores,
        "score_before": score_before(teacher, kept),
        "held_out_score": facts["held_out_score"],
        "score": facts["score"],
        "fine_tuning_seconds": round(
            sum(took for stage, took in clock.seconds.items() if stage.startswith(("ask", "train"))), 1
        ),
        "curve": facts["curve"],
        **cost,
    }


def stem(row: str, args: argparse.Namespace) -> str:
    """The name of a row's file."""
    return f"{args.task}-{args.ratio:g}-{row}-{args.steps}-{args.seed}"


def kept_of(result: dict[str, Any], bench: Bench) -> dict[str, int]:
    """Kept cells of a row that was stored."""
    grids = bench.teacher.loaded.grids(1)
    return {name: round((1.0 - ratio) * grids[name].cells) for name, ratio in result["per_linear"].items()}


def rescore(target: Path, bench: Bench) -> None:
    """Give a row the proxies' present opinion of it; its fine-tuning stays as it is."""
    result = json.loads(target.read_text(encoding="utf-8"))
    kept = kept_of(result, bench)
    result["proxies"] |= {proxy: float(score(kept)[0]) for proxy, score in bench.proxies.items()}
    write_whole(target, f"{json.dumps(result, indent=1)}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TEACHERS), required=True)
    parser.add_argument("--row", nargs="+", required=True, help="several share the dense model and its calibration")
    parser.add_argument("--ratio", type=float, default=0.6, help="share of the encoder's weights that goes")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn, searched and trained")
    parser.add_argument("--teacher-seed", type=int, default=0, help="of the dense model and the held-out rows")
    parser.add_argument("--steps", type=int, default=STEPS, help="of fine-tuning, with 8 pairs each")
    parser.add_argument("--candidates", type=int, default=100, help="of a search")
    parser.add_argument(
        "--rescore", nargs="+", choices=PROXIES, help="ask these proxies again about rows that are there"
    )
    parser.add_argument("--slice", type=int, default=SLICE, help="held-out rows that the proxies look at")
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/spd"))
    parser.add_argument("--results", type=Path, help="by default `results`, or `variants` for another source")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    known = {*FIXED, *(f"{CHOSEN}{proxy}" for proxy in PROXIES)}
    for row in args.row:
        if row not in known and not (row.startswith(RANDOM) and row.removeprefix(RANDOM).isdigit()):
            print(f"the row {row!r} is unknown; choose among {', '.join(sorted(known))}, random-N", file=sys.stderr)
            return 2
    results = args.results or HERE / ("results" if args.source == SOURCE else f"variants/{Path(args.source).name}")
    targets = {row: results / f"{stem(row, args)}.json" for row in args.row}
    missing = {row: target for row, target in targets.items() if not target.exists()}
    if not missing and not args.rescore:
        print("all of these rows are there already")
        return 0
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    results.mkdir(parents=True, exist_ok=True)
    try:
        bench = prepare(args, args.rescore or PROXIES)
        if args.rescore:
            for row in targets.keys() - missing.keys():
                rescore(targets[row], bench)
            return 0
        for row, target in missing.items():
            started = time.perf_counter()
            result = run(row, bench, args)
            write_whole(target, f"{json.dumps(result, indent=1)}\n".encode())
            print(f"{target}: {result['score']:.2f}, {time.perf_counter() - started:.0f} s", flush=True)
    except LavoltaError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
