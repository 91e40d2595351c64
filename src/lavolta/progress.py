"""How long work tells what it is doing: the protocol that recipes speak, and the silent speaker.

A recipe opens one stage after another and advances it; who listens (bars, lines, nothing) is decided by the caller:

    progress.plan({"read the model": 5.0, "train": 300.0})
    with progress.stage("train", total=steps) as stage:
        for step in range(steps):
            ...
            stage.advance()
            stage.note(f"loss {loss:.3f}")
    progress.say("the sparsest level keeps 24 % of the weights")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol


class Stage(Protocol):
    """One piece of work with a known or unknown number of steps."""

    def advance(self, steps: int = 1) -> None:
        """Say that `steps` more steps (a count) are done."""

    def note(self, text: str) -> None:
        """Replace the short remark beside the bar, such as the current loss."""


class Progress(Protocol):
    """Where a recipe reports to. Stages do not nest: one is open at a time."""

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """Name the stages to come, in order, with the expected seconds of each; optional, it makes the total estimate.

        Stages already done are left out, so a resumed run promises less time.
        """

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Open a stage of `total` steps (a count; `None`: not known). It ends with the `with` block."""

    def say(self, sentence: str) -> None:
        """Tell one finding that stays on the screen."""


@dataclass(frozen=True)
class _SilentStage:
    name: str
    total: int | None

    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class SilentProgress:
    """Says nothing: for libraries and tests."""

    def plan(self, expected_s: Mapping[str, float]) -> None:
        pass

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        yield _SilentStage(name, total)

    def say(self, sentence: str) -> None:
        pass
