"""uvicorn's httptools protocol with the limits it lacks, and with our errors.

Added: a deadline for the headers of each request (slow-header attacks), a bound on their size and
number (431), a deadline for a reader that stops reading, a JSON error for bytes that are not HTTP,
and news of a client that left for every request of a pipeline. A parse error never writes into a
response that is under way. It knows nothing of routes.
"""

import asyncio
import uuid
from typing import Any, cast

import httptools
import orjson
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from qwen_openai.errors import ApiError, HeadersTooLarge, InvalidRequest, RequestTimeout
from qwen_openai.responses.errors import error_body
from qwen_openai.routes.disconnect import LEAVING, Leaving

# OpenAI's own edge accepts about 64 KiB of headers; 100 fields is what nginx and Apache allow.
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADER_FIELDS = 100


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``header_timeout`` and ``write_timeout`` are seconds; set by `limited`."""

    header_timeout = 10.0
    write_timeout = 30.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._too_large = False
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        # uvicorn tells only the newest request of a pipeline that its client has left.
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                _leave(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # The keep-alive timer goes on here: only a new request stops it (`on_message_begin`), not
        # stray line ends, and not the rest of a body that was answered before it had come.
        if self.transport.is_closing():
            return
        try:
            # A request line or header that never ends is not reported by the parser: count it here.
            if self._header_timer is not None:
                self._header_bytes += len(data)
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The upgrade that the client asks for is not offered: the request is served as it is.
            return
        except httptools.HttpParserError:
            if self._too_large:
                return
            message = "These bytes are not a valid HTTP/1.1 request."
            self._refuse(InvalidRequest(message, code="invalid_http"))
            return
        if self._header_timer is not None and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        super().on_message_begin()
        if self._header_timer is None:
            self._arm_header_timer()
        self._header_fields = 0
        self._field_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_fields += 1
        self._field_bytes += len(name) + len(value)
        if self._header_fields > MAX_HEADER_FIELDS or self._field_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()
            raise ValueError("too many headers")  # ends the parser; the answer was written
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._disarm_header_timer()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        # A body that was read in full may have paused the reading that tells who leaves.
        _scope_of(cycle)[LEAVING] = Leaving(cycle.disconnected, cycle.flow.resume_reading)
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _arm_header_timer(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self.header_timeout, self._headers_late)

    def _disarm_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _disarm(self) -> None:
        self._disarm_header_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _headers_late(self) -> None:
        self._header_timer = None
        self._refuse(
            RequestTimeout(
                f"The request's headers did not arrive within {self.header_timeout:g} seconds."
            )
        )

    def _refuse_headers(self) -> None:
        self._too_large = True
        self._refuse(
            HeadersTooLarge(
                f"The headers are larger than {MAX_HEADER_BYTES} bytes or more than "
                f"{MAX_HEADER_FIELDS} fields. Send fewer or shorter headers."
            )
        )

    def _refuse(self, error: ApiError) -> None:
        """Answer with an error body and close; only close where an answer is under way."""
        self._disarm_header_timer()
        running = self._running
        if running is not None and not running.response_complete and running is self.cycle:
            # It is this request that is broken: its endpoint must not answer it too.
            _leave(running)
        under_way = running is not None and not running.response_complete
        unanswered = running is self.cycle and running is not None and not running.response_started
        if (not under_way or unanswered) and not self.transport.is_closing():
            body = orjson.dumps(error_body(error))
            head = [
                STATUS_LINE[error.status],
                b"content-type: application/json\r\n",
                b"content-length: %d\r\n" % len(body),
                b"x-request-id: req_%s\r\n" % uuid.uuid4().hex.encode(),
                b"openai-processing-ms: 0\r\n",
                b"connection: close\r\n\r\n",
            ]
            self.transport.write(b"".join([*head, body]))
        self.transport.close()


def _scope_of(cycle: RequestResponseCycle) -> dict[str, object]:
    return cast(dict[str, object], cycle.scope)  # uvicorn's type has no room for keys of ours


def _leave(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()
    leaving = _scope_of(cycle).get(LEAVING)
    if isinstance(leaving, Leaving):  # else it waits in the pipeline still
        leaving.leave()


def limited(header_timeout: float, write_timeout: float) -> type[LimitedProtocol]:
    """A protocol class with these deadlines; uvicorn makes the instances itself."""
    return type(
        "ConfiguredProtocol",
        (LimitedProtocol,),
        {"header_timeout": header_timeout, "write_timeout": write_timeout},
    )
