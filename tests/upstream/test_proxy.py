"""The fault proxy itself, in front of a server that says the same thing to everybody."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

import pytest

from tests.upstream.proxy import Faults, Proxy, proxied

_SAID = bytes(range(256)) * 40


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        writer.write(_SAID)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    with proxied(server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()


async def _heard(proxy: Proxy, seconds: float = 10) -> bytes:
    """What comes through; as much as comes in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    heard = bytearray()
    try:
        writer.write(b"hello")
        async with asyncio.timeout(seconds):
            while data := await reader.read(65536):
                heard += data
    finally:
        writer.close()
    return bytes(heard)


@pytest.mark.parametrize("faults", [Faults(), Faults(latency=0.01), Faults(most=100, seed=3)])
async def test_it_passes_everything_on(proxy: Proxy, faults: Faults) -> None:
    proxy.set(**asdict(faults))
    assert await _heard(proxy) == _SAID


async def test_it_cuts_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.set(breaks="cut", after=1000)
    assert await _heard(proxy) == _SAID[:1000]


async def test_it_resets(proxy: Proxy) -> None:
    proxy.set(breaks="reset", after=1000)
    with pytest.raises(ConnectionResetError):
        await _heard(proxy)


async def test_it_puts_garbage_in(proxy: Proxy) -> None:
    proxy.set(breaks="garbage", after=1000)
    heard = await _heard(proxy)
    assert len(heard) == len(_SAID) + 64
    assert heard[:1000] == _SAID[:1000]
    assert heard[1064:] == _SAID[1000:]


async def test_it_stalls(proxy: Proxy) -> None:
    proxy.set(breaks="stall", after=1000)
    with pytest.raises(TimeoutError):
        await _heard(proxy, 0.2)


async def test_it_closes_one_half(proxy: Proxy) -> None:
    proxy.set(breaks="half", after=1000)
    assert await _heard(proxy) == _SAID[:1000]


async def test_its_door(proxy: Proxy) -> None:
    proxy.set(door="refuse")
    with pytest.raises(ConnectionError):
        await _heard(proxy)
    proxy.set(door="hang")
    with pytest.raises(TimeoutError):
        await _heard(proxy, 0.2)
