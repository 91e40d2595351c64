"""The bounded queue in front of the engine: the request that is due first goes first."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from lavolta.runtime.governor_loop import Served


@dataclass(eq=False)
class Job:
    """One request on its way.

    Args:
        request: what the runner takes.
        arrived_s: when it came, on the governor's clock.
        deadline_ms: how long it may take from then.
        done: its answer, or why there is none.
    """

    request: Any
    arrived_s: float
    deadline_ms: float
    done: Future[Served] = field(default_factory=Future)

    @property
    def due_s(self) -> float:
        """When its answer has to be there."""
        return self.arrived_s + self.deadline_ms / 1e3


class WaitingRoom:
    """Jobs that wait; any thread puts them in, one takes them out.

    Args:
        limit: how many may wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, job: Job) -> bool:
        """Let a job wait; false where there is no room for it, or no more are taken."""
        with self._changed:
            if self._closed or len(self._jobs) >= self.limit:
                return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    def take(self, timeout_s: float) -> tuple[Job | None, list[Job]]:
        """The job that is due first, and those behind it in their order; none where nothing came in time.

        Equally due ones leave in the order in which they came.
        """
        with self._changed:
            if not self._jobs and not self._closed:
                self._changed.wait(timeout_s)
            if not self._jobs:
                return None, []
            self._jobs.sort(key=lambda job: job.due_s)
            return self._jobs.pop(0), list(self._jobs)

    def remove(self, job: Job) -> None:
        """Take out a job whose asker has left; nothing happens where it does not wait any more."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def close(self) -> None:
        """Take no more; those that wait may still be taken out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clear(self) -> list[Job]:
        """Take all out at once."""
        with self._changed:
            jobs, self._jobs = self._jobs, []
            return jobs
