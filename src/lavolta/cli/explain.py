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
    """One row for each step of the computation, one column for each level; then sums, and why each kernel runs."""
    steps: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for record in records:
        steps.setdefault((str(record["layer"]), str(record["op"])), {})[str(record["level"])] = record
    rows = []
    for (layer, operation), by_level in steps.items():
        kernels = dict.fromkeys(str(record["kernel"]) for record in by_level.values())
        rows.append([layer, operation, ", ".join(kernels), *(_step(by_level.get(level)) for level in levels)])
    if tokens:
        for words, chosen in (
            ("linear layers", [r for r in records if r["op"] == "linear"]),
            ("all the rest", [r for r in records if r["op"] != "linear"]),
        ):
            rows.append([words, "", "", *(_sum(chosen, level) for level in levels)])
    title = "Steps: kept share of the cells"
    if tokens:
        title += f"; milliseconds with {tokens} tokens; share of the peak measured for the kernel's instructions"
    table(console, title, ["layer", "step", "kernel", *levels], rows, text_columns=3)
    console.print()
    reasons = dict.fromkeys((str(record["kernel"]), str(record["reason"])) for record in records)
    table(console, "Why these kernels", ["kernel", "reason"], [list(pair) for pair in reasons], text_columns=2)


def _step(record: dict[str, Any] | None) -> str:
    if record is None:
        return "–"
    parts = []
    if record.get("sparsity") is not None:
        parts.append(_percent(1 - record["sparsity"]))
    if record.get("measured_ms") is not None:
        parts.append(f"{record['measured_ms']:.3f} ms")
    if record.get("share_of_peak") is not None:
        parts.append(_percent(record["share_of_peak"]))
    return "  ".join(parts) or "–"


def _sum(records: Sequence[dict[str, Any]], level: str) -> str:
    """Time of some steps of a level; for linear layers also the share of the peak that they reach together."""
    chosen = [record for record in records if record["level"] == level]
    measured_ms = sum(record["measured_ms"] for record in chosen)
    expected_ms = [record.get("expected_ms") for record in chosen]
    known = [value for value in expected_ms if value is not None]
    share = f"  {_percent(sum(known) / measured_ms)}" if known and len(known) == len(chosen) and measured_ms > 0 else ""
    return f"{measured_ms:.3f} ms{share}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
