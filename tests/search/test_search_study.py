"""Studies: latency first, known children, kills at every stage, several workers, hostile storage."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest
import search_toys as toys

from lavolta.errors import LavoltaError, UserInputError
from lavolta.search import Facts, StudyConfig, run_study
from lavolta.search import _storage as storage
from lavolta.search.spaces import Step


def config(folder: Path, **changes: object) -> StudyConfig:
    return replace(StudyConfig(folder / "study.db", trials=12, sampler="random"), **changes)


def run(settings: StudyConfig, **changes: object):
    arguments = {"space": toys.space(), "evaluate": toys.scores, "reward": toys.REWARD, "config": settings, **changes}
    return run_study(**arguments)


@dataclass(frozen=True)
class OneStep:
    """Ten children of one level; child `i` takes `i` ms of a deadline of 4 ms, odd ones settle to the even below."""

    steps: tuple[Step, ...] = (Step("only", 10),)

    def settle(self, actions):
        return (actions[0] // 2 * 2,)

    def decode(self, actions):
        return self.settle(actions)[0]

    def facts(self, actions):
        return Facts((float(self.settle(actions)[0]),), (0.0,), 4.0)

    def describe(self):
        return {"steps": 10}


def tenth_of_latency(facts: Facts) -> float:
    return facts.latency_ms[0] / 10


def test_latency_comes_before_scores_and_a_known_child_is_not_evaluated_again(tmp_path):
    evaluated = []

    def evaluate(child):
        evaluated.append(child)
        return [child / 10]

    result = run(
        config(tmp_path, trials=20), space=OneStep(), evaluate=evaluate, runs_of=lambda f: f.latency_ms[0] / 10
    )
    assert sorted(evaluated) == [0, 2, 4]
    assert {row.actions[0] for row in result.rows} == {0, 2, 4, 6, 8}
    for row in result.rows:
        child = row.actions[0]
        assert row.runs == child / 10
        if child > 4:
            assert (row.feasible, row.scores, row.reward) == (False, (), pytest.approx(-1.0 + child / 10))
        else:
            assert (row.feasible, row.scores, row.reward) == (True, (child / 10,), pytest.approx(child / 5))
    first = [row for row in result.rows if row.feasible and not row.repeated]
    assert len(first) == 3
    # The infeasible child 8 has reward -0.2, above nothing here; the best feasible is 4 at its first trial.
    assert result.best == next(row for row in first if row.actions == (4,))
    assert [row.actions[0] for row in result.top(9)] == [4, 2, 0]


def test_no_feasible_child_means_no_best(tmp_path):
    space = toys.space()
    late = replace(space, deadline_ms=min(c.latency_ms for c in space.candidates[0]) / 2)
    result = run(config(tmp_path, trials=2), space=late, evaluate=toys.refuses)
    assert result.best is None
    assert result.top(3) == []


def test_progress_counts_what_was_there_before(tmp_path):
    told = []
    run(config(tmp_path, trials=2), on_trial=lambda row, finished: told.append((row.number, finished)))
    result = run(config(tmp_path, trials=5), on_trial=lambda row, finished: told.append((row.number, finished)))
    assert told == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert [row.number for row in result.rows] == [0, 1, 2, 3, 4]
    assert run(config(tmp_path, trials=3), evaluate=toys.refuses).rows == result.rows


@pytest.fixture(scope="module")
def forks():
    """A clean process that has imported everything once, from which children fork cheaply."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["search_warm"])
    return context


