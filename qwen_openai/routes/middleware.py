"""Pure ASGI middleware: identity and timing of a request, its failures.

From the outside in: `Envelope` (request id, timing headers, errors as bodies, the log line),
`ConnectionLimit`, `HostCheck`, then `auth.KeyCheck`. Decisions look at `scope["path"]` alone,
never at a URL built from headers.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence

import structlog
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen_openai.errors import (
    ApiError,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
)
from qwen_openai.observe.logs import frames_of, printable, request_line
from qwen_openai.observe.record import Record
from qwen_openai.responses.errors import error_body, legacy_error_body
from qwen_openai.routes.auth import OPEN_PATHS
from qwen_openai.routes.disconnect import ClientLeft
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.notes import added_headers
from qwen_openai.routes.respond import INTERNAL_ERROR, send_and_drain, send_json

_REQUEST_ID = re.compile(rb"[\w-]{1,128}", re.ASCII)
# Of version 00: neither id may be all zeros.
_TRACE = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# Those nearest to where it broke: a line stays below 10 KB.
_MOST_FRAMES = 30
# What nginx notes where a client has gone; nobody is sent it.
_CLIENT_LEFT = 499
# In the scope of a request that is refused because there are too many connections.
_CROWDED = "qwen_openai.crowded"
# The version of the REST API that OpenAI names in every response.
_VERSION = (b"openai-version", b"2020-10-01")


def _header(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


class Envelope:
    """Gives every response its request id and time, every failure its body, and notes each request
    in log, metrics and ledger."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._log = structlog.get_logger("qwen_openai.access")
        self._paths: dict[object, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(method=scope["method"])
        scope["qwen_openai.record"] = record
        given = _header(scope, b"x-request-id")
        fits = len(given) == 1 and _REQUEST_ID.fullmatch(given[0])
        request_id = given[0] if fits else b"req_" + os.urandom(16).hex().encode()
        record.request_id = request_id.decode()
        record.trace = _trace(scope)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                scope["qwen_openai.begun"] = True
                elapsed = int((time.perf_counter() - record.begun) * 1000)
                message["headers"] = [
                    *message["headers"],
                    *_encoded(added_headers(scope)),
                    *_of_gateway(record),
                    (b"x-request-id", request_id),
                    (b"openai-processing-ms", b"%d" % elapsed),
                    _VERSION,
                ]
            await send(message)

        gateway = self._gateway
        gateway.metrics.begin()
        try:
            await self._guard(scope, receive, stamped, record)
        finally:
            record.duration = time.perf_counter() - record.begun
            record.route = self._route(scope)
            record.settle()
            gateway.metrics.observe(record)
            self._write_log(scope, record)
            if record.model or record.key:
                gateway.ledger.add(record)

    def _route(self, scope: Scope) -> str:
        """Return the template of the endpoint's path, whose text no client can choose."""
        route = scope.get("route")
        if isinstance(route, Route):
            return route.path_format
        # FastAPI's router leaves a plain route's endpoint in the scope, and not the route.
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return ""
        if not self._paths:
            routes = [each for each in scope["app"].routes if isinstance(each, Route)]
            self._paths = {route.endpoint: route.path_format for route in routes}
        return self._paths.get(endpoint, "")

    async def _guard(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        """Run the application, and answer for it where it fails."""
        try:
            await self._app(scope, receive, send)
        except ClientLeft:
            record.abort()
            record.status = _CLIENT_LEFT
        except PayloadTooLarge as error:
            record.fail(error)
            await send_and_drain(receive, send, _body(scope, error), error.status)
        except ApiError as error:
            await self._answer(scope, send, record, error)
        except HTTPException as error:
            await self._answer(scope, send, record, _from_router(scope, error))
        except asyncio.CancelledError:
            # The server cancels its tasks when the drain time is over. A stream has said so itself.
            gone = EngineUnavailable("The server is shutting down. Send the request again.")
            record.fail(gone)
            if not scope.get("qwen_openai.begun"):
                await self._answer(scope, send, record, gone)
        except Exception as error:  # noqa: BLE001  # the HTTP edge: whatever it was, a body it gets
            self._log_bug(scope, error)
            oops = EngineFailed(INTERNAL_ERROR, code="internal_error")
            record.fail(oops)
            if not scope.get("qwen_openai.begun"):
                await self._answer(scope, send, record, oops)

    async def _answer(self, scope: Scope, send: Send, record: Record, error: ApiError) -> None:
        record.fail(error)
        body = _body(scope, error)
        headers = error.headers()
        if isinstance(error, RequestTimeout) or _CROWDED in scope:
            # A late body must not be taken for the next request; a full server frees connections.
            # A full queue does not: to make a connection anew costs more than to be refused.
            headers["connection"] = "close"
        await send_json(send, body, status=error.status, headers=headers)

    def _log_bug(self, scope: Scope, error: Exception) -> None:
        """Where it broke, without the message: that may quote the request."""
        self._log.error(
            "request failed",
            path=printable(scope["path"]),
            error=type(error).__name__,
            frames=frames_of(error)[-_MOST_FRAMES:],
        )

    def _write_log(self, scope: Scope, record: Record) -> None:
        if not self._log.is_enabled_for(logging.INFO):
            return
        line = request_line(record, printable(scope["path"]))
        retried = _header(scope, b"x-stainless-retry-count")
        if retried and retried[0] != b"0" and retried[0].isdigit():
            line["retry"] = int(retried[0][:4])
        self._log.info("request", **line)


def _trace(scope: Scope) -> str:
    """Return the caller's traceparent where it is one (W3C Trace Context, 3.2)."""
    given = _header(scope, b"traceparent")
    if len(given) != 1 or not _TRACE.fullmatch(given[0]):
        return ""
    return given[0].decode()


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


def _of_gateway(record: Record) -> list[tuple[bytes, bytes]]:
    """Return the headers that say which way a request went: as far as it came until now."""
    headers: list[tuple[bytes, bytes]] = []
    if record.admitted:
        headers.append((b"x-gateway-queue-ms", b"%d" % (record.queued * 1000)))
    if record.attempts:
        headers.append((b"x-gateway-upstream", record.upstream.encode("latin-1", "replace")))
        headers.append((b"x-gateway-attempts", b"%d" % record.attempts))
    return headers


def _body(scope: Scope, error: ApiError) -> dict[str, object]:
    return legacy_error_body(error) if scope["path"] == "/" else error_body(error)


def _from_router(scope: Scope, error: HTTPException) -> ApiError:
    path = printable(scope["path"], 80)
    if error.status_code == 404:
        return NotFound(
            f"There is nothing at {path}. The API is at /v1/chat/completions, /v1/completions, "
            "/v1/responses and POST /; /docs lists all paths."
        )
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed(
            f"{scope['method']} is not allowed at {path}; use {allow}.", allow=allow
        )
    return InvalidRequest(str(error.detail))


class ConnectionLimit:
    """Answers 503 while too many connections are open; health stays reachable."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._gateway.settings.limit_connections
        if len(self._gateway.connections) > limit and scope["path"] not in OPEN_PATHS:
            scope[_CROWDED] = True
            raise Overloaded(
                f"More than {limit} connections are open. Send the request again later."
            )
        await self._app(scope, receive, send)


class HostCheck:
    """Accepts only the configured Host values; with none configured, all of them.

    It stops a page of another site from reaching a server on this machine by DNS rebinding.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = frozenset(host.lower().encode() for host in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._allowed:
            hosts = _header(scope, b"host")
            bare = hosts[0].lower().rsplit(b":", 1)[0] if len(hosts) == 1 else b""
            if len(hosts) != 1 or not {bare, hosts[0].lower()} & self._allowed:
                raise InvalidRequest(
                    "This server does not answer under that host name. "
                    "Add it to the allowed_hosts setting if it should.",
                    code="unknown_host",
                )
        await self._app(scope, receive, send)
