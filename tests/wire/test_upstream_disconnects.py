"""Clients of upstreams' answers that leave, or read too slowly (rows 46 and 52): the upstream is
told at once, and nothing is kept.
"""

import asyncio
import json
import random
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.live import Live, until
from tests.upstream.client import Call, chat, heard
from tests.upstream.fronted import fronted, kept, row, settles
from tests.upstream.process import Mock, mocks

# Seconds from a client's close to the upstream's: promised, and asserted.
PROMISED, ASSERTED = 0.25, 1.25
# Before headers, before the first token, in the middle of a stream, in a plain answer; those that
# find no slot free are in the queue.
STAGES = (
    ("hang=headers", True),
    ("hang=first", True),
    ("hang=token", True),
    ("hang=headers", False),
    ("hang=first", False),
    ("deltas=2", True),
)


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


def _left(pair: list[Mock]) -> dict[str, float]:
    """Tag and time of each request whose connection was closed before its end."""
    return {tag: at for mock in pair for tag, at in mock.report()["left"]}


@pytest.mark.parametrize(("how", "stream"), STAGES[:5])
async def test_the_upstream_is_closed_when_the_client_leaves(
    pair: list[Mock], how: str, stream: bool
) -> None:
    """Row 52, stage by stage."""
    for mock in pair:
        mock.control(clear=True)
    async with fronted(pair) as server:
        before = kept(server, pair)
        tag = f"{how} {stream} mock:{how}"
        call = await Call.post(server.port, chat(tag, stream=stream))
        await until(lambda: sum(mock.report()["open"] for mock in pair) == 1)
        if how == "hang=token":
            await call.until("\n")
        left = call.leave()
        await until(lambda: tag in _left(pair))
        assert _left(pair)[tag] - left < ASSERTED
        await settles(server, pair, before)


async def test_leaving_the_queue_asks_nothing_of_the_upstream(pair: list[Mock]) -> None:
    """Row 52: in the queue."""
    for mock in pair:
        mock.control(clear=True)
    async with fronted([row(pair[0], max_parallel=1)]) as server:
        admission = server.gateway.served("m").service.admission
        first = await Call.post(server.port, chat("one mock:hang=token"))
        await first.until("\n")
        for stream in (True, False):
            second = await Call.post(server.port, chat("two", stream=stream))
            await until(lambda: admission.waiting == 1)
            second.leave()
            await until(lambda: admission.waiting == 0)
        assert pair[0].report()["requests"] == 1
        first.leave()
        (await heard(server.port, "three mock:deltas=3")).whole("three mock:deltas=3", 3)


async def test_leaving_before_the_body_is_there_asks_nothing(pair: list[Mock]) -> None:
    """Row 52: before admission."""
    pair[0].control(clear=True)
    async with fronted(pair[:1]) as server:
        before = kept(server, pair)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
        )
        try:
            await until(lambda: len(server.server.server_state.tasks) == 1)
        finally:
            writer.transport.abort()
        await settles(server, pair, before)
        assert pair[0].report()["requests"] == 0


async def test_many_leave_at_all_stages_and_nothing_stays(pair: list[Mock], soak: bool) -> None:
    """Row 52: 150 disconnects, 1,000 of them with --soak, some of them in the queue."""
    for mock in pair:
        mock.control(clear=True)
    rounds, each = (40, 25) if soak else (6, 25)
    rng = random.Random(52)
    gone: dict[str, float] = {}
    async with fronted([row(mock, max_parallel=8) for mock in pair], queue_size=64) as server:
        await heard(server.port, "warm")
        before = kept(server, pair)
        for number in range(rounds):
            gone.update(await _round(server, number, each, rng))
            await settles(server, pair, before)
        (await heard(server.port, "after mock:deltas=3")).whole("after mock:deltas=3", 3)
    closed = _left(pair)
    late = [at - gone[tag] for tag, at in closed.items() if tag in gone]
    quick = sum(each <= PROMISED for each in late)
    # For scripts/soak, which shows what tests say.
    sys.stdout.write(
        f"{rounds * each} left, {len(late)} of them while an upstream was at work; "
        f"{quick} closed within {PROMISED} s, slowest {max(late):.4f} s; nothing kept\n"
    )
    assert len(late) >= rounds * 8
    assert max(late) < ASSERTED, f"{len(late) - quick} of {len(late)} were late"


async def _round(server: Live, number: int, each: int, rng: random.Random) -> dict[str, float]:
    """Open some requests, wait a little, and leave all of them; when each was left."""
    calls = {}
    for index in range(each):
        how, stream = STAGES[index % len(STAGES)]
        tag = f"{number}-{index} mock:{how}"
        calls[tag] = await Call.post(server.port, chat(tag, stream=stream))
    await asyncio.sleep(rng.uniform(0, 0.05))
    gone = {}
    for tag in rng.sample(sorted(calls), each):
        gone[tag] = calls[tag].leave()
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    return gone


async def test_a_reader_that_stops_reading_is_cut_and_the_upstream_with_it(
    pair: list[Mock],
) -> None:
    """Row 46: bounded memory, then the upstream is closed after `write_timeout`."""
    pair[0].control(clear=True)
    async with fronted(pair[:1], write_timeout=0.5) as server:
        before = kept(server, pair)
        tag = "slow mock:deltas=1000000"
        reader, writer = await _narrow(server.port)
        content = json.dumps(chat(tag)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}"
        try:
            writer.write(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + content)
            await reader.readline()
            answered = await heard(server.port, "quick mock:deltas=3")
            answered.whole("quick mock:deltas=3", 3)
            await until(lambda: tag in _left(pair))
        finally:
            writer.transport.abort()
        await settles(server, pair, before)


async def _narrow(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that holds little: the kernel's own buffers have room for megabytes."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=sock, limit=1024)
