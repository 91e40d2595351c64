"""What the governor needs of whoever runs its requests, and what a runner may be able to do beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Answer:
    """What a runner gives.

    Attributes:
        output: the model's.
        kept_level: false where layers ran sparser than was asked, to be in time.
    """

    output: Any
    kept_level: bool = True


class Runner(Protocol):
    """Runs one request at a level."""

    def __call__(self, request: Any, level: str, within_ms: float, /) -> Answer:
        """Run a request.

        Args:
            within_ms: what is left of the deadline; a runner that can run sparser in the middle keeps it.
        """
        ...


@runtime_checkable
class Mover(Protocol):
    """A runner that can run on any of several clusters."""

    def move(self, cluster: str, /) -> None:
        """Run on this cluster from now on."""
        ...


@runtime_checkable
class Raiser(Protocol):
    """A runner that can have something done in the middle of a run."""

    def run_raised(
        self,
        request: Any,
        level: str,
        within_ms: float,
        after_ms: float,
        speedup: float,
        then: Callable[[], None],
        /,
    ) -> Answer:
        """Run a request as `Runner` does, and call ``then`` once if it has not ended ``after_ms`` after its begin.

        ``then`` makes the rest of the run ``speedup`` times as fast; it has returned before this returns.
        """
        ...


@runtime_checkable
class RunMover(Protocol):
    """A `Raiser` whose runs can go on on another cluster."""

    @property
    def moves_runs(self) -> bool:
        """Whether they can, with the threads and cores that there are."""
        ...

    def move_run(self, cluster: str, /) -> bool:
        """Let the run that goes on end on this cluster; called by ``then``. False: it stays where it is."""
        ...
