"""The endpoints: texts in, answers out, and everything that a monitor or an operator asks."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lavolta.errors import LavoltaError
from lavolta.runtime.governor_loop import Served
from lavolta.serve import bodies, metrics, page, status
from lavolta.serve.refusals import RefusedError, of_error
from lavolta.serve.service import Service
from lavolta.serve.waiting import Job

EVENTS_S = 0.5
"""How often a monitor hears of the present."""
MONITORS = 16
"""How many may listen at once."""
BODY_S = 10.0
"""How long a client may take to send its body."""
_GONE = 499
"""Nobody reads this answer: the client has left. The status is that of nginx's log."""

_Endpoint = Callable[[Request], Awaitable[Response]]


class Endpoints:
    """The application of one service.

    Args:
        service: whose answers are given.
        hosts: names by which a client may call a server on this computer; none: by any. Without this a web page could
            make its own name point here and read the answers.
    """

    def __init__(self, service: Service, hosts: frozenset[str] | None = None) -> None:
        self._service = service
        self._stopping = asyncio.Event()
        self._monitors = 0
        routes: tuple[tuple[str, str, _Endpoint], ...] = (
            ("GET", "/", self._page),
            ("GET", "/healthz", self._alive),
            ("GET", "/readyz", self._ready),
            ("GET", "/metrics", self._metrics),
            ("POST", "/v1/encode", self._encode),
            ("GET", "/v1/levels", self._levels),
            ("POST", "/v1/level", self._level),
            ("POST", "/v1/plug", self._plug),
            ("GET", "/v1/status", self._status),
            ("GET", "/v1/events", self._events),
        )
        self.app: ASGIApp = Starlette(
            routes=[Route(path, _guarded(endpoint), methods=[method]) for method, path, endpoint in routes],
            exception_handlers={HTTPException: _no_such},
        )
        if hosts is not None:
            self.app = _Hosts(self.app, hosts)

    def stop(self) -> None:
        """Let the monitors go, so that the server can end; called in its loop."""
        self._stopping.set()

    async def _encode(self, request: Request) -> Response:
        service = self._service
        arrived_s = service.now_s()
        try:
            fields = await _fields(request)
            call = bodies.read_call(fields, request.headers.get(bodies.DEADLINE_HEADER), service.model)
        except LavoltaError:
            service.recorder.refused("invalid")
            raise
        job = service.submit(call.request, arrived_s, call.deadline_ms)
        served = await self._wait(request, job)
        if served is None:
            return Response(status_code=_GONE)
        return _json(
            {
                "index": served.index,
                "output": served.output[0].tolist(),
                "level": served.level,
                "kept_level": served.kept_level,
                "in_time": served.in_time,
                "deadline_ms": served.deadline_ms,
                "response_ms": served.response_ms,
                "run_ms": served.run_ms,
                "predicted_ms": served.predicted_ms,
                "p99_ms": served.p99_ms,
                "energy_mj": served.energy_mj,
                "freq_mhz": served.freq_mhz,
                "threads": served.threads,
                "score": served.score,
                "reason": served.reason,
                "tokens": len(call.request.token_ids),
                "truncated": call.truncated,
            }
        )

    async def _wait(self, request: Request, job: Job) -> Served | None:
        """The answer of a job; none where its asker left before."""
        answer = asyncio.wrap_future(job.done)
        # Once the body is read, the next message of a connection is its end.
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
        try:
            waited: set[asyncio.Future[Any]] = {answer, gone}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            self._service.withdraw(job)
            return None
        finally:
            gone.cancel()
            if not answer.done():
                answer.add_done_callback(_look_away)

    async def _page(self, _request: Request) -> Response:
        return Response(page.text(), media_type="text/html", headers={"Content-Security-Policy": page.POLICY})

    async def _alive(self, _request: Request) -> Response:
        if not self._service.alive:
            self._service.require_ready()
        return _json({"alive": True})

    async def _ready(self, _request: Request) -> Response:
        self._service.require_ready()
        return _json({"ready": True})

    async def _metrics(self, _request: Request) -> Response:
        return Response(metrics.exposition(self._service), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _levels(self, _request: Request) -> Response:
        return _json(status.levels(self._service))

    async def _status(self, _request: Request) -> Response:
        return _json(status.status(self._service))

    async def _level(self, request: Request) -> Response:
        fields = await _fields(request)
        bodies.only(fields, ("level",))
        level = fields.get("level")
        if "level" not in fields or not (level is None or isinstance(level, str)):
            raise RefusedError(
                422, "invalid-input", '"level" must be the name of a level, or null to let it be chosen.'
            )
        self._service.pin(level)
        return _json({"pinned": level})

    async def _plug(self, request: Request) -> Response:
        fields = await _fields(request)
        bodies.only(fields, ("on_ac",))
        on_ac = bodies.flag(fields, "on_ac")
        self._service.plug(on_ac)
        return _json({"on_ac": on_ac})

    async def _events(self, _request: Request) -> Response:
        if self._monitors >= MONITORS:
            raise RefusedError(503, "busy", f"{MONITORS} monitors listen already; close one of them.", 5.0)
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=headers)

    async def _stream(self) -> AsyncIterator[str]:
        recorder = self._service.recorder
        self._monitors += 1
        try:
            history = recorder.history()
            seen = history["answers"][-1]["index"] if history["answers"] else -1
            yield _event("history", history)
            while True:
                answers = recorder.answers_after(seen)
                seen = answers[-1]["index"] if answers else seen
                yield _event("status", {**status.status(self._service), "answers": answers})
                if self._stopping.is_set():
                    return
                try:
                    await asyncio.wait_for(self._stopping.wait(), EVENTS_S)
                except asyncio.TimeoutError:
                    continue
        finally:
            self._monitors -= 1


