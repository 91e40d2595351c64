"""Time the engine's kernels on this computer: small models of many shapes, run whole, at several levels."""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from lavolta.devices.work import Work
from lavolta.runtime.bundle import dense_shapes, write_bundle
from lavolta.runtime.engine import Model, instruction_sets, open_bundle
from lavolta.runtime.spec import ModelSpec
from lavolta.runtime.work import work_of
from lavolta.sparsity.cells import CELL_ROWS, CellGrid
from lavolta.sparsity.packing import pack_linear
from lavolta.sparsity.packing_int8 import pack_int8

KEPT_SHARES = (1.0, 0.5, 0.25, 0.1)
"""Levels of every model that is timed, densest first."""
TOKENS_PER_REGISTER = {"avx512": 16, "avx2": 8, "neon": 4}
"""fp32 numbers in a register of each instruction set; 1 for all others."""
_VOCAB = 64
_MOST_MACS = 2e8
"""Longer inferences are left out: a system takes the processor away in them, and they tell nothing new."""
_LONGEST_NS = 4e8
"""A case is not repeated for longer than this."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that is timed."""

    layers: int
    hidden: int
    heads: int
    ffn: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a token in the linear layers, nothing pruned."""
        return self.layers * (4 * self.hidden * self.hidden + 2 * self.hidden * self.ffn)

    @property
    def name(self) -> str:
        return f"{self.layers}x{self.hidden}-{self.ffn}"


SHAPES = (
    Shape(4, 64, 2, 256),
    Shape(2, 128, 2, 512),
    Shape(1, 320, 4, 640),
    Shape(1, 512, 8, 2048),
    Shape(1, 768, 12, 768),
    Shape(1, 256, 4, 1024),
    Shape(1, 384, 12, 1536),
    Shape(1, 768, 12, 3072),
    Shape(1, 800, 4, 200),
)
"""From toys to DistilBERT's sizes and the paper's language model; the first ones are enough for a quick look."""
_QUICK_SHAPES = 5
_TOKENS = (1, 2, 4, 8, 32, 64, 128)
_QUICK_TOKENS = (1, 4, 16, 64)


@dataclass(frozen=True)
class Case:
    """One inference to time."""

    shape: Shape
    cell_rows: int
    int8: bool
    tokens: int
    level: int

    @property
    def shape_name(self) -> str:
        return self.shape.name

    @property
    def key(self) -> str:
        """Short and unique, the model first; a journal names the case by it."""
        precision = "int8" if self.int8 else "fp32"
        return f"{self.shape.name}/{precision}/{self.cell_rows}/{self.tokens}/{KEPT_SHARES[self.level]:g}"


class KernelBench:
    """Times cases, as `lavolta.devices.profiler.Bench` asks for.

    Models are made when they are first needed and kept in a temporary folder. Use it as a context manager.

    Args:
        isa: the best instruction set allowed; the best there is where not named.
        clock_ns: time in nanoseconds.
        thread_clock_ns: processor time of the calling thread.
    """

    def __init__(
        self,
        isa: str | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        thread_clock_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._isa = isa
        self._thread_clock_ns = thread_clock_ns
        self._clock_ns = clock_ns
        self._folder = Path(tempfile.mkdtemp(prefix="lavolta-timing-"))
        self._specs: dict[tuple[Shape, int, bool], tuple[ModelSpec, Path, list[dict[str, int]]]] = {}
        self._cores: tuple[int, ...] | None = None
        self._open: tuple[tuple[Shape, int, bool, int], Model] | None = None

    def __enter__(self) -> KernelBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model and remove the files."""
        self._release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def use(self, cpus: Sequence[int]) -> None:
        """Run on these CPUs from now on; none: wherever the engine likes."""
        self._release()
        self._cores = tuple(cpus) or None

    def _release(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """Instruction sets that this CPU runs, best last."""
        return instruction_sets()

    @property
    def isa(self) -> str:
        """The one that runs."""
        return self._isa or instruction_sets()[-1]

    @property
    def tokens_per_register(self) -> int:
        return next((n for name, n in TOKENS_PER_REGISTER.items() if self.isa.startswith(name)), 1)

    def cases(self, quick: bool = False) -> list[Case]:
        """What is timed: every cell height and both precisions at several shapes, tokens and levels."""
        shapes, tokens = (SHAPES[:_QUICK_SHAPES], _QUICK_TOKENS) if quick else (SHAPES, _TOKENS)
        levels = (0, 2) if quick else range(len(KEPT_SHARES))
        return [
            Case(shape, cell_rows, int8, count, level)
            for shape in shapes
            for int8 in (False, True)
            for cell_rows in CELL_ROWS
            for count in tokens
            for level in levels
            if shape.macs * count * KEPT_SHARES[level] <= _MOST_MACS
        ]

    def burn(self, threads: int, time_s: float) -> None:
        """Keep so many cores busy for about this time."""
        model = self._model(Case(SHAPES[2], 8, False, 64, 0), threads)
        ids = [np.arange(64) % _VOCAB]
        end_ns = self._clock_ns() + time_s * 1e9
        while self._clock_ns() < end_ns:
            model.run(ids)

    def switch_us(self, switches: int = 2000) -> float:
        """The median of many switches of the level."""
        model = self._model(Case(SHAPES[0], 8, False, 1, 0), 1)
        return float(np.median([model.switch(k % len(KEPT_SHARES)) for k in range(switches)])) / 1e3

    def work(self, case: Case) -> Work:
        """What the case computes."""
        spec, _, kept = self._made(case)
        int8 = tuple(spec.linear_shapes()) if case.int8 else ()
        return work_of(spec, kept[case.level], case.cell_rows, case.tokens, int8)

    def measure_ms(self, case: Case, threads: int, runs: int = 3, most_runs: int = 12) -> float:
        """The shortest of several runs, in ms.

        What disturbs a run only makes it longer, so the shortest one is the machine's own time. Runs in which the
        system took the processor away do not count towards ``runs``, as long as there are fewer than ``most_runs``.
        A run of one thread is timed by the thread's own processor time, which stands still in such pauses.
        """
        model = self._model(case, threads)
        ids = [np.arange(case.tokens) % _VOCAB]
        clock_ns = self._thread_clock_ns if threads == 1 else self._clock_ns
        begin_ns = self._clock_ns()
        model.run(ids)
        best_ns, calm = float("inf"), 0
        for _ in range(most_runs):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            start_ns = clock_ns()
            model.run(ids)
            best_ns = min(best_ns, clock_ns() - start_ns)
            calm += resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == before
            if calm >= runs or self._clock_ns() - begin_ns > _LONGEST_NS:
                break
        return best_ns / 1e6

    def _model(self, case: Case, threads: int) -> Model:
        """The model of a case, open and at its level."""
        _, path, _ = self._made(case)
        key = (case.shape, case.cell_rows, case.int8, threads)
        if self._open is None or self._open[0] != key:
            self._release()
            self._open = (key, open_bundle(path, threads, isa=self._isa, cores=self._cores))
        model = self._open[1]
        model.switch(case.level)
        return model

    def _made(self, case: Case) -> tuple[ModelSpec, Path, list[dict[str, int]]]:
        key = (case.shape, case.cell_rows, case.int8)
        if key not in self._specs:
            path = self._folder / f"{len(self._specs)}.lavolta"
            spec = ModelSpec(
                case.shape.name, case.shape.layers, case.shape.hidden, case.shape.heads, case.shape.ffn, _VOCAB, 512
            )
            self._specs[key] = (spec, path, write_random(path, spec, case.cell_rows, case.int8, KEPT_SHARES))
        return self._specs[key]


def write_random(
    path: Path, spec: ModelSpec, cell_rows: int, int8: bool = False, kept_shares: Sequence[float] = KEPT_SHARES
) -> list[dict[str, int]]:
    """Write a bundle with random weights and nested random levels; returns the kept cells of each level by linear."""
    generator = np.random.default_rng(0)
    tensors = {
        name: (0.02 * generator.standard_normal(shape, np.float32) + name.endswith("norm.weight")).astype(np.float32)
        for name, shape in dense_shapes(spec).items()
    }
    packed = {}
    for name, shape in spec.linear_shapes().items():
        shares = generator.random(CellGrid(*shape, cell_rows).shape)
        weight = 0.02 * generator.standard_normal(shape, np.float32)
        masks = [shares < share for share in kept_shares]
        packed[name] = pack_int8(weight, masks, cell_rows) if int8 else pack_linear(weight, masks, cell_rows)
    kept = [{name: layer.kept_cells(level) for name, layer in packed.items()} for level in range(len(kept_shares))]
    levels = [
        {"name": f"{100 * share:g} %", "sparsity": 1.0 - share, "kept_cells": kept[level]}
        for level, share in enumerate(kept_shares)
    ]
    write_bundle(path, spec, tensors, packed, {}, levels, cell_rows, {"kind": "ranked"})
    return kept
