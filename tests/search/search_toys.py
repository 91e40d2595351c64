"""Small problems that worker processes can import, and processes that kill themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import sqlalchemy

from lavolta.search import PatternSetSpace, Rt3Reward, StudyConfig, pattern_set_space, run_study
from lavolta.search.spaces import Candidate

REWARD = Rt3Reward(original_score=1.0, smallest_score=0.0)


def latency_ms(sparsity: float, freq_mhz: float) -> float:
    """40 M cycles dense, none at sparsity 1."""
    return 40_000.0 * (1.0 - sparsity) / freq_mhz


def space() -> PatternSetSpace:
    return pattern_set_space(latency_ms, [1400.0, 800.0, 400.0], 40.0, [i / 10 for i in range(10)])


def scores(choice: tuple[Candidate, ...]) -> list[float]:
    return [1.0 - c.sparsity**2 / 2 - 0.01 * c.alternative for c in choice]


@dataclass(frozen=True)
class Logged:
    """`scores`, with one byte appended to a file for every call of any process."""

    log: Path

    def __call__(self, choice: tuple[Candidate, ...]) -> list[float]:
        with self.log.open("ab") as file:
            file.write(b"x")
        return scores(choice)


@dataclass(frozen=True)
class DiesTwice:
    """`scores`, but the first two processes to come here kill themselves in the middle of the evaluation."""

    folder: Path

    def __call__(self, choice: tuple[Candidate, ...]) -> list[float]:
        for mark in ("first", "second"):
            try:
                (self.folder / mark).touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return scores(choice)


def refuses(choice: Sequence[Candidate]) -> list[float]:
    return [0.5] * (len(choice) - 1)


def run_and_die(config: StudyConfig, statements: int) -> None:
    """Run the study, but kill this process before it sends the given statement (a count) to the database."""
    left = statements

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    run_study(space(), scores, REWARD, config)


def claim_and_wait(config: StudyConfig, writer: Connection) -> None:
    """Be a process in the middle of a trial: tell its number, then wait to be killed."""

    def wait(choice: tuple[Candidate, ...]) -> list[float]:
        writer.send(0)
        signal.pause()
        return scores(choice)

    run_study(space(), wait, REWARD, config)
