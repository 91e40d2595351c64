"""How many products a cycle the Arm kernels' inner loops allow, estimated by llvm-mca from the compiler's own code.

Nothing is executed: llvm-mca issues a loop to a model of the core's pipeline, with every load in the first cache. Two
numbers of it bracket the core: what its units allow at best, and a simulation, which for cores that issue in order also
lets every result wait for those before it. The peak is what the units allow the loop of the `peak` kernels, which only
multiplies registers. A core without a model in the tool is null, with the reason. Needs Debian's g++-aarch64-linux-gnu,
g++-arm-linux-gnueabihf and llvm.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavolta.bench.script import finish, markdown, number
from lavolta.errors import UserInputError

ROOT = Path(__file__).parents[1]
ITERATIONS = 1000


@dataclass(frozen=True)
class Family:
    """A cross compiler, how llvm-mca is told its code, cores by name, and the kernel files by instruction set."""

    target: str
    triple: str
    attributes: str
    cores: tuple[str, ...]
    isas: tuple[str, ...]


FAMILIES = (
    Family(
        "aarch64-linux-gnu",
        "aarch64-linux-gnu",
        "+neon,+dotprod,+i8mm",
        ("cortex-a53", "cortex-a55", "cortex-a76"),
        ("neon", "dotprod", "i8mm"),
    ),
    Family("arm-linux-gnueabihf", "thumbv7a-linux-gnueabihf", "+neon", ("cortex-a7", "cortex-a9"), ("neon",)),
)
CANNOT = {"cortex-a53": {"dotprod", "i8mm"}, "cortex-a55": {"i8mm"}, "cortex-a76": {"i8mm"}}
"""Instruction sets that a core does not have."""
PRODUCTS = (
    (re.compile(r"(fmla\s+v\d+\.4s|vmla\.f32\s+q)"), 4),
    (re.compile(r"vmla\.f32\s+d"), 2),
    (re.compile(r"(s|us)dot\s+v\d+\.4s"), 16),
    (re.compile(r"(smull2?|smlal2?)\s+v\d+\.8h|(vmull|vmlal)\.s8"), 8),
)
"""Multiplying instructions, and how many numbers each multiplies."""
TILES = {
    "linear": re.compile(r"\bsparse_tile<.*Neon, (\d+), (\d+)>"),
    "linear_int8": re.compile(r"\btile<.*, (\d+), 0, (\d+), 64ul?>"),
    "token_int8": re.compile(r"\btoken_int8_bands<.*, (\d+)>"),
}
"""What the functions of a kernel are called: height of a cell, registers of tokens."""
FILES = {"linear": "linear", "linear_int8": "linear_int8", "token_int8": "token"}


@dataclass(frozen=True)
class Loop:
    """The instructions of an inner loop, and what they multiply."""

    lines: tuple[str, ...]
    instructions: int
    multiplies: int
    products: int


def functions(assembly: str) -> dict[str, list[str]]:
    """Lines of every function of an assembly text, by its mangled name."""
    found: dict[str, list[str]] = {}
    lines = assembly.splitlines()
    names = {match[1] for line in lines if (match := re.match(r"\s*\.type\s+(\S+),\s*[%@]function", line))}
    name = ""
    for line in lines:
        label = re.match(r"(\S+):", line)
        if label and label[1] in names:
            name = label[1]
            found[name] = []
        elif name and re.match(rf"\s*\.size\s+{re.escape(name)},", line):
            name = ""
        elif name:
            found[name].append(line)
    return found


def hottest_loop(lines: list[str]) -> Loop | None:
    """The innermost loop that multiplies most; None where nothing is multiplied in a loop.

    A loop is what lies between a label and a branch back to it; it is an inner one if no other lies inside.
    """
    labels = {match[1]: at for at, line in enumerate(lines) if (match := re.match(r"(\.L\w+):", line))}
    ranges = set()
    for at, line in enumerate(lines):
        branch = re.match(r"\s+(?:b\S*|cbn?z|tbn?z)\s+.*?(\.L\w+)\s*$", line)
        if branch and labels.get(branch[1], at) < at:
            ranges.add((labels[branch[1]], at))
    inner = [
        (first, last)
        for first, last in ranges
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in ranges)
    ]
    loops = [loop_of(lines[first : last + 1]) for first, last in inner]
    return max((loop for loop in loops if loop.products), key=lambda loop: loop.products, default=None)


def loop_of(lines: list[str]) -> Loop:
    """Count the instructions of a loop; labels and directives are none."""
    kept = tuple(line for line in lines if re.match(r"\s+[a-z]", line))
    counts = [next((count for pattern, count in PRODUCTS if pattern.search(line)), 0) for line in kept]
    return Loop(kept, len(kept), sum(count > 0 for count in counts), sum(counts))


def assembly_of(family: Family, source: str, folder: Path) -> str:
    """What the build's own command makes of a kernel file, as assembly; "" where this build has no such file."""
    commands = json.loads((folder / "compile_commands.json").read_text())
    command = next((entry for entry in commands if entry["file"].endswith(source)), None)
    if command is None:
        return ""
    words = shlex.split(command["command"])
    words[words.index("-o") + 1] = "-"
    words[words.index("-c")] = "-S"
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=command["directory"])
    if done.returncode != 0:
        raise UserInputError(f"{family.target}-g++ does not compile {source}: {done.stderr.strip()[-200:]}")
    return done.stdout


