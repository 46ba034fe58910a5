"""Sockets that cannot be had: one sentence, a fix, and who holds the port."""

import os
import socket

import pytest

from qwen_openai.engines.fake import FakeEngine
from qwen_openai.errors import StartupError
from qwen_openai.server import bind
from tests.live import call, live, make_settings


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
    import asyncio

    async with live(FakeEngine(), limit_connections=1) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        refused = await asyncio.to_thread(call, server.port, "GET", "/v1/models")
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-request-id"]
        healthy = await asyncio.to_thread(call, server.port, "GET", "/health/live")
        assert healthy.status == 200
        writer.close()
