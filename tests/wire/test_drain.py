"""Stopping: streams finish, new work is refused, a second signal ends it (row 61)."""

import asyncio
import os
import signal

import pytest

from qwen_openai.engines.fake import FakeEngine
from tests.live import live, until
from tests.wire.test_disconnects import Gated, connect


async def test_a_stop_lets_streams_finish_and_refuses_what_comes() -> None:
    gated = Gated(1, slots=50)
    async with live(gated.engine) as server:
        clients = [await connect(server, stream=True) for _ in range(50)]
        for reader, _ in clients:
            await reader.readuntil(b"word ")
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", server.port)
        idle.write(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await idle_reader.readuntil(b"ready")
        server.server.stop()
        assert not server.gateway.health().ready
        assert await asyncio.wait_for(idle_reader.read(), 5)  # the rest of the body, then the end
        idle.close()
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.1", server.port)
        gated.gate.set()
        for reader, writer in clients:
            rest = await asyncio.wait_for(reader.read(), 5)
            assert b'"finish_reason":"stop"' in rest
            assert rest.rstrip().endswith(b"0")  # the last chunk of the transfer coding
            assert b"data: [DONE]" in rest
            writer.close()
        assert gated.engine.record.finished == 50


async def test_what_waits_in_the_queue_is_told_to_come_back() -> None:
    gated = Gated(1)
    async with live(gated.engine) as server:
        reader, writer = await connect(server, stream=True)
        await reader.readuntil(b"word ")
        waiting, waiter = await connect(server, stream=False)
        await until(lambda: server.gateway.default()[1].service.admission.waiting == 1)
        server.server.stop()
        answer = await asyncio.wait_for(waiting.read(), 5)
        assert b" 503 " in answer
        assert b'"code":"engine_unavailable"' in answer
        gated.gate.set()
        assert b"[DONE]" in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        waiter.close()


@pytest.mark.parametrize("how", ["second stop", "drain time over"])
@pytest.mark.parametrize("stream", [True, False])
async def test_streams_that_are_cut_say_so(how: str, stream: bool) -> None:
    gated = Gated(1)
    drain = 60 if how == "second stop" else 0.1
    async with live(gated.engine, drain_timeout=drain) as server:
        reader, writer = await connect(server, stream=stream)
        await until(lambda: gated.engine.record.open == 1)
        if stream:
            await reader.readuntil(b"word ")
        server.server.stop()
        if how == "second stop":
            server.server.stop()
        rest = await asyncio.wait_for(reader.read(), 5)
        assert b'"error":{"message":"The server is shutting down' in rest
        assert (b"[DONE]" in rest) is stream
        assert (b" 503 " in rest) is not stream
        writer.close()
    assert gated.engine.record.cancelled == 1


async def test_signals_reach_the_server() -> None:
    """One SIGTERM in this very process: the server drains and gives the handlers back."""
    before = signal.getsignal(signal.SIGTERM)
    async with live(FakeEngine()) as server:
        assert signal.getsignal(signal.SIGTERM) != before
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: server.server.should_exit)
        assert not server.gateway.health().ready
    assert signal.getsignal(signal.SIGTERM) == before
