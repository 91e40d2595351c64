"""`lavolta rt3 ...`: the paper's own first model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lavolta.cli.compress import check_positive
from lavolta.cli.output import JsonOption, cell, quiet_stdout, say, show, table
from lavolta.errors import UserInputError
from lavolta.training.memory import keep_freed_memory

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.progress import Stage


def train_lm(
    data: Annotated[Path, typer.Option("--data", help="Folder with the train, valid and test text of WikiText-2.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the model and its scores.")] = Path("runs/rt3-lm"),
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the training text.")] = 8.0,
    hidden: Annotated[int, typer.Option("--hidden", min=2, help="Width of the model.")] = 800,
    heads: Annotated[int, typer.Option("--heads", min=1, help="Attention heads.")] = 4,
    ffn: Annotated[int, typer.Option("--ffn", min=1, help="Width of the feed-forward part.")] = 200,
    layers: Annotated[int, typer.Option("--layers", min=1, help="Transformer layers.")] = 2,
    sequences: Annotated[int, typer.Option("--sequences", min=1, help="Sequences in a batch.")] = 32,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Words in a sequence.")] = 64,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights and data order.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train the paper's word-level language model from scratch; an interrupted run continues.

    Example: `lavolta rt3 train-lm --data wikitext-2 --out runs/rt3-lm --epochs 8`
    """
    check_positive("--epochs", epochs)
    check_positive("--lr", lr)
    if not data.is_dir():
        raise UserInputError(f"--data {data} is not a folder; give the one with the train, valid and test text.")
    if hidden % heads:
        raise UserInputError(f"--hidden {hidden} is not a multiple of --heads {heads}; change one of them.")
    from lavolta.cli.progress import open_progress

    progress = open_progress()
    keep_freed_memory()
    with quiet_stdout():
        from lavolta.models.lm import LmConfig
        from lavolta.systems.rt3.lm import LmTraining
        from lavolta.systems.rt3.lm import train_lm as train

        training = LmTraining(
            model=LmConfig(hidden=hidden, heads=heads, ffn=ffn, layers=layers),
            epochs=epochs,
            sequences=sequences,
            tokens=tokens,
            lr=lr,
            seed=seed,
        )
        with ExitStack() as stack:
            stage: Stage | None = None
            before = 0

            def on_step(step: int, total: int, loss: float) -> None:
                nonlocal stage, before
                if stage is None:  # Only the training knows how many steps there are.
                    stage = stack.enter_context(progress.stage("train the language model", total))
                stage.advance(step - before)
                before = step
                stage.note(f"loss {loss:.3f}")

            result = train(data, out, training, on_step)

    def draw(console: Console) -> None:
        rows = [
            [split, cell(100 * result[split]["accuracy"]), cell(result[split]["perplexity"], 1)]
            for split in ("valid", "test")
        ]
        table(console, f"The language model in {out}", ["text", "next-word accuracy (%)", "perplexity"], rows)
        say(console, f"Trained on {result['train_words']:,} words of {result['train_file']}.")

    show(as_json, result, draw)


COMMANDS: dict[str, Callable[..., None]] = {"train-lm": train_lm}
