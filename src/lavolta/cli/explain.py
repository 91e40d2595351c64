"""`lavolta explain`: which kernel runs every layer at every level, what it keeps, and how long it takes here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import draw_levels
from lavolta.cli.output import JsonOption, say, show, table
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

USUAL_TOKENS = 32


def explain(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `lavolta compress` wrote.")],
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=0, help="Measure with so many tokens; 0: do not measure; absent: at most 32."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of the engine.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Explain a bundle: its levels, and for every layer the kernel, what each level keeps, and the measured time.

    Example: `lavolta explain my.lavolta --tokens 64`
    """
    import lavolta

    with lavolta.open(bundle, threads=threads) as model:
        most = model.spec.max_tokens
        if tokens is not None and tokens > most:
            raise UserInputError(f"--tokens is {tokens}; this model takes at most {most}.")
        measured = min(USUAL_TOKENS, most) if tokens is None else tokens
        records = model.explain(measure_tokens=measured or None)
        manifest, names = model.manifest, model.levels
    data = {"bundle": bundle, "model": manifest["model"], "levels": manifest["levels"], "tokens": measured}

    def draw(console: Console) -> None:
        model_name = manifest["model"]["name"]
        say(console, f"{model_name}: cells of {manifest['cell_rows']} rows, {manifest['sparsity']['kind']}.")
        draw_levels(console, "Levels", manifest["levels"])
        console.print()
        _draw_steps(console, names, records, measured)

    show(as_json, {**data, "steps": records}, draw)


def _draw_steps(console: Console, levels: Sequence[str], records: Sequence[dict[str, Any]], tokens: int) -> None:
    """One row for each step of the computation, one column for each level."""
    steps: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for record in records:
        name = record["level"]
        level = levels[name] if isinstance(name, int) else str(name)
        steps.setdefault((str(record["layer"]), str(record["op"])), {})[level] = record
    rows = []
    for (layer, operation), by_level in steps.items():
        kernels = dict.fromkeys(f"{record['kernel']} ({record['isa']})" for record in by_level.values())
        rows.append([layer, operation, ", ".join(kernels), *(_step(by_level.get(level)) for level in levels)])
    title = f"Steps: kept share of the cells, and milliseconds with {tokens} tokens" if tokens else "Steps: kept share"
    table(console, title, ["layer", "step", "kernel", *levels], rows, text_columns=3)


def _step(record: dict[str, Any] | None) -> str:
    if record is None:
        return "–"
    kept = f"{100 * (1 - record['sparsity']):.0f} %" if record.get("sparsity") is not None else ""
    took = f"{record['measured_ms']:.3f}" if record.get("measured_ms") is not None else ""
    return " ".join(part for part in (kept, took) if part) or "–"
