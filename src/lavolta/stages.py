"""The stages of a run: how long each took, and a bar that a resumed training moves to where it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lavolta.progress import Progress, Stage


@dataclass
class Clock:
    """Seconds of each stage that this call ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, progress: Progress, name: str, total: int | None = None) -> Iterator[Stage]:
        start = time.perf_counter()
        with progress.stage(name, total) as stage:
            yield stage
        self.seconds[name] = round(time.perf_counter() - start, 2)


def teller(stage: Stage) -> Callable[[int, float], None]:
    """Advances a bar; a resumed run jumps to its checkpoint at its first step."""
    done = 0

    def on_step(step: int, loss: float) -> None:
        nonlocal done
        stage.advance(step + 1 - done)
        done = step + 1
        stage.note(f"loss {loss:.3f}")

    return on_step
