"""`lavolta bench`: how fast a bundle, or a random model, runs here, beside ONNX Runtime, OpenVINO and PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.output import JsonOption, cell, say, show, table

if TYPE_CHECKING:
    from rich.console import Console


def bench(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle; absent: a random model of DistilBERT's shape.", show_default=False)
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="Run ONNX Runtime, OpenVINO and PyTorch on the same weights too.")
    ] = False,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Length of the text; absent: 128, or the model's limit.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of everybody.")] = 1,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            "--levels",
            help="A level's name or number, or without a bundle a sparsity such as 0.75; repeat it. Absent: all.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: about a minute.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Benchmark a bundle, or a random model, beside its peers: everybody in a process of its own, taking turns.

    Example: `lavolta bench my.lavolta --peers --tokens 64`
    """
    from lavolta.bench import BenchOptions
    from lavolta.bench import bench as measure
    from lavolta.cli.progress import open_progress

    options = BenchOptions(tokens=tokens, threads=threads, levels=tuple(levels or ()), peers=peers, quick=quick)
    data = measure(bundle, options, open_progress())
    show(as_json, {"bundle": bundle, **data}, lambda console: _draw(console, data))


def _draw(console: Console, data: dict[str, Any]) -> None:
    rows, reasons = [], []
    for record in sorted(data["contestants"], key=lambda record: record["median_ms"] or float("inf")):
        if record["median_ms"] is None:
            reasons.append(f"{record['engine']} {record['precision']} did not run: {record['reason']}")
            continue
        if record["over_threads"]:
            reasons.append(f"{record['name']} kept {record['threads_busy']:.1f} threads busy, more than it was given.")
        rows.append(
            [
                record["name"],
                record["precision"],
                f"{100 * record['sparsity']:.0f} %",
                cell(record["median_ms"]),
                cell(record["mad_ms"]),
                cell(record["min_ms"]),
                cell(record.get("times_faster_than_peer")),
                record["instruction_set"],
            ]
        )
    count = data["rounds"] * data["repeat"]
    title = f"{data['model']['name']}, {data['tokens']} tokens, {data['threads']} thread(s), {count} runs of each"
    heads = ["who", "precision", "sparsity", "median ms", "± ms", "fastest ms", "times the best peer", "computed with"]
    order = [0, 1, 7, 2, 3, 4, 5, 6]
    table(console, title, [heads[i] for i in order], [[row[i] for i in order] for row in rows], text_columns=3)
    say(console, f"Processor: {data['machine']['cpu']}, {' '.join(data['machine']['cpu_flags'])}.")
    for reason in reasons:
        say(console, reason)
