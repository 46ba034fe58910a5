"""How a mock writes a stream: its events framed, delayed, cut and spoilt as a Behaviour says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random

import orjson

from tests.upstream import bodies
from tests.upstream.behaviour import Behaviour, Framing

Chunk = Callable[[bytes], None]
# Pieces that are written before others may run.
_AT_ONCE = 32


class Broken(Exception):
    """The connection ends here, by a reset or a plain close."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class _Ended(Exception):
    """The stream ends here, in an orderly way."""


async def stream(asked: bodies.Asked, chunk: Chunk, writable: asyncio.Event) -> None:
    """Write the whole stream by ``chunk``, which takes the data of one HTTP chunk, waiting for
    ``writable`` where the reader is slow. Raises Broken where the connection is to be closed."""
    writer = _Writer(asked.how.framing, chunk, writable)
    try:
        for data in bodies.opening(asked):
            await writer.event(data)
        if asked.how.first:
            await asyncio.sleep(asked.how.first)
        async for data in _paced(asked, writer):
            await writer.event(data)
        for data in bodies.closing(asked):
            await writer.event(data)
        if asked.how.ending != "nodone":
            await writer.event(bodies.DONE)
    except _Ended:
        pass
    writer.flush()


async def _paced(asked: bodies.Asked, writer: "_Writer") -> AsyncIterator[bytes]:
    """Yield the pieces when it is time, and do at `at` what is to happen there."""
    how = asked.how
    place = 0 if how.hang == "first" else how.at
    source = bodies.calling(asked) if asked.is_chat and asked.calls else bodies.pieces(asked)
    for index, data in enumerate(source):
        if index == place:
            await _misbehave(how, writer)
        if index and how.gap:
            await asyncio.sleep(how.gap)
        elif index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        yield data
    if how.hang:
        await asyncio.Event().wait()


async def _misbehave(how: Behaviour, writer: "_Writer") -> None:
    if how.hang:
        await asyncio.Event().wait()
    match how.ending:
        case "end":
            raise _Ended
        case "cut" | "reset":
            raise Broken(reset=how.ending == "reset")
        case "error" | "named":
            error = {"message": "the mock's engine died", "type": "server_error", "code": 500}
            await writer.event(orjson.dumps({"error": error}), named=how.ending == "named")
            raise _Ended
        case "comments":
            while True:
                await writer.comment()
                await asyncio.sleep(0.01)
        case "nonjson":
            await writer.event(b"{this is no JSON")
        case "long":
            await writer.event(b'{"x":"' + b"x" * bodies.LONG_LINE + b'"}')
        case "html":
            await writer.event(bodies.PAGE)


class _Writer:
    """Frames events as a Framing says."""

    def __init__(self, framing: Framing, chunk: Chunk, writable: asyncio.Event) -> None:
        self._framing = framing
        self._chunk = chunk
        self._writable = writable
        self._packed = bytearray()
        self._random = Random(7)  # a test's, to be the same each time

    async def event(self, data: bytes, *, named: bool = False) -> None:
        """Write one event."""
        line = b"\r\n" if self._framing == "crlf" else b"\n"
        space = b"" if self._framing == "bare" else b" "
        name = b"event: error" + line if named else b""
        framed = name + b"data:" + space + data + line + line
        if self._framing == "packed":
            self._packed += framed
        elif self._framing in ("bytes", "hundred"):
            for part in self._cut(framed):
                self._chunk(part)
                await asyncio.sleep(0)
        else:
            if self._framing == "comments":
                framed = b": a comment\n\n:\nretry: 10\nid: 7\n" + framed
            self._chunk(framed)
        if not self._writable.is_set():
            await self._writable.wait()

    async def comment(self) -> None:
        """Write a comment."""
        self._chunk(b": still there\n\n")

    def flush(self) -> None:
        """Write what is packed."""
        if self._packed:
            self._chunk(bytes(self._packed))

    def _cut(self, data: bytes) -> Iterator[bytes]:
        size = max(len(data) // 100, 1) if self._framing == "hundred" else 0
        while data:
            length = size or self._random.randint(1, 3)
            yield data[:length]
            data = data[length:]