@pytest.mark.slow
def test_a_study_killed_at_many_statements_ends_with_the_table_of_one_that_ran_through(tmp_path, forks):
    """Each process dies before its n-th database statement: while tables are made, between parameters, before the end.

    A process opens a study with about 60 statements and runs a trial with about 15; a new file takes 40 more.
    """
    sampler = "reinforce"
    whole = run(config(tmp_path, sampler=sampler, storage=tmp_path / "whole.db"))
    killed = config(tmp_path, sampler=sampler)
    for statements in (5, 40, 107, 140, 181):
        process = forks.Process(target=toys.run_and_die, args=(killed, statements))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert run(killed).rows == whole.rows
    with closing(sqlite3.connect(killed.storage)) as connection:
        assert connection.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall() == [("COMPLETE", 12)]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_error_of_the_evaluation_passes_and_its_trial_is_run_again(tmp_path):
    def fails(_choice):
        raise KeyError("user code")

    with pytest.raises(KeyError, match="user code"):
        run(config(tmp_path), evaluate=fails)
    assert run(config(tmp_path)).rows == run(config(tmp_path, storage=tmp_path / "whole.db")).rows


def test_two_workers_finish_each_trial_once(tmp_path):
    told = []
    settings = config(tmp_path, trials=23, workers=2)
    result = run(settings, evaluate=toys.Logged(tmp_path / "log"), on_trial=lambda row, n: told.append((row.number, n)))
    assert [row.number for row in result.rows] == list(range(23))
    assert sorted(number for number, _ in told) == list(range(23))
    assert [n for _, n in told] == list(range(1, 24))
    # Random chance hangs on the trial's number alone, so even two workers give the table of one, but for who was first.
    alone = run(config(tmp_path, trials=23, storage=tmp_path / "alone.db"))
    assert [(row.actions, row.reward) for row in result.rows] == [(row.actions, row.reward) for row in alone.rows]
    assert (tmp_path / "log").stat().st_size == sum(not row.repeated for row in result.rows)
    with closing(sqlite3.connect(settings.storage)) as connection:
        assert connection.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall() == [("COMPLETE", 23)]


def test_killed_workers_are_told_and_the_next_call_takes_up_their_trials(tmp_path):
    settings = config(tmp_path, trials=9)
    dies = toys.DiesTwice(tmp_path)
    with pytest.raises(LavoltaError, match=r"2 of 2 workers .* were killed .* run the same command again"):
        run(replace(settings, workers=2), evaluate=dies)
    assert run(settings, evaluate=dies).rows == run(config(tmp_path, trials=9, storage=tmp_path / "whole.db")).rows


def test_an_error_in_a_worker_arrives_as_itself(tmp_path):
    with pytest.raises(UserInputError, match="one finite number for each of 3 levels"):
        run(config(tmp_path, workers=2), evaluate=toys.refuses)


def test_workers_refuse_what_cannot_be_sent(tmp_path):
    with pytest.raises(UserInputError, match="cannot be sent to worker processes"):
        run(config(tmp_path, workers=2), evaluate=lambda _: [1.0])


def test_a_trial_that_another_process_runs_is_left_alone(tmp_path, forks):
    """The lock of a living process keeps its trial; when it ends, the trial returns under its number."""
    settings = config(tmp_path, trials=3)
    reader, writer = forks.Pipe(duplex=False)
    keeper = forks.Process(target=toys.claim_and_wait, args=(settings, writer))
    keeper.start()
    assert reader.recv() == 0
    assert [row.number for row in run(settings).rows] == [1, 2]
    keeper.kill()
    keeper.join()
    assert [row.number for row in run(settings).rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"sampler": "tpe"}, "sampler"),
        ({"space": OneStep()}, "space"),
        ({"reward": replace(toys.REWARD, penalty=0.1), "seed": 3}, "reward and seed"),
    ],
)
def test_a_study_is_not_continued_with_other_settings(tmp_path, change, named):
    run(config(tmp_path, trials=1))
    settings = config(tmp_path, **{key: value for key, value in change.items() if key in ("seed", "sampler")})
    arguments = {key: value for key, value in change.items() if key in ("space", "reward")}
    with pytest.raises(UserInputError, match=f"begun with another {named};"):
        run(settings, **arguments)
    assert len(run(config(tmp_path, name="another", seed=1, trials=1)).rows) == 1


