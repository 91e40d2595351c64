"""Tell systemd that the server is ready, that it lives, and that it stops (the protocol of ``sd_notify(3)``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Says nothing where nobody asked: the environment names the socket.

    Args:
        environment: has ``NOTIFY_SOCKET`` and, where a watchdog is wanted, ``WATCHDOG_USEC``.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # An abstract socket has a zero byte where its name shows "@".
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        usec = environment.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if self._address and usec.isdecimal() and int(usec) > 0 else None

    def ready(self, words: str) -> None:
        self._send(f"READY=1\nSTATUS={words}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # Nobody who listens is no reason to stop serving.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(self._address)
            client.sendall(message.encode())
