"""A monitor's end of the line: status and events over both kinds of addresses, and sentences where nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from serve_tools import serving

from lavolta.errors import UserInputError
from lavolta.serve import app
from lavolta.serve.client import Line
from lavolta.serve.service import Service


@contextmanager
def answering(answer: bytes, path: Path) -> Iterator[None]:
    """Something at a socket that says one thing and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        yield
        thread.join()


def test_status_and_events(service: Service, tmp_path: Path) -> None:
    with serving(service, tmp_path / "s.sock"):
        line = Line(tmp_path / "s.sock")
        assert line.status()["model"] == "tiny"
        events = line.events()
        assert [name for name, _ in islice(events, 3)] == ["history", "status", "status"]
        events.close()  # type: ignore[attr-defined]


def test_events_end_with_the_server(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "EVENTS_S", 0.01)
    with serving(service, tmp_path / "s.sock"):
        events = Line(tmp_path / "s.sock").events()
        assert next(events)[0] == "history"
    # What was on its way still comes; then it is over.
    assert all(name == "status" for name, _ in events)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(
        UserInputError, match=r"no server answers at .*s\.sock: no such file or directory; start it with"
    ):
        Line(tmp_path / "s.sock").status()
    with pytest.raises(UserInputError, match=r"no server answers at http://127.0.0.1:1: connection refused"):
        next(Line("http://127.0.0.1:1").events())


@pytest.mark.parametrize("where", ["localhost:8421", "https://localhost", "http://", "http://a:port", "file:///x"])
def test_an_address_that_is_none(where: str) -> None:
    with pytest.raises(UserInputError, match=r"is no address of a server; give one such as http://127.0.0.1:8421"):
        Line(where)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "answers something else than JSON"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7", "answers something else than JSON"),
        (b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nhi", "answers 404; is it a server of lavolta"),
        (b'HTTP/1.1 404 No\r\ncontent-length: 13\r\n\r\n{"error": [1]}', "answers 404; is it a server of lavolta"),
        (b"SSH-2.0-whatever\r\n", "no server answers at"),
        (b"", "no server answers at"),
    ],
)
def test_something_else_answers(answer: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with answering(answer, path), pytest.raises(UserInputError, match=sentence):
        Line(path).status()