def demangled(names: list[str]) -> list[str]:
    done = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def cycles(loop: Loop, family: Family, core: str) -> tuple[float, float] | str:
    """Cycles of an iteration on a core, simulated and as the units allow, or why the tool cannot tell."""
    command = [
        "llvm-mca",
        f"-mtriple={family.triple}",
        f"-mcpu={core}",
        f"-mattr={family.attributes}",
        f"-iterations={ITERATIONS}",
    ]
    head = "\t.syntax unified\n" if family.target.startswith("arm") else ""
    text = head + "\n".join(line for line in loop.lines if not re.search(r"\.L\w+", line)) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    bound = re.search(r"Block RThroughput:\s+([\d.]+)", done.stdout)
    if done.returncode != 0 or not found or not bound:
        return done.stderr.strip().splitlines()[0].removeprefix("error: ")
    return int(found[1]) / ITERATIONS, float(bound[1])


def loops_of(family: Family, folder: Path) -> list[dict[str, Any]]:
    """The widest tile of each height, kernel and instruction set, and the loops of the peaks."""
    rows: list[dict[str, Any]] = []
    for isa in family.isas:
        for kernel, file in FILES.items():
            text = assembly_of(family, f"native/kernels/{file}/{isa}.cpp", folder)
            bodies = functions(text)
            widest: dict[int, tuple[int, Loop]] = {}
            for name, body in zip(demangled(list(bodies)), bodies.values(), strict=True) if bodies else ():
                tile, loop = TILES[kernel].search(name), hottest_loop(body)
                if not tile or not loop:
                    continue
                rows_of_cell, tokens = int(tile[1]), int(tile[2]) if tile.lastindex == 2 else 1
                if tokens >= widest.get(rows_of_cell, (0, loop))[0]:
                    widest[rows_of_cell] = (tokens, loop)
            rows += [
                {"isa": isa, "kernel": kernel, "cell_rows": height, "loop": loop}
                for height, (_, loop) in sorted(widest.items())
            ]
        for peak in ("peak", "peak_int8") if isa == "neon" else ("peak_int8",):
            text = assembly_of(family, f"native/kernels/{peak}/{isa}.cpp", folder)
            loop = max(filter(None, map(hottest_loop, functions(text).values())), key=lambda one: one.products)
            rows.append({"isa": isa, "kernel": peak, "cell_rows": 0, "loop": loop})
    return rows


