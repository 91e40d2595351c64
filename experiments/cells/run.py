"""Which cell height buys most score for a millisecond: `python experiments/cells/run.py`.

all-MiniLM-L6-v2 is pruned in one shot (gradual second-order ranking, every layer cut alike, joint compensation) with
every cell height, packed, and run natively: STS-B development Spearman of the cosine, and the time of one sequence of
128 tokens, all heights and levels taking turns in one process. Writes `result.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lavolta
from lavolta.errors import LavoltaError
from lavolta.models.batching import encode_texts, sorted_batches
from lavolta.models.export import export_bundle
from lavolta.models.hf import load_encoder
from lavolta.models.loaded import LoadedModel
from lavolta.models.metrics import spearman
from lavolta.models.tasks import Split, load_task
from lavolta.models.text import builtin_text
from lavolta.report.generated import with_part
from lavolta.runtime.engine import Model
from lavolta.runtime.measure import cpu_name
from lavolta.sparsity.cells import CELL_ROWS
from lavolta.sparsity.ranking import level_masks, uniform_cuts
from lavolta.training.encoder import encoder_statistics
from lavolta.training.memory import keep_freed_memory
from lavolta.training.oneshot import compensate_linears, gradual_rankings
from lavolta.training.saliency import LinearStats

HERE = Path(__file__).parent
SPARSITIES = (0.0, 0.5, 0.625, 0.75)
BEGIN = "<!-- made by run.py -->"


def make_bundle(dense: LoadedModel, stats: dict[str, LinearStats], cell_rows: int, path: Path) -> None:
    """Prune and compensate a copy of the model for all sparsities but 0, and pack it with one level for each."""
    grids = dense.grids(cell_rows)
    rankings = gradual_rankings(dense.linears, grids, stats, SPARSITIES[-1])
    masks = [level_masks(rankings, uniform_cuts(rankings, sparsity)) for sparsity in SPARSITIES]
    old = {
        name: (linear.weight.detach().clone(), linear.bias.detach().clone()) for name, linear in dense.linears.items()
    }
    found = compensate_linears(dense.linears, grids, stats, masks[1:])
    with torch.no_grad():
        for name, linear in dense.linears.items():
            linear.weight.copy_(found[name].weight)
            bias = found[name].bias
            if bias is not None:
                linear.bias.copy_(bias)
        export_bundle(dense, masks, [{"name": f"{100 * s:g} %"} for s in SPARSITIES], cell_rows, path)
        for name, linear in dense.linears.items():
            linear.weight.copy_(old[name][0])
            linear.bias.copy_(old[name][1])


def score(model: Model, pairs: Split) -> float:
    """Spearman (x 100) between the cosine of the two embeddings and the labels."""

    def embed(texts: tuple[str, ...]) -> Any:
        return np.concatenate([model.encode(list(texts[i : i + 64])) for i in range(0, len(texts), 64)])

    return 100.0 * spearman((embed(pairs.first) * embed(pairs.second)).sum(axis=1), pairs.labels)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2, help="of the pruning; the timing uses one")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"there is no data folder {args.data}; give it with --data", file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    try:
        result = run(args.data, args.rounds)
    except LavoltaError as error:
        print(error, file=sys.stderr)
        return 2
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    readme = args.out.with_name("README.md")
    if readme.exists():
        readme.write_text(render(readme.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(table(result))
    return 0


def render(readme: str, result: dict[str, Any]) -> str:
    """The README with its table replaced."""
    return with_part(readme, BEGIN, table(result))


def table(result: dict[str, Any]) -> str:
    """Score and milliseconds by cell height and sparsity."""
    levels = list(dict.fromkeys(row["level"] for row in result["rows"]))
    lines = [f"| cell rows | {' | '.join(levels)} |", f"|---|{'---|' * len(levels)}"]
    for cell_rows in dict.fromkeys(row["cell_rows"] for row in result["rows"]):
        cells = [
            f"{row['ms']:.1f} ms" if row["score"] is None else f"{row['score']:.1f} at {row['ms']:.1f} ms"
            for row in result["rows"]
            if row["cell_rows"] == cell_rows
        ]
        lines.append(f"| {cell_rows} | {' | '.join(cells)} |")
    return "\n".join([f"{result['cpu']}, one thread, {result['tokens']} tokens:", "", *lines])


def run(data: Path, rounds: int) -> dict[str, Any]:
    dense = load_encoder("all-MiniLM-L6-v2", "embedding")
    calibration = encode_texts(dense, builtin_text().train[:256], 64)
    stats = encoder_statistics(dense, list(sorted_batches(calibration, 32)), hessians=True)
    pairs = load_task("stsb", data / "glue").dev
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        models: dict[int, Model] = {}
        for cell_rows in CELL_ROWS:
            path = Path(folder) / f"{cell_rows}.lavolta"
            make_bundle(dense, stats, cell_rows, path)
            models[cell_rows] = lavolta.open(path)
            for level, sparsity in enumerate(SPARSITIES):
                models[cell_rows].switch(level)
                # The compensated weights run whole at sparsity 0 are no level that anyone made: a time, but no score.
                found = score(models[cell_rows], pairs) if level else None
                rows.append({"cell_rows": cell_rows, "level": f"{100 * sparsity:g} %", "score": found, "times": []})
                print(rows[-1], flush=True)
        ids = [np.random.default_rng(0).integers(1000, 30000, 128)]
        for _ in range(rounds):
            for place, row in enumerate(rows):
                model = models[row["cell_rows"]]
                model.switch(place % len(SPARSITIES))
                begun = time.perf_counter_ns()
                model.run(ids)
                row["times"].append((time.perf_counter_ns() - begun) / 1e6)
        for model in models.values():
            model.close()
    for row in rows:
        times = sorted(row.pop("times"))
        row["ms"] = round(statistics.median(times), 3)
        row["ms_p10_p90"] = [round(times[len(times) // 10], 3), round(times[len(times) * 9 // 10], 3)]
        row["score"] = None if row["score"] is None else round(row["score"], 2)
    return {"cpu": cpu_name(), "threads": 1, "tokens": 128, "rounds": rounds, "rows": rows}


if __name__ == "__main__":
    raise SystemExit(main())
