"""Contestants in processes of their own, and the rounds in which they take turns."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lavolta.bench.peers import Job
from lavolta.bench.spread import Spread, spread
from lavolta.errors import EngineError

START_SECONDS = 600.0
TURN_SECONDS = 300.0
# The thread pools that the peers may bring, whether they read the session's options or the environment.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TBB_NUM_THREADS")


class Worker:
    """One contestant's process; a failure to load leaves `reason` and nothing to run.

    Attributes:
        reason: why it cannot run, ``None`` where it can.
        about: version and instruction set, as its library tells.
        output: what it computed for the job's sequence.
        threads_busy: processor time over wall time of its turns, the largest; more than its threads would be unfair.
    """

    def __init__(self, job: Job, start_seconds: float = START_SECONDS) -> None:
        self.job = job
        self.about: dict[str, Any] = {}
        self.output: list[float] = []
        self.threads_busy = 0.0
        self._folder = tempfile.TemporaryDirectory()
        self._messages = Path(self._folder.name) / "messages"
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(job.threads)), "PYTHONWARNINGS": "ignore"}
        # A limit that a shell has set would limit one contestant and not the others.
        for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "LAVOLTA_ISA"):
            environment.pop(name, None)
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        with self._messages.open("wb") as messages:
            command = [sys.executable, "-m", "lavolta.bench.worker"]
            self._process = subprocess.Popen(command, stdin=requests, stdout=answers, stderr=messages, env=environment)
        os.close(requests)
        os.close(answers)
        answer = self._ask(asdict(job), start_seconds)
        self.reason: str | None = answer.get("error")
        if self.reason is None:
            self.about, self.output = answer["about"], answer["output"]
        else:
            self.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; closing twice is allowed."""
        if self._requests < 0:
            return
        os.close(self._requests)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
        self._requests = self._answers = -1
        self._folder.cleanup()

    def times_ms(self, repeat: int, level: int | None = None) -> list[float]:
        """Milliseconds of ``repeat`` runs, after one that is not counted.

        Raises:
            EngineError: the process died or did not answer.
        """
        answer = self._serve({"what": "run", "repeat": repeat, "level": level})
        self.threads_busy = max(self.threads_busy, answer["threads_busy"])
        times: list[float] = answer["ms"]
        return times

    def linear_ms(self) -> list[float]:
        """Milliseconds of all linear layers of one run, for every level; empty for a peer.

        Raises:
            EngineError: the process died or did not answer.
        """
        times: list[float] = self._serve({"what": "linear"})["levels_ms"]
        return times

    def _serve(self, request: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._ask(request, TURN_SECONDS)
        if "error" in answer:
            raise EngineError(
                f"{self.job.engine} {self.job.precision} stopped while it was measured: {answer['error']}"
            )
        return answer

    def _ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to one request; ``error`` where there is none."""
        try:
            os.write(self._requests, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return {"error": self._last_words()}
        line, end = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self._process.kill()
                return {"error": f"it did not answer within {seconds:.0f} s."}
            part = os.read(self._answers, 1 << 16)
            if not part:
                return {"error": self._last_words()}
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        """The last line of what a dead process wrote to standard error: its exception."""
        code = self._process.wait()
        lines = self._messages.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"its process ended with code {code}."


@dataclass(frozen=True)
class Contestant:
    """One line of a comparison: a worker, at one level where it has levels."""

    worker: Worker
    level: int | None = None


def race(
    contestants: Mapping[str, Contestant],
    rounds: int,
    repeat: int = 3,
    seed: int = 0,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Spread]:
    """Let every contestant take a turn in every round, in an order that chance decides anew.

    Args:
        rounds: turns of each, at least 1.
        repeat: runs of a turn.

    Returns:
        Milliseconds of every contestant, ``rounds * repeat`` runs each.
    """
    shuffle = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            entry = contestants[name]
            samples[name] += entry.worker.times_ms(repeat, entry.level)
        on_round()
    return {name: spread(values) for name, values in samples.items()}
