"""`serve` as a program: it starts, answers, and ends well at a signal; what it refuses is one sentence."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import lavolta
from fake_sysfs import Sysfs

if TYPE_CHECKING:
    from .conftest import Invoke

pytest.importorskip("uvicorn")
TIMEOUT_S = 120.0
SIMULATED = ("--simulate", "--device", "odroid-xu3-a7")
# Tests that run under `nohup` ignore SIGHUP, and programs inherit that.
_HEARD = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
PROGRAM = (sys.executable, "-c", f"{_HEARD}; from lavolta.cli import main; sys.exit(main())")


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, fields: object = None) -> object:
        body = None if fields is None else json.dumps(fields)
        self.request(method, path, body, {"content-type": "application/json"})
        reply = self.getresponse()
        found = json.loads(reply.read())
        assert reply.status == 200, found
        return found


@contextmanager
def running(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and what it said when it was ready."""
    command = [*PROGRAM, "serve", *map(str, arguments)]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert program.stderr is not None
        yield program, program.stderr.readline()
    finally:
        program.kill()
        program.communicate(timeout=TIMEOUT_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_well(number: signal.Signals, bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "s.sock"
    notify = tmp_path / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        running(
            *(bundle, "--deadline-ms", 1000, *SIMULATED, "--speed", 50, "--socket", path, "--port", 0, "--json"),
            NOTIFY_SOCKET=str(notify),
        ) as (program, said),
    ):
        # Bound too late for the first word, on purpose: nobody who listens is no reason to fail.
        assert f"serving {bundle} at unix:{path}, http://127.0.0.1:" in said
        systemd.bind(str(notify))
        systemd.settimeout(TIMEOUT_S)
        connection = Connection(path)
        answer = connection.ask("POST", "/v1/encode", {"text": "a cat"})
        connection.ask("POST", "/v1/plug", {"on_ac": True})
        shown = invoke("monitor", "--socket", path)
        assert (shown.code, shown.err) == (0, "")
        assert "tiny on odroid-xu3-a7 (simulated, 50 times as fast), due after 1000 ms  live" in shown.out
        status = invoke("monitor", "--socket", path, "--json").data
        assert (status["totals"]["answers"], status["level"]) == (1, "L2")
        connection.close()
        program.send_signal(number)
        out, err = program.communicate(timeout=TIMEOUT_S)
        assert (program.returncode, err) == (0, "")
        assert systemd.recv(100) == b"STOPPING=1"
    data = json.loads(out)
    assert (data["answers"], data["late"], data["simulated"]) == (1, 0, True)
    assert data["levels"] == {"L0": 0, "L1": 0, "L2": 1}
    assert not path.exists()
    with lavolta.open(bundle) as model:
        model.switch(answer["level"])  # type: ignore[index]
        assert np.array_equal(np.float32(answer["output"]), model.encode(["a cat"])[0])  # type: ignore[index]


def test_a_named_cluster_is_served_on(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    device = ("--simulate", "--device", "freqbench-sm8150", "--speed", 1000)
    with running(*(bundle, "--deadline-ms", 1000, *device, "--cluster", "cortex-a55", "--socket", path, "--json")) as (
        program,
        _,
    ):
        connection = Connection(path)
        connection.ask("POST", "/v1/encode", {"text": "a cat"})
        last = connection.ask("GET", "/v1/status")["last"]  # type: ignore[index]
        connection.close()
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=TIMEOUT_S)
    assert (last["cluster"], last["moved_to"], program.returncode) == ("cortex-a55", None, 0)


def test_the_clock_is_given_back_at_a_signal(bundle: Path, tmp_path: Path) -> None:
    policy = Sysfs(tmp_path / "sys").policy(0, "0 1 2 3")
    path = tmp_path / "s.sock"
    given = ("--device", "odroid-xu3-a7", "--deadline-ms", 60_000, "--socket", path, "--sysfs", tmp_path / "sys")
    with running(bundle, *given) as (program, _):
        connection = Connection(path)
        answer = connection.ask("POST", "/v1/encode", {"text": "a cat"})
        connection.close()
        assert (policy / "scaling_governor").read_text(encoding="utf-8").strip() == "userspace"
        assert (policy / "scaling_setspeed").read_text(encoding="utf-8").strip() == str(
            round(1e3 * answer["freq_mhz"])  # type: ignore[index]
        )
        program.send_signal(signal.SIGTERM)
        out, _ = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0
    assert (policy / "scaling_governor").read_text(encoding="utf-8").strip() == "schedutil"
    assert "1 answers, 0 late; 0 requests had none." in out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--speed", 2), "--charge and --speed are of a simulated device; give --simulate too."),
        (("--charge", 0.5), "--charge and --speed are of a simulated device; give --simulate too."),
        ((*SIMULATED, "--speed", 0), "a speed of 0 is not possible; give a number above 0, such as 60."),
        (
            (*SIMULATED, "--host", "0.0.0.0"),
            "other machines can reach 0.0.0.0, and this server asks nobody who they are",
        ),
        ((*SIMULATED, "--host", "example.org"), "the host 'example.org' is no address"),
        ((*SIMULATED, "--socket", "/absent/s.sock"), "the socket /absent/s.sock cannot be made: no such file"),
        ((*SIMULATED, "--until", "soon"), "--until soon is no time"),
        ((*SIMULATED, "--min-score", 2), "no level keeps 1000 ms"),
    ],
)
def test_bad_options_are_one_sentence(options, sentence: str, invoke: Invoke, bundle: Path) -> None:
    given = () if "--socket" in options else ("--port", 0)
    outcome = invoke("serve", bundle, "--deadline-ms", 1000, *given, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert sentence in outcome.err


def test_a_port_that_is_taken(invoke: Invoke, bundle: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        outcome = invoke("serve", bundle, "--deadline-ms", 1000, *SIMULATED, "--port", port)
    assert outcome.code == 2
    assert f"port {port} of 127.0.0.1 is taken by another program; choose another one" in outcome.err


def test_a_language_model_is_not_served(invoke: Invoke, language_model: Path) -> None:
    outcome = invoke("serve", language_model, "--deadline-ms", 1000, *SIMULATED, "--port", 0)
    assert outcome.code == 2
    assert "is a language model, and serve answers with one vector a text; use `lavolta generate`." in outcome.err


def test_missing_packages_are_named(bundle: Path) -> None:
    # A program of its own: here the package may have been imported already.
    program = "import sys; sys.modules['uvicorn'] = None; from lavolta.cli import main; sys.exit(main())"
    given = ("serve", str(bundle), "--deadline-ms", "1000", *SIMULATED, "--port", "0")
    done = subprocess.run(
        [sys.executable, "-c", program, *given], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs the package uvicorn; install it with `pip install 'lavolta[serve]'`." in done.stderr
