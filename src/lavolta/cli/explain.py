"""`lavolta explain`: which kernel runs every layer at every level, what it keeps, and how long it takes here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import draw_levels
from lavolta.cli.output import JsonOption, say, show, table
from lavolta.errors import UserInputError
from lavolta.runtime.parts import of_one_token, part_of, part_times_ms

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
    """The steps of a run, those of a single token where there are sessions, and why each kernel runs."""
    run = [record for record in records if not of_one_token(record)]
    token = [record for record in records if of_one_token(record)]
    title = "Steps: kept share of the cells"
    measured = f"; milliseconds with {tokens} tokens; share of the peak measured for the kernel's instructions"
    _draw_table(console, title + measured * bool(tokens), levels, run, bool(tokens))
    if token:
        console.print()
        title = "One token of a session: kept share of the cells"
        measured = f"; milliseconds behind {tokens} tokens; share of the rate at which the weights can be read"
        _draw_table(console, title + measured * bool(tokens), levels, token, bool(tokens))
    console.print()
    reasons = dict.fromkeys((str(record["kernel"]), str(record["reason"])) for record in records)
    table(console, "Why these kernels", ["kernel", "reason"], [list(pair) for pair in reasons], text_columns=2)


def _draw_table(
    console: Console, title: str, levels: Sequence[str], records: Sequence[dict[str, Any]], measured: bool
) -> None:
    """One row for each step of the computation, one column for each level; then the sums of the parts."""
    steps: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for record in records:
        steps.setdefault((str(record["layer"]), str(record["op"])), {})[str(record["level"])] = record
    rows = []
    for (layer, operation), by_level in steps.items():
        kernels = dict.fromkeys(str(record["kernel"]) for record in by_level.values())
        rows.append([layer, operation, ", ".join(kernels), *(_step(by_level.get(level)) for level in levels)])
    if measured:
        times = {level: part_times_ms(records, level) for level in levels}
        for part in times[levels[0]]:
            rows.append([part, "", "", *(_part(part, times[level], records, level) for level in levels)])
        rows.append(["everything", "", "", *(f"{sum(times[level].values()):.3f} ms" for level in levels)])
    table(console, title, ["layer", "step", "kernel", *levels], rows, text_columns=3)


def _step(record: dict[str, Any] | None) -> str:
    if record is None:
        return "–"
    parts = []
    if record.get("sparsity") is not None:
        parts.append(_percent(1 - record["sparsity"]))
    if record.get("measured_ms") is not None:
        parts.append(f"{record['measured_ms']:.3f} ms")
    for share in ("share_of_peak", "share_of_bandwidth"):
        if record.get(share) is not None:
            parts.append(_percent(record[share]))
    return "  ".join(parts) or "–"


def _part(part: str, times: dict[str, float], records: Sequence[dict[str, Any]], level: str) -> str:
    """Time of a part and its share of everything; of linear layers also what they reach of their limit."""
    whole = sum(times.values())
    text = f"{times[part]:.3f} ms" + (f" = {_percent(times[part] / whole)}" if whole > 0 else "")
    expected = [r.get("expected_ms") for r in records if r["level"] == level and part_of(r) == part]
    known = [value for value in expected if value is not None]
    if part != "linear layers" or len(known) != len(expected) or times[part] <= 0:
        return text
    return f"{text}  {_percent(sum(known) / times[part])}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
