"""One row of the SPD experiments: `python experiments/spd/run.py --task rte --method spd --sparsity 0.9 --seed 0`.

The result is `experiments/spd/results/<task>-<method>-<sparsity>-<steps>x<rows>-<seed>.json`, with the rows of a step
(`dense` has no sparsity and no steps); a row that is there is not run again, and an interrupted one continues from its
checkpoint in `runs/spd`. The dense teacher of a task and seed is trained once; `--teacher-seed` lets rows of several
seeds share it. A row with `--lr` is a point of the grid, in `experiments/spd/grid`; one of another encoder, of cells of
several rows, or of other losses is no row of the tables, and goes to `experiments/spd/variants`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from lavolta.errors import LavoltaError
from lavolta.files import make_folder, write_whole
from lavolta.systems.aebert import choose_ratios
from lavolta.systems.spd.defaults import METHODS, SEARCHED
from lavolta.systems.spd.recipe import prune_teacher
from lavolta.systems.spd.rows import SOURCE, TEACHERS, Lines, row_options, row_teacher
from lavolta.training.memory import keep_freed_memory

HERE = Path(__file__).parent
STEPS, BATCH = 2000, {"rte": 4, "mrpc": 4, "stsb": 8}
"""Of every pruned row, whatever its method: many small steps, since what decides is how many updates mend a cut. Pairs
of STS-B have half as many tokens as those of the others. Sized to a quarter of an hour of one core."""


def variant(args: argparse.Namespace) -> str:
    """What sets a row apart from those of the tables, as the name of a folder; empty for one of theirs."""
    words = [f"cells{args.cell_rows}"] if args.cell_rows != 1 else []
    words += ["no-dropout"] if args.no_dropout else []
    words += ["count-padding"] if args.count_padding else []
    words += [Path(args.source).name] if args.source != SOURCE else []
    return "-".join(words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TEACHERS), required=True)
    parser.add_argument("--method", choices=["dense", *METHODS, *SEARCHED], required=True)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--teacher-seed", type=int, help="of the dense model and the held-out rows; the seed of the row by default"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training under the method")
    parser.add_argument("--batch-size", type=int, help="rows of a step; by default what the task takes")
    parser.add_argument("--lr", type=float, help="peak learning rate; the method's own by default")
    parser.add_argument("--cell-rows", type=int, default=1)
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--count-padding", action="store_true", help="padding counts in the losses, as published")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/glue"))
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--accelerator", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--work", type=Path, default=Path("runs/spd"))
    parser.add_argument("--results", type=Path, help="folder of the result; by default `results`, `grid` or `variants`")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rows = args.batch_size or BATCH[args.task]
    length = f"{args.steps}x{rows}"
    shown = "" if args.method == "dense" else f"-{args.sparsity:g}-{length}"
    point = f"-lr{args.lr:g}" if args.lr else ""
    other = variant(args)
    results = args.results or HERE / (f"variants/{other}" if other else "grid" if args.lr else "results")
    target = results / f"{args.task}-{args.method}{shown}-{args.seed}{point}.json"
    if target.exists():
        print(f"{target} is there already")
        return 0
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    progress = Lines(target.stem)
    try:
        options = row_options(
            args.task,
            args.data,
            args.source,
            sparsity=0.0 if args.method == "dense" else args.sparsity,
            method="spd" if args.method == "dense" else SEARCHED.get(args.method, args.method),
            steps=args.steps,
            seed=args.seed,
            batch_size=rows,
            lr=args.lr,
            cell_rows=args.cell_rows,
            dropout=not args.no_dropout,
            mask_padding=not args.count_padding,
            accelerator=args.accelerator,
        )
        teacher_seed = args.seed if args.teacher_seed is None else args.teacher_seed
        teacher = row_teacher(options, teacher_seed, args.work, progress)
        if args.method == "dense":
            epochs, teacher_lr = TEACHERS[args.task]
            result = {
                "task": args.task,
                "method": "dense",
                "options": {"seed": args.seed, "teacher_epochs": epochs, "teacher_lr": teacher_lr, "sparsity": 0.0},
                "metric": teacher.splits.task.metric,
                "dense_score": teacher.score,
                "score": teacher.score,
                "teacher_doubt": teacher.doubt,
                "curve": teacher.curve,
            }
        else:
            work = args.work / other / target.stem
            make_folder(work)
            begun_s = time.perf_counter()
            targets = dict.fromkeys(teacher.loaded.linear_shapes, args.sparsity)
            if args.method in SEARCHED:
                targets = choose_ratios(
                    teacher.loaded,
                    teacher.splits.train,
                    teacher.splits.held_out,
                    overall_ratio=args.sparsity,
                    cell_rows=args.cell_rows,
                    seed=args.seed,
                ).per_linear
            searched_s = time.perf_counter() - begun_s
            result = prune_teacher(options, teacher, targets, work, progress=progress).facts
            result["method"] = args.method
            result["search_seconds"] = round(searched_s, 1)
            result["seconds"] = round(time.perf_counter() - begun_s, 1)
            # The path of the data is this machine's own.
            result["options"] = {key: value for key, value in result["options"].items() if key != "data"}
    except LavoltaError as error:
        print(error, file=sys.stderr)
        return 2
    result["teacher_seed"] = teacher_seed
    make_folder(results)
    write_whole(target, f"{json.dumps(result, indent=1)}\n".encode())
    print(f"{target}: {result['score']:.2f}, dense {result['dense_score']:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
