"""What a command prints: JSON on standard output for programs, or tables for people."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]


def show(as_json: bool, data: Any, draw: Callable[[Console], None]) -> None:
    """Print `data` as JSON, or let `draw` print it for a person."""
    if as_json:
        text = json.dumps(plain(data), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    else:
        from rich.console import Console

        # Piped output has no width of its own; tables should not break there.
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        with console.capture() as captured:
            draw(console)
        text = captured.get()
    with quiet_pipe():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Let the reader of standard output leave, as `head` does: nothing is wrong then."""
    try:
        yield
    except BrokenPipeError:
        # The flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send what libraries print to standard error, so that standard output holds the answer only."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def plain(value: Any) -> Any:
    """`value` in the terms of JSON: records become objects, arrays lists, paths text; what is not finite is null."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PathLike):
        return str(value)
    return value


def table(
    console: Console, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1
) -> None:
    """Print a table; the first `text_columns` are text, the rest numbers."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False)
    for place, head in enumerate(heads):
        drawn.add_column(head, justify="left" if place < text_columns else "right", header_style="dim")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def say(console: Console, sentence: str) -> None:
    """Print one sentence as it is: no markup is read from it."""
    from rich.text import Text

    console.print(Text(sentence), soft_wrap=True)


def cell(value: Any, decimals: int = 2) -> str:
    """One table cell: a dash where nothing is known."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
