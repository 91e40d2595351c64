"""Requests over a real connection: answers, mistakes of every kind, clients that leave, and a stop in the middle."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve_tools import LONG_MS, TIMEOUT_S, Client, Fake, Gate, ManualClock, governed_by, serving, until

from lavolta.devices.sources import Reading
from lavolta.errors import CancelledError
from lavolta.runtime.engine import Model
from lavolta.serve import app, bodies
from lavolta.serve.app import host_of
from lavolta.serve.pace import RealTime
from lavolta.serve.service import Service


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


def test_texts_pairs_and_ids_are_answered(client: Client, model: Model) -> None:
    ids = model.tokenize(["a cat sleeps"])[0][0]
    replies = [
        client.encode(text="a cat sleeps"),
        client.encode(token_ids=ids),
        client.encode(text=["a cat", "sleeps"]),
    ]
    assert [reply.status for reply in replies] == [200, 200, 200]
    answers = [reply.data for reply in replies]
    model.switch(answers[0]["level"])
    expected = model.encode(["a cat sleeps"])[0]
    for answer in answers:
        assert np.array_equal(np.float32(answer["output"]), expected)
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    first = answers[0]
    assert (first["level"], first["reason"], first["tokens"]) == ("L2", "lowest energy", 3)
    assert (first["in_time"], first["kept_level"], first["truncated"]) == (True, True, False)
    assert first["deadline_ms"] == LONG_MS
    # The clock of this test stands still.
    assert (first["response_ms"], first["score"], first["threads"]) == (0.0, 0.8, 1)
    assert first["p99_ms"] >= first["predicted_ms"] > 0
    assert first["energy_mj"] > 0
    assert replies[0].headers["content-type"] == "application/json"


def test_type_ids_reach_the_model(classifier: Model, tmp_path: Path) -> None:
    clock = ManualClock()
    with (
        Service(classifier, governed_by(classifier, clock), RealTime(clock)) as service,
        serving(service, tmp_path / "s.sock") as connect,
        connect() as client,
    ):
        with_types = client.encode(token_ids=[1, 2, 3], type_ids=[0, 1, 1]).data
        without = client.encode(token_ids=[1, 2, 3]).data
        pair = client.encode(text=["a cat", "sleeps"]).data
        model = client.get("/v1/levels").data["model"]
        assert "gives 0 to 1" not in client.encode(token_ids=[1], type_ids=[2]).error[2]
        assert client.encode(token_ids=[1, 2], type_ids=[0]).error[2] == (
            '"type_ids" has 1 numbers for 2 tokens; give one a token.'
        )
    classifier.switch(with_types["level"])
    assert np.array_equal(np.float32(with_types["output"]), classifier.run([[1, 2, 3]], [[0, 1, 1]])[0])
    assert np.array_equal(np.float32(without["output"]), classifier.run([[1, 2, 3]])[0])
    assert np.array_equal(np.float32(pair["output"]), classifier.encode([("a cat", "sleeps")])[0])
    assert (model["task"], model["labels"], model["outputs"]) == ("classification", ["no", "yes"], 2)


def test_a_deadline_comes_in_the_body_or_in_a_header(client: Client) -> None:
    assert client.encode(text="a", deadline_ms=250).data["deadline_ms"] == 250.0
    assert client.post("/v1/encode", {"text": "a"}, x_deadline_ms="99.5").data["deadline_ms"] == 99.5
    twice = client.post("/v1/encode", {"text": "a", "deadline_ms": 1}, x_deadline_ms="1")
    assert twice.error == (
        422,
        "invalid-input",
        'give the deadline once: in the header x-deadline-ms or as "deadline_ms".',
    )
    for wrong in ("nan", "inf", "-1", "0", "soon", "1e99"):
        status, kind, message = client.post("/v1/encode", {"text": "a"}, x_deadline_ms=wrong).error
        assert (status, kind) == (422, "invalid-input")
        assert message.endswith("give milliseconds above 0, at most 3.6e+06.")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, 'give either "text" or "token_ids", and not both.'),
        ({"text": "a", "token_ids": [1]}, 'give either "text" or "token_ids", and not both.'),
        ({"texts": ["a"]}, "the field 'texts' is unknown; known are text, token_ids, type_ids, deadline_ms, truncate."),
        ({"text": 7}, '"text" is 7; give a string, or a list of two for a pair.'),
        ({"text": ["a", "b", "c"]}, '"text" is ["a", "b", "c"]; give a string, or a list of two for a pair.'),
        ({"text": " \t"}, '"text" has only white space; give at least one word.'),
        ({"text": "\ud800"}, '"text" has half a character at place 0; send whole ones.'),
        ({"text": "a cat " * 9}, "the text has 18 tokens and the model takes 16; shorten it, or send"),
        ({"text": ["a cat " * 4, "a cat " * 5]}, "the text has 18 tokens and the model takes 16; shorten it, or send"),
        ({"text": "a", "type_ids": [0]}, '"type_ids" belong to "token_ids"; leave them away beside a text.'),
        ({"text": "a", "truncate": 1}, '"truncate" is 1; give true or false.'),
        ({"text": "a", "deadline_ms": True}, "the deadline is true; give milliseconds above 0"),
        ({"text": "a", "deadline_ms": "9"}, 'the deadline is "9"; give milliseconds above 0'),
        ({"text": "a", "deadline_ms": 0}, "the deadline is 0; give milliseconds above 0"),
        ({"token_ids": []}, '"token_ids" has 0 tokens; give 1 to 16.'),
        ({"token_ids": [1] * 17}, '"token_ids" has 17 tokens; give 1 to 16.'),
        ({"token_ids": "1 2"}, '"token_ids" is "1 2"; give a list of whole numbers.'),
        ({"token_ids": [1, 8]}, '"token_ids" has 8 at place 1; give whole numbers 0 to 7.'),
        ({"token_ids": [-1]}, '"token_ids" has -1 at place 0; give whole numbers 0 to 7.'),
        ({"token_ids": [True]}, '"token_ids" has true at place 0; give whole numbers 0 to 7.'),
        ({"token_ids": [1.0]}, '"token_ids" has 1.0 at place 0; give whole numbers 0 to 7.'),
        ({"token_ids": [10**400]}, "at place 0; give whole numbers 0 to 7."),
        ({"token_ids": [1], "type_ids": [0]}, 'the model has no token types; leave "type_ids" away.'),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], sentence: str, client: Client, service: Service) -> None:
    status, kind, message = client.encode(**fields).error
    assert (status, kind) == (422, "invalid-input")
    assert sentence in message
    # The connection and the server live on.
    assert client.encode(text="a").status == 200
    assert service.recorder.totals().refused == {"busy": 0, "invalid": 1, "cancelled": 0, "failed": 0}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{oops", {}, (400, "malformed", "the body is not JSON: Expecting property name")),
        (b"", {}, (400, "malformed", "the body is not JSON: Expecting value")),
        (b"[1]", {}, (400, "malformed", "the body is no JSON object")),
        (b'{"text": "\xff"}', {}, (400, "malformed", "the body is not UTF-8 at byte 10")),
        (b'{"text": "a", "deadline_ms": NaN}', {}, (400, "malformed", "NaN is no number of JSON")),
        (b"[" * 60_000, {}, (400, "malformed", "the body is not JSON")),
        (b'{"token_ids": [' + b"9" * 5000 + b"]}", {}, (400, "malformed", "the body is not JSON")),
        (b"{}", {"content_type": "text/plain"}, (415, "not-json", "the content type is 'text/plain'")),
        (b"a" * (bodies.MAX_BYTES + 1), {}, (413, "too-large", "the body is larger than 65536 bytes")),
    ],
)
def test_a_wrong_body_is_named(
    body: bytes, headers: dict[str, str], expected: tuple[int, str, str], service: Service, tmp_path: Path
) -> None:
    with serving(service, tmp_path / "s.sock") as connect:
        with connect() as client:
            status, kind, message = client.ask("POST", "/v1/encode", body, **headers).error
        assert (status, kind) == expected[:2]
        assert expected[2] in message
        assert "\n" not in message
        with connect() as client:
            assert client.encode(text="a").status == 200


def test_a_body_in_parts_has_the_same_limit(client: Client) -> None:
    client.socket.sendall(
        b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    part = b"1000\r\n" + b" " * 4096 + b"\r\n"
    for _ in range(bodies.MAX_BYTES // 4096 + 1):
        client.socket.sendall(part)
    assert client.receive().error[:2] == (413, "too-large")


def test_a_body_that_does_not_come_is_not_waited_for(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.05)
    with serving(service, tmp_path / "s.sock") as connect, connect() as client:
        client.socket.sendall(
            b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        )
        assert client.receive().error[:2] == (408, "too-slow")


def test_bytes_that_are_no_http_end_one_connection_only(service: Service, tmp_path: Path) -> None:
    with serving(service, tmp_path / "s.sock") as connect:
        for nonsense in (
            b"\x00\xff\r\n\r\n",
            b"GET / HTTP/1.1\r\nno header\r\n\r\n",
            b"POST /v1/encode HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        ):
            with connect() as client:
                client.socket.sendall(nonsense)
                assert client.receive().status == 400
        with connect() as client:
            assert client.encode(text="a").status == 200


def test_a_text_is_cut_where_that_is_asked_for(client: Client, model: Model) -> None:
    cut = client.encode(text="a cat " * 9, truncate=True).data
    assert (cut["tokens"], cut["truncated"]) == (16, True)
    whole = client.encode(text="a cat " * 8, truncate=True).data
    assert (whole["tokens"], whole["truncated"]) == (16, False)
    model.switch(cut["level"])
    assert np.array_equal(np.float32(cut["output"]), model.encode(["a cat " * 8])[0])


def test_an_operator_holds_a_level(client: Client) -> None:
    assert client.get("/v1/levels").data["pinned"] is None
    assert client.post("/v1/level", {"level": "L0"}).data == {"pinned": "L0"}
    answer = client.encode(text="a").data
    assert (answer["level"], answer["reason"]) == ("L0", "level set by the operator")
    assert client.get("/v1/status").data["pinned"] == "L0"
    assert client.post("/v1/level", {"level": None}).data == {"pinned": None}
    assert client.encode(text="a").data["level"] == "L2"
    for wrong in ({}, {"level": 0}, {"level": ["L0"]}):
        assert client.post("/v1/level", wrong).error[:2] == (422, "invalid-input")
    message = "there is no level 'L9'; the bundle has L0, L1, L2."
    assert client.post("/v1/level", {"level": "L9"}).error == (422, "invalid-input", message)
    assert client.post("/v1/level", {"levels": "L0"}).error[2].startswith("the field 'levels' is unknown")
    # A page of another origin can send this without being asked first.
    assert client.post("/v1/level", {"level": "L0"}, content_type="text/plain").status == 415


def test_the_dial_is_described(client: Client) -> None:
    found = client.get("/v1/levels").data
    assert [level["name"] for level in found["levels"]] == ["L0", "L1", "L2"]
    times = [level["predicted_ms"] for level in found["levels"]]
    assert times == sorted(times, reverse=True)
    assert found["freq_mhz"] == 1400.0
    assert found["model"]["max_tokens"] == 16


def test_a_real_device_is_not_plugged(client: Client) -> None:
    assert client.post("/v1/plug", {"on_ac": True}).error[:2] == (409, "not-simulated")
    assert client.post("/v1/plug", {"on_ac": "yes"}).error[2] == '"on_ac" is "yes"; give true or false.'
    assert client.post("/v1/plug", {}).error[2] == '"on_ac" is null; give true or false.'


def test_unknown_paths_and_methods_are_sentences(client: Client) -> None:
    status, kind, message = client.get("/v2/encode").error
    assert (status, kind) == (404, "not-found")
    assert message.startswith("there is nothing at /v2/encode;")
    reply = client.get("/v1/encode")
    assert reply.error == (405, "wrong-method", "GET is not for /v1/encode; use POST.")
    assert reply.headers["allow"] == "POST"
    assert client.post("/v1/status", {}).error[:2] == (405, "wrong-method")
    # Paths outside are not files.
    assert client.get("/../../etc/passwd").status == 404


def test_status_tells_what_a_monitor_needs(model: Model, tmp_path: Path) -> None:
    reading = Reading(
        5.0,
        charge_share=0.42,
        charge_mwh=420.0,
        capacity_mwh=1000.0,
        power_mw=1500.0,
        power_from="battery",
        on_ac=False,
        freq_mhz={"cortex-a7": 800.0},
        temperature_c=61.5,
        missing={"freq_limit_mhz": "nobody says the limit."},
    )
    clock = ManualClock()
    with (
        Service(model, governed_by(model, clock, source=Fake(reading)), RealTime(clock)) as service,
        serving(service, tmp_path / "s.sock") as connect,
        connect() as client,
    ):
        before = client.get("/v1/status").data
        client.encode(text="a cat")
        client.encode(text=7)
        after = client.get("/v1/status").data
        text = client.get("/metrics").body.decode()
    assert (before["level"], before["last"], before["recent"]["answers"]) == (None, None, 0)
    assert (after["charge_share"], after["temperature_c"], after["on_ac"]) == (0.42, 61.5, False)
    assert after["freq_mhz"] == {"cortex-a7": 800.0}
    assert after["unknown"] == ["nobody says the limit."]
    assert (after["model"], after["device"]["name"], after["device"]["simulated"]) == ("tiny", "odroid-xu3-a7", False)
    assert (after["clock"], after["clock_why"]) == ("none", "this device offers no frequency control.")
    assert after["queue"] == {"depth": 0, "limit": 16}
    assert (after["totals"]["answers"], after["totals"]["by_level"]) == (1, {"L0": 0, "L1": 0, "L2": 1})
    assert after["totals"]["refused"]["invalid"] == 1
    assert after["level"] == after["last"]["level"] == "L2"
    assert after["recent"]["within_p99"] == 1.0

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["lavolta_answers_total", "L2"] == 1
    assert samples["lavolta_refused_total", "invalid"] == 1
    assert samples["lavolta_deadline_misses_total",] == 0
    assert samples["lavolta_charge_ratio",] == 0.42
    assert samples["lavolta_charge_joules",] == pytest.approx(1512.0)
    assert samples["lavolta_power_watts",] == 1.5
    assert samples["lavolta_on_mains",] == 0
    assert samples["lavolta_temperature_celsius",] == 61.5
    assert samples["lavolta_frequency_hertz", "cortex-a7"] == 8e8
    assert (samples["lavolta_level", "L2"], samples["lavolta_level", "L0"]) == (1, 0)
    assert samples["lavolta_response_seconds_count",] == 1
    assert samples["lavolta_response_seconds_bucket", "+Inf"] == 1
    assert samples["lavolta_deadline_seconds",] == LONG_MS / 1e3
    assert samples["lavolta_queue_limit",] == 16
    assert samples["lavolta_energy_per_inference_joules",] == pytest.approx(after["last"]["energy_mj"] / 1e3)


def test_what_is_not_known_is_no_metric(client: Client) -> None:
    text = client.get("/metrics").body.decode()
    assert "lavolta_charge_ratio" not in text
    assert "lavolta_energy_per_inference_joules" not in text
    assert "NaN" not in text
    assert 'lavolta_answers_total{level="L0"} 0.0' in text


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


def test_a_stop_answers_what_waits_and_ends_monitors(model: Model, tmp_path: Path) -> None:
    from lavolta.serve.addresses import listening
    from lavolta.serve.running import Stop, run

    path, gate, clock = tmp_path / "s.sock", Gate(), ManualClock()
    service = Service(model, governed_by(model, clock, runner=gate), RealTime(clock))
    ready, stop = threading.Event(), Stop()
    with listening(path, "127.0.0.1", None) as where:
        thread = threading.Thread(target=run, args=(service, where), kwargs={"started": ready.set, "stop": stop})
        thread.start()
        assert ready.wait(TIMEOUT_S)
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
    from lavolta.serve.addresses import listening
    from lavolta.serve.running import Stop, run

    path, gate, clock = tmp_path / "s.sock", Gate(), ManualClock()
    service = Service(model, governed_by(model, clock, runner=gate), RealTime(clock))
    ready, stop = threading.Event(), Stop()
    with listening(path, "127.0.0.1", None) as where:
        thread = threading.Thread(target=run, args=(service, where), kwargs={"started": ready.set, "stop": stop})
        thread.start()
        assert ready.wait(TIMEOUT_S)
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


def test_events_begin_with_the_history_and_go_on(client: Client, service: Service) -> None:
    client.encode(text="a cat")
    with Client(client.socket.getpeername()) as listener:
        listener.send("GET", "/v1/events")
        stream = listener.socket.makefile("rb")
        while stream.readline().strip():
            pass

        def event() -> tuple[str, dict[str, object]]:
            found = b""
            while not found.endswith(b"\n\n"):
                size = int(stream.readline(), 16)
                found += stream.read(size)
                stream.readline()
            name, data = found.decode().strip().split("\n")
            return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

        name, history = event()
        assert name == "history"
        assert [answer["index"] for answer in history["answers"]] == [0]  # type: ignore[attr-defined]
        name, status = event()
        assert (name, status["answers"]) == ("status", [])
        client.encode(text="a dog")
        seen: list[object] = []
        while not seen:
            seen = event()[1]["answers"]  # type: ignore[assignment]
        assert [answer["index"] for answer in seen] == [1]  # type: ignore[index]
    assert service.alive


def test_monitors_are_limited_and_leave_room(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MONITORS", 1)
    monkeypatch.setattr(app, "EVENTS_S", 0.01)
    with serving(service, tmp_path / "s.sock") as connect, connect() as other:
        with connect() as listener:
            listener.send("GET", "/v1/events")
            found = b""
            while b"history" not in found:
                found += listener.socket.recv(1 << 16)
            assert other.get("/v1/events").error[:2] == (503, "busy")

        def accepted() -> bool:
            with connect() as again:
                again.send("GET", "/v1/events")
                return b"200" in again.socket.recv(15)

        # The place of the monitor that left is free again.
        until(accepted)


def test_only_names_of_this_computer_reach_a_port(service: Service, tmp_path: Path) -> None:
    from lavolta.serve.addresses import listening
    from lavolta.serve.running import Stop, run

    ready, stop = threading.Event(), Stop()
    with listening(tmp_path / "s.sock", "127.0.0.1", 0) as where:
        port = where.sockets[1].getsockname()[1]
        assert where.names == (f"unix:{tmp_path / 's.sock'}", f"http://127.0.0.1:{port}/")
        thread = threading.Thread(target=run, args=(service, where), kwargs={"started": ready.set, "stop": stop})
        thread.start()
        assert ready.wait(TIMEOUT_S)
        with Client(("127.0.0.1", port)) as client:
            for host in ("localhost", f"127.0.0.1:{port}", "LOCALHOST:1"):
                assert client.ask("GET", "/v1/status", host=host).status == 200
            status, kind, message = client.ask("GET", "/v1/status", host="attacker.example").error
            assert (status, kind) == (421, "wrong-host")
            assert message == "this server is not called 'attacker.example'; ask it as 127.0.0.1, localhost."
        with Client(str(tmp_path / "s.sock")) as client:
            assert client.ask("GET", "/v1/status", host="anything").status == 200
        stop()
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("named", "host"),
    [("localhost", "localhost"), ("a:8", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), ("[", "")],
)
def test_the_host_of_a_header(named: str, host: str) -> None:
    assert host_of(named) == host


def test_readiness_ends_before_the_server(service: Service, tmp_path: Path) -> None:
    with serving(service, tmp_path / "s.sock") as connect, connect() as client:
        assert client.get("/readyz").data == {"ready": True}
        service.refuse_new()
        assert client.get("/readyz").error[:2] == (503, "stopping")
        assert client.get("/v1/status").data["stopping"] is True


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(service: Service, tmp_path: Path) -> None:
    with serving(service, tmp_path / "s.sock") as connect:
        with connect() as client:
            client.socket.sendall(
                b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
            )
            client.socket.shutdown(socket.SHUT_RDWR)
        with connect() as client:
            assert client.encode(text="a").data["index"] == 0
