"""Comments in silent streams, and early ones: what a client sees of a slow answer."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping

import pytest
from openai import APIError, AsyncOpenAI
from starlette.types import Message

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step
from qwen_openai.errors import ContextLengthExceeded, EngineFailed
from qwen_openai.routes.respond import Pings, send_events
from tests.live import call, live, until

_PING = b": ping\n\n"


class Sent:
    """What went to the client; ``held`` makes sending wait."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.held: asyncio.Event | None = None

    async def send(self, message: Message) -> None:
        if self.held is not None:
            await self.held.wait()
        self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [each["body"] for each in self.messages if "body" in each]

    @property
    def pings(self) -> int:
        return self.bodies.count(_PING)


async def _frames(*gates: asyncio.Event, first: Exception | None = None) -> AsyncGenerator[bytes]:
    for number, gate in enumerate(gates):
        await gate.wait()
        if first is not None:
            raise first
        yield b"frame %d" % number


def _head() -> Mapping[str, str]:
    return {"x-told": "late"}


async def test_silence_is_filled_and_a_busy_stream_has_none() -> None:
    sent, gates = Sent(), [asyncio.Event() for _ in range(3)]
    gates[0].set()
    work = asyncio.create_task(
        send_events(sent.send, _frames(*gates), headers=_head, pings=Pings(0.02))
    )
    await until(lambda: sent.pings >= 2)
    gates[1].set()
    gates[2].set()
    await work
    assert sent.messages[0]["type"] == "http.response.start"
    assert (b"x-told", b"late") in sent.messages[0]["headers"]
    assert [each for each in sent.bodies if each != _PING] == [
        b"frame 0",
        b"frame 1",
        b"frame 2",
        b"data: [DONE]\n\n",
    ]
    assert sent.messages[-1]["more_body"] is False
    after = len(sent.messages)
    await asyncio.sleep(0.06)
    assert len(sent.messages) == after


async def test_before_the_first_frame_there_is_silence_unless_asked_for() -> None:
    sent, gate = Sent(), asyncio.Event()
    work = asyncio.create_task(send_events(sent.send, _frames(gate), pings=Pings(0.01)))
    await asyncio.sleep(0.05)
    assert sent.messages == []
    gate.set()
    await work
    assert sent.pings == 0


async def test_early_comments_begin_the_stream() -> None:
    sent, gate = Sent(), asyncio.Event()
    work = asyncio.create_task(
        send_events(sent.send, _frames(gate), headers=_head, pings=Pings(0.01, early=True))
    )
    await until(lambda: sent.pings >= 2)
    gate.set()
    await work
    starts = [each for each in sent.messages if each["type"] == "http.response.start"]
    assert len(starts) == 1
    assert sent.messages[0] is starts[0]


@pytest.mark.parametrize("early", [True, False])
async def test_a_failure_keeps_its_status_until_the_stream_has_begun(early: bool) -> None:
    sent, gate = Sent(), asyncio.Event()
    frames = _frames(gate, first=EngineFailed("broke"))
    work = asyncio.create_task(send_events(sent.send, frames, pings=Pings(0.01, early=early)))
    if not early:
        gate.set()
        with pytest.raises(EngineFailed):
            await work
        assert sent.messages == []
        return
    await until(lambda: sent.pings >= 1)
    gate.set()
    await work
    assert b'"engine_error"' in sent.bodies[-1]
    assert sent.bodies[-1].endswith(b"data: [DONE]\n\n")


async def test_a_frame_waits_for_headers_that_are_on_their_way() -> None:
    sent, gate = Sent(), asyncio.Event()
    sent.held = asyncio.Event()
    work = asyncio.create_task(send_events(sent.send, _frames(gate), pings=Pings(0.01, early=True)))
    await asyncio.sleep(0.05)
    gate.set()
    await asyncio.sleep(0)
    sent.held.set()
    await work
    assert [each["type"] for each in sent.messages][:2] == [
        "http.response.start",
        "http.response.body",
    ]
    assert sent.messages[-1]["more_body"] is False


async def test_a_cancelled_stream_leaves_no_timer() -> None:
    sent, gate = Sent(), asyncio.Event()
    work = asyncio.create_task(send_events(sent.send, _frames(gate), pings=Pings(0.01, early=True)))
    await until(lambda: sent.pings >= 1)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert b"shutting down" in sent.bodies[-1]
    after = len(sent.messages)
    await asyncio.sleep(0.05)
    assert len(sent.messages) == after


async def test_sdk_reads_a_stream_with_comments_and_an_early_failure() -> None:
    release = asyncio.Event()

    def script(job: Job) -> Iterable[Step]:
        if job.messages[-1].content == "fail":
            return [release, ContextLengthExceeded("too long")]
        return [release, "late", 0.05, " word"]

    async with live(FakeEngine(script), ping_interval=0.01, ping_early=True) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0)

        async def ask(text: str) -> str:
            stream = await client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": text}], stream=True
            )
            release.set()
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        # The headers come although no token has.
        assert await ask("go") == "late word"
        release.clear()
        with pytest.raises(APIError, match="too long"):
            await ask("fail")
        await client.close()


async def test_an_early_failure_keeps_its_status() -> None:
    engine = FakeEngine(lambda job: [ContextLengthExceeded("too long")])
    async with live(engine, ping_early=True) as server:
        body = {"model": "fake", "messages": [{"role": "user", "content": "x"}], "stream": True}
        answer = await asyncio.to_thread(call, server.port, "POST", "/v1/chat/completions", body)
        assert answer.status == 400
