"""The process of one contestant: reads jobs and requests as JSON lines, answers with JSON lines.

``python -m lavolta.bench.worker`` is started by `lavolta.bench.workers`; nobody else needs it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

import numpy as np

from lavolta.bench.peers import ENGINES, Job, Loaded
from lavolta.errors import LavoltaError

EXTRA = "'lavolta[bench]'"
BY_HAND = {"llama_cpp": "llama-cpp-python gguf", "gguf": "gguf"}
"""Modules that the extra does not bring, because installing them takes a compiler and a long time."""


def main() -> None:
    """Load the job of the first line, then answer one request a line until there is no more."""
    # Libraries print to standard output as they please; answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**data: Any) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    job = Job(**json.loads(sys.stdin.readline()))
    try:
        loaded = importlib.import_module(ENGINES[job.engine]).load(job)
        output = loaded.run()
    except ModuleNotFoundError as error:
        missing = (error.name or job.engine).partition(".")[0]
        answer(error=f"{missing} is not installed; `pip install {BY_HAND.get(missing, EXTRA)}` brings it.")
        return
    except LavoltaError as error:
        answer(error=str(error))
        return
    answer(about=loaded.about, output=np.asarray(output, np.float64).ravel().tolist())
    for line in sys.stdin:
        answer(**_serve(loaded, json.loads(line)))


def _serve(loaded: Loaded, request: dict[str, Any]) -> dict[str, Any]:
    if request["what"] == "linear":
        return {"levels_ms": loaded.linear_ms() if loaded.linear_ms is not None else []}
    if request["level"] is not None and loaded.switch is not None:
        loaded.switch(request["level"])
    # The caches still hold what ran before: one run brings this contestant's data back.
    loaded.run()
    times_ms, cpu_before, wall_before = [], time.process_time(), time.perf_counter()
    for _ in range(request["repeat"]):
        start = time.perf_counter()
        loaded.run()
        times_ms.append(1e3 * (time.perf_counter() - start))
    wall = time.perf_counter() - wall_before
    return {"ms": times_ms, "threads_busy": (time.process_time() - cpu_before) / wall}


if __name__ == "__main__":
    main()
