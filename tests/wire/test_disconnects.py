"""Clients that leave: at every moment the work stops, the slot is free, nothing leaks (row 52)."""

import asyncio
import json
from pathlib import Path

import pytest

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step
from tests.live import Live, live, until


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def connect(
    server: Live, *, stream: bool, **more: object
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a chat request and leave the connection open."""
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], **more}
    content = json.dumps({**body, "stream": stream}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{head}".encode() + content)
    return reader, writer


class Gated:
    """An engine whose first jobs wait at a gate before or after their first token."""

    def __init__(self, tokens_before: int, *, slots: int = 1) -> None:
        self.gate = asyncio.Event()
        self._before = tokens_before
        self.engine = FakeEngine(self._script, slots=slots)

    def _script(self, job: Job) -> list[Step]:
        return [*["word "] * self._before, self.gate, "end"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
async def test_leaving_before_the_first_token(stream: bool, n: int) -> None:
    gated = Gated(0, slots=4)
    async with live(gated.engine) as server:
        _, writer = await connect(server, stream=stream, n=n)
        await until(lambda: gated.engine.record.open == n)
        writer.close()
        await until(lambda: gated.engine.record.open == 0)
        assert gated.engine.record.cancelled == n
        await until(lambda: server.gateway.default()[1].service.admission.running == 0)


@pytest.mark.parametrize("n", [1, 3])
async def test_leaving_in_the_middle_of_a_stream(n: int) -> None:
    gated = Gated(3, slots=4)
    async with live(gated.engine) as server:
        reader, writer = await connect(server, stream=True, n=n)
        await reader.readuntil(b"word ")
        writer.close()
        await until(lambda: gated.engine.record.cancelled == n)
        await until(lambda: server.gateway.default()[1].service.admission.running == 0)


async def test_leaving_a_plain_answer_in_the_middle() -> None:
    gated = Gated(3)
    async with live(gated.engine) as server:
        _, writer = await connect(server, stream=False)
        await until(lambda: gated.engine.record.open == 1)
        writer.close()
        await until(lambda: gated.engine.record.cancelled == 1)
        await until(lambda: server.gateway.default()[1].service.admission.running == 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_the_queue(stream: bool) -> None:
    gated = Gated(1)
    async with live(gated.engine) as server:
        admission = server.gateway.default()[1].service.admission
        first_reader, first = await connect(server, stream=True)
        await until(lambda: admission.running == 1)
        _, second = await connect(server, stream=stream)
        await until(lambda: admission.waiting == 1)
        second.close()
        await until(lambda: admission.waiting == 0)
        gated.gate.set()
        await first_reader.readuntil(b"[DONE]")
        assert gated.engine.record.started == 1
        first.close()


async def test_leaving_with_another_request_in_the_pipeline() -> None:
    """The newest request of a connection hides the running one from uvicorn."""
    gated = Gated(1)
    async with live(gated.engine) as server:
        reader, writer = await connect(server, stream=True)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        await reader.readuntil(b"word ")
        writer.close()
        await until(lambda: gated.engine.record.cancelled == 1)
        await until(lambda: server.gateway.default()[1].service.admission.running == 0)


async def test_leaving_after_the_last_token_is_nothing() -> None:
    engine = FakeEngine()
    async with live(engine) as server:
        reader, writer = await connect(server, stream=True)
        await reader.readuntil(b"[DONE]")
        writer.close()
        await until(lambda: engine.record.open == 0)
        assert (engine.record.finished, engine.record.cancelled) == (1, 0)


async def test_leaving_with_half_a_body_is_nothing() -> None:
    engine = FakeEngine()
    async with live(engine) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        await writer.drain()
        await until(lambda: len(server.server.server_state.tasks) == 1)
        writer.close()
        await until(lambda: len(server.server.server_state.tasks) == 0)
        assert engine.record.started == 0


async def test_many_disconnects_leave_no_task_socket_or_slot_behind() -> None:
    """A small version of the soak: 200 clients that leave at different moments."""
    gated = Gated(2, slots=4)
    async with live(gated.engine, queue_size=64) as server:
        admission = server.gateway.default()[1].service.admission
        descriptors = _open_files()
        tasks = len(asyncio.all_tasks())
        for round_number in range(10):
            clients = [await connect(server, stream=bool(i % 2)) for i in range(20)]
            await until(lambda: admission.running + admission.waiting == 20)
            for index, (_, writer) in enumerate(clients):
                if (index + round_number) % 3 == 0:
                    await asyncio.sleep(0)
                writer.close()
            await until(lambda: admission.running + admission.waiting == 0)
        await until(lambda: not server.server.server_state.connections)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: _open_files() <= descriptors)
        assert gated.engine.record.open == 0


async def test_a_full_queue_answers_503_with_a_time_and_serves_the_rest() -> None:
    gated = Gated(1)
    async with live(gated.engine, queue_size=1) as server:
        admission = server.gateway.default()[1].service.admission
        clients = [await connect(server, stream=False) for _ in range(1)]
        await until(lambda: admission.running == 1)
        clients.append(await connect(server, stream=False))
        await until(lambda: admission.waiting == 1)
        refused, writer = await connect(server, stream=True)
        head = (await refused.readuntil(b"\r\n\r\n")).lower()
        assert b" 503 " in head
        assert 1 <= int(head.split(b"retry-after: ")[1].split(b"\r\n")[0]) <= 120
        # To refuse the next one too costs less than to take a new connection for it.
        assert b"connection: close" not in head
        assert b'"code":"overloaded"' in await refused.readuntil(b"}}")
        writer.close()
        gated.gate.set()
        for reader, client in clients:
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            client.close()
