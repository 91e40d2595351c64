"""What the server adds to a run of the engine, and how many requests it answers in a second.

A server of its own process answers one client, over a Unix socket and over a port in turn: from each round trip the
time of its own run is taken away, so what is left is HTTP, the queue, the governor and the way between two threads. The
same run without a server stands beside it. Then several clients ask at once. Client and server share this machine.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.spread import spread
from lavolta.bench.synthetic import random_ids, shape_spec, write_random_bundle
from lavolta.cli.progress import open_progress
from lavolta.errors import EngineError
from lavolta.runtime.engine import open_bundle

SPARSITIES = (0.0, 0.75)
CLIENTS = 4
DEADLINE_MS = 3_600_000.0
"""Long enough for every run to keep its level."""
FULL, QUICK = 4000, 200
WARM = 20


class Client:
    """One kept connection; only what is needed, so that little of the client is measured."""

    def __init__(self, where: str | tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        self._socket.connect(where)
        if not isinstance(where, str):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._socket.sendall(f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._more()
        start, _, rest = found.partition(b"\r\n\r\n")
        length = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += self._more()
        answer: dict[str, Any] = json.loads(rest)
        if "error" in answer:
            raise EngineError(answer["error"]["message"])
        return answer

    def _more(self) -> bytes:
        part = self._socket.recv(1 << 16)
        if not part:
            raise EngineError("the server hung up; run the benchmark again.")
        return part

    def close(self) -> None:
        self._socket.close()


@contextmanager
def server(bundle: Path, folder: Path, threads: int) -> Iterator[tuple[str, tuple[str, int]]]:
    """A server process; gives its two addresses."""
    path = folder / "s.sock"
    program = "import sys; from lavolta.cli import main; sys.exit(main())"
    given = ("--deadline-ms", str(DEADLINE_MS), "--threads", str(threads), "--socket", str(path), "--port", "0")
    running = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(bundle), *given, "--keep-clock"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert running.stderr is not None
    try:
        said = running.stderr.readline()
        if "serving" not in said:
            raise EngineError(f"the server did not start: {said.strip()}")
        yield str(path), ("127.0.0.1", int(said.rpartition("127.0.0.1:")[2].split("/")[0]))
    finally:
        running.terminate()
        running.wait()
        running.stderr.close()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Both kinds of addresses, one client in turn and several at once."""
    check_threads(args.threads)
    repetitions = QUICK if args.quick else FULL
    spec, progress = shape_spec(args.shape, max(512, args.tokens)), open_progress()
    ids = random_ids(spec, args.tokens, args.seed)
    body = json.dumps({"token_ids": ids.tolist()}).encode()
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name) / "model.lavolta"
        write_random_bundle(bundle, spec, SPARSITIES, cell_rows=args.cell_rows, seed=args.seed)
        progress.say("start the server")
        with open_bundle(bundle, threads=args.threads) as model, server(bundle, Path(name), args.threads) as places:
            clients = dict(zip(("unix", "tcp"), map(Client, places), strict=True))
            level = model.levels[0]
            clients["unix"].post("/v1/level", json.dumps({"level": level}).encode())
            found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in clients}
            alone_ms = []
            progress.say("one client")
            for place in range(WARM + repetitions):
                start_ns = time.perf_counter_ns()
                model.run([ids])
                took_ms = (time.perf_counter_ns() - start_ns) / 1e6
                rounds = {kind: _timed(client, body, level) for kind, client in clients.items()}
                if place >= WARM:
                    alone_ms.append(took_ms)
                    for kind, pair in rounds.items():
                        found[kind].append(pair)
            for client in clients.values():
                client.close()
            progress.say(f"{args.clients} clients at once")
            at_once = {
                kind: _at_once(where, body, args.clients, repetitions)
                for kind, where in zip(clients, places, strict=True)
            }
    transports = {kind: _summary(pairs, at_once[kind]) for kind, pairs in found.items()}
    return {
        **head("serving", args),
        "level": level,
        "clients": args.clients,
        "repetitions": repetitions,
        "engine_alone": asdict(spread(alone_ms)),
        "requests_per_s": transports["unix"]["at_once_per_s"],
        "added_p50_ms": transports["unix"]["added_p50_ms"],
        "added_p99_ms": transports["unix"]["added_p99_ms"],
        "transports": transports,
    }


def _timed(client: Client, body: bytes, level: str) -> tuple[float, float]:
    """Milliseconds of a round trip and of the run in it."""
    start_ns = time.perf_counter_ns()
    answer = client.post("/v1/encode", body)
    took_ms = (time.perf_counter_ns() - start_ns) / 1e6
    assert (answer["level"], answer["kept_level"]) == (level, True)
    return took_ms, answer["run_ms"]


def _at_once(where: str | tuple[str, int], body: bytes, clients: int, requests: int) -> float:
    """Requests in a second."""
    share = max(1, requests // clients)
    begin = threading.Barrier(clients + 1)
    failed: list[BaseException] = []

    def ask() -> None:
        client = Client(where)
        try:
            begin.wait()
            for _ in range(share):
                client.post("/v1/encode", body)
        except EngineError as error:
            failed.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begin.wait()
    start_s = time.perf_counter()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - start_s
    if failed:
        raise failed[0]
    return clients * share / took_s


def _summary(pairs: list[tuple[float, float]], per_s: float) -> dict[str, Any]:
    added_ms = [round_trip_ms - run_ms for round_trip_ms, run_ms in pairs]
    return {
        "added_p50_ms": statistics.median(added_ms),
        "added_p99_ms": statistics.quantiles(added_ms, n=100, method="inclusive")[98],
        "run": asdict(spread([run_ms for _, run_ms in pairs])),
        "round_trip": asdict(spread([round_trip_ms for round_trip_ms, _ in pairs])),
        "one_client_per_s": 1e3 * len(pairs) / sum(round_trip_ms for round_trip_ms, _ in pairs),
        "at_once_per_s": per_s,
    }


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = [
        [
            kind,
            number(found["run"]["median_ms"], 3),
            number(found["added_p50_ms"], 3),
            number(found["added_p99_ms"], 3),
            number(found["one_client_per_s"], 0),
            number(found["at_once_per_s"], 0),
        ]
        for kind, found in result["transports"].items()
    ]
    heads = ["address", "run ms", "added ms, median", "added ms, p99", "requests/s, one client"]
    heads.append(f"requests/s, {result['clients']} clients")
    words = f"{result['shape']['name']}, {result['tokens']} tokens, level {result['level']}"
    alone = number(result["engine_alone"]["median_ms"], 3)
    return f"{words}; the same run without a server takes {alone} ms.\n\n{markdown(heads, rows)}"


def main() -> None:
    parser = options(__doc__ or "", tokens=16)
    parser.set_defaults(shape="tiny")
    parser.add_argument("--clients", type=int, default=CLIENTS, choices=range(1, 17), metavar="1..16", help="at once")
    args = parser.parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
