"""What the battery benchmark runs: the levels of the demo's bundle and of the RT3 experiments, as work on a device.

``python benchmarks/battery_models.py RUN`` rewrites ``data/demo_levels.json`` from the folder of a demo run (``make
demo`` writes ``runs/demo``), so that the benchmark needs neither the bundle nor the training.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lavolta.runtime.bundle import BundleFile
from lavolta.runtime.packed_tensors import int8_linears
from lavolta.runtime.scenario import LevelWork
from lavolta.runtime.spec import ModelSpec
from lavolta.runtime.work import dense_cells, work_of

HERE = Path(__file__).parent
DEMO = HERE / "data" / "demo_levels.json"
RESULTS = HERE.parent / "experiments" / "rt3" / "results"
DENSE_CELL_ROWS = 16
"""The dense baseline runs with the tallest cells, which are the fastest: it is not made slow to look bad."""
DENSE = "dense"
MINILM = ModelSpec("all-MiniLM-L6-v2", 6, 384, 12, 1536, 30522, 512, types=2, task="classification", outputs=2)
LANGUAGE = ModelSpec(
    "transformer-lm",
    2,
    256,
    4,
    512,
    32505,
    256,
    activation="relu",
    causal=True,
    embedding_norm=False,
    # One word is predicted from a window: the output layer runs once, as pooling one token would have it.
    pooling="cls",
    outputs=32505,
    task="language-model",
)
EXPERIMENTS = {"wikitext2": (LANGUAGE, 64), "stsb": (MINILM, 128), "rte": (MINILM, 128)}


@dataclass(frozen=True)
class Subject:
    """A model with its levels.

    Args:
        levels: the untouched dense model first, then the levels of the bundle, densest first.
        dense_int8: the untouched model with int8 weights: a second baseline; nobody but it may use it.
        source: where kept cells and scores come from.
        score: what the score is.
    """

    levels: tuple[LevelWork, ...]
    dense_int8: LevelWork
    source: str
    score: str

    @property
    def sparsest(self) -> str:
        return min(self.levels, key=lambda level: level.work.kept_macs).name


def subjects() -> dict[str, Subject]:
    """Every model of the benchmark by name; ``-int8`` or ``-fp32`` is the same one with such weights in its levels.

    ``demo`` has the precision of the demo's bundle, the experiments have fp32. The dense baseline keeps fp32. Scores of
    int8 levels that were measured in fp32 stay as they are: the small further loss is not in them.
    """
    found = {"demo": _demo(None), "demo-fp32": _demo("fp32")}
    for name in EXPERIMENTS:
        found[name], found[f"{name}-int8"] = _experiment(name, "fp32"), _experiment(name, "int8")
    return found


def _demo(precision: str | None) -> Subject:
    data = json.loads(DEMO.read_text(encoding="utf-8"))
    spec, tokens = ModelSpec(**data["model"]), data["tokens"]
    levels = [
        (level["name"], dict(zip(data["linears"], level["kept_cells"], strict=True)), level["fidelity"])
        for level in data["levels"]
    ]
    works = _works(spec, tokens, data["cell_rows"], levels, 1.0, precision or data["precision"])
    return Subject(works, _dense_int8(spec, tokens, 1.0), data["made_by"], "fidelity: mean cosine to the dense model")


def _experiment(name: str, precision: str) -> Subject:
    spec, tokens = EXPERIMENTS[name]
    # The row that the experiments' headline quotes, and its first seed.
    rows = (RESULTS / f"{name}-{row}-0.json" for row in ("ranked-searched", "ranked"))
    path = next(path for path in rows if path.exists())
    data = json.loads(path.read_text(encoding="utf-8"))
    levels = [(level["name"], level["kept_cells"], level["score"]) for level in data["levels"]]
    works = _works(spec, tokens, data["cell_rows"], levels, data["dense_score"], precision)
    dense_int8 = _dense_int8(spec, tokens, data["dense_score"])
    return Subject(works, dense_int8, f"experiments/rt3/results/{path.name}", "task score, points")


def _works(
    spec: ModelSpec,
    tokens: int,
    cell_rows: int,
    levels: list[tuple[str, dict[str, int], float]],
    dense_score: float,
    precision: str,
) -> tuple[LevelWork, ...]:
    dense = work_of(spec, dense_cells(spec, DENSE_CELL_ROWS), DENSE_CELL_ROWS, tokens)
    works = [LevelWork(DENSE, dense, dense_score)]
    for name, kept_cells, score in levels:
        int8 = list(kept_cells) if precision == "int8" else []
        works.append(LevelWork(name, work_of(spec, kept_cells, cell_rows, tokens, int8), score))
    return tuple(works)


def _dense_int8(spec: ModelSpec, tokens: int, dense_score: float) -> LevelWork:
    cells = dense_cells(spec, DENSE_CELL_ROWS)
    return LevelWork(f"{DENSE}-int8", work_of(spec, cells, DENSE_CELL_ROWS, tokens, list(cells)), dense_score)


def demo_data(run: Path) -> dict[str, Any]:
    """What ``data/demo_levels.json`` holds, from the bundle and the result of a demo run."""
    bundle = BundleFile.open(run / "model.lavolta")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    fidelity = {level["name"]: level["fidelity"] for level in result["levels"]}
    linears = list(bundle.levels[0]["kept_cells"])
    return {
        "precision": "int8" if int8_linears(bundle.manifest) else "fp32",
        "made_by": "make demo, then python benchmarks/battery_models.py runs/demo",
        "model": asdict(bundle.spec),
        "cell_rows": bundle.cell_rows,
        "tokens": result["device"]["tokens"],
        "linears": linears,
        "levels": [
            {
                "name": level["name"],
                "sparsity": round(level["sparsity"], 6),
                "fidelity": round(fidelity[level["name"]], 6),
                "kept_cells": [level["kept_cells"][name] for name in linears],
            }
            for level in bundle.levels
        ],
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/battery_models.py RUN")
    DEMO.write_text(json.dumps(demo_data(Path(sys.argv[1]))) + "\n", encoding="utf-8")
