"""One thread that owns the governor and the engine, and a bounded queue in front of it."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import Any

from lavolta.errors import CancelledError, LavoltaError, UserInputError
from lavolta.runtime.engine import Model
from lavolta.runtime.governed import Governed
from lavolta.runtime.governor_loop import Served
from lavolta.serve.pace import Pace
from lavolta.serve.recorder import Recorder
from lavolta.serve.refusals import RefusedError
from lavolta.serve.waiting import Job, WaitingRoom

QUEUE = 16
"""How many requests may wait."""
LOOK_S = 1.0
"""How often the device is looked at for status and metrics."""
_WEIGHT = 1 / 16


class Service:
    """Answers requests of any thread, one after another.

    A request waits for the run before it and is never mixed with another one: no batches. Without answers in flight,
    nothing runs. What the device does or a client sends never ends the thread.

    Args:
        models: what the governor's runner runs: the model, or one on the cores of each cluster. Runs are cancelled when
            nobody waits for them any more.
        governed: the governor and its device; only this service's thread touches them, until it is closed.
        pace: how time passes.
        queue: how many requests may wait, beside the one that runs.
        look_s: how often the device is looked at.
        clock: this computer's seconds.
        on_answer: called with every answer, on the service's thread.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        models: Model | Sequence[Model],
        governed: Governed,
        pace: Pace,
        *,
        queue: int = QUEUE,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.monotonic,
        on_answer: Callable[[Served], None] = lambda _: None,
    ) -> None:
        self._on_answer = on_answer
        self._models = (models,) if isinstance(models, Model) else tuple(models)
        self.model, self.governed, self.pace = self._models[0], governed, pace
        scenario = governed.governor.scenario
        self.deadline_ms = scenario.deadline_ms
        self.recorder = Recorder(scenario.deadline_ms, [level.name for level in scenario.levels], clock)
        self._room = WaitingRoom(queue)
        self._look_s, self._clock, self._looked_s = look_s, clock, -float("inf")
        self._running: Job | None = None
        self._run_lock = threading.Lock()
        self._run_s = 0.0
        self._empty = False
        with suppress(UserInputError):
            # Reading the vocabulary takes a while: not at the first request. Without one, clients send token ids.
            self.model.codec()
        self._observe()
        self._thread = threading.Thread(target=self._loop, name="lavolta-engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Any thread.

    def now_s(self) -> float:
        """The present on the clock of arrivals."""
        return self.pace.now_s()

    def submit(self, request: Any, arrived_s: float, deadline_ms: float | None = None) -> Job:
        """Let a request wait for its run.

        Args:
            arrived_s: when it came, of `now_s`.
            deadline_ms: how long it may take from then; the server's where not given.

        Raises:
            RefusedError: there are too many, the server stops, or the device has no energy left.
        """
        self.require_ready()
        job = Job(request, arrived_s, self.deadline_ms if deadline_ms is None else deadline_ms)
        if not self._room.put(job):
            self.require_ready()
            self.recorder.refused("busy")
            wait_s = self.depth * self._run_s
            raise RefusedError(
                503,
                "busy",
                f"{self._room.limit} requests wait already; ask again in about {max(1.0, wait_s):.0f} s.",
                wait_s,
            )
        return job

    def require_ready(self) -> None:
        """Refuse where no request can be taken.

        Raises:
            RefusedError: the server stops, the device has no energy left, or the engine's thread has ended.
        """
        if self._room.closed:
            raise RefusedError(
                503, "stopping", "the server is being stopped; ask it again when it has been started anew."
            )
        if self._empty:
            raise _empty()
        if not self.alive:
            raise RefusedError(503, "engine-gone", "the thread of the engine has ended; start the server anew.")

    def withdraw(self, job: Job) -> None:
        """Forget a request whose asker has left: it does not run, or its run ends before the next layer."""
        self._room.remove(job)
        if job.done.done():
            return
        if job.done.cancel():
            self.recorder.refused("cancelled")
            return
        with self._run_lock:
            if self._running is job:
                # Only runs that have begun are ended: the lock keeps the next one from being meant.
                self._cancel()

    def pin(self, level: str | None) -> None:
        """Run later requests at one level; None lets the governor choose again. See `LiveGovernor.pin`."""
        self.governed.governor.pin(level)

    def plug(self, on_ac: bool) -> None:
        """Plug the charger of a simulated device in or out.

        Raises:
            RefusedError: the device is a real one.
        """
        device = self.governed.device
        if device is None:
            raise RefusedError(409, "not-simulated", "this device is a real one; plug its charger in or out by hand.")
        device.plug(on_ac)

    @property
    def depth(self) -> int:
        """Requests that wait or run."""
        return len(self._room) + (self._running is not None)

    @property
    def limit(self) -> int:
        """How many may wait."""
        return self._room.limit

    @property
    def stopping(self) -> bool:
        return self._room.closed

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive()

    def refuse_new(self) -> None:
        """Take no more requests; those that wait are answered."""
        self._room.close()

    def abort(self) -> None:
        """Answer nobody any more: end the run, and refuse those that wait."""
        self._room.close()
        for job in self._room.clear():
            _give_up(job, RefusedError(503, "stopping", "the server was stopped before it came to this request."))
        with self._run_lock:
            if self._running is not None:
                self._cancel()

    def _cancel(self) -> None:
        """End the run, whichever model it is on; on the others nothing runs."""
        for model in self._models:
            model.cancel()

    def close(self, timeout_s: float | None = None) -> None:
        """Answer those that wait, and give the clock back to the system. Closing twice is allowed."""
        self._room.close()
        self._thread.join(timeout_s)
        self.governed.close()

    # The engine's thread.

    def _loop(self) -> None:
        while True:
            job, behind = self._room.take(self._look_s)
            self.pace.settle(None if job is None else job.arrived_s)
            self._empty = self.governed.over()
            if job is not None:
                self._answer(job, behind)
                self.governed.governor.prepare()
            elif self._room.closed:
                return
            if self._clock() - self._looked_s >= self._look_s:
                self._observe()

    def _answer(self, job: Job, behind: list[Job]) -> None:
        if self._empty:
            self.recorder.refused("failed")
            _give_up(job, _empty())
            return
        if not job.done.set_running_or_notify_cancel():
            return
        began_s = self._clock()
        with self._run_lock:
            self._running = job
        served, error = self._serve(job, behind)
        with self._run_lock:
            self._running = None
        self._empty = self.governed.over()
        if self._empty:
            served, error = None, _empty()
        self.pace.hold()
        self._run_s += (self._clock() - began_s - self._run_s) * (_WEIGHT if self._run_s else 1.0)
        if served is not None:
            self.recorder.answered(served, self.governed.governor.memory.energy)
            job.done.set_result(served)
            self._on_answer(served)
        elif error is not None:
            self.recorder.refused("cancelled" if isinstance(error, CancelledError) else "failed")
            _give_up(job, error)

    def _serve(self, job: Job, behind: list[Job]) -> tuple[Served | None, Exception | None]:
        allowed_s = self.deadline_ms / 1e3
        waiting_s = [other.due_s - allowed_s for other in behind]
        try:
            return self.governed.governor.serve(job.request, job.arrived_s, waiting_s, job.deadline_ms), None
        except LavoltaError as error:
            return None, error
        except Exception as error:
            # A defect answers one request badly; it must not take the server down.
            traceback.print_exc(file=sys.stderr)
            return None, error

    def _observe(self) -> None:
        self._looked_s = self._clock()
        self.recorder.observed(self.governed.source.read())


def _empty() -> RefusedError:
    return RefusedError(
        503, "battery-empty", "the battery of the simulated device is empty; plug it in, or start the server anew."
    )


def _give_up(job: Job, why: Exception) -> None:
    with suppress(InvalidStateError):
        job.done.set_exception(why)
