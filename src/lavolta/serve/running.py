"""Run the server until a signal: it stops accepting, answers what waits, and gives the clock back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

import uvicorn

from lavolta.serve.addresses import Listening
from lavolta.serve.app import Endpoints
from lavolta.serve.notify import Notifier
from lavolta.serve.service import Service

GRACE_S = 60.0
"""How long clients that are being answered may take at the end."""
_KEEP_ALIVE_S = 75


class _Server(uvicorn.Server):
    """Leaves signals to `serve`, which has more to do at the end than the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Stop:
    """Ends a server from any thread: the first call gracefully, the second at once."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._act: Callable[[], None] | None = None
        self._early = 0

    def __call__(self) -> None:
        if self._loop is None or self._act is None:
            self._early += 1
        else:
            self._loop.call_soon_threadsafe(self._act)

    def arm(self, loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
        """From now on, what a call does; those that came before are made up for."""
        self._loop, self._act = loop, act
        for _ in range(self._early):
            loop.call_soon(act)


def run(
    service: Service,
    where: Listening,
    *,
    started: Callable[[], None] = lambda: None,
    stop: Stop | None = None,
    notifier: Notifier | None = None,
) -> None:
    """Serve until SIGTERM, SIGHUP, SIGINT or `stop`; then the service is closed.

    Args:
        started: called when requests are accepted.
        stop: for threads other than the main one, where signals do not arrive.
        notifier: whom to tell.
    """
    try:
        asyncio.run(_serve(service, where, started, stop or Stop(), notifier or Notifier({})))
    finally:
        service.close()


async def _serve(
    service: Service, where: Listening, started: Callable[[], None], stop: Stop, notifier: Notifier
) -> None:
    endpoints = Endpoints(service, where.hosts)
    config = uvicorn.Config(
        endpoints.app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(GRACE_S),
    )
    server = _Server(config)

    def end() -> None:
        if server.should_exit:
            server.force_exit = True
            service.abort()
            return
        notifier.stopping()
        service.refuse_new()
        endpoints.stop()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    stop.arm(loop, end)
    with _signals(loop, end):
        telling = asyncio.ensure_future(_tell(server, service, where, started, notifier))
        try:
            await server.serve(sockets=list(where.sockets))
        finally:
            telling.cancel()
            # Whoever still waits has lost its connection.
            service.abort()


async def _tell(
    server: uvicorn.Server, service: Service, where: Listening, started: Callable[[], None], notifier: Notifier
) -> None:
    """Say when the server is ready, and then that it lives as long as the engine's thread does."""
    while not server.started:
        await asyncio.sleep(0.01)
    notifier.ready(f"serving {service.model.spec.name} at {', '.join(where.names)}")
    started()
    while notifier.watchdog_s is not None:
        if service.alive:
            notifier.alive()
        await asyncio.sleep(notifier.watchdog_s / 3)


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> Iterator[None]:
    """Act on SIGTERM, SIGINT and SIGHUP where this is the main thread; under `nohup` the last one stays ignored."""
    handled = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    try:
        for number in handled:
            loop.add_signal_handler(number, act)
    except (ValueError, RuntimeError):
        # Another thread than the main one gets no signals.
        yield
        return
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
