"""Run a search: children from a sampler, latency before scores, one SQLite file, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lavolta.errors import EngineError, InfeasibleError, LavoltaError, UserInputError
from lavolta.search._storage import MemoryStudy, StudyFile, storage_errors
from lavolta.search.config import StudyConfig
from lavolta.search.reward import Reward
from lavolta.search.samplers import make_sampler
from lavolta.search.spaces import Actions, Facts, SearchSpace

ChoiceT = TypeVar("ChoiceT")
ROW = "row"
"""The one user attribute of a trial: its `Row` as JSON."""


@dataclass(frozen=True)
class Row:
    """One finished child.

    Args:
        number: of the trial, from 0.
        actions: the settled child.
        reward: what the search maximizes.
        feasible: whether every level meets the deadline.
        latency_ms: predicted, per level.
        sparsity: per level, 0 to 1.
        runs: inferences per charge, 0 where nobody predicts them.
        scores: per level; empty where the child is not feasible and was never evaluated.
        repeated: the scores are those of an earlier trial with the same child.
    """

    number: int
    actions: Actions
    reward: float
    feasible: bool
    latency_ms: tuple[float, ...]
    sparsity: tuple[float, ...]
    runs: float
    scores: tuple[float, ...]
    repeated: bool


@dataclass(frozen=True)
class StudyResult:
    """The finished trials by number, and how many were asked for (fewer rows: another process still runs some)."""

    rows: tuple[Row, ...]
    trials: int

    @property
    def best(self) -> Row | None:
        """The feasible child of the highest reward, the earliest of equals; `None` where none is feasible."""
        return next(iter(self.top(1)), None)

    def top(self, count: int) -> list[Row]:
        """The best `count` different feasible children, best first, each at its first trial."""
        first = {row.actions: row for row in reversed(self.rows) if row.feasible}
        return sorted(first.values(), key=lambda row: (-row.reward, row.number))[:count]


@dataclass(frozen=True)
class _Job:
    """All that a worker process needs."""

    space: SearchSpace[Any]
    evaluate: Callable[[Any], Sequence[float]]
    reward: Reward
    config: StudyConfig
    runs_of: Callable[[Facts], float] | None


def run_study(
    space: SearchSpace[ChoiceT],
    evaluate: Callable[[ChoiceT], Sequence[float]],
    reward: Reward,
    config: StudyConfig,
    runs_of: Callable[[Facts], float] | None = None,
    on_trial: Callable[[Row, int], None] | None = None,
) -> StudyResult:
    """Finish `config.trials` children; continue where an earlier call was cut off.

    A child that misses the deadline gets `reward.violated` and is not evaluated; a child that was evaluated before in
    this study keeps its scores. A trial becomes complete in one transaction at its very end: a killed one runs again
    under its number. With one worker, cut or not, equal settings give an equal table.

    Args:
        evaluate: a decoded choice to one score per level, higher is better; deterministic, for a reproducible table.
        runs_of: predicts the inferences per charge for `Facts.runs`.
        on_trial: called in this process with each new row and the number of finished trials.

    With several workers, `space`, `evaluate`, `reward` and `runs_of` go to new interpreters and must be picklable,
    and the caller's script needs the usual `if __name__ == "__main__"`.

    Raises:
        UserInputError: for a storage that cannot be used, other settings than the study was begun with, scores that
            are not one finite number per level, or workers that cannot take the arguments.
        LavoltaError: a worker was killed; what it had finished is kept.
    """
    job = _Job(space, evaluate, reward, config, runs_of)
    with _quiet_optuna():
        with _open_file(config) as file:
            study = _open_study(file, job)
            finished = len(_finished(file, study))

            def tell(row: Row) -> None:
                nonlocal finished
                finished += 1
                if on_trial is not None:
                    on_trial(row, finished)

            if config.workers == 1:
                _work(file, study, job, tell)
                return _result(file, study, config.trials)
        killed = _run_workers(job, tell)
        with _open_file(config) as file:
            result = _result(file, _open_study(file, job), config.trials)
    if killed and len(result.rows) < config.trials:
        raise LavoltaError(
            f"{killed} of {config.workers} workers of study {config.name!r} were killed (out of memory?) with "
            f"{len(result.rows)} of {config.trials} trials finished; run the same command again to continue."
        )
    return result


def _result(file: StudyFile | MemoryStudy, study: optuna.Study, trials: int) -> StudyResult:
    return StudyResult(tuple(_row(trial) for trial in _finished(file, study)), trials)


def _work(file: StudyFile | MemoryStudy, study: optuna.Study, job: _Job, tell: Callable[[Row], None]) -> None:
    """Run trials until none is left to claim."""
    known: dict[Actions, tuple[float, ...]] = {}
    read: set[int] = set()
    while (trial := file.claim(study, job.config.trials)) is not None:
        try:
            with storage_errors(file.path):
                wanted = [trial.suggest_int(step.name, 0, step.choices - 1) for step in job.space.steps]
            for other in _finished(file, study):
                if other.number not in read:
                    read.add(other.number)
                    earlier = _row(other)
                    if earlier.feasible:
                        known[earlier.actions] = earlier.scores
            row = _judge(job, trial, wanted, known)
            with storage_errors(file.path):
                trial.set_user_attr(ROW, asdict(row))
                study.tell(trial, row.reward)
        finally:
            file.release(trial)
        tell(row)


def _judge(job: _Job, trial: Trial, wanted: Sequence[int], known: dict[Actions, tuple[float, ...]]) -> Row:
    """Latency first; then the scores, known or new."""
    actions = job.space.settle(wanted)
    facts = job.space.facts(actions)
    if job.runs_of is not None:
        facts = replace(facts, runs=float(job.runs_of(facts)))
    scores: tuple[float, ...] = ()
    repeated = facts.feasible and actions in known
    if not facts.feasible:
        reward = job.reward.violated(facts)
    else:
        scores = known[actions] if repeated else tuple(float(s) for s in job.evaluate(job.space.decode(actions)))
        if len(scores) != len(facts.latency_ms) or not all(map(math.isfinite, scores)):
            raise UserInputError(
                f"the evaluation of child {list(actions)} gave the scores {list(scores)}; "
                f"give one finite number for each of {len(facts.latency_ms)} levels."
            )
        reward = job.reward.satisfied(facts, scores)
    if not math.isfinite(reward):
        raise UserInputError(f"the reward of child {list(actions)} is {reward}; give a reward that is always finite.")
    return Row(
        trial.number, actions, reward, facts.feasible, facts.latency_ms, facts.sparsity, facts.runs, scores, repeated
    )


def _open_file(config: StudyConfig) -> StudyFile | MemoryStudy:
    return MemoryStudy() if config.storage is None else StudyFile(config.storage)


def _open_study(file: StudyFile | MemoryStudy, job: _Job) -> optuna.Study:
    config = job.config
    sampler: dict[str, Any] = {"name": config.sampler}
    if config.sampler == "reinforce":
        sampler.update(asdict(config.controller))
    settings = {
        "space": _digest(job.space.describe()),
        "reward": _digest([type(job.reward).__name__, repr(job.reward)]),
        "sampler": _digest(sampler),
        "seed": str(config.seed),
    }
    return file.study(config.name, make_sampler(config.sampler, job.space, config.seed, config.controller), settings)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _finished(file: StudyFile | MemoryStudy, study: optuna.Study) -> list[FrozenTrial]:
    with storage_errors(file.path):
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _row(trial: FrozenTrial) -> Row:
    data = trial.user_attrs[ROW]
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
    return Row(**fields)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna reports each study on the standard error; the caller's `on_trial` decides what is told here."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _run_workers(job: _Job, tell: Callable[[Row], None]) -> int:
    """Run worker processes until all have ended: how many were killed. An error stops the others, a kill does not."""
    try:
        pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserInputError(
            f"the evaluation cannot be sent to worker processes ({error}); "
            f"define it at the top of a module, or use 1 worker."
        ) from error
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    killed = 0
    try:
        for _ in range(job.config.workers):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_worker_main, args=(job, writer))
            process.start()
            writer.close()
            workers[reader] = process
        while workers:
            for ready in wait(list(workers)):
                if not isinstance(ready, Connection):
                    continue
                try:
                    message = ready.recv()
                except EOFError:
                    process = workers.pop(ready)
                    ready.close()
                    process.join()
                    if process.exitcode and process.exitcode > 0:
                        raise LavoltaError(
                            f"a worker of study {job.config.name!r} failed; "
                            f"its report is above, and what it finished is kept."
                        ) from None
                    killed += process.exitcode != 0
                    continue
                if isinstance(message, LavoltaError):
                    raise message
                tell(message)
    finally:
        for process in workers.values():
            process.terminate()
            process.join()
    return killed


def _worker_main(job: _Job, parent: Connection) -> None:
    try:
        with _quiet_optuna(), _open_file(job.config) as file:
            _work(file, _open_study(file, job), job, parent.send)
    except LavoltaError as error:
        family = (UserInputError, InfeasibleError, EngineError, LavoltaError)
        parent.send(next(kind for kind in family if isinstance(error, kind))(str(error)))
    except (BrokenPipeError, KeyboardInterrupt):
        # The parent is gone, or tells its own end; the trial that was running is taken up by the next call.
        return
