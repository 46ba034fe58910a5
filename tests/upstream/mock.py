"""A mock upstream in a process of its own: `python -m tests.upstream.mock --port 0 --name a`.

It prints its port, speaks the paths that gateways call, makes numbered answers (`deltas`), behaves
as it is told (`behaviour`) by POST /control, and counts what it sees, for GET /control. Its HTTP is
its own, so that it is fast enough to be a benchmark's target and free to break the protocol. Times
in reports are of time.monotonic(), which all processes of one machine share on Linux.
"""

import argparse
import asyncio
import dataclasses
import signal
import socket
import struct
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import cast

import orjson
import uvloop

from tests.upstream import bodies
from tests.upstream.behaviour import Behaviour, parse
from tests.upstream.streams import Broken, stream

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error"}
_LAST_SEEN = 64
_JSON = "application/json"
# How a client begins that takes this for a port of TLS.
_TLS = b"\x16"


@dataclasses.dataclass(slots=True)
class State:
    """What a mock is told and what it has counted. ``left`` has, of each request whose client
    closed before its end, the tag and the time of the close."""

    name: str
    models: list[str]
    context: int = 4096
    key: str = ""
    how: Behaviour = dataclasses.field(default_factory=Behaviour)
    up: bool = True
    keep: bool = False
    answer: str | None = None
    requests: int = 0
    looks: int = 0
    open: int = 0
    most_open: int = 0
    finished: int = 0
    connections: int = 0
    accepted: int = 0
    left: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    seen: deque[dict[str, object]] = dataclasses.field(
        default_factory=lambda: deque(maxlen=_LAST_SEEN)
    )

    def report(self) -> dict[str, object]:
        """Return the counts, as GET /control does."""
        names = ("name", "requests", "looks", "open", "most_open", "finished", "connections")
        told = {name: getattr(self, name) for name in (*names, "accepted", "left")}
        return {**told, "seen": list(self.seen), "now": time.monotonic()}

    def control(self, said: dict[str, object]) -> None:
        """Obey POST /control: `behaviour` sets how other requests are answered, `models` those
        that are listed, `up` False has everything but /control answered 503, `keep` remembers
        bodies, `answer` is the body of all answers as it stands, a stream's too, None for
        none, `clear` forgets all counts but what is open."""
        if "behaviour" in said:
            self.how = parse(str(said["behaviour"]), Behaviour())
        if isinstance(models := said.get("models"), list):
            self.models = [str(model) for model in models]
        self.up = bool(said.get("up", self.up))
        if "answer" in said:
            self.answer = None if said["answer"] is None else str(said["answer"])
        self.keep = bool(said.get("keep", self.keep))
        if said.get("clear"):
            self.requests = self.looks = self.finished = self.accepted = 0
            self.most_open = self.open
            self.left.clear()
            self.seen.clear()


