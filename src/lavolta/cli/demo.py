"""`lavolta demo`: the whole promise in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import check_parents, draw_levels
from lavolta.cli.output import JsonOption, cell, quiet_stdout, say, show, table
from lavolta.errors import UserInputError
from lavolta.training.memory import keep_freed_memory

if TYPE_CHECKING:
    from rich.console import Console


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle, the result and the report.")] = Path(
        "runs/demo"
    ),
    as_json: JsonOption = False,
) -> None:
    """Compress a real sentence encoder, run it at every level, and dance along a battery.

    Needs no download and about ten minutes on two cores; done work is kept, so a second run is quick.

    Example: `lavolta demo --out runs/demo`
    """
    if out.exists() and not out.is_dir():
        raise UserInputError(f"--out {out} is a file; give a folder.")
    check_parents(out)
    from lavolta.cli.progress import open_progress

    keep_freed_memory()
    with quiet_stdout():
        from lavolta.systems.rt3.demo import run_demo

        result = run_demo(out, open_progress())

    def draw(console: Console) -> None:
        draw_levels(console, "The levels of the dial", result["levels"])
        console.print()
        draw_policies(console, result)
        console.print()
        from lavolta.report.schema import parse_result
        from lavolta.report.words import findings, headline

        checked = parse_result(result)
        for sentence in (headline(checked), *findings(checked)):
            say(console, sentence)
        say(console, f"See it: {out / 'report.html'}")

    show(as_json, result, draw)


def draw_policies(console: Console, result: dict[str, Any]) -> None:
    """A table of what one battery charge gives under each policy."""
    from lavolta.report.words import short_title

    rows = [
        [
            short_title(policy.get("title") or name),
            cell(policy["inferences"]),
            cell(policy["misses"]),
            cell(policy.get("time_h"), 1),
            cell(policy.get("mean_fidelity"), 3),
        ]
        for name, policy in result.get("policies", {}).items()
    ]
    if rows:
        heads = ["one battery charge", "answers", "deadlines missed", "hours", "mean fidelity"]
        table(console, "What a battery charge gives", heads, rows)
