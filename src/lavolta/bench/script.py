"""What the scripts in ``benchmarks/`` share: options, the head of a result, and where the result goes."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from lavolta.bench.machine import machine
from lavolta.bench.synthetic import CELL_ROWS, DEFAULT_SHAPE, SHAPES
from lavolta.errors import UserInputError
from lavolta.sparsity.cells import CELL_ROWS as HEIGHTS


def options(description: str, *, tokens: int = 128) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default=DEFAULT_SHAPE, help="of the random model")
    parser.add_argument("--tokens", type=_count, default=tokens, help="length of the one sequence")
    parser.add_argument("--threads", type=_count, default=1, help="threads of everybody")
    parser.add_argument("--cell-rows", type=int, choices=HEIGHTS, default=CELL_ROWS, help="height of a cell")
    parser.add_argument("--seed", type=int, default=0, help="of weights, masks and token ids")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: below two minutes on an idle machine")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - prints it as the last line")
    return parser


def head(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The beginning of a result: script, day, machine, and the options that decide what was measured."""
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "shape": {
            "name": args.shape,
            **dict(zip(("layers", "hidden", "heads", "ffn"), SHAPES[args.shape], strict=True)),
        },
        "tokens": args.tokens,
        "threads": args.threads,
        "cell_rows": args.cell_rows,
        "seed": args.seed,
        "quick": args.quick,
    }


def finish(result: dict[str, Any], table: str, target: str | None) -> None:
    """Show the table on standard error, and put the result where ``--json`` says.

    Raises:
        UserInputError: the file cannot be written.
    """
    print(table, file=sys.stderr)
    text = json.dumps(result, indent=1, allow_nan=False)
    if target == "-":
        print(json.dumps(result, allow_nan=False))
    elif target:
        try:
            Path(target).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserInputError(f"{target} was not written: {error.strerror}; choose another place.") from error


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number of a table, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a count; give 1 or more")
    return int(text)
