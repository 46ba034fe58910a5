"""A client that misses nothing: it tells an orderly end from a torn one, and when each came."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.deltas import counted

CHAT = "/v1/chat/completions"


def chat(text: str, *, stream: bool = True, **more: object) -> dict[str, object]:
    """The body of a chat request of one message."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
    return {**body, **more}


@dataclass(slots=True)
class Heard:
    """What has come of an answer. ``torn`` says that the connection ended before the message did;
    ``ended`` is when, by time.monotonic(), it was over, ``failed`` when its error event came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    events: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    finish: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    done: bool = False
    torn: bool = False
    failed: float = 0.0
    ended: float = 0.0

    @property
    def upstream(self) -> str:
        """Where it came from."""
        return self.headers.get("x-gateway-upstream", "")

    @property
    def attempts(self) -> int:
        """How many upstreams were asked."""
        return int(self.headers.get("x-gateway-attempts", 0))

    def whole(self, tag: str, count: int, *, wide: bool = False) -> None:
        """Fail unless the answer is complete and right."""
        assert (self.status, self.error, self.torn) == (200, None, False), self
        assert counted(tag, self.text, wide=wide) == count
        assert self.finish == "stop"

    def broken(self, tag: str) -> int:
        """Fail unless the answer is a right beginning that says that it broke; its pieces."""
        assert self.status == 200, self
        assert self.error is not None, f"a silent end after {self.text!r}"
        assert not self.torn
        assert self.finish is None
        assert set(self.error) == {"message", "type", "param", "code"}
        return counted(tag, self.text)

    def take(self, data: str) -> None:
        """Take the data of one event."""
        if data == "[DONE]":
            self.done = True
            return
        assert not self.done, "an event after the last one"
        assert self.error is None, "an event after the error"
        event = json.loads(data)
        self.events.append(event)
        if "error" in event:
            self.error = event["error"]
            self.failed = time.monotonic()
            return
        self.usage = event.get("usage") or self.usage
        for choice in event["choices"]:
            self._choice(choice)

    def _choice(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta") or choice.get("message") or {}
        self.text += delta.get("content") or choice.get("text") or ""
        if choice["finish_reason"]:
            assert self.finish is None, "finished twice"
            self.finish = choice["finish_reason"]


class Call:
    """One request on its own connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard = Heard()

    @classmethod
    async def post(
        cls, port: int, body: object, path: str = CHAT, headers: Mapping[str, str] | None = None
    ) -> "Call":
        """Send a request."""
        return await cls.send(port, "POST", path, json.dumps(body).encode(), headers)

    @classmethod
    async def send(
        cls, port: int, method: str, path: str, content: bytes, headers: Mapping[str, str] | None
    ) -> "Call":
        """Send a request of any kind."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 25)
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(content)}", "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + content)
        return cls(reader, writer)

    async def head(self) -> Heard:
        """Read status and headers."""
        if not self.heard.status:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            self.heard.status = int(head[0].split()[1])
            pairs = (line.partition(":") for line in head[1:] if line)
            self.heard.headers = {name.lower(): value.strip() for name, _, value in pairs}
        return self.heard

    async def until(self, text: str) -> Heard:
        """Read on until an event holds ``text``, or all is over."""
        await self.head()
        while not self.heard.ended and text not in self.heard.text:
            await self._part()
        return self.heard

    async def raw_until(self, mark: bytes) -> bytes:
        """Read bytes as they come, until the mark is among them."""
        async with asyncio.timeout(20):
            return await self._reader.readuntil(mark) + await self._reader.read(100)

    async def rest(self, seconds: float = 30) -> Heard:
        """Read to the end, and leave, whatever comes of it."""
        try:
            async with asyncio.timeout(seconds):
                try:
                    await self.head()
                except (asyncio.IncompleteReadError, ConnectionError):
                    self._over(torn=True)
                while not self.heard.ended:
                    await self._part()
        finally:
            self._writer.transport.abort()
        return self.heard

    def leave(self) -> float:
        """Close the connection, whatever comes; when that was."""
        self._writer.transport.abort()
        return time.monotonic()

    async def _part(self) -> None:
        """Read one piece of the body: an event, or all of a body that has a length."""
        try:
            if "content-length" in self.heard.headers:
                length = int(self.heard.headers["content-length"])
                self.heard.body = await self._reader.readexactly(length)
                self._read_plain()
                self._over(torn=False)
                return
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = (await self._reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError):
            self._over(torn=True)
            return
        self.heard.body += data
        if not size:
            self._over(torn=False)
        while b"\n\n" in self.heard.body:
            event, _, self.heard.body = self.heard.body.partition(b"\n\n")
            if event.startswith(b"data: "):
                self.heard.take(event[6:].decode())

    def _read_plain(self) -> None:
        answer = json.loads(self.heard.body)
        self.heard.error = answer.get("error")
        self.heard.usage = answer.get("usage")
        for choice in answer.get("choices", ()):
            self.heard._choice(choice)

    def _over(self, *, torn: bool) -> None:
        self.heard.torn = torn
        self.heard.ended = time.monotonic()


async def heard(port: int, text: str, *, stream: bool = True, **more: object) -> Heard:
    """Ask, and read the answer to its end."""
    return await (await Call.post(port, chat(text, stream=stream, **more))).rest()
