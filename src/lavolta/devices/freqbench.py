"""Derive device profiles from freqbench's measurements (github.com/kdrag0n/freqbench, MIT, Danny Lin).

``python -m lavolta.devices.freqbench DATA_FOLDER`` rewrites the shipped profiles; DATA_FOLDER holds
``freqbench_all.csv`` and ``freqbench_raw_json.tar.xz``.
"""

from __future__ import annotations

import csv
import functools
import json
import statistics
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from lavolta.devices.freqbench_chips import CHIPS as CHIPS
from lavolta.devices.freqbench_chips import Chip as Chip
from lavolta.devices.freqbench_chips import CoreType
from lavolta.errors import UserInputError

RELATIVE_SPEED = {1: 0.3, 2: 0.55, 4: 0.8, 8: 1.0, 16: 1.0}
"""Speed on kept work by cell height, relative to 8 rows: measured with the prototype kernels (docs/design)."""
REACHED_SHARE = 0.6
"""Share of the peak that the prototype's kernels reach with cells of 8 rows."""
INT8_DOT_SPEED = 4.0
"""Int8 products per fp32 product where a core has the dot-product instruction: four to a lane."""
INT8_WIDENING_SPEED = 2.0
"""The same where it has only widening multiplications: twice the lanes."""

_RESULTS, _VOLTAGES = "results.json", "voltages.txt"
_RUNS = ("soc", "run", "CPU", "Frequency (kHz)", "Power (mW)")


def profile_name(chip: Chip) -> str:
    """Name of the shipped profile of a chip."""
    return f"freqbench-{chip.soc}"


def render(chip: Chip, data_folder: Path) -> str:
    """The TOML text of a chip's profile, from freqbench's ``main`` run.

    Raises:
        UserInputError: the folder lacks the data, or the run lacks a cluster.
    """
    steps = _steps(chip, data_folder / _files()[0])
    voltages = _voltages(chip, data_folder)
    board_mw, board_text, board_label = _board(chip, data_folder)
    lines = [
        f"# Generated: python -m lavolta.devices.freqbench DATA_FOLDER ({', '.join(_files())}).",
        "format = 1",
        f'name = "{profile_name(chip)}"',
        f'title = "{chip.title}"',
        f'default_cluster = "{chip.default}"',
        "",
        "[power]",
        "idle_mw = 0.0",
        f"board_mw = {board_mw:.1f}",
        _source(board_text, "MIT (freqbench)" if board_label == "measured" else "none needed", board_label),
        "",
        "[switching]",
        "frequency_us = 100.0",
        "frequency_uj = 50.0",
        "level_us = 100.0",
        "level_uj = 0.0",
        *(["cluster_us = 200.0", "cluster_uj = 200.0"] if len(chip.parts) > 1 else []),
        _source(
            "frequency: of the order of Linux cpufreq transition latencies; level: upper bound that the demo checks"
            + ("; cluster: cold caches, a megabyte from memory, at a watt" if len(chip.parts) > 1 else ""),
            "none needed",
            "assumption",
        ),
        "",
        "[battery]",
        "capacity_mah = 4000.0",
        "nominal_mv = 3850.0",
        _source("a common phone battery; freqbench names none", "none needed", "assumption"),
    ]
    first = 0
    for part in chip.parts:
        lines += [
            "",
            "[[clusters]]",
            f'name = "{part.name}"',
            f"cores = {part.cores}",
            f"cpus = {list(range(first, first + part.cores))}",
            "steps_source = "
            + _inline(
                "frequencies of freqbench's main run"
                + (f"; voltages of its {_VOLTAGES}" if voltages.get(part.cpu) else "")
                + "; CPU numbers: as Linux numbers this chip",
                "MIT (freqbench)",
                "measured",
            ),
            "power_source = "
            + _inline(
                "CoreMark on one core, power above idle, freqbench's main run; several busy cores are taken as a sum",
                "MIT (freqbench)",
                "measured",
            ),
            "steps = [",
            *(_step(khz, mw, voltages.get(part.cpu, {}).get(khz)) for khz, mw in steps[part.cpu]),
            "]",
            "",
            *_latency(part.core, chip.bandwidth_gb_s),
        ]
        first += part.cores
    return "\n".join(lines) + "\n"


def _step(khz: int, mw: float, voltage_uv: float | None) -> str:
    voltage = "" if voltage_uv is None else f", voltage_mv = {voltage_uv / 1000:.1f}"
    return f"  {{ freq_mhz = {khz / 1000:.1f}, active_mw = {mw:.2f}{voltage} }},"


