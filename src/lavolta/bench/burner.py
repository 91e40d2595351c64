"""Other work on the same cores: bursts of computing and pauses of random lengths, until the starter ends.

``python -m lavolta.bench.burner SEED BUSY_MS IDLE_MS CORE [CORE ...]``
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def burners(cores: Sequence[int], busy_ms: float, idle_ms: float, seed: int) -> Iterator[None]:
    """One burner on each core while the context lasts.

    Args:
        cores: where each of them computes.
        busy_ms: mean length of a burst; 0 starts nobody.
        idle_ms: mean length of a pause; 0 burns without one.
        seed: of the lengths, drawn from exponential distributions.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for core in cores if busy_ms > 0 else ():
            words = [str(seed + core), str(busy_ms), str(idle_ms), str(core)]
            command = [sys.executable, "-m", "lavolta.bench.burner", *words]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            processes.append(process)
            assert process.stdout is not None
            process.stdout.readline()  # It says when it begins.
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def burn(seed: int, busy_ms: float, idle_ms: float, cores: Sequence[int]) -> None:
    """Compute and pause until the starter is gone."""
    os.sched_setaffinity(0, cores)
    draw = random.Random(seed)
    starter = os.getppid()
    print("burning", flush=True)
    while os.getppid() == starter:
        until = time.monotonic() + draw.expovariate(1.0) * busy_ms / 1e3
        while time.monotonic() < until:
            pass
        if idle_ms > 0:
            time.sleep(draw.expovariate(1.0) * idle_ms / 1e3)


if __name__ == "__main__":
    burn(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), [int(core) for core in sys.argv[4:]])
