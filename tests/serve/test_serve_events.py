"""The stream of events: it begins with the history, and its listeners are limited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serve_tools import Client, serving, until

from lavolta.serve import app
from lavolta.serve.service import Service


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
