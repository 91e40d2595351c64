"""The cores of a computer from a folder like Linux's, the default choice among them, threads that stay on theirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lavolta
from lavolta.errors import UserInputError
from lavolta.runtime.cores import Core, fast_cores, read_cores
from lavolta.runtime.engine import open_bundle
from reference_model import random_model


def make_cores(
    folder: Path,
    capacities: Sequence[int | None],
    khz: Sequence[int | None] | None = None,
    online: str | None = None,
    clusters: Sequence[str] | None = None,
    cluster_file: str = "topology/core_siblings_list",
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "online").write_text((online or f"0-{len(capacities) - 1}") + "\n")
    for index, capacity in enumerate(capacities):
        core = folder / f"cpu{index}"
        (core / "cpufreq").mkdir(parents=True, exist_ok=True)
        (core / "topology").mkdir(exist_ok=True)
        files = {
            "cpu_capacity": capacity,
            "cpufreq/cpuinfo_max_freq": khz[index] if khz else None,
            cluster_file: clusters[index] if clusters else None,
        }
        for name, value in files.items():
            if value is not None:
                (core / name).write_text(f"{value}\n")
            elif (core / name).exists():
                (core / name).unlink()
    return folder


def test_an_odroid_xu3(tmp_path: Path) -> None:
    """Capacities by Linux's exynos5422 device tree (539 and 1024 DMIPS per MHz) at 1.4 and 2.0 GHz."""
    little = round(1024 * 539 * 1400 / (1024 * 2000))
    folder = make_cores(
        tmp_path, [little] * 4 + [1024] * 4, [1_400_000] * 4 + [2_000_000] * 4, clusters=["0-3"] * 4 + ["4-7"] * 4
    )
    assert read_cores(folder)[3:5] == [Core(3, little, 1_400_000, 0), Core(4, 1024, 2_000_000, 4)]
    for threads in (1, 2, 3, 4):
        assert sorted(fast_cores(threads, folder)) == [4, 5, 6, 7]
    assert fast_cores(5, folder) == [4, 5, 6, 7, 0]
    assert sorted(fast_cores(8, folder)) == list(range(8))


def test_one_prime_three_big_four_little(tmp_path: Path) -> None:
    folder = make_cores(tmp_path, [200] * 4 + [800] * 3 + [1024])
    assert fast_cores(1, folder) == [7]
    # Two of the big ones would have 1600 of 1824: less than nine tenths.
    assert fast_cores(2, folder) == [7, 4]
    assert fast_cores(3, folder) == [7, 4, 5, 6]
    assert fast_cores(4, folder) == [7, 4, 5, 6]


def test_clocks_stand_in_for_capacities(tmp_path: Path) -> None:
    folder = make_cores(tmp_path, [None] * 4, [1_800_000, 1_800_000, 2_400_000, 2_400_000])
    assert fast_cores(2, folder) == [2, 3]
    # A capacity that one core does not have compares nothing.
    make_cores(folder, [1024, 1024, 300, None], [1_800_000, 1_800_000, 2_400_000, 2_400_000])
    assert fast_cores(2, folder) == [2, 3]
    make_cores(folder, [None] * 4, [1_800_000, None, 2_400_000, 2_400_000])
    assert fast_cores(2, folder) == [0, 1, 2, 3]


def test_equal_cores_are_all_fast(tmp_path: Path) -> None:
    folder = make_cores(tmp_path, [1024] * 4)
    assert fast_cores(1, folder) == [0, 1, 2, 3]


def test_cores_that_are_offline_do_not_count(tmp_path: Path) -> None:
    folder = make_cores(tmp_path, [100] * 2 + [1024] * 3, online="0-1,3")
    assert [core.index for core in read_cores(folder)] == [0, 1, 3]
    assert fast_cores(1, folder) == [3]


@pytest.mark.parametrize("file", ["topology/cluster_cpus_list", "cpufreq/related_cpus", "topology/core_siblings_list"])
def test_clusters(tmp_path: Path, file: str) -> None:
    together = "2 3" if file == "cpufreq/related_cpus" else "2-3"
    folder = make_cores(tmp_path, [1] * 4, clusters=["0-1", "0-1", together, together], cluster_file=file)
    assert [core.cluster for core in read_cores(folder)] == [0, 0, 2, 2]


