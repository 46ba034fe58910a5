"""A proxy that breaks connections: what networks do to a gateway and its upstream, seeded.

Runs in the loop of whoever makes it. It knows bytes, nothing of HTTP.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

# What happens to the answer after `after` bytes of it; garbage: 64 random bytes in the middle of
# it; half: the sending side is closed, the receiving one is not.
Break = Literal["", "cut", "reset", "stall", "half", "garbage"]
# What happens to a new connection; refuse: closed at once by RST, as a port that nobody listens on
# would do to the connection after; hang: taken, and never served.
Door = Literal["open", "refuse", "hang"]


@dataclass(frozen=True, slots=True)
class Faults:
    """How to treat the connections that begin now. ``latency`` is seconds each way; ``most`` is the
    most bytes passed on in one packet, cut at random below that, 0 for no cutting."""

    door: Door = "open"
    latency: float = 0.0
    breaks: Break = ""
    after: int = 0
    most: int = 0
    seed: int = 1


class Proxy:
    """Stands between a client and ``target``, a port here. ``faults`` may be changed at any time;
    ``open`` is how many connections there are now."""

    def __init__(self, target: int, faults: Faults) -> None:
        self.target = target
        self.faults = faults
        self.port = 0
        self.open = 0
        self.accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.WriteTransport] = set()

    @property
    def url(self) -> str:
        """What stands in the settings of a gateway."""
        return f"http://127.0.0.1:{self.port}/v1"

    def set(self, **changes: object) -> None:
        """Change some of the faults; the connections that there are, which had others, end."""
        self.faults = replace(self.faults, **changes)  # type: ignore[arg-type]  # named by tests
        self._abort()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection. Not a coroutine: one that never began would leave it open."""
        self.open += 1
        self.accepted += 1
        self._transports.add(writer.transport)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._pass(reader, writer, self.faults)
        except (OSError, asyncio.CancelledError):
            pass  # `aclose` alone cancels, and streams would report it as an error
        finally:
            self.open -= 1
            writer.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults
    ) -> None:
        if faults.door == "refuse":
            _reset(writer)
            return
        if faults.door == "hang":
            await reader.read()  # until the client leaves
            await asyncio.Event().wait()
        there, to = await asyncio.open_connection("127.0.0.1", self.target)
        self._transports.add(to.transport)
        asking = asyncio.create_task(_copy(reader, to, Faults(latency=faults.latency)))
        answering = asyncio.create_task(_copy(there, writer, faults))
        try:
            # Whichever side closes first, the other one is closed too.
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, answering):
                task.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)
            to.close()

    async def aclose(self) -> None:
        """Close all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._abort()

    def _abort(self) -> None:
        # A close would wait for readers that have left off reading, and the loop for the close.
        for transport in self._transports:
            transport.abort()
        self._transports.clear()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults) -> None:
    random = Random(faults.seed)  # a test's, to be the same each time
    left = faults.after
    while data := await reader.read(65536):
        if faults.latency:
            await asyncio.sleep(faults.latency)
        if faults.breaks and len(data) >= left:
            await _write(writer, data[:left], faults.most, random)
            if await _breaks(writer, faults.breaks, random):
                return
            data, faults = data[left:], replace(faults, breaks="")
        left -= len(data)
        await _write(writer, data, faults.most, random)


async def _write(writer: asyncio.StreamWriter, data: bytes, most: int, random: Random) -> None:
    while data:
        size = random.randint(1, most) if most else len(data)
        writer.write(data[:size])
        await writer.drain()
        if most:
            await asyncio.sleep(0)
        data = data[size:]


async def _breaks(writer: asyncio.StreamWriter, how: Break, random: Random) -> bool:
    """Do what was asked; True where the connection is over."""
    if how == "garbage":
        writer.write(random.randbytes(64))
        return False
    if how == "reset":
        _reset(writer)
    elif how == "stall":
        await asyncio.Event().wait()
    elif how == "half":
        writer.write_eof()
        await asyncio.Event().wait()
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def proxied(target: int, faults: Faults | None = None) -> AsyncIterator[Proxy]:
    """A proxy in front of a port, for as long as the block runs."""
    proxy = Proxy(target, faults or Faults())
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1)
