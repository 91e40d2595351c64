"""`lavolta compress`: a trained Transformer and a device in, one bundle with a dial out."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.output import JsonOption, cell, quiet_stdout, say, show, table
from lavolta.errors import UserInputError
from lavolta.systems.rt3 import defaults
from lavolta.training.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


class Precision(str, Enum):
    """How the weights are stored and multiplied."""

    FP32 = "fp32"
    INT8 = "int8"


DEFAULT_PRECISION = Precision(defaults.PRECISION)


class Mode(str, Enum):
    """How the weights recover from the pruning."""

    DISTILL = "distill"
    ONE_SHOT = "one-shot"


def compress(
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a model that is installed.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write.")],
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", help="UTF-8 text to learn from, a sentence a line; absent: text that comes with Python."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="A task with labels instead of text: those of `prune`.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The folder that holds the task's files.")] = None,
    device: Annotated[
        str, typer.Option("--device", help="A device name (see `lavolta device list`) or a .toml profile.")
    ] = defaults.DEVICE,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            "--deadline-ms", help="Longest time of one answer on the device; absent: what the dense model keeps."
        ),
    ] = None,
    levels: Annotated[
        int, typer.Option("--levels", min=1, max=32, help="How many positions the dial has.")
    ] = defaults.LEVELS,
    max_sparsity: Annotated[
        float, typer.Option("--max-sparsity", help="No level drops a larger share of the weights; 0 to 0.93.")
    ] = defaults.MAX_SPARSITY,
    cell_rows: Annotated[
        int | None, typer.Option("--cell-rows", help="Height of a cell: 1, 2, 4, 8 or 16; absent: the usual one.")
    ] = None,
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, help="Tokens of the text that the deadline is for.")
    ] = defaults.TOKENS,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the device that run it.")] = 1,
    mode: Annotated[
        Mode, typer.Option("--mode", help="distill: train the weights (better); one-shot: calibrate only (minutes).")
    ] = Mode.DISTILL,
    precision: Annotated[
        Precision,
        typer.Option("--precision", help="int8: a quarter of the size, faster, a little less exact; fp32: as trained."),
    ] = DEFAULT_PRECISION,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of the distillation.")] = defaults.STEPS,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Sentences of a training step.")
    ] = defaults.BATCH_SIZE,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate.")] = defaults.LR,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is random.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compress a trained Transformer into one bundle with many levels.

    The levels are searched for the device and the deadline; all share one set of weights.

    Example: `lavolta compress ./my-model --text notes.txt --device odroid-xu3-a7 --deadline-ms 700 --out my.lavolta`
    """
    if text is not None and task is not None:
        raise UserInputError("--text and --task exclude one another; give the one to learn from.")
    if task is not None and data is None:
        raise UserInputError(f"the task {task} needs its files; give --data DIR.")
    check_positive("--lr", lr)
    if deadline_ms is not None:
        check_positive("--deadline-ms", deadline_ms)
    if text is not None:
        check_text(text)
    check_out(out)
    from lavolta.devices import load
    from lavolta.sparsity.cells import CELL_ROWS

    if cell_rows is not None and cell_rows not in CELL_ROWS:
        raise UserInputError(f"--cell-rows is {cell_rows}; choose one of {', '.join(map(str, CELL_ROWS))}.")
    load(device)  # An unknown device should not be found out after minutes of training.
    from lavolta.cli.progress import open_progress

    keep_freed_memory()
    with quiet_stdout():
        from lavolta.systems.rt3.recipe import compress as compress_model

        result = compress_model(
            model,
            text=text,
            task=task,
            data=data,
            device=device,
            deadline_ms=deadline_ms,
            levels=levels,
            max_sparsity=max_sparsity,
            out=out,
            cell_rows=cell_rows,
            tokens=tokens,
            threads=threads,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            mode=mode.value,
            precision=precision.value,
            progress=open_progress(),
        )

    def draw(console: Console) -> None:
        draw_levels(console, f"{out}: {len(result['levels'])} levels, one set of weights", result["levels"])
        say(console, f"Try it: lavolta run {out} --level {result['levels'][-1]['name']} --text 'some words'")

    show(as_json, result, draw)


def check_positive(option: str, value: float) -> None:
    """Refuse what is not a finite number above zero."""
    if not 0 < value < float("inf"):
        raise UserInputError(f"{option} is {value:g}; give a number above 0.")


def check_text(path: Path) -> None:
    """Refuse a text file that cannot teach anything, before anything heavy is loaded."""
    if path.is_dir():
        raise UserInputError(f"{path} is a folder; give a text file.")
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserInputError(f"there is no file {path}; give a UTF-8 text file.") from error
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8.") from error
    if not content.strip():
        raise UserInputError(f"{path} is empty; give text like that which the model will see.")


def check_out(path: Path) -> None:
    """Refuse a place that cannot be written, before the work and not after it."""
    if path.is_dir():
        raise UserInputError(f"--out {path} is a folder; give the name of a file in it, such as {path / 'my.lavolta'}.")
    check_parents(path)


def check_parents(path: Path) -> None:
    """Refuse a path below something that is not a folder."""
    existing = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if existing is not None and not existing.is_dir():
        raise UserInputError(f"--out {path}: {existing} is a file, not a folder; choose another place.")


def draw_levels(console: Console, title: str, levels: Sequence[dict[str, Any]]) -> None:
    """A table of the levels of a result or a manifest; columns that nobody knows are left out."""
    columns = [
        ("level", "name", 0),
        ("sparsity (%)", "sparsity", 1),
        ("fidelity", "fidelity", 3),
        ("score", "score", 2),
        ("here (ms)", "latency_ms", 2),
        ("dense here (ms)", "dense_latency_ms", 2),
        ("clock (MHz)", "freq_mhz", 0),
        ("device (ms)", "device_latency_ms", 1),
        ("device (mJ)", "device_energy_mj", 1),
    ]
    known = [column for column in columns if any(level.get(column[1]) is not None for level in levels)]

    def words(level: dict[str, Any], key: str, decimals: int) -> str:
        value = level.get(key)
        return cell(100 * value if key == "sparsity" and value is not None else value, decimals)

    table(
        console,
        title,
        [head for head, *_ in known],
        [[words(level, key, decimals) for _, key, decimals in known] for level in levels],
    )
