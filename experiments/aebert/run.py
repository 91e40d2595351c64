"""Rows of the AE-BERT experiments: `python experiments/aebert/run.py --task stsb --row uniform random-1 --seed 0`.

A row is one ratio vector under the overall ratio: it is scored by every proxy, then truly fine-tuned, then scored on
the development split. `uniform`, `global-magnitude` and `sensitivity` are the fixed candidates, `random-1` ... are
drawn, and `chosen-kl`, `chosen-loss`, `chosen-ladder`, `chosen-reconstruction` are what a search by that proxy chose.
The result is `experiments/aebert/results/<task>-<ratio>-<row>-<steps>-<seed>.json`; a row that is there is not run
again, and an interrupted one continues from its checkpoint in `runs/aebert`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lavolta.errors import LavoltaError
from lavolta.files import write_whole
from lavolta.search.ratios import RatioSpace, ratios_of
from lavolta.sparsity.ranking import model_sparsity
from lavolta.systems.aebert.budget import ratio_budget
from lavolta.systems.aebert.choose import (
    FIXED,
    Proxy,
    batches_of,
    bounds_of,
    choose_ratios,
    fixed_candidates,
    magnitude_masks,
    objective_of,
    split_rows,
)
from lavolta.systems.rt3.subjects import GlueSubject, GlueTraining, encoder_parameters, glue_subject
from lavolta.training.encoder import LossWeights
from lavolta.training.joint import JointConfig, train_joint
from lavolta.training.levels import FixedLevels
from lavolta.training.masking import MaskedLinears
from lavolta.training.memory import keep_freed_memory
from lavolta.training.proxies import PROXIES, Calibration, calibrate, layer_errors, magnitude_rankings

HERE = Path(__file__).parent
DENSE = {  # Those of the RT3 experiments, whose dense models serve here too.
    "stsb": GlueTraining(epochs=5, lr=1.5e-4),
    "rte": GlueTraining(epochs=4, lr=1e-4),
    "mrpc": GlueTraining(epochs=4, lr=1e-4),
}
STEPS = {"stsb": 60, "mrpc": 60, "rte": 60}
BATCH = 16
SLICE = 128
LR = 4e-4
WEIGHTS = LossWeights(1.0, 1.0, 10.0)
SPREADS = (0.05, 0.1, 0.2, 0.3)
"""Standard deviations of the ratios of random candidates, in turn: from nearly uniform to very uneven."""
CHOSEN = "chosen-"
RANDOM = "random-"


def vector(row: str, bench: Bench, args: argparse.Namespace) -> tuple[dict[str, int], dict[str, Any]]:
    """Kept cells of a row, and what finding them cost."""
    space = bench.space
    if row in bench.fixed:
        return space.decode(space.actions_of(bench.fixed[row])), {}
    if row.startswith(RANDOM):
        place = int(row.removeprefix(RANDOM))
        chance = np.random.default_rng([args.seed, place])
        drawn = space.mean + chance.normal(0.0, SPREADS[place % len(SPREADS)], len(space.parts))
        return space.decode(space.actions_of(drawn)), {}
    found = choose_ratios(
        bench.subject.dense,
        bench.subject.train,
        overall_ratio=args.ratio,
        proxy=row.removeprefix(CHOSEN),
        candidates=args.candidates,
        seed=args.seed,
    )
    return found.kept_cells, {"search": found.as_dict()}


def fine_tune(
    subject: GlueSubject, kept: dict[str, int], steps: int, seed: int, checkpoint: Path
) -> tuple[float, float, float]:
    """Score before and after fine-tuning with the dense model as teacher, and its seconds."""
    student = copy.deepcopy(subject.dense)
    masks = magnitude_masks(subject.dense, kept, 1)
    masked = MaskedLinears(student.linears, student.grids(1))
    with masked.at(masks):
        before = subject.score(student)
    # Dropout off: the teacher regularizes.
    student.module.eval()
    started = time.perf_counter()
    objective = subject.objective(student, True, seed)
    config = JointConfig(steps=steps, lr=LR, seed=seed, checkpoint_every=20)
    train_joint(
        masked,
        FixedLevels(masked, [masks]),
        objective,
        encoder_parameters(student),
        config,
        checkpoint,
        identity=json.dumps(kept),
    )
    seconds = time.perf_counter() - started
    with masked.at(masks):
        after = subject.score(student)
    return before, after, seconds


@dataclass
class Bench:
    """The dense model of a task with what all its rows share."""

    subject: GlueSubject
    space: RatioSpace
    calibration: Calibration
    errors: dict[str, NDArray[np.float64]]
    fixed: dict[str, tuple[float, ...]]
    proxies: dict[str, Proxy]
    dense_score: float


def prepare(args: argparse.Namespace, wanted: Sequence[str] = PROXIES) -> Bench:
    """The dense model, fine-tuned where it is not there yet, calibrated; the proxies that are wanted."""

    def tell(step: int, loss: float) -> None:
        if step % 20 == 0:
            print(f"dense {args.task}: step {step}, loss {loss:.3f}", flush=True)

    subject = glue_subject(
        args.source, args.task, args.data / "glue", args.work / "dense", DENSE[args.task], tell, weights=WEIGHTS
    )
    subject.batch_size = BATCH
    budget = ratio_budget(subject.dense.grids(1), args.ratio)
    space = RatioSpace(budget.parts, budget.limit, *bounds_of(budget))
    calibration_rows, held_out = split_rows(subject.train, args.seed)
    calibration = calibrate(subject.dense, batches_of(subject.train, calibration_rows), 1)
    errors = layer_errors(calibration, magnitude_rankings(subject.dense, calibration.grids))
    fixed = dict(zip(FIXED, fixed_candidates(calibration, errors, space), strict=True))
    proxies = {proxy: objective_of(proxy, calibration, errors, subject.train, held_out)(args.slice) for proxy in wanted}
    return Bench(subject, space, calibration, errors, fixed, proxies, subject.score(subject.dense))


def run(row: str, bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """All that a row's file says."""
    subject = bench.subject
    result: dict[str, Any] = {
        "task": args.task,
        "metric": subject.task.metric,
        "row": row,
        "ratio": args.ratio,
        "seed": args.seed,
        "source": args.source,
        "dense_training": asdict(DENSE[args.task]),
        "dense_score": bench.dense_score,
    }
    if row == "dense":
        return result
    kept, cost = vector(row, bench, args)
    scores = {proxy: float(score(kept)[0]) for proxy, score in bench.proxies.items()}
    steps = args.steps or STEPS[args.task]
    checkpoint = args.work / f"{stem(row, args)}.checkpoint"
    before, after, seconds = fine_tune(subject, kept, steps, args.seed, checkpoint)
    checkpoint.unlink(missing_ok=True)
    return result | {
        "steps": steps,
        "batch_rows": BATCH,
        "lr": LR,
        "loss_weights": asdict(WEIGHTS),
        "slice_rows": args.slice,
        "per_linear": ratios_of(kept, bench.space.parts),
        "encoder_sparsity": model_sparsity(subject.dense.grids(1), magnitude_masks(subject.dense, kept, 1)),
        "whole_sparsity": whole_sparsity(subject, kept),
        "proxies": scores,
        "score_before": before,
        "score": after,
        "fine_tuning_seconds": round(seconds, 1),
        **cost,
    }