def measure() -> dict[str, Any]:
    """Every loop on every core that has its instructions."""
    for tool in ("llvm-mca", "c++filt", "cmake", *(f"{family.target}-g++" for family in FAMILIES)):
        if not shutil.which(tool):
            raise UserInputError(f"there is no {tool}; install Debian's llvm, binutils, cmake and cross compilers.")
    records: list[dict[str, Any]] = []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            configure = ["cmake", "-S", str(ROOT), "-B", folder, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
            configure.append(f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'native' / 'cmake' / family.target}.cmake")
            subprocess.run(configure, check=True, capture_output=True)
            loops = loops_of(family, Path(folder))
        for core in family.cores:
            usable = [row for row in loops if row["isa"] not in CANNOT.get(core, set())]
            records += core_records(family, core, usable)
    versions = {
        tool: subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
        for tool in ("llvm-mca", *(f"{family.target}-g++" for family in FAMILIES))
    }
    tools = {name: re.search(r"\d+\.\d+\.\d+", text)[0] for name, text in versions.items() if text}  # type: ignore[index]
    return {
        "benchmark": "arm_throughput",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "conditions": "estimated, nothing was run; "
        + ", ".join(f"{name} {version}" for name, version in tools.items()),
        "tools": tools,
        "iterations": ITERATIONS,
        "loops": records,
    }


def core_records(family: Family, core: str, loops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record for each loop: cycles of an iteration, products a cycle, and their share of the core's peak."""
    peaks: dict[tuple[str, str], float] = {}
    records = []
    # The peaks first: the others refer to them.
    for row in sorted(loops, key=lambda row: not row["kernel"].startswith("peak")):
        loop, found = row["loop"], cycles(row["loop"], family, core)
        simulated, bound = (None, None) if isinstance(found, str) else found
        is_peak = row["kernel"].startswith("peak")
        if is_peak and bound:
            peaks[row["isa"], row["kernel"]] = loop.products / bound
        peak = None if is_peak else peaks.get((row["isa"], "peak" if row["kernel"] == "linear" else "peak_int8"))
        records.append(
            {
                "core": core,
                "target": family.target,
                "isa": row["isa"],
                "kernel": row["kernel"],
                "cell_rows": row["cell_rows"],
                "instructions": loop.instructions,
                "multiplies": loop.multiplies,
                "products": loop.products,
                "cycles_simulated": simulated,
                "cycles_bound": bound,
                "products_per_cycle_simulated": loop.products / simulated if simulated else None,
                "products_per_cycle_bound": loop.products / bound if bound else None,
                "share_of_peak_simulated": loop.products / simulated / peak if simulated and peak else None,
                "share_of_peak_bound": loop.products / bound / peak if bound and peak else None,
                "reason": found if isinstance(found, str) else None,
            }
        )
    return records


def table(result: dict[str, Any]) -> str:
    """What the README shows: every loop that some core's model takes."""
    rows = [
        [
            f"{row['core']} ({row['target'].split('-')[0]})",
            f"{row['kernel']}_{row['isa']}",
            str(row["cell_rows"] or "-"),
            f"{row['multiplies']} of {row['instructions']}",
            *(_two(row, "products_per_cycle", 1, 1)),
            *(_two(row, "share_of_peak", 100, 0)),
        ]
        for row in result["loops"]
        if row["reason"] is None
    ]
    heads = ["core", "kernel", "cell rows", "multiplying instructions", "products a cycle, simulated", "at most"]
    unknown: dict[tuple[str, str], list[str]] = {}
    for row in result["loops"]:
        if row["reason"]:
            unknown.setdefault((row["core"], row["reason"]), []).append(
                f"{row['kernel']} {row['cell_rows'] or ''}".strip()
            )
    words = "".join(
        f"\n\nNot estimated for {core}: {', '.join(loops)}; llvm-mca says: {reason}"
        for (core, reason), loops in unknown.items()
    )
    return markdown([*heads, "of the peak, simulated %", "at most %"], rows) + words


def _two(row: dict[str, Any], key: str, factor: float, digits: int) -> list[str]:
    """The simulated number and the bound."""
    values = (row[f"{key}_{kind}"] for kind in ("simulated", "bound"))
    return [number(None if value is None else factor * value, digits) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="changes nothing: nothing is timed")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - prints it as the last line")
    args = parser.parse_args()
    result = measure()
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
