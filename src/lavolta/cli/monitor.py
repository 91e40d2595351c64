"""`lavolta monitor`: a server, or a device alone, live in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.output import JsonOption, show
from lavolta.cli.serve import PORT
from lavolta.errors import LavoltaError, UserInputError

if TYPE_CHECKING:
    from lavolta.cli.monitor_view import Seen
    from lavolta.devices.sources import Source
    from lavolta.serve.client import Line

AGAIN_S = 1.0
"""Pause before a server that went away is asked again, and between two looks at a device."""


def monitor(
    socket: Annotated[Path | None, typer.Option("--socket", help="The Unix socket of a server.")] = None,
    url: Annotated[
        str | None, typer.Option("--url", help=f"The address of a server; absent: http://127.0.0.1:{PORT}.")
    ] = None,
    sysfs: Annotated[
        Path | None, typer.Option("--sysfs", help="No server: this computer, where the system shows its devices.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it, and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show charge, clock, heat, level, latency, energy, and prediction against truth, live.

    Without a terminal, and with `--json`, it looks once. Ctrl-C ends it.

    Example: `lavolta monitor --socket /run/lavolta/lavolta.sock`
    """
    if sum(given is not None for given in (socket, url, sysfs)) > 1:
        raise UserInputError("--socket, --url and --sysfs exclude one another; give one of them.")
    from lavolta.cli.monitor_view import Seen

    seen = Seen()
    changes: Iterator[None]
    if sysfs is not None:
        changes = _follow_device(seen, _source(sysfs), time.sleep)
    else:
        from lavolta.serve.client import Line

        changes = follow_server(seen, Line(socket or url or f"http://127.0.0.1:{PORT}"), time.sleep)
    # A wrong address is one sentence, and no empty screen.
    next(changes)
    if once or as_json or not sys.stdout.isatty():
        show(as_json, seen.status, lambda console: console.print(seen.view(console.width)))
    else:
        _live(seen, changes)


def _live(seen: Seen, changes: Iterator[None]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    try:
        with Live(seen.view(console.width), console=console, screen=True, auto_refresh=False) as live:
            for _ in changes:
                live.update(seen.view(console.width, console.height), refresh=True)
    except KeyboardInterrupt:
        return


def follow_server(seen: Seen, line: Line, sleep: Callable[[float], None]) -> Iterator[None]:
    """Keep up with a server, also when it goes and comes again; yields when there is something new to show.

    Raises:
        UserInputError: nobody answered at the beginning.
    """
    met = False
    while True:
        try:
            for name, data in line.events():
                if name == "history":
                    seen.begin(data)
                else:
                    seen.look(data)
                    met = True
                    yield
        except LavoltaError:
            if not met:
                raise
        seen.lose()
        yield
        sleep(AGAIN_S)


def _follow_device(seen: Seen, source: Source, sleep: Callable[[float], None]) -> Iterator[None]:
    while True:
        seen.look(_reading(source))
        yield
        sleep(AGAIN_S)


def _source(sysfs: Path) -> Source:
    from lavolta.devices.sources import Checked, LinuxSource

    if not sysfs.is_dir():
        raise UserInputError(f"there is no folder {sysfs}; give the one where the system shows its devices: /sys.")
    return Checked(LinuxSource(sysfs))


def _reading(source: Source) -> dict[str, Any]:
    """The part of a server's status that a device alone has."""
    reading = source.read()
    found = asdict(reading)
    for name in ("time_s", "slept_s", "missing"):
        del found[name]
    return {**found, "uptime_s": reading.time_s, "unknown": reading.words()}
