"""A proxy that breaks connections: what networks do to a gateway and its upstream, seeded.

It runs in a process of its own, `python -m tests.upstream.proxy PORT`, so that what it leaves open
is nobody's leak and a test's loop has nothing of it to end. It knows bytes, nothing of HTTP.
"""

import argparse
import asyncio
import json
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Literal

from tests.upstream.process import Child

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


class Proxy(Child):
    """A proxy process between a client and ``target``, a port here."""

    def __init__(self, target: int, faults: Faults) -> None:
        super().__init__([sys.executable, "-m", "tests.upstream.proxy", str(target)], 0)
        self.faults = faults

    @property
    def url(self) -> str:
        """What stands in the settings of a gateway."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> "Proxy":
        """Start it, and wait until it listens."""
        self.spawn(stdin=True)
        self.port = int(self._line())
        self.set()
        return self

    def set(self, **changes: object) -> None:
        """Change some of the faults; the connections that there are, which had others, end."""
        self.faults = replace(self.faults, **changes)  # type: ignore[arg-type]  # named by tests
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(self.faults)).encode() + b"\n")
        self.process.stdin.flush()
        self._line()

    def _line(self) -> bytes:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy ended")
        return line


class _Server:
    """What the process does. ``faults`` are those of the connections that begin now."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._faults = Faults()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.WriteTransport] = set()

    def set(self, faults: Faults) -> None:
        """Treat connections so from now on, and end those that there are."""
        self._faults = faults
        for task in self._tasks:
            task.cancel()
        # A close would wait for readers that have left off reading.
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection. Not a coroutine: one that never began would leave it open."""
        self._transports.add(writer.transport)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._pass(reader, writer, self._faults)
        except (OSError, asyncio.CancelledError):
            pass  # `set` alone cancels, and streams would report it as an error
        finally:
            writer.close()
            self._transports.discard(writer.transport)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults
    ) -> None:
        if faults.door == "refuse":
            _reset(writer)
            return
        if faults.door == "hang":
            await reader.read()  # until the client leaves
            await asyncio.Event().wait()
        there, to = await asyncio.open_connection("127.0.0.1", self._target)
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
            self._transports.discard(to.transport)


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


@contextmanager
def proxied(target: int, faults: Faults | None = None) -> Iterator[Proxy]:
    """A proxy in front of a port, for as long as the block runs."""
    proxy = Proxy(target, faults or Faults())
    try:
        yield proxy.start()
    finally:
        proxy.close()


async def _main(target: int) -> None:
    made = _Server(target)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), sys.stdin
    )
    _say(str(server.sockets[0].getsockname()[1]))
    while line := await told.readline():
        made.set(Faults(**json.loads(line)))
        _say("set")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run until nobody tells it anything any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=int, help="the port that it stands before")
    asyncio.run(_main(parser.parse_args().target))


if __name__ == "__main__":
    main()