class Connection(asyncio.Protocol):
    """One client's connection: requests in, one after another, and answers out."""

    def __init__(self, state: State, connections: set["Connection"]) -> None:
        self._state = state
        self._all = connections
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._asked: bodies.Asked | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its methods only.
        self._transport = cast(asyncio.Transport, transport)
        self._state.connections += 1
        self._state.accepted += 1
        self._all.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._state.connections -= 1
        self._all.discard(self)
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received[:1] == _TLS:
            self._transport.abort()
        elif self._task is None:
            self._take_all()

    def _take_all(self) -> None:
        while self._task is None and (request := self._take()) is not None:
            self._answer(*request)

    def _take(self) -> tuple[str, str, dict[str, str], bytes] | None:
        """Return the next whole request: method, path, headers, body."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        if len(self._received) < end + 4 + length:
            return None
        body = bytes(self._received[end + 4 : end + 4 + length])
        del self._received[: end + 4 + length]
        method, target, _ = lines[0].split(" ", 2)
        return method, target.partition("?")[0], headers, body

    def _answer(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        state = self._state
        if path == "/control":
            if method == "POST":
                state.control(orjson.loads(raw))
            self._send(200, orjson.dumps(state.report()))
        elif not state.up:
            self._send(503, b'{"error":{"message":"down"}}')
        elif method == "GET":
            state.looks += 1
            known = path in ("/v1/models", "/health", "/version", "/props")
            self._send(200 if known else 404, bodies.models(state.models, state.context))
        elif state.key and headers.get("authorization") != f"Bearer {state.key}":
            self._send(401, b'{"error":{"message":"wrong key"}}')
        else:
            self._generate(path, headers, raw)

    def _generate(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        state = self._state
        asked = bodies.read(path, raw, headers.get("authorization", ""), state.how)
        if state.keep:
            state.seen.append({"path": path, "headers": headers, "body": asked.body})
        if path in (bodies.TOKENIZE, bodies.TOKENIZE_V1):
            self._send(200, bodies.tokens(asked))
            return
        if path not in (bodies.CHAT, bodies.COMPLETIONS):
            self._send(404, b'{"error":{"message":"no such path"}}')
            return
        state.requests += 1
        how = asked.how
        if state.answer is not None:
            self._send(how.status, state.answer.encode(), kind=_kind(asked))
            return
        if not (asked.body.get("stream") or how.delay or how.first or how.hang or how.gap):
            self._send_plain(asked)
            state.finished += 1
            return
        state.open += 1
        state.most_open = max(state.most_open, state.open)
        self._asked = asked
        self._task = asyncio.get_running_loop().create_task(self._run(asked))
        self._task.add_done_callback(self._over)

    async def _run(self, asked: bodies.Asked) -> None:
        """Answer a request that takes its time."""
        how = asked.how
        if how.delay:
            await asyncio.sleep(how.delay)
        if how.hang == "headers":
            await asyncio.Event().wait()
        if how.status != 200 or how.html or not asked.body.get("stream"):
            if how.hang or how.first or how.gap:
                await asyncio.sleep(1e6 if how.hang else how.first + how.gap * asked.count)
            self._send_plain(asked)
            return
        encoding = "Content-Encoding: gzip\r\n" if how.gzip else ""
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
        self._transport.write(f"{head}\r\n{encoding}\r\n".encode())
        try:
            packer = zlib.compressobj(wbits=31) if how.gzip else None
            chunk = self._chunk(packer)
            await stream(asked, chunk, self._writable)
            if packer is not None:
                self._chunk(None)(packer.flush())
            self._transport.write(b"0\r\n\r\n")
        except Broken as broken:
            self._break(reset=broken.reset)

    def _chunk(self, packer: "zlib._Compress | None") -> Callable[[bytes], None]:
        write = self._transport.write

        def chunk(data: bytes) -> None:
            if packer is not None:
                data = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
            write(b"%x\r\n%b\r\n" % (len(data), data))

        return chunk

    def _break(self, *, reset: bool) -> None:
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    def _over(self, task: "asyncio.Task[None]") -> None:
        state = self._state
        state.open -= 1
        if task.cancelled():
            assert self._asked is not None
            state.left.append((self._asked.tag, time.monotonic()))
        else:
            state.finished += 1
            if (error := task.exception()) is not None:
                sys.stderr.write(f"mock {state.name}: {error!r}\n")
                self._transport.abort()
        self._task = self._asked = None
        if not self._transport.is_closing():
            self._take_all()

    def _send_plain(self, asked: bodies.Asked) -> None:
        how = asked.how
        if how.status == 200:
            kind = "text/html" if how.html else _JSON
            self._send(200, bodies.plain(asked), gzip=how.gzip, kind=kind)
            return
        address = "{}:{}".format(*self._transport.get_extra_info("sockname"))
        more = f"Retry-After: {how.retry_after}\r\n" if how.retry_after else ""
        more += f"Location: {how.location}\r\n" if how.location else ""
        kind = "text/html" if how.html else _JSON
        self._send(how.status, bodies.failure(asked, address), kind=kind, more=more)

    def _send(
        self, status: int, body: bytes, *, gzip: bool = False, kind: str = _JSON, more: str = ""
    ) -> None:
        if gzip:
            packer = zlib.compressobj(wbits=31)
            body = packer.compress(body) + packer.flush()
            more += "Content-Encoding: gzip\r\n"
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\nContent-Type: {kind}"
        self._transport.write(
            f"{head}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode("latin-1") + body
        )


def _kind(asked: bodies.Asked) -> str:
    return "text/event-stream" if asked.body.get("stream") else _JSON


async def _serve(state: State, port: int, host: str) -> None:
    loop = asyncio.get_running_loop()
    connections: set[Connection] = set()
    server = await loop.create_server(
        lambda: Connection(state, connections), host, port, backlog=2048
    )
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    parser.add_argument("--name", default="mock")
    parser.add_argument("--model", action="append", help="a model to list; may be repeated")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--key", default="", help="the Bearer key to ask for")
    parser.add_argument("--behaviour", default="", help="as in `behaviour`, for all requests")
    given = parser.parse_args()
    state = State(given.name, given.model or ["m"], given.context, given.key)
    state.how = parse(given.behaviour, Behaviour())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(state, given.port, given.host))


if __name__ == "__main__":
    main()
