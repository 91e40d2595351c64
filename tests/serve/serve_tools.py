"""What the tests of the server share: devices that a test moves, a server in a thread, clients with one connection."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lavolta import devices
from lavolta.devices import Accounting, Work
from lavolta.devices.cell import load_cell
from lavolta.devices.sources import NoFrequencyControl, Reading, SimulatedDevice
from lavolta.runtime.engine import Model
from lavolta.runtime.governed import Governed
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_engine import EngineRunner
from lavolta.runtime.governor_loop import Answer, LiveGovernor, Runner
from lavolta.runtime.scenario import LevelWork, Scenario
from lavolta.serve.addresses import listening
from lavolta.serve.pace import RealTime
from lavolta.serve.running import Stop, run
from lavolta.serve.service import Service

TIMEOUT_S = 60.0
"""A wait that a broken server runs into; a working one never does."""
LONG_MS = 3_600_000.0
"""A deadline that no test misses, however busy the machine is."""


@dataclass
class ManualClock:
    """Seconds that pass when a test says so."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Reply:
    """An answer of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        found = self.data["error"]
        return self.status, found["kind"], found["message"]


class Client:
    """One connection that is kept; requests are written as bytes, so that wrong ones can be."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        named = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
        named.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def receive(self) -> Reply:
        status = int(self._reader.readline().split()[1])
        headers = {}
        while line := self._reader.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        length = int(headers.get("content-length", "0"))
        return Reply(status, headers, self._reader.read(length))

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        self.send(method, path, body, **headers)
        return self.receive()

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def post(self, path: str, fields: object, **headers: str) -> Reply:
        return self.ask("POST", path, json.dumps(fields).encode(), **headers)

    def encode(self, **fields: object) -> Reply:
        return self.post("/v1/encode", fields)


class Blind:
    """A device that shows nothing."""

    time_s = 0.0

    def read(self) -> Reading:
        self.time_s += 1.0
        return Reading(self.time_s)


@dataclass
class Fake:
    """A device whose battery, heat and clock a test sets."""

    reading: Reading = field(default_factory=lambda: Reading(0.0, charge_share=0.5, on_ac=False))

    def read(self) -> Reading:
        return self.reading


PROFILE = devices.load("odroid-xu3-a7")


def scenario_of(model: Model, deadline_ms: float = LONG_MS) -> Scenario:
    """Levels whose predicted times differ, whatever the model is."""
    levels = tuple(
        LevelWork(name, Work(8, 16, (3 - index) * 1e6, 0.0, 0.0, 0.0), 1.0 - 0.1 * index)
        for index, name in enumerate(model.levels)
    )
    return Scenario(PROFILE, levels, deadline_ms, deadline_ms, accounting=Accounting.BOARD, gap_ms=0.0)


def governed_by(
    model: Model,
    clock: Callable[[], float],
    *,
    runner: Runner | None = None,
    source: Any = None,
    deadline_ms: float = LONG_MS,
    goal: Goal | None = None,
) -> Governed:
    """A governor without a clock to set; the engine runs where no other runner is given."""
    looked, control = source or Blind(), NoFrequencyControl()
    runs = runner or EngineRunner(model, 8)
    governor = LiveGovernor(scenario_of(model, deadline_ms), goal or Goal(), runs, looked, control, clock)
    return Governed(governor, looked, control, clock, lambda _time_s: None, lambda: False, governor.close)


def in_numbers(charge: float = 1.0, capacity_mwh: float = 1000.0) -> SimulatedDevice:
    """A small simulated device."""
    battery = PROFILE.battery.model_copy(update={"capacity_mah": None, "capacity_mwh": capacity_mwh})
    return SimulatedDevice(PROFILE.model_copy(update={"battery": battery}), load_cell(), charge=charge)


@dataclass(frozen=True)
class Connect:
    """Opens a connection to a server.

    Attributes:
        port: where it listens beside its socket; 0: nowhere.
    """

    path: Path
    port: int

    def __call__(self) -> Client:
        return Client(str(self.path))


@contextmanager
def serving(service: Service, path: Path, port: int | None = None) -> Iterator[Connect]:
    """A server in a thread; gives what opens a connection. At the end it stops gracefully."""
    ready, stop = threading.Event(), Stop()
    with listening(path, "127.0.0.1", port) as where:
        thread = threading.Thread(target=run, args=(service, where), kwargs={"started": ready.set, "stop": stop})
        thread.start()
        try:
            assert ready.wait(TIMEOUT_S)
            yield Connect(path, 0 if port is None else where.sockets[-1].getsockname()[1])
        finally:
            stop()
            thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    """Wait until something that another thread does has happened."""
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.001)


class Gate:
    """A runner whose runs begin and end when a test lets them.

    Attributes:
        ran: requests in the order of their runs.
    """

    def __init__(self) -> None:
        self.began, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.ran: list[Any] = []
        self.fail: Exception | None = None

    def __call__(self, request: Any, _level: str, within_ms: float, /) -> Answer:
        self.ran.append(request)
        self.began.release()
        assert self.open.acquire(timeout=TIMEOUT_S)
        if self.fail is not None:
            raise self.fail
        return Answer(np.full((1, 2), within_ms, dtype=np.float32))

    def wait(self) -> None:
        """Wait until a run has begun."""
        assert self.began.acquire(timeout=TIMEOUT_S)


@contextmanager
def gated(model: Model, path: Path, **options: int) -> Iterator[tuple[Service, Gate]]:
    """A server whose runs a test lets through."""
    gate, clock = Gate(), ManualClock()
    with (
        Service(model, governed_by(model, clock, runner=gate), RealTime(clock), **options) as service,
        serving(service, path),
    ):
        try:
            yield service, gate
        finally:
            gate.open.release(1000)
