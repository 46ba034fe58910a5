"""The two ways to answer: a JSON body, or a stream of server-sent events. Plain ASGI.

sse-starlette is not used: it replaces uvicorn's signal handler when imported and ends running
streams at SIGTERM, where ours must drain; and it costs several times as much for each event
(`bench/sse.py`, figures in docs/benchmarks.md).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping

import orjson
from starlette.types import Receive, Send

from qwen_openai.errors import ApiError, EngineFailed, EngineUnavailable
from qwen_openai.responses.errors import error_body
from qwen_openai.sse import DONE, frame

_JSON_TYPE = (b"content-type", b"application/json")
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

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


async def send_events(
    send: Send,
    frames: AsyncGenerator[bytes, None],
    *,
    headers: Mapping[str, str] | None = None,
    done: bytes = DONE,
    failed: Callable[[ApiError], bytes] = _failed,
) -> None:
    """Send frames as they come, then ``done``.

    The status is 200 from the first byte on, so a failure becomes an event, which ``failed`` makes
    (an error event, which the openai SDK raises as APIError), and so does the end of the server's
    drain time.
    """
    raw = [*_STREAM_HEADERS, *_encode(headers)]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    try:
        async for data in frames:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        closing = done
    except ApiError as error:
        closing = failed(error)
    except Exception:
        # A bug of ours: the client is told that the stream broke, `Envelope` logs what it was.
        oops = EngineFailed(INTERNAL_ERROR, code="internal_error")
        await send(_last(failed(oops)))
        raise
    except asyncio.CancelledError:
        # Either the client left, and this goes nowhere, or the server's drain time is over.
        stopped = EngineUnavailable("The server is shutting down and ended this stream.")
        await send(_last(failed(stopped)))
        raise
    finally:
        await frames.aclose()
    await send(_last(closing))


def _last(data: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": False}
