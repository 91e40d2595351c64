"""The SQLite file of a study: opened safely, claimed trial by trial, with errors that a person can act on.

Who runs which trial is known by kernel locks on `<storage>.lock`, which end with the process that holds them: a trial
that is marked running while nobody holds its lock belongs to a process that was killed, and goes back to the queue
under its own number.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState

from lavolta.errors import UserInputError

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another one; a write of a study takes milliseconds."""

PRAGMAS = ("PRAGMA synchronous=NORMAL",)
"""For every connection: with the write-ahead log a killed process loses nothing, and a power cut the last trials."""

ADVICE = {
    "not a database": "is not a study file; give another path",
    "malformed": "is damaged; restore a copy or give another path",
    "locked": "is locked by another program; close that program or give another path",
    "disk is full": "cannot grow because the disk is full; make room and run the same command again",
    "disk i/o": "cannot be read or written because the disk failed; check the disk and its quota",
    "readonly": "cannot be written; change its permissions or give another path",
    "unable to open": "cannot be opened; check that it is a file in a folder that you may write to",
}

_open_here: set[str] = set()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the database or Optuna reports about the file into one sentence.

    Raises:
        UserInputError: with the file, the cause and the way out.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
        causes = _causes(error)
        for sign, advice in ADVICE.items():
            if any(sign in cause.lower() for cause in causes):
                raise UserInputError(f"the study file {path} {advice}.") from error
        raise UserInputError(f"the study file {path} cannot be used ({causes[-1]}); give another path.") from error


def _causes(error: BaseException) -> list[str]:
    causes = []
    current: BaseException | None = error
    while current is not None:
        causes.append(" ".join(str(current).split()))
        current = current.__cause__ or current.__context__
    return causes


class _Locks:
    """Byte-range locks of this process: byte 0 is the claim itself, byte `n + 1` is trial `n`."""

    def __init__(self, path: Path) -> None:
        self._key = os.path.realpath(path)
        # The kernel counts these locks by process: two users in one process would not exclude each other.
        if self._key in _open_here:
            raise UserInputError(
                f"the study file of {path} is in use by this process; wait until that search has ended."
            )
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserInputError(
                f"{path} cannot be opened ({error.strerror}); give a study path in a folder that you may write to."
            ) from error
        _open_here.add(self._key)

    def close(self) -> None:
        os.close(self._file)
        _open_here.discard(self._key)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def hold(self, number: int) -> bool:
        """Take trial `number`; false where another process holds it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number + 1)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, number: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number + 1)


class StudyFile:
    """One open study file; a context manager. One process opens a file once at a time.

    Raises:
        UserInputError: for a path that is no study file, cannot be written, or is locked by another program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise UserInputError(f"the study path {path} is a folder; give a file in it.")
        if not path.parent.is_dir():
            raise UserInputError(f"the folder {path.parent} of the study file does not exist; make it first.")
        if path.exists():
            with storage_errors(path):
                _refuse_foreign(path)
        self._locks = _Locks(path.with_name(path.name + ".lock"))
        try:
            with storage_errors(path), self._locks.claiming():
                with closing(_sqlite(path)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                self._storage = _connect(path)
        except BaseException:
            self._locks.close()
            raise

    def __enter__(self) -> StudyFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._locks.close()

    def study(self, name: str, sampler: BaseSampler, settings: dict[str, str]) -> Study:
        """Load or create a study that maximizes, and bind it to its settings (a digest each).

        Raises:
            UserInputError: the study was begun with other settings.
        """
        with storage_errors(self.path), self._locks.claiming():
            study = optuna.create_study(
                storage=self._storage, sampler=sampler, study_name=name, direction="maximize", load_if_exists=True
            )
            begun = study.user_attrs.get("settings")
            if begun is None and not study.get_trials(deepcopy=False):
                study.set_user_attr("settings", settings)
            elif begun != settings:
                differing = [key for key in settings if begun is None or begun.get(key) != settings[key]]
                raise UserInputError(
                    f"study {name!r} in {self.path} was begun with another {' and '.join(differing)}; "
                    f"give the study another name, or continue it with the same settings."
                )
        return study

    def claim(self, study: Study, trials: int) -> Trial | None:
        """Hold the next trial to run, first those that were cut off; `None` where `trials` are finished or running."""
        with storage_errors(self.path), self._locks.claiming():
            counted = waiting = 0
            for frozen in study.get_trials(deepcopy=False):
                counted += frozen.state is not TrialState.FAIL
                waiting += frozen.state is TrialState.WAITING
                if frozen.state is TrialState.RUNNING and self._locks.hold(frozen.number):
                    waiting += self._put_back(study, frozen.number)
                    self._locks.release(frozen.number)
            if counted - waiting >= trials or (not waiting and counted >= trials):
                return None
            trial = study.ask()
            self._locks.hold(trial.number)
            return trial

    def release(self, trial: Trial) -> None:
        """Let go of a trial; one that is not finished goes back to the queue at the next claim by anyone."""
        self._locks.release(trial.number)

    def _put_back(self, study: Study, number: int) -> bool:
        """Return a trial whose lock is free to the queue; false where it was finished since the trials were read."""
        study_id = self._storage.get_study_id_from_name(study.study_name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        if self._storage.get_trial(trial_id).state is not TrialState.RUNNING:
            return False
        return self._storage.set_trial_state_values(trial_id, TrialState.WAITING)


class MemoryStudy:
    """A study of this process alone, with what `StudyFile` offers; it ends with the ``with`` block."""

    path = Path("(memory)")

    def __enter__(self) -> MemoryStudy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def study(self, name: str, sampler: BaseSampler, settings: dict[str, str]) -> Study:
        """A new study that maximizes; there is no earlier one that its settings could differ from."""
        del settings
        return optuna.create_study(sampler=sampler, study_name=name, direction="maximize")

    def claim(self, study: Study, trials: int) -> Trial | None:
        """The next trial, `None` after the last one."""
        return study.ask() if len(study.get_trials(deepcopy=False)) < trials else None

    def release(self, trial: Trial) -> None:
        """Nobody else could take it."""


def _refuse_foreign(path: Path) -> None:
    """Refuse a file of something else before anything is written to it or beside it."""
    from optuna.storages._rdb.models import BaseModel

    with closing(_sqlite(path)) as connection:
        tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    foreign = tables - set(BaseModel.metadata.tables) - {"alembic_version", "sqlite_sequence"}
    if foreign:
        raise UserInputError(
            f"{path} is a database of something else (it has a table {min(foreign)!r}); give another path."
        )


def _connect(path: Path) -> RDBStorage:
    # A creator instead of a URL: a path may hold any character.
    engine_kwargs = {"creator": lambda: _sqlite(path), "poolclass": sqlalchemy.pool.QueuePool}
    try:
        return RDBStorage("sqlite://", engine_kwargs=engine_kwargs)
    except RuntimeError as error:
        raise UserInputError(f"the study file {path} is of another Optuna version; give another path.") from error


def _sqlite(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    for pragma in PRAGMAS:
        connection.execute(pragma)
    return connection
