"""Sockets that cannot be had: one sentence, a fix, and who holds the port. And the order in which
a server begins and ends."""

import asyncio
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from qwen_openai.engines.fake import FakeEngine
from qwen_openai.errors import StartupError
from qwen_openai.routes.gateway import Gateway
from qwen_openai.server import Server, bind
from qwen_openai.settings import Settings
from tests.live import call, live, make_settings
from tests.wire.test_disconnects import Gated, connect


def test_a_taken_port_names_its_holder() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError) as refused:
            bind(make_settings(port=port))
    assert f"Port {port}" in refused.value.message
    assert f"process {os.getpid()}" in refused.value.message
    assert "--port" in refused.value.fix


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(StartupError) as refused:
        bind(make_settings(host=host))
    assert "--host" in refused.value.fix


def test_ipv6_loopback_works_where_there_is_one() -> None:
    try:
        sock = bind(make_settings(host="::1"))
    except StartupError:
        pytest.skip("no IPv6 on this machine")
    with sock:
        assert sock.family == socket.AF_INET6


async def test_too_many_connections_get_503_and_health_still_answers() -> None:
    async with live(FakeEngine(), limit_connections=1) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        refused = await asyncio.to_thread(call, server.port, "GET", "/v1/models")
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-request-id"]
        assert refused.headers["connection"] == "close"
        healthy = await asyncio.to_thread(call, server.port, "GET", "/health/live")
        assert healthy.status == 200
        writer.close()


async def test_the_drain_ends_streams_then_writes_usage_then_ends(tmp_path: Path) -> None:
    """The order of the end: a stream that finishes within the drain is in the ledger's file, and
    the database is closed before the server says that it is done (row 61)."""
    database = tmp_path / "gateway.db"
    gated = Gated(1)
    async with live(gated.engine, database=str(database)) as server:
        reader, writer = await connect(server, stream=True)
        await reader.readuntil(b"word ")
        server.server.stop()
        assert not server.gateway.health().ready
        gated.gate.set()
        assert b"[DONE]" in await asyncio.wait_for(reader.read(), 5)
        writer.close()
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        assert "usage" in tables
        assert connection.execute("SELECT count(*) FROM usage").fetchone() == (1,)
    assert not database.with_name("gateway.db-wal").exists()


async def test_without_time_to_drain_the_end_comes_at_once() -> None:
    gated = Gated(1)
    async with live(gated.engine, drain_timeout=0) as server:
        reader, writer = await connect(server, stream=True)
        await reader.readuntil(b"word ")
        server.server.stop()
        # Promised: 4 s. What hangs would take for ever, so the guard is five times that.
        rest = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert b"shutting down" in rest
    assert b"[DONE]" in rest


class _Slow:
    """Something that takes for ever to start, or to close."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.cancelled = 0

    async def __call__(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class _SlowToStart(Gateway):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.starting = _Slow()

    async def start(self) -> None:
        await self.starting()


class _SlowToClose(Gateway):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.closing = _Slow()

    async def aclose(self) -> None:
        await super().aclose()
        await self.closing()


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody asks")


async def test_it_does_not_listen_before_the_gateway_has_started() -> None:
    settings = make_settings(engine="upstream")
    gateway = _SlowToStart(settings)
    server = Server(settings, _nothing, gateway)
    sock = bind(settings)
    ready = asyncio.Event()
    serving = asyncio.create_task(server.serve_on(sock, lambda port: ready.set()))
    await gateway.starting.began.wait()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
    server.stop()  # a signal meanwhile ends the start too
    await asyncio.wait_for(serving, 5)
    assert gateway.starting.cancelled == 1
    assert not ready.is_set()
    sock.close()


async def test_a_second_signal_ends_what_takes_too_long_to_close() -> None:
    settings = make_settings(engine="upstream")
    gateway = _SlowToClose(settings)
    server = Server(settings, _nothing, gateway)
    ready = asyncio.Event()
    serving = asyncio.create_task(server.serve_on(bind(settings), lambda port: ready.set()))
    await ready.wait()
    server.stop()
    await gateway.closing.began.wait()
    server.stop()
    await asyncio.wait_for(serving, 5)  # promised: 1 s
    assert gateway.closing.cancelled == 1
