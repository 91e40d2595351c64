"""The command line: `lavolta COMMAND`, one file for each command."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 refused with one sentence, 130 interrupted)."""
    from lavolta.cli.app import run

    return run(arguments)
