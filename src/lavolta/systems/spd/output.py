"""What a run writes and finds again: the folder or bundle of its result, and the mark that tells runs apart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lavolta import __version__
from lavolta.errors import UserInputError
from lavolta.files import write_whole
from lavolta.models.batching import Encoded
from lavolta.models.export import export_bundle
from lavolta.models.loaded import LoadedModel
from lavolta.models.marks import model_mark, task_mark
from lavolta.models.tasks import TaskData
from lavolta.runtime.bundle import BundleFile
from lavolta.sparsity.ranking import LevelMasks
from lavolta.systems.spd.options import PruneOptions

Ratios = Callable[[LoadedModel, Encoded], Mapping[str, float]]
"""From the fine-tuned teacher and its training rows to a sparsity for each linear layer."""


@dataclass
class Pruned:
    """A pruned model with what is known about it: JSON-able facts, and masks per level, densest first."""

    student: LoadedModel
    masks: list[LevelMasks]
    level_info: list[dict[str, Any]]
    facts: dict[str, Any]


def mark_of(opts: PruneOptions, task: TaskData, ratios: Ratios | Mapping[str, float] | None) -> str:
    given = sorted(ratios.items()) if isinstance(ratios, Mapping) else getattr(ratios, "__qualname__", None)
    content = [__version__, asdict(opts), task_mark(task), model_mark(opts.source), given]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished(out: Path, mark: str) -> dict[str, Any] | None:
    """The result of an earlier equal call; refuses a place that holds something else."""
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserInputError(f"{out} cannot be written; choose a place in a folder that exists and may be written.")
    alone = out.suffix == ".lavolta"
    if alone and (out.is_dir() or not out.exists()):
        if out.is_dir():
            raise UserInputError(f"{out} is a folder; give the name of a bundle, or a folder without .lavolta.")
        return None
    if alone:
        made = BundleFile.open(out).manifest.get("provenance", {}).get("prune", {})
        return made if made.get("mark") == mark else None
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = {}
    if result.get("kind") != "prune":
        raise UserInputError(f"{out} is there and is no result of prune; give an empty or a new folder.")
    return result if result.get("mark") == mark else None


def write(out: Path, work: Path, pruned: Pruned, opts: PruneOptions, result: dict[str, Any]) -> None:
    alone = out.suffix == ".lavolta"
    folder = work / "result"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    export_bundle(
        pruned.student,
        pruned.masks,
        pruned.level_info,
        opts.cell_rows,
        out if alone else folder / "model.lavolta",
        sparsity_info={"method": opts.method},
        provenance={"prune": result},
    )
    if alone:
        return
    write_whole(folder / "result.json", f"{json.dumps(result, indent=1)}\n".encode())
    if out.exists():
        shutil.rmtree(out)
    os.replace(folder, out)
