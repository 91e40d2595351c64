"""Text that a program makes inside files that people write: replaced as a whole, or compared with what it should be."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lavolta.errors import LavoltaError, UserInputError
from lavolta.files import write_whole

SUMMARY_BEGIN = "<!-- made by summarize.py -->"
END = "<!-- end -->"


def with_part(text: str, begin: str, part: str) -> str:
    """The text with ``part`` in the place of what stands between the line ``begin`` and the next `END`.

    Raises:
        UserInputError: one of the two lines is missing.
    """
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise UserInputError(f"the text has no place for what is made; add the lines '{begin}' and '{END}'.")
    return f"{before}{begin}\n{part}\n{END}{after}"


def bring_up_to_date(wanted: Mapping[Path, str], check: bool) -> list[Path]:
    """Write the files that are not as they should be; with ``check``, write nothing. Returns those files.

    Raises:
        UserInputError: a file cannot be written; it is as it was.
    """
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in [] if check else stale:
        write_whole(path, wanted[path].encode())
    return stale


def summary_command(script: Path, description: str | None, make: Callable[[Path], tuple[dict[str, Any], str]]) -> int:
    """The command line of a script that makes `summary.json`, and a part of `README.md`, from a folder of results.

    Args:
        script: beside it are the folder ``results`` and both files, unless the options name others.
        make: from the folder of results to the summary and the part.

    Returns:
        The exit status: 1 where ``--check`` finds a file that is not as the results say, 2 where nothing could be made.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, default=script.parent / "results")
    parser.add_argument("--out", type=Path, default=script.parent / "summary.json")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    readme = args.out.with_name("README.md")
    try:
        summary, part = make(args.results)
        wanted = {
            args.out: json.dumps(summary, indent=1) + "\n",
            readme: with_part(readme.read_text(encoding="utf-8"), SUMMARY_BEGIN, part),
        }
        stale = bring_up_to_date(wanted, args.check)
    except LavoltaError as error:
        print(error, file=sys.stderr)
        return 2
    if not args.check:
        return 0
    for path in stale:
        print(f"{path} is stale: run python {script.parent.parent.name}/{script.parent.name}/{script.name}")
    return 1 if stale else 0
