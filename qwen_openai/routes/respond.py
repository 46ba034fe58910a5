"""The two ways to answer: a JSON body, or a stream of server-sent events. Plain ASGI.

sse-starlette is not used: it replaces uvicorn's signal handler when imported and ends running
streams at SIGTERM, where ours must drain; and it costs several times as much for each event
(`bench/sse.py`, figures in docs/benchmarks.md).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

import orjson
from starlette.types import Receive, Send

from qwen_openai.errors import ApiError, EngineFailed, EngineUnavailable
from qwen_openai.responses.errors import error_body
from qwen_openai.sse import DONE, comment, frame

_JSON_TYPE = (b"content-type", b"application/json")
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

_PING = comment("ping")
_DRAIN_SECONDS = 2.0
INTERNAL_ERROR = "Something broke inside the server; its log has the details under this request id."


def _encode(headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]


async def send_json(
    send: Send, body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> None:
    """Send ``body`` as the whole response."""
    content = orjson.dumps(body)
    raw = [_JSON_TYPE, (b"content-length", str(len(content)).encode()), *_encode(headers)]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


async def send_text(send: Send, text: bytes, content_type: str) -> None:
    """Send ``text`` as the whole response."""
    length = (b"content-length", str(len(text)).encode())
    raw = [(b"content-type", content_type.encode()), length, (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": text})


async def send_and_drain(receive: Receive, send: Send, body: object, status: int) -> None:
    """Send ``body`` to a client that is still sending, and close once it has stopped.

    Closing with unread bytes would reset the connection, and most clients would then report the
    reset and not the answer; so what comes is thrown away, for a bounded time.
    """
    content = orjson.dumps(body)
    length = (b"content-length", str(len(content)).encode())
    raw = [_JSON_TYPE, length, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    await send(_last(b""))


def _failed(error: ApiError) -> bytes:
    return frame(error_body(error)) + DONE


@dataclass(frozen=True, slots=True)
class Pings:
    """Comments for a stream in which nothing happens: after ``interval`` seconds of silence, 0 for
    never; with ``early`` also before the first frame, and the status is then sent with them."""

    interval: float = 0.0
    early: bool = False


NO_PINGS = Pings()


class _Stream:
    """The sending end. It begins with the first frame or the first early comment; one timer looks
    when the last frame went, which costs a frame no more than noting the time."""

    def __init__(self, send: Send, headers: Callable[[], Mapping[str, str]], pings: Pings) -> None:
        self._send = send
        self._headers = headers
        self._pings = pings
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None
        self._sent = self._loop.time()
        self.begun = False
        if pings.interval and pings.early:
            self._arm(pings.interval)

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send bytes of the stream, after its headers."""
        if self._ping is not None:
            await self._settle()
        if not self.begun:
            await self._begin()
            if self._pings.interval and self._timer is None:
                self._arm(self._pings.interval)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._sent = self._loop.time()

    async def end(self, data: bytes) -> None:
        """Send the last bytes."""
        self.stop()
        await self.write(data, more=False)

    def stop(self) -> None:
        """Send no more comments."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    async def _begin(self) -> None:
        self.begun = True
        raw = [*_STREAM_HEADERS, *_encode(self._headers())]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _settle(self) -> None:
        # The two must not interleave: the headers may be on their way.
        if self._ping is not None:
            await asyncio.wait({self._ping})
            self._ping = None

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        left = self._sent + self._pings.interval - self._loop.time()
        # Timers come up to a millisecond early.
        if left > 0.002:
            self._arm(left)
            return
        if self._ping is None or self._ping.done():
            self._ping = self._loop.create_task(self._comment())
        self._arm(self._pings.interval)

    async def _comment(self) -> None:
        if not self.begun:
            await self._begin()
        await self._send({"type": "http.response.body", "body": _PING, "more_body": True})


def _nothing() -> Mapping[str, str]:
    return {}


async def send_events(
    send: Send,
    frames: AsyncGenerator[bytes, None],
    *,
    headers: Callable[[], Mapping[str, str]] = _nothing,
    done: bytes = DONE,
    failed: Callable[[ApiError], bytes] = _failed,
    pings: Pings = NO_PINGS,
) -> None:
    """Send frames as they come, then ``done``. ``headers`` are asked for when the stream begins.

    A failure before that is raised. Afterwards the status is 200, so a failure becomes an event,
    which ``failed`` makes (an error event, which the openai SDK raises as APIError), and so does
    the end of the server's drain time.
    """
    stream = _Stream(send, headers, pings)
    try:
        async for data in frames:
            await stream.write(data)
        closing = done
    except ApiError as error:
        if not stream.begun:
            raise
        closing = failed(error)
    except Exception:
        # A bug of ours: the client is told that the stream broke, `Envelope` logs what it was.
        if stream.begun:
            await stream.end(failed(EngineFailed(INTERNAL_ERROR, code="internal_error")))
        raise
    except asyncio.CancelledError:
        # Either the client left, and this goes nowhere, or the server's drain time is over.
        if stream.begun:
            stopped = EngineUnavailable("The server is shutting down and ended this stream.")
            await stream.end(failed(stopped))
        raise
    finally:
        stream.stop()
        await frames.aclose()
    await stream.end(closing)


def _last(data: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": False}