@pytest.mark.parametrize("online", ["", "abc", "-", "0-", "5-2", "0-99999999999999999999", str(2**64 - 1), "0,,1"])
def test_strange_folders_are_survived(tmp_path: Path, online: str) -> None:
    make_cores(tmp_path, [1024, 1024])
    (tmp_path / "online").write_text(online)
    (tmp_path / "cpu0" / "cpu_capacity").write_text("999999999999999999999999")
    (tmp_path / "cpu1" / "cpu_capacity").write_text("-5")
    for core in read_cores(tmp_path):
        assert core.capacity is None
    assert set(fast_cores(1, tmp_path)) == {core.index for core in read_cores(tmp_path)}
    assert read_cores(tmp_path / "absent") == []
    assert fast_cores(3, tmp_path / "absent") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 1024), min_size=1, max_size=7), st.integers(1, 9))
def test_the_default_is_within_a_tenth_of_the_best(tmp_path: Path, speeds: list[int], threads: int) -> None:
    """Work is shared by tickets, so its time is the sum of the speeds; the system picks any cores of the default."""
    folder = make_cores(tmp_path, speeds)
    chosen = fast_cores(threads, folder)
    busy = min(threads, len(speeds))
    best = max(sum(speeds[core] for core in some) for some in combinations(range(len(speeds)), busy))
    worst = min(sum(speeds[core] for core in some) for some in combinations(chosen, busy))
    assert worst >= 0.9 * best
    assert [speeds[core] for core in chosen] == sorted((speeds[core] for core in chosen), reverse=True)


def test_no_threads(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="threads is 0; it must be at least 1"):
        fast_cores(0, tmp_path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model().write(tmp_path_factory.mktemp("cores") / "model.lavolta")


@pytest.fixture
def allowed() -> Iterator[set[int]]:
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


def threads_of_this_process() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true, within so many looks that even a busy system has scheduled the other threads."""
    for _ in range(100_000):
        if condition():
            return True
        os.sched_yield()
    return False


def test_threads_stay_on_the_listed_cores(path: Path, allowed: set[int]) -> None:
    core = max(allowed)
    before = threads_of_this_process()
    during: list[set[int]] = []

    def clock() -> int:
        during.append(os.sched_getaffinity(0))
        return 0

    with lavolta.open(path, threads=3, cores=[core]) as model:
        workers = threads_of_this_process() - before
        assert len(workers) == 2
        model.calibrate([1], 1, clock=lambda: 0)
        expected = model.run([[1, 2, 3]] * 40)
        assert wait_until(lambda: all(os.sched_getaffinity(worker) == {core} for worker in workers))
        run = model.run_within([[1, 2, 3]] * 40, 1e9, clock=clock)
        # The caller's thread stays there from the beginning of the run to its end, and no longer.
        assert during[1:-1]
        assert all(cores == {core} for cores in during[1:])
        assert os.sched_getaffinity(0) == allowed
    with lavolta.open(path) as model:
        assert (model.run([[1, 2, 3]] * 40) == expected).all()
        assert (run.output == expected).all()


def test_the_caller_may_have_been_kept_to_other_cores(path: Path, allowed: set[int]) -> None:
    if len(allowed) < 2:
        pytest.skip("this process has one core")
    mine, other = sorted(allowed)[:2]
    os.sched_setaffinity(0, {mine})
    with lavolta.open(path, threads=2, cores=[other]) as model:
        model.run([[1, 2, 3]])
        assert os.sched_getaffinity(0) == {mine}


@pytest.mark.parametrize(
    ("cores", "message"),
    [
        ([], "cores is empty; name at least one core, or give None."),
        ([0, 0], "cores has 0 twice; name each core once."),
        ([4000], "cores has 4000, which this process cannot use; choose among "),
        ([-1], "cores has -1; a core is a number from 0 to 4095."),
        ([4096], "cores has 4096; a core is a number from 0 to 4095."),
    ],
)
def test_wrong_cores(path: Path, allowed: set[int], cores: list[int], message: str) -> None:
    if 0 not in allowed:
        pytest.skip("core 0 is not ours")
    with pytest.raises(UserInputError, match=message):
        open_bundle(path, cores=cores)
    assert os.sched_getaffinity(0) == allowed


def test_idle_workers_block(path: Path) -> None:
    """A worker that waits for a run sleeps in the kernel."""
    before = threads_of_this_process()
    with lavolta.open(path, threads=2) as model:
        (worker,) = threads_of_this_process() - before
        model.run([[1, 2, 3]] * 40)
        stat = Path(f"/proc/self/task/{worker}/stat")

        def state() -> str:
            return stat.read_text().rpartition(")")[2].split()[0]

        assert wait_until(lambda: state() == "S")