def stem(row: str, args: argparse.Namespace) -> str:
    """The name of a row's file; the dense model has no steps of its own."""
    steps = "" if row == "dense" else f"-{args.steps or STEPS[args.task]}"
    return f"{args.task}-{args.ratio:g}-{row}{steps}-{args.seed}"


def kept_of(result: dict[str, Any], bench: Bench) -> dict[str, int]:
    """Kept cells of a row that was stored."""
    grids = bench.subject.dense.grids(1)
    return {name: round((1.0 - ratio) * grids[name].cells) for name, ratio in result["per_linear"].items()}


def rescore(target: Path, bench: Bench) -> None:
    """Give a row the proxies' present opinion of it; its fine-tuning stays as it is."""
    result = json.loads(target.read_text(encoding="utf-8"))
    kept = kept_of(result, bench)
    result["proxies"] = {proxy: float(score(kept)[0]) for proxy, score in bench.proxies.items()}
    write_whole(target, f"{json.dumps(result, indent=1)}\n".encode())


def whole_sparsity(subject: GlueSubject, kept: dict[str, int]) -> float:
    """Zeros among all parameters of the model, embeddings included."""
    everything = sum(parameter.numel() for parameter in subject.dense.module.parameters())
    cells = sum(grid.cells for grid in subject.dense.grids(1).values())
    return (cells - sum(kept.values())) / everything


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(DENSE), required=True)
    parser.add_argument("--row", nargs="+", required=True, help="several share the dense model and its calibration")
    parser.add_argument("--ratio", type=float, default=0.6, help="share of the encoder's weights that goes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of fine-tuning; the task's own number by default")
    parser.add_argument("--candidates", type=int, default=100, help="of a search")
    parser.add_argument("--rescore", action="store_true", help="ask the proxies again about rows that are there")
    parser.add_argument("--slice", type=int, default=SLICE, help="training rows that the proxies look at")
    parser.add_argument("--source", default="all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/aebert"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    known = {"dense", *FIXED, *(f"{CHOSEN}{proxy}" for proxy in PROXIES)}
    for row in args.row:
        if row not in known and not (row.startswith(RANDOM) and row.removeprefix(RANDOM).isdigit()):
            print(f"the row {row!r} is unknown; choose among {', '.join(sorted(known))}, random-N", file=sys.stderr)
            return 2
    targets = {row: args.results / f"{stem(row, args)}.json" for row in args.row}
    missing = {row: target for row, target in targets.items() if not target.exists()}
    if not missing and not args.rescore:
        print("all of these rows are there already")
        return 0
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    args.results.mkdir(parents=True, exist_ok=True)
    try:
        bench = prepare(args)
        if args.rescore:
            for row in targets.keys() - missing.keys():
                rescore(targets[row], bench)
            return 0
        for row, target in missing.items():
            started = time.perf_counter()
            result = run(row, bench, args)
            write_whole(target, f"{json.dumps(result, indent=1)}\n".encode())
            score = result.get("score", result["dense_score"])
            print(f"{target}: {score:.2f}, {time.perf_counter() - started:.0f} s", flush=True)
    except LavoltaError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
