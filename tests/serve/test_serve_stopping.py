"""Too many requests, clients that leave, and a stop in the middle."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serve_tools import TIMEOUT_S, Client, Gate, ManualClock, gated, governed_by, serving, until

from lavolta.errors import CancelledError
from lavolta.runtime.engine import Model
from lavolta.serve.pace import RealTime
from lavolta.serve.service import Service


def test_backpressure_has_a_time_to_ask_again(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with gated(model, path, queue=1) as (service, gate):
        clients = [Client(str(path)) for _ in range(3)]
        body = json.dumps({"text": "a"}).encode()
        clients[0].send("POST", "/v1/encode", body)
        gate.wait()
        clients[1].send("POST", "/v1/encode", body)
        until(lambda: service.depth == 2)
        refused = clients[2].ask("POST", "/v1/encode", body)
        assert refused.error == (503, "busy", "1 requests wait already; ask again in about 1 s.")
        assert refused.headers["retry-after"] == "1"
        assert clients[2].get("/healthz").data == {"alive": True}
        assert clients[2].get("/v1/status").data["queue"] == {"depth": 2, "limit": 1}
        gate.open.release(2)
        assert [client.receive().data["index"] for client in clients[:2]] == [0, 1]
        for client in clients:
            client.close()


def test_a_client_that_leaves_is_not_answered(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cancelled = tmp_path / "s.sock", threading.Event()
    monkeypatch.setattr(model, "cancel", cancelled.set)
    with gated(model, path) as (service, gate), Client(str(path)) as stays:
        runs, waits = Client(str(path)), Client(str(path))
        runs.send("POST", "/v1/encode", json.dumps({"token_ids": [1]}).encode())
        gate.wait()
        waits.send("POST", "/v1/encode", json.dumps({"token_ids": [2]}).encode())
        until(lambda: service.depth == 2)
        stays.send("POST", "/v1/encode", json.dumps({"token_ids": [3]}).encode())
        until(lambda: service.depth == 3)
        waits.close()
        until(lambda: service.depth == 2)
        runs.close()
        assert cancelled.wait(TIMEOUT_S)
        gate.fail = CancelledError("another thread cancelled the run.")
        gate.open.release()
        gate.wait()
        gate.fail = None
        gate.open.release()
        assert stays.receive().data["index"] == 0
        assert [request.token_ids for request in gate.ran] == [[1], [3]]
        assert service.recorder.totals().refused["cancelled"] == 2


@contextmanager
def stoppable(model: Model, path: Path, gate: Gate) -> Iterator[tuple[Service, threading.Thread, Callable[[], None]]]:
    """A server at a socket, on a thread of its own, and what a signal would call."""
    from lavolta.serve.addresses import listening
    from lavolta.serve.running import Stop, run

    clock = ManualClock()
    service = Service(model, governed_by(model, clock, runner=gate), RealTime(clock))
    ready, stop = threading.Event(), Stop()
    with listening(path, "127.0.0.1", None) as where:
        thread = threading.Thread(target=run, args=(service, where), kwargs={"started": ready.set, "stop": stop})
        thread.start()
        assert ready.wait(TIMEOUT_S)
        yield service, thread, stop


def test_a_stop_answers_what_waits_and_ends_monitors(model: Model, tmp_path: Path) -> None:
    path, gate = tmp_path / "s.sock", Gate()
    with stoppable(model, path, gate) as (service, thread, stop):
        clients = [Client(str(path)) for _ in range(4)]
        clients[3].send("GET", "/v1/events")
        assert b"200" in clients[3].socket.recv(4096)
        for place, client in enumerate(clients[:3]):
            client.send("POST", "/v1/encode", json.dumps({"token_ids": [place]}).encode())
        gate.wait()
        until(lambda: service.depth == 3)
        stop()
        until(lambda: service.stopping)
        gate.open.release(3)
        assert sorted(client.receive().data["index"] for client in clients[:3]) == [0, 1, 2]
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        # The stream ends, and nobody is accepted any more.
        while clients[3].socket.recv(65536):
            pass
        with pytest.raises(OSError, match=r"refused|No such file"):
            Client(str(path))
        for client in clients:
            client.close()
    assert not path.exists()


def test_a_second_stop_waits_for_nobody(model: Model, tmp_path: Path) -> None:
    path, gate = tmp_path / "s.sock", Gate()
    with stoppable(model, path, gate) as (service, thread, stop):
        with Client(str(path)) as first, Client(str(path)) as second:
            first.send("POST", "/v1/encode", json.dumps({"token_ids": [1]}).encode())
            gate.wait()
            second.send("POST", "/v1/encode", json.dumps({"token_ids": [2]}).encode())
            until(lambda: service.depth == 2)
            stop()
            stop()
            assert second.receive().error[:2] == (503, "stopping")
            gate.open.release()
            thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert len(gate.ran) == 1


def test_readiness_ends_before_the_server(service: Service, tmp_path: Path) -> None:
    with serving(service, tmp_path / "s.sock") as connect, connect() as client:
        assert client.get("/readyz").data == {"ready": True}
        service.refuse_new()
        assert client.get("/readyz").error[:2] == (503, "stopping")
        assert client.get("/v1/status").data["stopping"] is True
