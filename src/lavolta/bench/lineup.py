"""Who is compared with whom: our engine at some levels, and its peers, on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lavolta.bench.peers import PEERS, Job
from lavolta.bench.spread import Spread
from lavolta.bench.synthetic import Weights
from lavolta.bench.workers import Contestant, Worker, race
from lavolta.progress import Progress, SilentProgress
from lavolta.runtime.spec import ModelSpec

BUSY_LIMIT = 1.25
"""Processor time over wall time and threads from which a contestant has used more threads than it was given."""


class Lineup:
    """Contestants of one comparison, started one after another and closed together.

    Args:
        folder: an existing folder for the peers' weights.
        spec: `lavolta.bench.synthetic.peer_spec` of the model.
        weights: of its dense form; the peers load them.
        tokens: length of the one sequence that everybody runs.
        progress: is told what is being started, and every round.

    Attributes:
        contestants: by name, in the order in which they were added.
        missing: name of a contestant that cannot run, and why.
    """

    def __init__(
        self,
        folder: Path,
        spec: ModelSpec,
        weights: Weights,
        tokens: int,
        progress: Progress | None = None,
    ) -> None:
        self.contestants: dict[str, Contestant] = {}
        self.missing: dict[str, str] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._workers: list[Worker] = []
        self._spec, self._weights, self._tokens = spec, weights, tokens
        self._progress: Progress = SilentProgress() if progress is None else progress
        self._archive = folder / "weights.safetensors"

    def __enter__(self) -> Lineup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close()

    def add_own(
        self,
        bundle: Path,
        precision: str,
        levels: Mapping[str, tuple[int, float]],
        *,
        threads: int = 1,
        isa: str | None = None,
    ) -> Worker:
        """Our engine on a bundle.

        Args:
            levels: name of a contestant to the index and the sparsity of its level.
        """
        worker = self._start(Job("lavolta", precision, self._spec.as_dict(), str(bundle), self._tokens, threads, isa))
        for name, (level, sparsity) in levels.items():
            self._enter(name, worker, level, sparsity)
        return worker

    def add_peer(
        self, engine: str, precision: str, *, name: str | None = None, threads: int = 1, isa: str | None = None
    ) -> Worker:
        """A peer on the dense weights."""
        if not self._archive.exists():
            save_file({name: np.ascontiguousarray(array) for name, array in self._weights.items()}, self._archive)
        model = str(self._archive)
        worker = self._start(Job(engine, precision, self._spec.as_dict(), model, self._tokens, threads, isa))
        self._enter(name or f"{engine}-{precision}", worker, None, 0.0)
        return worker

    def add_peers(self, threads: int = 1) -> None:
        """All of `PEERS`."""
        for engine, precision in PEERS:
            self.add_peer(engine, precision, threads=threads)

    def race(self, rounds: int, repeat: int) -> dict[str, Spread]:
        """Everybody takes turns; see `lavolta.bench.workers.race`."""
        with self._progress.stage(f"measure {len(self.contestants)} contestants in turn", rounds) as stage:
            return race(self.contestants, rounds, repeat, on_round=stage.advance)

    def records(self, times: Mapping[str, Spread], reference: str) -> list[dict[str, Any]]:
        """One plain record for each contestant, those that could not run included.

        Args:
            reference: contestant whose output the others' are compared with; ``agreement`` is the cosine of the two.
        """
        outputs = {name: entry.worker.output for name, entry in self.contestants.items()}
        found = []
        for name, facts in self._facts.items():
            record = {"name": name, **facts}
            if name in self.missing:
                found.append({**record, "median_ms": None, "reason": self.missing[name]})
                continue
            worker = self.contestants[name].worker
            record |= {**asdict(times[name]), **worker.about, "threads_busy": round(worker.threads_busy, 2)}
            record["over_threads"] = worker.threads_busy > BUSY_LIMIT * worker.job.threads
            record["agreement"] = cosine(outputs[name], outputs[reference]) if reference in outputs else None
            found.append(record)
        return found

    def _start(self, job: Job) -> Worker:
        limit = f", at most {job.isa}" if job.isa else ""
        self._progress.say(
            f"starting {job.engine} {job.precision}, {job.threads} thread{'s' * (job.threads > 1)}{limit}"
        )
        worker = Worker(job)
        self._workers.append(worker)
        return worker

    def _enter(self, name: str, worker: Worker, level: int | None, sparsity: float) -> None:
        job = worker.job
        self._facts[name] = {
            "engine": job.engine,
            "precision": job.precision,
            "sparsity": sparsity,
            "threads": job.threads,
            "isa_limit": job.isa,
        }
        if worker.reason is None:
            self.contestants[name] = Contestant(worker, level)
        else:
            self.missing[name] = worker.reason


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Cosine of two vectors, 0 where one of them is zero."""
    a, b = np.asarray(left), np.asarray(right)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0.0 else 0.0
