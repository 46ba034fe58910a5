"""A server on a real socket that answers each request with the bytes of a script."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from qwen_openai.core import Event, Job, Message
from qwen_openai.engines.upstream.client import Timeouts, UpstreamClient
from qwen_openai.upstreams import Kind, Upstream

KEY = "sk-canary-0123456789abcdef"
QUICK = Timeouts(connect=2, first_token=5, token=5, total=20)

Step = bytes | float | asyncio.Event | None
"""Bytes to send, seconds to wait, an event to wait for, or None: the connection is reset."""


@dataclass(slots=True)
class Asked:
    """One request as it came."""

    line: str
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True)
class Scripted:
    """A running server. ``closed`` is set when a client leaves before the script is over."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


Script = Sequence[Step] | Callable[[Asked], Sequence[Step]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Scripted]:
    """Serve a script, which begins with the head of an answer; the connection stays open behind it
    if the head says a length or chunks, and is closed else."""
    server = Scripted()
    handlers: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        handlers.append(task)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the test is over
                await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while (asked := await _read(reader)) is not None:
                server.asked.append(asked)
                steps = script(asked) if callable(script) else script
                if not await _run(steps, reader, writer, server.closed):
                    break

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        try:
            yield server
        finally:
            for each in handlers:
                each.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (r.partition(":") for r in rest)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(line, headers, json.loads(body) if body else None)


async def _run(
    steps: Sequence[Step],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    closed: asyncio.Event,
) -> bool:
    """Whether the connection goes on."""
    left = asyncio.create_task(reader.read(1))
    try:
        for step in steps:
            if step is None:
                writer.transport.abort()
                return False
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                continue
            pause: Awaitable[object] = (
                step.wait() if isinstance(step, asyncio.Event) else asyncio.sleep(step)
            )
            waiting = asyncio.ensure_future(pause)
            await asyncio.wait({waiting, left}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if left.done():
                closed.set()
                return False
        return b"chunked" in steps[0] or b"content-length" in steps[0]  # type: ignore[operator]  # heads are bytes
    finally:
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await left


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"


def plain(body: object, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole answer with a JSON body, or bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "" if "content-type" in headers else "content-type: application/json\r\n"
    head = f"HTTP/1.1 {status}\r\n{kind}{headers}content-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def chunked(data: bytes) -> bytes:
    """Data as one piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: object) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def chunk(
    delta: Mapping[str, object] | None = None, reason: str | None = None, **more: object
) -> dict[str, object]:
    """A chunk of a chat completion with one choice."""
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": reason}
    return {
        "id": "chatcmpl-theirs",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "theirs",
        "choices": [choice],
        **more,
    }


def usage_chunk(prompt: int, completion: int, **more: object) -> dict[str, object]:
    """The last chunk of a stream, which tells the usage."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }
    return {**chunk(), "choices": [], "usage": usage}


def words(*texts: str) -> list[bytes]:
    """A good stream that says these."""
    said = [event(chunk({"content": text})) for text in texts]
    end = event(chunk(reason="stop")) + event(usage_chunk(7, len(texts)))
    return [STREAM, event(chunk({"role": "assistant", "content": ""})), *said, end, DONE]


@asynccontextmanager
async def client_of(
    url: str, timeouts: Timeouts = QUICK, kind: Kind = "vllm", name: str = "east"
) -> AsyncIterator[UpstreamClient]:
    """A client of the server at a URL, with a session of its own."""
    upstream = Upstream.model_validate({"url": url, "name": name, "kind": kind, "api_key": KEY})
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield UpstreamClient(upstream, session, timeouts)


def a_job(text: str = "Hello", **more: Any) -> Job:  # noqa: ANN401  # members of core.Job
    return Job("job-1", "ours", (Message("user", text),), **more)


async def answered(
    script: Script, job: Job | None = None, timeouts: Timeouts = QUICK, kind: Kind = "vllm"
) -> list[Event]:
    """The events of one job that a script answers."""
    async with (
        scripted(script) as server,
        client_of(server.url, timeouts, kind) as client,
        aclosing(client.generate(job or a_job(), "theirs")) as events,
    ):
        return [each async for each in events]