class _Hosts:
    """Refuses requests that call this server by another name than those of this computer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A Unix socket has no port; who can open it is decided by the file system.
        server = scope.get("server")
        if scope["type"] == "http" and server is not None and server[1] is not None:
            named = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if host_of(named) not in self._hosts:
                words = f"this server is not called '{named[:60]}'; ask it as {', '.join(sorted(self._hosts))}."
                await _refused(RefusedError(421, "wrong-host", words))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_of(named: str) -> str:
    """The host of a Host header, without its port."""
    if named.startswith("["):
        return named[1:].partition("]")[0].lower()
    return named.rpartition(":")[0].lower() if ":" in named else named.lower()


def _guarded(endpoint: _Endpoint) -> _Endpoint:
    """An endpoint whose errors become a refusal with a sentence."""

    async def call(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except Exception as error:
            refusal = of_error(error)
            if refusal.kind == "internal":
                traceback.print_exception(error, file=sys.stderr)
            return _refused(refusal)

    return call


async def _fields(request: Request) -> dict[str, Any]:
    """The JSON object of a request, of a limited size, in a limited time."""
    try:
        body = await asyncio.wait_for(_body(request), BODY_S)
    except asyncio.TimeoutError:
        raise RefusedError(408, "too-slow", f"the body did not come within {BODY_S:g} s; send it at once.") from None
    return bodies.read_object(body, request.headers.get("content-type"))


async def _body(request: Request) -> bytes:
    too_large = RefusedError(
        413, "too-large", f"the body is larger than {bodies.MAX_BYTES} bytes; send less at a time."
    )
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > bodies.MAX_BYTES:
        raise too_large
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > bodies.MAX_BYTES:
            raise too_large
    return bytes(found)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        words = f"{request.method} is not for {request.url.path}; use {allowed}."
        response = _refused(RefusedError(405, "wrong-method", words))
        response.headers["Allow"] = allowed
        return response
    words = f"there is nothing at {request.url.path[:80]}; docs/reference/http.md lists what there is."
    return _refused(RefusedError(error.status_code, "not-found", words))


def _refused(refusal: RefusedError) -> Response:
    return _json(refusal.body(), refusal.status, refusal.headers())


def _json(data: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status_code, headers, media_type="application/json")


def _event(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"


def _look_away(future: asyncio.Future[Served]) -> None:
    """Read the error of an answer that nobody waits for, so that it is not reported as forgotten."""
    if not future.cancelled():
        future.exception()
