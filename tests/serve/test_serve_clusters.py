"""A server on several clusters: runs on the cores of the one that was chosen, and no answer is lost or wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_tools import LONG_MS, Gate, ManualClock, governed_by, serving, until

from lavolta import devices
from lavolta.devices import Accounting, Work
from lavolta.devices.sources import NoFrequencyControl, Reading
from lavolta.errors import CancelledError
from lavolta.runtime.engine import Model, open_bundle
from lavolta.runtime.governed import Governed
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_engine import EngineRunner
from lavolta.runtime.governor_loop import LiveGovernor
from lavolta.runtime.runners import Answer
from lavolta.runtime.scenario import LevelWork, Scenario
from lavolta.serve.pace import RealTime
from lavolta.serve.service import Service
from tiny_bundles import write_tiny

PHONE = devices.load("freqbench-sm8150")
BIG, LITTLE, _ = PHONE.cluster_names
REQUESTS, CLIENTS = 400, 4


@dataclass
class Swinging:
    """A charger that is plugged in and out: the best level on the big cores, the lowest energy on the little ones."""

    looks: int = 0

    def read(self) -> Reading:
        self.looks += 1
        return Reading(float(self.looks), charge_share=0.5, on_ac=self.looks // 3 % 2 == 0)


@dataclass
class Watched:
    """The engine's runner, and where each run was."""

    runner: EngineRunner
    cpus: dict[str, list[int]]
    seen: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = BIG

    def move(self, cluster: str, /) -> None:
        self.cluster = cluster
        self.runner.move(cluster)

    def __call__(self, request: Any, level: str, within_ms: float, /) -> Answer:
        places: list[list[int]] = []
        run_within = self.runner.model.run_within

        def clock() -> int:
            places.append(sorted(os.sched_getaffinity(0)))
            return time.monotonic_ns()

        self.runner.model.switch(level)
        run = run_within([request.token_ids], within_ms, clock=clock)
        # The engine asks for the time before each layer, in the thread that runs it.
        self.seen.append((self.cluster, sum(place == self.cpus[self.cluster] for place in places)))
        return Answer(run.output, kept_level=bool((run.levels == self.runner.model.level).all()))


def cores() -> dict[str, list[int]]:
    """A core for each cluster; the same one where this computer has no second one."""
    allowed = sorted(os.sched_getaffinity(0))
    return {BIG: allowed[:1], LITTLE: allowed[-1:]}


@pytest.fixture
def models(tmp_path: Path) -> Iterator[dict[str, Model]]:
    """A tiny bundle on the cores of each cluster."""
    path = write_tiny(tmp_path / "tiny.lavolta")
    with ExitStack() as opened:
        yield {name: opened.enter_context(open_bundle(path, cores=cpus)) for name, cpus in cores().items()}


def test_no_answer_is_lost_or_wrong_while_runs_change_their_cores(models: dict[str, Model], tmp_path: Path) -> None:
    model = models[BIG]
    levels = tuple(
        LevelWork(name, Work(8, 16, (3 - index) * 1e6, 0.0, 0.0, 0.0), 1.0 - 0.1 * index)
        for index, name in enumerate(model.levels)
    )
    # On a little core at its top the dense level takes 0.70 ms, on a big one 0.26: too slow with the margin.
    scenario = Scenario(PHONE, levels, 0.8, 0.8, clusters=(BIG, LITTLE), accounting=Accounting.BOARD, gap_ms=0.0)
    source, control = Swinging(), NoFrequencyControl()
    runner = Watched(EngineRunner(models, 8), cores())
    clock = ManualClock()
    governor = LiveGovernor(scenario, Goal(margin=0.2), runner, source, control, clock)
    place = Governed(governor, source, control, clock, lambda _time_s: None, lambda: False, governor.close)
    texts = [np.random.default_rng(7).integers(0, model.spec.vocab, 1 + size % 16).tolist() for size in range(20)]
    expected = {}
    for level in model.levels:
        model.switch(level)
        expected |= {(level, place): model.run([ids])[0].tolist() for place, ids in enumerate(texts)}
    with (
        Service(tuple(models.values()), place, RealTime(clock)) as service,
        serving(service, tmp_path / "s.sock") as connect,
    ):

        def ask(number: int) -> list[int]:
            found = []
            with connect() as client:
                for turn in range(REQUESTS // CLIENTS):
                    which = (number + turn) % len(texts)
                    body = json.dumps({"token_ids": texts[which], "deadline_ms": LONG_MS}).encode()
                    reply = client.ask("POST", "/v1/encode", body)
                    assert reply.status == 200, reply.body
                    assert reply.data["output"] == expected[reply.data["level"], which]
                    assert reply.data["kept_level"]
                    found.append(reply.data["index"])
            return found

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [index for each in pool.map(ask, range(CLIENTS)) for index in each]
        with connect() as client:
            last = client.get("/v1/status").data["last"]
            dial = client.get("/v1/levels").data
    assert sorted(answers) == list(range(REQUESTS))
    assert {cluster for cluster, _ in runner.seen} == {BIG, LITTLE}
    assert all(layers > 0 for _, layers in runner.seen)
    assert last["cluster"] in (BIG, LITTLE)
    assert last["moved_to"] is None
    # What is shown of a level is where it is fastest.
    assert dial["freq_mhz"] == PHONE.cluster(BIG).max_mhz


def test_a_client_that_leaves_ends_its_run_on_whichever_cluster_it_is(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    for name, opened in models.items():
        monkeypatch.setattr(opened, "cancel", lambda name=name: ended.append(name))
    gate, clock = Gate(), ManualClock()
    first = next(iter(models.values()))
    with Service(tuple(models.values()), governed_by(first, clock, runner=gate), RealTime(clock)) as service:
        job = service.submit([1], clock())
        gate.wait()
        service.withdraw(job)
        assert ended == [BIG, LITTLE]
        gate.fail = CancelledError("another thread cancelled the run.")
        gate.open.release()
        until(job.done.done)
        assert service.recorder.totals().refused["cancelled"] == 1


def test_a_profile_without_a_second_cluster_is_served_as_before(model: Model) -> None:
    clock = ManualClock()
    with Service(model, governed_by(model, clock), RealTime(clock)) as service:
        served = service.submit(model.tokenize(["a cat"])[0][0], clock()).done.result(60)
    assert served.cluster == devices.load("odroid-xu3-a7").cluster().name
    assert replace(served, output=None).moved_to is None
