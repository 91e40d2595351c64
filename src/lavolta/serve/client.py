"""A monitor's end of the line: ask a server for its status, or listen to its events, over a socket or a port."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lavolta.errors import UserInputError

_MOST_BYTES = 8 << 20


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Line:
    """Where a server is.

    Args:
        where: a path of a Unix socket, or an address such as ``http://127.0.0.1:8421``.
        timeout_s: how long to wait for a word; servers send events twice a second.

    Raises:
        UserInputError: an address that is not of HTTP.
    """

    def __init__(self, where: Path | str, timeout_s: float = 10.0) -> None:
        self.where, self._timeout_s = where, timeout_s
        if isinstance(where, str):
            parts = urlsplit(where)
            try:
                port = parts.port
            except ValueError:
                port = -1
            if parts.scheme != "http" or not parts.hostname or port == -1:
                raise UserInputError(f"'{where}' is no address of a server; give one such as http://127.0.0.1:8421.")
            self._host, self._port = parts.hostname, port

    def status(self) -> dict[str, Any]:
        """The present.

        Raises:
            UserInputError: nobody answers there, or something else than a server of ours.
        """
        with self._answer("/v1/status") as reply:
            return self._object(reply.read(_MOST_BYTES))

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and contents of the server's events, until it ends.

        Raises:
            UserInputError: nobody answers there (any more), or something else than a server of ours.
        """
        with self._answer("/v1/events") as reply:
            name = ""
            while True:
                try:
                    line = reply.readline(_MOST_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise self._lost(error) from error
                if not line:
                    return
                field, _, value = line.rstrip(b"\r\n").partition(b": ")
                if field == b"event":
                    name = value.decode("utf-8", "replace")
                elif field == b"data":
                    yield name, self._object(value)

    @contextmanager
    def _answer(self, path: str) -> Iterator[http.client.HTTPResponse]:
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
            if isinstance(self.where, str)
            else _UnixConnection(self.where, self._timeout_s)
        )
        with closing(connection):
            try:
                connection.request("GET", path)
                reply = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._lost(error) from error
            with reply:
                if reply.status != 200:
                    words = _words(reply.read(_MOST_BYTES))
                    raise UserInputError(words or f"{self.where} answers {reply.status}; is it a server of lavolta?")
                yield reply

    def _lost(self, error: Exception) -> UserInputError:
        why = (getattr(error, "strerror", None) or str(error) or "it said nothing").lower()
        return UserInputError(f"no server answers at {self.where}: {why}; start it with `lavolta serve`.")

    def _object(self, text: bytes) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserInputError(f"{self.where} answers something else than JSON; is it a server of lavolta?")
        return found


def _words(body: bytes) -> str | None:
    """The sentence of a refusal."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return None
    return message if isinstance(message, str) else None
