"""The table of commands, and what becomes of an error: one sentence on standard error and an exit code."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from lavolta.cli import (
    bench,
    compress,
    demo,
    device,
    explain,
    export,
    generate,
    govern,
    monitor,
    prune,
    report,
    rt3,
    run_bundle,
    serve,
    simulate,
)
from lavolta.errors import LavoltaError

REFUSED = 2
INTERRUPTED = 130
# Typer may bring its own Click or use the installed one; either way this is the root of the usage errors.
_UsageError = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


@dataclass
class _Global:
    debug: bool = False


def _print_version(wanted: bool) -> None:
    if wanted:
        from lavolta import __version__

        typer.echo(f"lavolta {__version__}")
        raise typer.Exit


def build_app(settings: _Global) -> typer.Typer:
    """The whole command line. A command is one row here and one file beside this one."""
    app = typer.Typer(
        name="lavolta",
        help="A Transformer with a dial: one resident model with many levels, turned by battery, clock and deadline.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )

    def root(
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
        version: Annotated[  # Typer reads it through the callback.
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        settings.debug = debug and not version

    app.callback()(root)
    commands: tuple[tuple[str, Callable[..., None]], ...] = (
        ("compress", compress.compress),
        ("prune", prune.prune),
        ("export", export.export),
        ("import", export.import_sparse),
        ("run", run_bundle.run),
        ("generate", generate.generate),
        ("explain", explain.explain),
        ("bench", bench.bench),
        ("simulate", simulate.simulate),
        ("govern", govern.govern),
        ("serve", serve.serve),
        ("monitor", monitor.monitor),
        ("report", report.report),
        ("demo", demo.demo),
    )
    for name, command in commands:
        app.command(name)(command)
    for name, group, words in (
        ("device", device.COMMANDS, "Device profiles: frequencies, power, battery."),
        ("rt3", rt3.COMMANDS, "The models and experiments of the RT3 paper."),
    ):
        part = typer.Typer(help=words, no_args_is_help=True, rich_markup_mode="markdown")
        # With one command only, Typer would drop its name from the command line; a callback keeps it.
        part.callback()(_nothing)
        for command_name, command in group.items():
            part.command(command_name)(command)
        app.add_typer(part, name=name)
    return app


def _nothing() -> None:
    pass


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and turn errors into a sentence and an exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    settings = _Global()
    app = build_app(settings)
    try:
        code = app(words, prog_name="lavolta", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(words)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "lavolta"
        # Typer checks with pydantic, which puts the kind of an error before its words.
        message = str(error.format_message()).strip().replace(": Value error, ", ": ")
        if not message:
            # Called without anything: the help has been shown already.
            return REFUSED
        return _refused(f"{message.rstrip('.')}; `{path} --help` shows what is allowed.")
    except (LavoltaError, OSError, ModuleNotFoundError) as error:
        if settings.debug:
            raise
        sentence = _sentence(error)
        if sentence is None:
            raise
        return _refused(sentence)
    if code == INTERRUPTED:
        return _interrupted(words)
    return int(code) if isinstance(code, int) else 0


def _refused(sentence: str) -> int:
    print(f"lavolta: {' '.join(sentence.split())}", file=sys.stderr)
    return REFUSED


def _interrupted(words: Sequence[str]) -> int:
    again = shlex.join(["lavolta", *words])
    print(
        f"\nlavolta: interrupted; finished steps are kept, so `{again}` continues from them.",
        file=sys.stderr,
    )
    return INTERRUPTED


def _sentence(error: Exception) -> str | None:
    """The cause and the way out in one sentence; `None` for a defect of ours, which deserves its traceback."""
    if isinstance(error, LavoltaError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        if error.name == "lavolta._native":
            return "the native engine is not built here; run `make setup`, or `pip install .` in the project folder."
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "lavolta"):
            return None
        extra = "serve" if missing in ("starlette", "uvicorn", "prometheus_client") else "compress"
        return f"this command needs the package {missing}; install it with `pip install 'lavolta[{extra}]'`."
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        why = (error.strerror or str(error)).lower()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"cannot write{where}: {why}; free some space and run the same command again."
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"cannot open{where}: {why}; choose a place that you may read and write."
        return f"cannot use{where}: {why}."
    return None
