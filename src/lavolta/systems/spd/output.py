"""What a run writes and finds again: the folder or bundle of its result, and the mark that tells runs apart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavolta import __version__
from lavolta.errors import UserInputError
from lavolta.files import write_whole
from lavolta.models.export import export_bundle
from lavolta.models.hf_out import save_pretrained
from lavolta.models.loaded import LoadedModel
from lavolta.models.marks import model_mark, task_mark
from lavolta.models.tasks import TaskData
from lavolta.progress import Progress
from lavolta.report.training import write_training_page
from lavolta.runtime.bundle import made_with
from lavolta.sparsity.ranking import LevelMasks
from lavolta.systems.spd.options import PruneOptions
from lavolta.training.task_data import TaskSplits

TEACHING = ("task", "seed", "max_tokens", "pooling", "quick", "accelerator")
"""Options that a fine-tuning depends on, beside those that are the teacher's by name."""


@dataclass(frozen=True)
class FoundRatios:
    """What a search found.

    Args:
        per_linear: canonical name to sparsity.
        facts: how it was found, plain values.
    """

    per_linear: Mapping[str, float]
    facts: dict[str, Any]


@dataclass(frozen=True)
class RatioSearch:
    """How much of each layer goes, found from the fine-tuned teacher.

    Args:
        name: of the method that searches.
        check: refuses a budget that a model cannot meet, before it is fine-tuned.
        mark: names the search and its options; another mark is another run.
        run: from the teacher, its data, a folder for unfinished work and a listener to the ratios.
    """

    name: str
    mark: str
    check: Callable[[LoadedModel], None]
    run: Callable[[LoadedModel, TaskSplits, Path, Progress], FoundRatios]


Ratios = Mapping[str, float] | RatioSearch


@dataclass
class Pruned:
    """A pruned model with what is known about it: JSON-able facts, and masks per level, densest first."""

    student: LoadedModel
    masks: list[LevelMasks]
    level_info: list[dict[str, Any]]
    facts: dict[str, Any]


def mark_of(opts: PruneOptions, task: TaskData, ratios: Ratios | None) -> str:
    """Names a run by its options, its data, its model and its ratios."""
    given = ratios.mark if isinstance(ratios, RatioSearch) else None if ratios is None else sorted(ratios.items())
    content = [__version__, opts.identity(), task_mark(task), model_mark(opts.source), given]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def teacher_mark(opts: PruneOptions, task: TaskData) -> str:
    """Names a fine-tuning by what it depends on."""
    mine = {name: value for name, value in opts.identity().items() if name.startswith("teacher_") or name in TEACHING}
    content = json.dumps([__version__, mine, task_mark(task), model_mark(opts.source)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def finished(out: Path, mark: str) -> dict[str, Any] | None:
    """The result of an earlier equal call; refuses a place that holds something else."""
    if out.name in ("", ".."):
        raise UserInputError(f"{str(out)!r} is no name for a result; give one, such as {out / 'pruned'}.")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserInputError(f"{out} cannot be written; choose a place in a folder that exists and may be written.")
    alone = out.suffix == ".lavolta"
    if alone and (out.is_dir() or not out.exists()):
        if out.is_dir():
            raise UserInputError(f"{out} is a folder; give the name of a bundle, or a folder without .lavolta.")
        return None
    if alone:
        made = made_with(out, "prune")
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


def write(out: Path, work: Path, pruned: Pruned, opts: PruneOptions, result: dict[str, Any]) -> dict[str, Any]:
    """Put the result where it was asked for, whole; returns it with what is known of the Hugging Face folder."""
    alone = out.suffix == ".lavolta"
    folder = work / "result"
    for old in (folder, work / "replaced"):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir()
    if not alone:
        saved = save_pretrained(pruned.student, folder / "huggingface", pruned.masks[-1], opts.cell_rows)
        result = {**result, "huggingface": {"architecture": saved.architecture, "head": saved.head}}
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
        return result
    write_whole(folder / "result.json", f"{json.dumps(result, indent=1)}\n".encode())
    write_training_page(result, folder / "report.html")
    if out.exists():
        # An end in the middle leaves the old result or the new one, never a part of one.
        os.replace(out, work / "replaced")
    os.replace(folder, out)
    return result
