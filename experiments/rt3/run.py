"""One row of the RT3 experiments: `python experiments/rt3/run.py --model stsb --row ranked --seed 0`.

The result is `experiments/rt3/results/<model>-<row>-<seed>.json` (`<row>-<steps>` with `--steps`, `-extra` with
`--extra-text`, `-to80` with `--sparsest 0.8`); a row that is there is not run again, and an interrupted one continues
from its checkpoint in `runs/rt3`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import lavolta
from lavolta.errors import LavoltaError
from lavolta.files import write_whole
from lavolta.models.export import export_bundle
from lavolta.models.lm import LmConfig
from lavolta.runtime.measure import switch_times
from lavolta.systems.rt3.judging import task_judge
from lavolta.systems.rt3.lm import LmTraining, train_lm
from lavolta.systems.rt3.rows import ROWS, RowOptions, RowRun, run_row
from lavolta.systems.rt3.subjects import (
    GlueSubject,
    GlueTraining,
    Subject,
    glue_subject,
    lm_subject,
)
from lavolta.systems.rt3.upstream import UpstreamOptions, pair_text, upstream_ladder
from lavolta.training.memory import keep_freed_memory

HERE = Path(__file__).parent
SPARSEST = RowOptions.sparsities[-1]
LM = LmTraining(model=LmConfig(hidden=256, heads=4, ffn=512, tie=True, dropout=0.2), epochs=6.0)
GLUE = {
    "stsb": GlueTraining(epochs=5, lr=1.5e-4),
    "rte": GlueTraining(epochs=4, lr=1e-4),
    "mrpc": GlueTraining(epochs=4, lr=1e-4),
}
LM_SCORE_WORDS = 80_000
"""Of the test text's 245,569: scoring over the whole vocabulary takes longer than a row trains."""
STEPS = {"wikitext2": 400, "stsb": 200, "rte": 120, "mrpc": 200}
LR = {"wikitext2": 1e-3, "stsb": 6e-4, "rte": 5e-4, "mrpc": 5e-4}
SOURCE = "all-MiniLM-L6-v2"
UPSTREAM = UpstreamOptions()
"""One ladder for all tasks and seeds, distilled on the training pairs of all of them, without labels."""


def subject(model: str, data: Path, work: Path, source: str, extra: bool, say: bool) -> Subject:
    """The dense model of an experiment, trained where it is not there yet."""
    begun = time.perf_counter()

    def tell(step: int, loss: float) -> None:
        if say and step % 50 == 0:
            print(f"dense {model}: step {step}, loss {loss:.3f}, {time.perf_counter() - begun:.0f} s", flush=True)

    if model == "wikitext2":
        train_lm(data / "wikitext-2", work / "lm-dense-0", LM, lambda step, _, loss: tell(step, loss))
        return lm_subject(data / "wikitext-2", work / "lm-dense-0", LM_SCORE_WORDS)
    dense = work / "dense" if source == SOURCE else work / "dense" / Path(source).name
    others = [task for task in GLUE if task != model] if extra else []
    return glue_subject(source, model, data / "glue", dense, GLUE[model], tell, extra_tasks=others)


def native(run: RowRun, path: Path) -> dict[str, Any]:
    """Pack the row's levels, open them with the engine, and time the switch between them."""
    info = [{"name": level["name"]} for level in run.result["levels"]]
    export_bundle(run.student, run.masks, info, run.result["cell_rows"], path)
    with lavolta.open(path) as model:
        times = switch_times(model)
    size = path.stat().st_size
    path.unlink()
    return {
        "switch_us_p50": times.us_p50,
        "switch_us_p99": times.us_p99,
        "bytes_moved_per_switch": times.bytes_moved,
        "bundle_bytes": size,
    }


