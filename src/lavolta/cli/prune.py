"""`lavolta prune`: a fine-tuned encoder and its task in, a sparse one with as much of its score as possible out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import check_parents, check_positive
from lavolta.cli.output import JsonOption, cell, quiet_stdout, say, show, table
from lavolta.cli.ratio_search import SearchOptions, check_search, ratio_search
from lavolta.errors import UserInputError
from lavolta.systems.spd import defaults
from lavolta.training.memory import keep_freed_memory

if TYPE_CHECKING:
    from rich.console import Console

METHOD_WORDS = (
    f"auto: {defaults.BEST}, with --levels {defaults.BEST_LADDER}. Or one of {', '.join(defaults.METHODS)}; or "
    "aebert+METHOD with one of them, which searches for a ratio for each layer first (aebert alone: aebert+magnitude)."
)


def prune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a model that is installed.")],
    task: Annotated[
        str, typer.Option("--task", help="rte, mrpc or stsb; or for files of your own: classification, regression.")
    ],
    data: Annotated[Path, typer.Option("--data", help="The folder that holds the task's files: train and dev.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="A folder for bundle, Hugging Face folder, result and page; or a .lavolta file, the bundle alone.",
        ),
    ],
    sparsity: Annotated[
        float,
        typer.Option(
            "--sparsity", "--overall-ratio", help="Share of the encoder's linear weights that goes, 0 to below 1."
        ),
    ] = defaults.SPARSITY,
    method: Annotated[str, typer.Option("--method", help=METHOD_WORDS)] = defaults.METHOD,
    ratios: Annotated[
        Path | None,
        typer.Option("--ratios", help="JSON file with a sparsity for each linear layer, in place of one for all."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="aebert: the budget is one inference on this device (see `lavolta device list`), not a sparsity.",
        ),
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline-ms", help="aebert: longest time of one inference on the device.")
    ] = None,
    energy_mj: Annotated[
        float | None, typer.Option("--energy-mj", help="aebert: most energy of one inference on the device.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="aebert: tokens of that inference.")] = defaults.TOKENS,
    threads: Annotated[int, typer.Option("--threads", min=1, help="aebert: threads of the device that run it.")] = 1,
    proxy: Annotated[
        str,
        typer.Option("--proxy", help="aebert: how candidates are ranked: kl, hidden, loss, ladder or reconstruction."),
    ] = defaults.PROXY,
    candidates: Annotated[
        int, typer.Option("--candidates", min=1, help="aebert: ratio vectors that are looked at.")
    ] = defaults.CANDIDATES,
    workers: Annotated[int, typer.Option("--workers", min=1, help="aebert: processes that share them.")] = 1,
    levels: Annotated[
        str, typer.Option("--levels", help="Denser levels of the same bundle, such as 0.5,0.7,0.8; trained at the end.")
    ] = "",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Training steps; absent: what --epochs makes.")
    ] = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the training data.")] = defaults.EPOCHS,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is random.")] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Pairs of a training step.")
    ] = defaults.BATCH_SIZE,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate; absent: the method's own.")] = None,
    cell_rows: Annotated[
        int, typer.Option("--cell-rows", help="Height of a cell: 1 keeps most of the score, 4 or 8 run faster.")
    ] = defaults.CELL_ROWS,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=8, help="Where pairs are cut.")] = defaults.MAX_TOKENS,
    pooling: Annotated[
        str, typer.Option("--pooling", help="Of a new head: cls (plain transformers loads it) or mean.")
    ] = defaults.POOLING,
    teacher_epochs: Annotated[
        float, typer.Option("--teacher-epochs", help="Of the fine-tuning, for a model without a head for the task.")
    ] = defaults.TEACHER_EPOCHS,
    teacher_lr: Annotated[
        float, typer.Option("--teacher-lr", help="Peak learning rate of the fine-tuning.")
    ] = defaults.TEACHER_LR,
    teacher_batch_size: Annotated[
        int, typer.Option("--teacher-batch-size", min=1, help="Pairs of a step of the fine-tuning.")
    ] = defaults.TEACHER_BATCH_SIZE,
    dropout: Annotated[bool, typer.Option(help="Drop features while the student trains, as published.")] = True,
    mask_padding: Annotated[
        bool, typer.Option(help="Padding does not count in the losses; it did in the published code.")
    ] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="A slice of the data and a few steps: see that it works; no good score.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on with a teacher that is no better than chance.")] = False,
    accelerator: Annotated[str, typer.Option("--accelerator", help="cpu or cuda.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Prune an encoder for a task, far and with little loss.

    A model without a head for the task is fine-tuned first; it is then the teacher that the pruned copy learns from.

    Example: `lavolta prune all-MiniLM-L6-v2 --task rte --data ./glue --sparsity 0.9 --out runs/rte-90`
    """
    if lr is not None:
        check_positive("--lr", lr)
    check_parents(out)
    given: dict[str, Any] = {
        "sparsity": None if ratios or device else sparsity,
        "method": defaults.SEARCHED.get(method, method),
        "levels": _levels(levels),
        "steps": steps,
        "epochs": epochs,
        "seed": seed,
        "batch_size": batch_size,
        "lr": lr,
        "cell_rows": cell_rows,
        "max_tokens": max_tokens,
        "pooling": pooling,
        "teacher_epochs": teacher_epochs,
        "teacher_lr": teacher_lr,
        "teacher_batch_size": teacher_batch_size,
        "dropout": dropout,
        "mask_padding": mask_padding,
        "quick": quick,
        "force": force,
        "accelerator": accelerator,
    }
    if method not in (defaults.METHOD, *defaults.METHODS, *defaults.SEARCHED):
        raise UserInputError(
            f"the method {method!r} is unknown; choose one of {', '.join(defaults.METHODS)}, or aebert+METHOD."
        )
    from lavolta.systems.spd.options import PruneOptions

    # A wrong value should not be found out after torch is loaded.
    PruneOptions(model, task, str(data), **given)
    search = check_search(
        context,
        method,
        SearchOptions(
            sparsity,
            device,
            deadline_ms,
            energy_mj,
            tokens,
            threads,
            proxy,
            min(candidates, defaults.QUICK_CANDIDATES) if quick else candidates,
            workers,
            cell_rows,
            seed,
        ),
        ratios,
    )
    chosen: Any = None if ratios is None else read_ratios(ratios)
    from lavolta.cli.progress import open_progress

    keep_freed_memory()
    with quiet_stdout():
        from lavolta.systems.spd.recipe import prune as prune_model

        if method in defaults.SEARCHED:
            chosen = ratio_search(method, search)
        result = prune_model(model, task=task, data=data, out=out, ratios=chosen, progress=open_progress(), **given)

    def draw(console: Console) -> None:
        table(
            console,
            f"{out}: {result['task']} ({result['metric']}), {result['method']}",
            ["level", "encoder sparsity (%)", "whole model (%)", "score", "dense"],
            [
                [
                    level["name"],
                    cell(100 * level["encoder_sparsity"], 1),
                    cell(100 * level["model_sparsity"], 1),
                    cell(level["score"]),
                    cell(result["dense_score"]),
                ]
                for level in result["levels"]
            ],
        )
        bundle = out if out.suffix == ".lavolta" else out / "model.lavolta"
        say(console, f"Look inside: lavolta explain {bundle}")

    show(as_json, result, draw)


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise UserInputError(f"--levels is {text!r}; give numbers with commas, such as 0.5,0.7.") from error


def read_ratios(path: Path) -> dict[str, float]:
    """A JSON object of numbers by linear name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserInputError(f"{path} cannot be read: {error.strerror}; give a JSON file.") from error
    except ValueError as error:
        raise UserInputError(f"{path} is not JSON ({error}); give an object of numbers by layer.") from error
    if not isinstance(found, dict) or not all(isinstance(v, int | float) for v in found.values()):
        raise UserInputError(f'{path} is no object of numbers; give one such as {{"layers.0.ffn.up": 0.9, ...}}.')
    return {str(name): float(value) for name, value in found.items()}
