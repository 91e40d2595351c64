"""`lavolta report`: make the page of a run again from its `result.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lavolta.cli.output import JsonOption, say, show

if TYPE_CHECKING:
    from rich.console import Console


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or its result.json.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write; beside result.json when absent.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run: one HTML page that needs no network.

    Example: `lavolta report runs/demo`
    """
    from lavolta.report import load_result, write_report
    from lavolta.report.training import read_prune_result, write_training_page

    source = run / "result.json" if run.is_dir() or run.suffix != ".json" else run
    target = out if out is not None else source.parent / "report.html"
    pruned = read_prune_result(source)
    page = write_report(load_result(source), target) if pruned is None else write_training_page(pruned, target)

    def draw(console: Console) -> None:
        say(console, f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB); open it in any browser.")

    show(as_json, {"report": page, "bytes": page.stat().st_size}, draw)