@pytest.mark.parametrize("name", ["a b.db", "100%20.db", "what?.db", "{x}#.db", "ünï.db"])
def test_any_file_name_holds_a_study(tmp_path, name):
    assert len(run(config(tmp_path, storage=tmp_path / name, trials=1)).rows) == 1
    assert (tmp_path / name).is_file()


def test_hostile_storage_paths_are_one_sentence(tmp_path):
    text = tmp_path / "text.db"
    text.write_bytes(b"this is not a database, whatever its name says" * 50)
    stranger = tmp_path / "stranger.db"
    with closing(sqlite3.connect(stranger)) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    before = stranger.read_bytes()
    for path, message in {
        text: "is not a study file",
        stranger: "database of something else .* 'invoices'",
        tmp_path: "is a folder",
        tmp_path / "none" / "study.db": "does not exist; make it first",
        text / "study.db": "does not exist; make it first",
    }.items():
        with pytest.raises(UserInputError, match=message) as caught:
            run(config(tmp_path, storage=path))
        assert "\n" not in str(caught.value)
    assert stranger.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stranger.db", "text.db"]
    assert text.read_bytes().startswith(b"this is not")


def test_a_damaged_study_file_is_named(tmp_path):
    settings = config(tmp_path, trials=2)
    run(settings)
    content = bytearray(settings.storage.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    settings.storage.write_bytes(bytes(content))
    with pytest.raises(UserInputError, match=r"study\.db is damaged"):
        run(settings)


def test_a_locked_study_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BUSY_TIMEOUT_S", 0.01)
    settings = config(tmp_path, trials=1)
    run(settings)
    with closing(sqlite3.connect(settings.storage)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserInputError, match="is locked by another program"):
            run(settings)


def test_a_full_disk_is_named_and_what_was_finished_is_kept(tmp_path, monkeypatch):
    settings = config(tmp_path, trials=200)
    run(replace(settings, trials=1))
    with closing(sqlite3.connect(settings.storage)) as connection:
        pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
    # SQLite's own limit stands for the disk's: the same error code, at the same calls.
    monkeypatch.setattr(storage, "PRAGMAS", (f"PRAGMA max_page_count={pages + 4}",))
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda _: None)
    with pytest.raises(UserInputError, match="the disk is full; make room"):
        run(settings)
    monkeypatch.undo()
    kept = run(replace(settings, trials=1), evaluate=toys.refuses).rows
    assert 1 < len(kept) < 200
    assert kept == run(config(tmp_path, storage=tmp_path / "whole.db", trials=len(kept))).rows


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserInputError, match="cannot be opened"):
        run(config(tmp_path))


def test_one_process_does_not_open_a_study_file_twice(tmp_path):
    def nested(choice):
        with pytest.raises(UserInputError, match="in use by this process"):
            run(config(tmp_path))
        return toys.scores(choice)

    assert len(run(config(tmp_path, trials=1), evaluate=nested).rows) == 1


def test_a_reward_that_is_not_finite_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Broken:
        def violated(self, *_):
            return float("nan")

        def satisfied(self, *_):
            return 0.0

    with pytest.raises(UserInputError, match="is nan; give a reward that is always finite"):
        run(config(tmp_path, trials=20), space=OneStep(), reward=Broken(), evaluate=lambda _: [0.5])
    with pytest.raises(UserInputError, match=r"gave the scores \[inf\]"):
        run(config(tmp_path, trials=30, name="2"), space=OneStep(), evaluate=lambda _: [float("inf")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "trials is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"sampler": "best"}, "sampler is 'best'"),
        ({"seed": -1}, "seed is -1"),
        ({"name": ""}, "name of the study is empty"),
    ],
)
def test_wrong_settings_are_named(tmp_path, change, message):
    with pytest.raises(UserInputError, match=message):
        config(tmp_path, **change)


def test_optunas_own_verbosity_is_left_as_it_was(tmp_path):
    before = optuna.logging.get_verbosity()
    run(config(tmp_path, trials=1))
    assert optuna.logging.get_verbosity() == before
