"""Where the server listens: a Unix socket, a port of this computer, and only by explicit wish where others reach it."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lavolta.errors import UserInputError

LOOPBACK = "127.0.0.1"
_MODE = 0o660
_LONGEST = 107
"""Bytes of a socket's path that Linux takes."""
_BACKLOG = 128


@dataclass(frozen=True)
class Listening:
    """Open sockets.

    Attributes:
        sockets: bound and listening.
        names: where a client finds them, such as ``http://127.0.0.1:8421/``.
        hosts: names by which clients may call; none: by any.
    """

    sockets: tuple[socket.socket, ...]
    names: tuple[str, ...]
    hosts: frozenset[str] | None


@contextmanager
def listening(path: Path | None, host: str, port: int | None, *, remote: bool = False) -> Iterator[Listening]:
    """Open a Unix socket, a port, or both; the socket's file is taken away at the end.

    Args:
        path: of the Unix socket; none: no such socket.
        host: an address of this computer.
        port: none: no port; 0: any that is free.
        remote: whether ``host`` may be one that other machines reach.

    Raises:
        UserInputError: an address that others reach without ``remote``, or one that cannot be had.
    """
    with ExitStack() as stack:
        sockets, names = [], []
        if path is not None:
            sockets.append(stack.enter_context(_unix_socket(path)))
            names.append(f"unix:{path}")
        hosts = None
        if port is not None:
            address = _address(host, remote)
            sockets.append(stack.enter_context(_port(address, port)))
            shown = f"[{address}]" if ":" in address else address
            names.append(f"http://{shown}:{sockets[-1].getsockname()[1]}/")
            if ipaddress.ip_address(address).is_loopback:
                hosts = frozenset({"localhost", address})
        yield Listening(tuple(sockets), tuple(names), hosts)


def _address(host: str, remote: bool) -> str:
    try:
        address = ipaddress.ip_address(LOOPBACK if host == "localhost" else host)
    except ValueError:
        raise UserInputError(f"the host '{host}' is no address; give one such as {LOOPBACK} or ::1.") from None
    if not address.is_loopback and not remote:
        raise UserInputError(
            f"other machines can reach {address}, and this server asks nobody who they are; "
            f"leave the host at {LOOPBACK}, or allow it with --allow-remote."
        )
    return str(address)


@contextmanager
def _port(address: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio sends small answers at once only on sockets whose protocol is named; else they wait 40 ms for the client.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as found:
        # A port that was just given up can be had again at once.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((address, port))
            found.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            raise UserInputError(_port_words(address, port, error)) from error
        yield found


def _port_words(address: str, port: int, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {port} of {address} is taken by another program; choose another one, or 0 for any that is free."
    if number == errno.EACCES:
        return f"port {port} of {address} is reserved for the system; choose one above 1023."
    return f"port {port} of {address} cannot be had: {str(error).lower()}; choose another one."


@contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    if len(os.fsencode(path)) > _LONGEST:
        raise UserInputError(f"the socket path {path} is longer than {_LONGEST} bytes; choose a shorter one.")
    _make_room(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
        try:
            found.bind(str(path))
            made = _identity(path)
            # Its owner and group may ask; nobody else.
            os.chmod(path, _MODE)
            found.listen(_BACKLOG)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UserInputError(
                f"the socket {path} cannot be made: {why}; choose a folder that exists and can be written."
            ) from error
        try:
            yield found
        finally:
            # Another server may have taken the path over meanwhile: its file stays.
            if _identity(path) == made:
                path.unlink(missing_ok=True)


def _make_room(path: Path) -> None:
    """Take away a socket that a killed server left behind; refuse everything else that is there."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise UserInputError(f"{path} exists and is no socket; choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UserInputError(f"the socket {path} exists and cannot be used: {why}; choose another path.") from error
    raise UserInputError(f"another server listens at {path}; stop it, or choose another path.")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