def int8_scores(run: RowRun, subject: GlueSubject, path: Path) -> list[float]:
    """What the engine scores at each level with the weights in int8."""
    info = [{"name": level["name"]} for level in run.result["levels"]]
    export_bundle(run.student, run.masks, info, run.result["cell_rows"], path, precision="int8")
    with lavolta.open(path) as model:
        scores = task_judge(subject.task, subject.dev).rate(model, lambda: None)
    path.unlink()
    return scores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["wikitext2", *GLUE], required=True)
    parser.add_argument("--row", choices=list(ROWS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="training steps after pruning; the model's own number by default")
    parser.add_argument("--lr", type=float, help="peak learning rate after pruning; the model's own by default")
    parser.add_argument("--sparsest", type=float, default=SPARSEST, help="sparsity of the sparsest level")
    parser.add_argument(
        "--extra-text", action="store_true", help="distil on the other tasks' training pairs too, without labels"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--source", default=SOURCE, help="encoder for the GLUE tasks")
    parser.add_argument("--work", type=Path, default=Path("runs/rt3"))
    parser.add_argument("--results", type=Path, help="by default `results`, or `variants` with --lr or --source")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    # A longer training, or one on more text, is a row of its own: rows are compared at equal steps.
    variant = "" if args.steps in (None, STEPS[args.model]) else f"-{args.steps}"
    variant += "-extra" if args.extra_text else ""
    variant += "" if args.sparsest == SPARSEST else f"-to{100 * args.sparsest:g}"
    if args.model not in GLUE and (args.extra_text or args.row == "ranked-upstream"):
        print(
            f"there is no text beside the corpus for {args.model}; leave --extra-text out, and take another row than "
            "ranked-upstream",
            file=sys.stderr,
        )
        return 2
    # Neither is what the tables show under a row's name.
    variant += "" if args.lr is None else f"-lr{args.lr:g}"
    variant += "" if args.source == SOURCE else f"-{Path(args.source).name}"
    results = args.results or HERE / ("results" if args.lr is None and args.source == SOURCE else "variants")
    target = results / f"{args.model}-{args.row}{variant}-{args.seed}.json"
    if target.exists():
        print(f"{target} is there already")
        return 0
    if not args.data.is_dir():
        print(f"there is no data folder {args.data}; give it with --data", file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    begun = time.perf_counter()

    def tell(step: int, loss: float) -> None:
        if step % 25 == 0:
            took = time.perf_counter() - begun
            print(f"{args.model} {args.row} {args.seed}: step {step}, loss {loss:.3f}, {took:.0f} s", flush=True)

    try:
        model = subject(args.model, args.data, args.work, args.source, args.extra_text, say=True)
        steps = STEPS[args.model] if args.steps is None else args.steps
        lr = LR[args.model] if args.lr is None else args.lr
        options = RowOptions(args.row, (*RowOptions.sparsities[:-1], args.sparsest), steps=steps, lr=lr, seed=args.seed)
        ladder = None
        if args.row == "ranked-upstream":
            file = args.work / f"upstream-{UPSTREAM.steps}-{UPSTREAM.seed}.safetensors"
            ladder = upstream_ladder(args.source, pair_text(args.data / "glue", list(GLUE)), file, UPSTREAM, tell)
        run = run_row(model, options, args.work / target.stem, tell, ladder)
    except LavoltaError as error:
        print(error, file=sys.stderr)
        return 2
    if run.masks:
        bundle = args.work / f"{target.stem}.lavolta"
        run.result["native"] = native(run, bundle)
        if isinstance(model, GlueSubject):
            run.result["native"]["int8_scores"] = int8_scores(run, model, bundle)
    if isinstance(model, GlueSubject):
        run.result["loss_weights"] = asdict(model.weights)
        run.result["extra_pairs"] = 0 if model.extra is None else len(model.extra)
    if args.model == "wikitext2":
        trained = json.loads((args.work / "lm-dense-0" / "result.json").read_text(encoding="utf-8"))
        run.result["dense_training"] = trained
    results.mkdir(parents=True, exist_ok=True)
    write_whole(target, f"{json.dumps(run.result, indent=1)}\n".encode())
    print(
        f"{target}: " + ", ".join(f"{level['sparsity']:.3f} -> {level['score']:.2f}" for level in run.result["levels"])
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
