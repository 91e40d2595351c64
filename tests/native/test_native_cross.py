"""The native test programs on this machine, and for 64-bit and 32-bit Arm under an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lavolta.runtime.engine import instruction_sets
from native_programs import ROOT, build
from reference_model import RandomModel, random_ids, random_model, rounding

PROGRAMS = ("kernel_test", "bundle_test", "run_example")
# Debian's packages: compiler g++-<target>, emulator qemu-user.
EMULATORS = {"aarch64-linux-gnu": "qemu-aarch64", "arm-linux-gnueabihf": "qemu-arm"}

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Machine:
    """What a program is built for and what runs it; `isas` are the instruction sets that it must find."""

    target: str
    cpu: str
    isas: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.target}-{self.cpu}"

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        emulator = [] if self.target == "host" else [EMULATORS[self.target], "-cpu", self.cpu]
        return [*emulator, str(build_programs(self.target) / program), *map(str, arguments)]

    def run(self, program: str, *arguments: str | Path, isa: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LAVOLTA_ISA": isa}
        command = self.command(program, *arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


HOST = Machine("host", "native", tuple(instruction_sets()))
# In-order and out-of-order cores of each kind; the last has no vector unit, so that nothing but the reference may run.
A53 = Machine("aarch64-linux-gnu", "cortex-a53", ("reference", "neon"))
A76 = Machine("aarch64-linux-gnu", "cortex-a76", ("reference", "neon", "dotprod"))
NEWEST = Machine("aarch64-linux-gnu", "max", ("reference", "neon", "dotprod", "i8mm"))
A7 = Machine("arm-linux-gnueabihf", "cortex-a7", ("reference", "neon"))
A9 = Machine("arm-linux-gnueabihf", "cortex-a9", ("reference", "neon"))
NO_NEON = Machine("arm-linux-gnueabihf", "cortex-a7,neon=off", ("reference",))
MACHINES = [HOST, A53, A76, NEWEST, A7, A9, NO_NEON]


def build_programs(target: str) -> Path:
    options = ["-DLAVOLTA_NATIVE_TESTS=ON"]
    if target != "host":
        for tool in (f"{target}-g++", EMULATORS[target]):
            if not shutil.which(tool):
                pytest.skip(f"no {tool}; install Debian's packages g++-{target} and qemu-user")
        options.append(f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'native' / 'cmake' / target}.cmake")
    return build(ROOT / "build" / f"native-{target}", PROGRAMS, *options)


def cases(path: Path, model: RandomModel, lengths: Sequence[int]) -> Path:
    """The file of expected outputs that bundle_test reads, from the float64 model."""
    lines = [repr(rounding(model, max(lengths)))]
    for sequence in random_ids(np.random.default_rng(0), model.spec, lengths):
        for level in range(model.levels):
            outputs = model.run(level, [sequence]).ravel().tolist()
            numbers = [level, len(sequence), *sequence, len(outputs), *outputs]
            lines.append(" ".join(map(repr, numbers)))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_every_kernel_equals_the_reference(machine: Machine) -> None:
    done = machine.run("kernel_test")
    assert done.returncode == 0, done.stderr
    found = {name: int(checks) for name, checks in (line.split() for line in done.stdout.splitlines())}
    assert tuple(found) == machine.isas
    assert all(checks > 100_000 for isa, checks in found.items() if isa != "reference")


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize(("cell_rows", "precision"), [(1, "fp32"), (4, "mixed"), (16, "int8")])
def test_every_level_of_a_bundle_equals_the_float64_model(
    machine: Machine, cell_rows: int, precision: str, tmp_path: Path
) -> None:
    model = random_model(seed=cell_rows, cell_rows=cell_rows, precision=precision)
    bundle = model.write(tmp_path / "model.lavolta")
    # One token, one more than a register, and more than a tile.
    expected = cases(tmp_path / "expected.txt", model, (1, 5, 49))
    done = machine.run("bundle_test", bundle, expected)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tuple(line.split()[0] for line in done.stdout.splitlines()) == machine.isas


def test_a_wrong_output_is_found(tmp_path: Path) -> None:
    model = random_model()
    bundle = model.write(tmp_path / "model.lavolta")
    expected = cases(tmp_path / "expected.txt", model, (3,))
    words = expected.read_text().split()
    words[-1] = repr(float(words[-1]) + 0.01)
    expected.write_text(" ".join(words))
    assert HOST.run("bundle_test", bundle, expected).returncode == 1


@pytest.mark.parametrize("machine", [HOST, A53, A7], ids=str)
def test_the_instruction_set_is_chosen_by_name(machine: Machine, tmp_path: Path) -> None:
    bundle = random_model().write(tmp_path / "model.lavolta")
    best = machine.run("run_example", bundle, 1, 2, 3)
    assert best.stdout == machine.run("run_example", bundle, 1, 2, 3, isa=machine.isas[-1]).stdout != ""
    assert best.stdout != machine.run("run_example", bundle, 1, 2, 3, isa="reference").stdout
    # Another family's name is no silent synonym of "the best".
    other = "neon" if "neon" not in machine.isas else "avx2"
    refused = machine.run("run_example", bundle, 1, 2, 3, isa=other)
    assert refused.returncode == 2
    assert f"'{other}' is unknown to this build; choose one of reference" in refused.stderr
