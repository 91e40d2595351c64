"""Where a server may listen: what is taken, left behind, reserved, or reached by others is one sentence."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from lavolta.errors import UserInputError
from lavolta.serve.addresses import listening
from lavolta.serve.notify import Notifier


def test_a_socket_belongs_to_its_owner_and_group_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with listening(path, "127.0.0.1", None) as where:
        assert where.names == (f"unix:{path}",)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert where.hosts is None
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with listening(path, "127.0.0.1", None):
        assert path.is_socket()


def test_a_socket_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with listening(path, "127.0.0.1", None):
        with pytest.raises(UserInputError, match=r"another server listens at .*; stop it, or choose another path"):
            listening(path, "127.0.0.1", None).__enter__()
        assert path.is_socket()


def test_a_file_at_the_path_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(UserInputError, match=r"notes\.txt exists and is no socket; choose another path"):
        listening(path, "127.0.0.1", None).__enter__()
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_socket_of_another_server_that_took_the_path_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with listening(path, "127.0.0.1", None):
        os.rename(path, tmp_path / "moved")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="cannot be made: no such file or directory; choose a folder that exists"):
        listening(tmp_path / "absent" / "s.sock", "127.0.0.1", None).__enter__()


def test_a_path_that_linux_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="is longer than 107 bytes; choose a shorter one"):
        listening(tmp_path / ("s" * 120), "127.0.0.1", None).__enter__()


def test_a_port_that_is_taken_gives_the_socket_back_too(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with listening(None, "127.0.0.1", 0) as where:
        port = where.sockets[0].getsockname()[1]
        with pytest.raises(UserInputError, match=f"port {port} of 127.0.0.1 is taken by another program"):
            listening(path, "127.0.0.1", port).__enter__()
    assert not path.exists()
    with listening(None, "127.0.0.1", port) as again:
        assert again.hosts == {"127.0.0.1", "localhost"}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_an_address_that_others_reach_needs_a_word(host: str) -> None:
    with pytest.raises(UserInputError, match=r"other machines can reach .*; leave the host at 127.0.0.1, or allow it"):
        listening(None, host, 0).__enter__()


def test_an_address_that_others_reach_is_called_as_they_like() -> None:
    with listening(None, "0.0.0.0", 0, remote=True) as where:
        assert where.hosts is None


@pytest.mark.parametrize("host", ["example.org", "", "127.0.0.256"])
def test_a_host_that_is_no_address(host: str) -> None:
    with pytest.raises(UserInputError, match=r"is no address; give one such as 127.0.0.1 or ::1"):
        listening(None, host, 0).__enter__()


def test_an_address_of_another_computer_cannot_be_had() -> None:
    with pytest.raises(UserInputError, match=r"port 8421 of 192.0.2.1 cannot be had"):
        listening(None, "192.0.2.1", 8421, remote=True).__enter__()


def test_answers_of_a_port_are_sent_at_once() -> None:
    with listening(None, "127.0.0.1", 0) as where:
        # What asyncio looks at before it turns off the wait for more to send.
        assert where.sockets[0].proto == socket.IPPROTO_TCP


def test_localhost_by_name() -> None:
    with listening(None, "localhost", 0) as where:
        assert where.names[0].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path) -> None:
    name = f"@lavolta-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name[1:]}" if abstract else name)
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
        notifier.ready("serving tiny")
        notifier.alive()
        notifier.stopping()
        assert [listener.recv(200) for _ in range(3)] == [
            b"READY=1\nSTATUS=serving tiny",
            b"WATCHDOG=1",
            b"STOPPING=1",
        ]
    assert notifier.watchdog_s == 3.0
    # Nobody listens any more: that is no reason to fail.
    notifier.alive()


@pytest.mark.parametrize("usec", ["", "0", "-5", "soon"])
def test_without_systemd_nothing_is_said(usec: str) -> None:
    notifier = Notifier({"WATCHDOG_USEC": usec})
    notifier.ready("x")
    assert notifier.watchdog_s is None
    assert Notifier({"NOTIFY_SOCKET": "/absent", "WATCHDOG_USEC": usec}).watchdog_s is None
