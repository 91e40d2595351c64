"""Only names of this computer reach a port."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from serve_tools import TIMEOUT_S, Client

from lavolta.serve.app import host_of
from lavolta.serve.service import Service


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
