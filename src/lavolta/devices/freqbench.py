"""Derive device profiles from freqbench's measurements (github.com/kdrag0n/freqbench, MIT, Danny Lin).

``python -m lavolta.devices.freqbench DATA_FOLDER`` rewrites the shipped profiles; DATA_FOLDER holds
``freqbench_all.csv`` and ``freqbench_raw_json.tar.xz``.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lavolta.errors import UserInputError

RELATIVE_SPEED = {1: 0.3, 2: 0.55, 4: 0.8, 8: 1.0, 16: 1.0}
"""Speed on kept work by cell height, relative to 8 rows: measured with the prototype kernels (docs/design)."""
REACHED_SHARE = 0.6
"""Share of the peak that the prototype's fp32 kernel reaches with cells of 8 rows."""

_RUNS = ("soc", "run", "CPU", "Frequency (kHz)", "Power (mW)")


@dataclass(frozen=True)
class CoreType:
    """A core and its fp32 multiply-accumulates per cycle: NEON lanes times NEON pipes."""

    name: str
    cluster: str
    macs_per_cycle: int


A53 = CoreType("Cortex-A53", "cortex-a53", 4)
A55 = CoreType("Cortex-A55", "cortex-a55", 4)
KRYO_SILVER = CoreType("Kryo 385 Silver (Cortex-A55)", "kryo-385-silver", 4)
KRYO_GOLD = CoreType("Kryo 385 Gold (Cortex-A75)", "kryo-385-gold", 8)
A76 = CoreType("Cortex-A76", "cortex-a76", 8)
A77 = CoreType("Cortex-A77", "cortex-a77", 8)
A77_PRIME = CoreType("Cortex-A77 prime", "cortex-a77-prime", 8)
X1 = CoreType("Cortex-X1", "cortex-x1", 16)


@dataclass(frozen=True)
class Chip:
    """One SoC to derive: ``clusters`` maps the CPU number that freqbench names to its core type and count of cores."""

    soc: str
    title: str
    clusters: dict[int, tuple[CoreType, int]]
    default: CoreType
    bandwidth_gb_s: float
    board_measured: bool


CHIPS = (
    Chip("msm8953", "Qualcomm Snapdragon 625 (msm8953)", {1: (A53, 8)}, A53, 3.0, True),
    Chip("sdm845", "Qualcomm Snapdragon 845 (sdm845)", {1: (KRYO_SILVER, 4), 4: (KRYO_GOLD, 4)}, KRYO_GOLD, 8.0, True),
    Chip(
        "sm8250",
        "Qualcomm Snapdragon 865 (sm8250)",
        {1: (A55, 4), 4: (A77, 3), 7: (A77_PRIME, 1)},
        A77,
        10.0,
        True,
    ),
    # Its idle readings are near zero (power was taken from per-rail meters), so they say nothing about the board.
    Chip("gs101", "Google Tensor (gs101)", {1: (A55, 4), 4: (A76, 2), 6: (X1, 2)}, A76, 10.0, False),
)


def profile_name(chip: Chip) -> str:
    """Name of the shipped profile of a chip."""
    return f"freqbench-{chip.soc}"


def render(chip: Chip, data_folder: Path) -> str:
    """The TOML text of a chip's profile, from freqbench's ``main`` run.

    Raises:
        UserInputError: the folder lacks the data, or the run lacks a cluster.
    """
    steps = _steps(chip, data_folder / "freqbench_all.csv")
    board_mw, board_text, board_label = _board(chip, data_folder)
    lines = [
        f"# Generated: python -m lavolta.devices.freqbench DATA_FOLDER ({', '.join(_files())}).",
        "format = 1",
        f'name = "{profile_name(chip)}"',
        f'title = "{chip.title}"',
        f'default_cluster = "{chip.default.cluster}"',
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
        _source(
            "frequency: of the order of Linux cpufreq transition latencies; level: upper bound that the demo checks",
            "none needed",
            "assumption",
        ),
        "",
        "[battery]",
        "capacity_mah = 4000.0",
        "nominal_mv = 3850.0",
        _source("a common phone battery; freqbench names none", "none needed", "assumption"),
    ]
    for cpu, (core, cores) in chip.clusters.items():
        lines += [
            "",
            "[[clusters]]",
            f'name = "{core.cluster}"',
            f"cores = {cores}",
            "steps_source = " + _inline("frequencies of freqbench's main run", "MIT (freqbench)", "measured"),
            "power_source = "
            + _inline(
                "CoreMark on one core, power above idle, freqbench's main run; several busy cores are taken as a sum",
                "MIT (freqbench)",
                "measured",
            ),
            "steps = [",
            *(f"  {{ freq_mhz = {mhz:.1f}, active_mw = {mw:.2f} }}," for mhz, mw in steps[cpu]),
            "]",
            "",
            "[[clusters.latency]]",
            'isa = "neon"',
            "cycles_fixed = 0.0",
            "cycles_per_kept_mac = { "
            + ", ".join(
                f'"{rows}" = {1 / (core.macs_per_cycle * REACHED_SHARE * speed):.4f}'
                for rows, speed in RELATIVE_SPEED.items()
            )
            + " }",
            f"cycles_per_rest_mac = {1 / (core.macs_per_cycle * REACHED_SHARE * 0.5):.4f}",
            f"bandwidth_gb_s = {chip.bandwidth_gb_s:.1f}",
            "fixed_us = 0.0",
            "thread_efficiency = 0.85",
            _source(
                f"{core.name}: {core.macs_per_cycle} fp32 MAC per cycle at peak (NEON lanes x pipes), "
                f"{100 * REACHED_SHARE:.0f} % reached with 8 rows, half of that on the rest, other heights in the "
                "prototype's ratios; bandwidth and threads are guesses; replace by a measured profile",
                "none needed",
                "assumption",
            ),
        ]
    return "\n".join(lines) + "\n"


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


def _steps(chip: Chip, path: Path) -> dict[int, list[tuple[float, float]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (row["soc"], row["run"]) == (chip.soc, "main")]
    except OSError as error:
        raise UserInputError(f"cannot read {path}: {error.strerror}; give the folder of the freqbench data.") from error
    except KeyError as error:
        raise UserInputError(f"{path} has no column {error}; it needs {', '.join(_RUNS)}.") from error
    steps = {
        cpu: sorted(
            (round(int(row["Frequency (kHz)"]) / 1000, 1), round(float(row["Power (mW)"]), 2))
            for row in rows
            if int(row["CPU"]) == cpu
        )
        for cpu in chip.clusters
    }
    for cpu, found in steps.items():
        if not found:
            raise UserInputError(f"{path} has no rows of CPU {cpu} in the main run of {chip.soc}.")
    return steps


def _board(chip: Chip, data_folder: Path) -> tuple[float, str, str]:
    if not chip.board_measured:
        return 1000.0, "idle of this run does not show the board; of the order of the other phones", "assumption"
    path = data_folder / _files()[1]
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile(f"results/{chip.soc}/main/results.json")
            data = json.load(member) if member else {}
    except (OSError, KeyError, tarfile.TarError) as error:
        raise UserInputError(f"cannot read the run of {chip.soc} in {path}: {error}.") from error
    idle = [step["idle"]["power_mean"] for cpu in data["cpus"].values() for step in cpu["freqs"].values()]
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