def _latency(core: CoreType, bandwidth_gb_s: float) -> list[str]:
    peak = core.macs_per_cycle * REACHED_SHARE
    int8_speed = INT8_DOT_SPEED if core.dot else INT8_WIDENING_SPEED
    int8_words = "dot product" if core.dot else "widening multiplication"
    return [
        "[[clusters.latency]]",
        'isa = "neon"',
        "cycles_fixed = 0.0",
        f"cycles_per_kept_mac = {_by_height(peak)}",
        f"cycles_per_kept_mac_int8 = {_by_height(peak * int8_speed)}",
        f"cycles_per_rest_mac = {1 / (peak * 0.5):.4f}",
        f"bandwidth_gb_s = {bandwidth_gb_s:.1f}",
        "fixed_us = 0.0",
        "thread_efficiency = 0.85",
        _source(
            f"{core.title}: {core.macs_per_cycle} fp32 MAC per cycle at peak (NEON lanes x pipes), "
            f"{100 * REACHED_SHARE:.0f} % reached with 8 rows, half of that on the rest, other heights in the "
            f"prototype's ratios; int8 {int8_speed:g} times as fast ({int8_words}); "
            "bandwidth and threads are guesses; replace by a measured profile",
            "none needed",
            "assumption",
        ),
    ]


def _by_height(macs_per_cycle: float) -> str:
    values = ", ".join(f'"{rows}" = {1 / (macs_per_cycle * speed):.4f}' for rows, speed in RELATIVE_SPEED.items())
    return f"{{ {values} }}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the profiles of `CHIPS` beside the package's others."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        print("usage: python -m lavolta.devices.freqbench DATA_FOLDER", file=sys.stderr)
        return 2
    folder = Path(__file__).parent / "profiles"
    try:
        texts = {profile_name(chip): render(chip, Path(given[0])) for chip in CHIPS}
    except UserInputError as error:
        print(error, file=sys.stderr)
        return 2
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        print(folder / f"{name}.toml")
    return 0


def _files() -> tuple[str, str]:
    return "freqbench_all.csv", "freqbench_raw_json.tar.xz"


def _steps(chip: Chip, path: Path) -> dict[int, list[tuple[int, float]]]:
    """CPU number to (kHz, mW), rising; a step whose power drowned in noise is left out."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (row["soc"], row["run"]) == (chip.soc, "main")]
    except OSError as error:
        raise UserInputError(f"cannot read {path}: {error.strerror}; give the folder of the freqbench data.") from error
    except KeyError as error:
        raise UserInputError(f"{path} has no column {error}; it needs {', '.join(_RUNS)}.") from error
    steps = {
        part.cpu: sorted(
            (int(row["Frequency (kHz)"]), float(row["Power (mW)"]))
            for row in rows
            if int(row["CPU"]) == part.cpu and float(row["Power (mW)"]) > 0
        )
        for part in chip.parts
    }
    for cpu, found in steps.items():
        if not found:
            raise UserInputError(f"{path} has no power of CPU {cpu} in the main run of {chip.soc}.")
    return steps


def _voltages(chip: Chip, data_folder: Path) -> dict[int, dict[int, float]]:
    """CPU number to kHz to microvolts; empty for the chips without such a file."""
    text = _member(chip, data_folder, _VOLTAGES)
    found: dict[int, dict[int, float]] = {}
    for entry in (text or b"").decode().split():
        key, _, microvolts = entry.partition("=")
        cpu, _, khz = key.partition(".")
        found.setdefault(int(cpu), {})[int(khz)] = float(microvolts)
    return found


def _member(chip: Chip, data_folder: Path, name: str) -> bytes | None:
    content = _archive(data_folder / _files()[1])
    if not any(known.startswith(f"results/{chip.soc}/") for known in content):
        raise UserInputError(f"{data_folder / _files()[1]} has no results of {chip.soc}.")
    return content.get(f"results/{chip.soc}/{name}")


@functools.lru_cache(maxsize=1)
def _archive(path: Path) -> dict[str, bytes]:
    """The small files that profiles are made from, by name; unpacking takes a second, so once for all chips."""
    found = {}
    try:
        with tarfile.open(path) as archive:
            for item in archive:
                file = archive.extractfile(item) if item.name.endswith((_RESULTS, _VOLTAGES)) else None
                if file is not None:
                    found[item.name] = file.read()
    except (OSError, tarfile.TarError) as error:
        raise UserInputError(f"cannot read {path}: {error}; give the folder of the freqbench data.") from error
    return found


def _board(chip: Chip, data_folder: Path) -> tuple[float, str, str]:
    if not chip.board_measured:
        return 1000.0, "idle of this run does not show the board; of the order of the other phones", "assumption"
    content = _member(chip, data_folder, f"main/{_RESULTS}") or _member(chip, data_folder, _RESULTS)
    data = json.loads(content or b'{"cpus": {}}')
    idle = [step["idle"]["power_mean"] for cpu in data["cpus"].values() for step in cpu["freqs"].values()]
    if not idle:
        raise UserInputError(f"{data_folder / _files()[1]} has no idle readings of {chip.soc}.")
    text = (
        "median of freqbench's idle readings at every step: the whole device with its screen off; "
        "the processor's idle power is inside it and cannot be told apart, so idle_mw is 0"
    )
    return float(statistics.median(idle)), text, "measured"


def _inline(text: str, licence: str, label: str) -> str:
    return f"{{ text = {json.dumps(text)}, licence = {json.dumps(licence)}, label = {json.dumps(label)} }}"


def _source(text: str, licence: str, label: str) -> str:
    return "source = " + _inline(text, licence, label)


if __name__ == "__main__":
    sys.exit(main())
