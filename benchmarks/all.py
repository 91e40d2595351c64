"""Run the benchmarks one after another, store what they found in ``results/``, and make the tables of README.md anew.

``python benchmarks/all.py`` takes about half an hour on an idle machine; ``--only NAME`` runs some, ``--tables`` none.
``--check`` changes nothing and fails where README.md does not have the numbers of ``results/``.
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from lavolta.errors import LavoltaError
from lavolta.report.generated import with_part

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
README = FOLDER / "README.md"
SCRIPTS: dict[str, list[str]] = {
    "encoder_latency": [],
    "where_it_loses": [],
    "ragged_lengths": [],
    "model_parts": [],
    "cells": [],
    "arm_throughput": [],
    "level_switch": [],
    "core_move": [],
    "decode_throughput": [],
    "deadline": [],
    "serving": [],
    "engine_levels": ["--cell-rows", "16", "8", "4", "2", "1", "--repetitions", "12"],
    "battery_life": [],
}
"""Name of a script, and the options that its stored result was made with. It has ``table(result) -> str``."""
BEGIN = "<!-- {name}: made by all.py -->"


def render(readme: str, results: Path) -> str:
    """The README with the part of every script replaced by what its result says."""
    for name in SCRIPTS:
        path = results / f"{name}.json"
        text = "Not measured yet."
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            text = f"{conditions(result)}\n\n{runpy.run_path(str(FOLDER / f'{name}.py'))['table'](result)}"
        readme = with_part(readme, BEGIN.format(name=name), text)
    return readme


def conditions(result: dict[str, Any]) -> str:
    """One line: what it was measured on, and how."""
    if "conditions" in result:
        return f"*{result['conditions']}.*"
    machine = result.get("machine", {"cpu": result.get("cpu"), "cpu_flags": [result.get("isa")]})
    words = [
        f"{machine['cpu']} ({' '.join(machine['cpu_flags'])})",
        f"{result['tokens']} tokens",
        f"{result['threads']} thread{'s' * (result['threads'] > 1)}",
        f"{result['repetitions']} repetitions",
    ]
    if "load_before" in machine:
        words.append(f"load before {machine['load_before']}")
    if "date" in result:
        words.append(str(result["date"]))
    return f"*{'; '.join(words)}.*"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(SCRIPTS), help="run these scripts only")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; engine_levels has none fewer")
    parser.add_argument("--tables", action="store_true", help="run nothing, make the tables from the stored results")
    parser.add_argument("--check", action="store_true", help="run and change nothing, compare")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another folder of results")
    args = parser.parse_args()
    present = README.read_text(encoding="utf-8")
    if args.check:
        if render(present, args.results) != present:
            raise SystemExit(
                "README.md does not have the numbers of results/; run `python benchmarks/all.py --tables`."
            )
        return
    failed: list[str] = []
    for name in [] if args.tables else args.only or SCRIPTS:
        print(f"== {name}", file=sys.stderr, flush=True)
        command = [
            sys.executable,
            str(FOLDER / f"{name}.py"),
            *SCRIPTS[name],
            "--json",
            str(args.results / f"{name}.json"),
        ]
        if args.quick and name != "engine_levels":
            command.append("--quick")
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
            continue
        README.write_text(render(README.read_text(encoding="utf-8"), args.results), encoding="utf-8")
    if args.tables:
        README.write_text(render(present, args.results), encoding="utf-8")
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed; their stored results are as they were.")


if __name__ == "__main__":
    try:
        main()
    except LavoltaError as error:
        raise SystemExit(str(error)) from None
