"""The engine's thread when it hangs, dies or cannot log: nobody waits for it in vain."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import openai
import pytest
import structlog
from openai import AsyncOpenAI

from qwen_openai.core import Finish, Text
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine, QwenChatOptions
from qwen_openai.engines.qwen_chat.worker import THREAD_NAME
from qwen_openai.errors import EngineFailed, EngineUnavailable
from qwen_openai.observe.logs import configure
from tests.engines.contract import collect, finish_of, job, text_of, until
from tests.engines.qwen_chat.original import Letters, Original
from tests.engines.qwen_chat.scripted import Scripted, Step
from tests.live import live


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds a step up; opened at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


@asynccontextmanager
async def running(
    script: Callable[[str], Iterable[Step]], **options: object
) -> AsyncIterator[QwenChatEngine]:
    model = Scripted(script)
    engine = QwenChatEngine(lambda: model, QwenChatOptions("m", **options))  # type: ignore[arg-type]  # by the tests
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


async def ready(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/health/ready") as response:
        return response.status


async def ask(client: AsyncOpenAI, text: str) -> str | None:
    answer = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}]
    )
    return answer.choices[0].message.content


class _Unspeakable(Exception):
    """Cannot even be looked at."""

    def __str__(self) -> str:
        raise SystemExit(3)


class _Cramped(RuntimeError, _Unspeakable):
    """Looked at, to see whether memory ran out."""


class _BrokenPipe:
    """A logger whose pipe nobody reads any more."""

    def msg(self, *_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    error = warning = info = msg


@pytest.fixture
def broken_log() -> Iterator[None]:
    structlog.configure(logger_factory=lambda *_: _BrokenPipe())
    yield
    configure(SimpleNamespace(log_level="warning", log_format="json"))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_what_ends_programs_ends_one_answer(error: BaseException) -> None:
    async with running(lambda query: ["a", error] if "bad" in query else ["fine"]) as engine:
        with pytest.raises(EngineFailed, match="Send the request again"):
            await collect(engine, job("bad"))
        assert text_of(await collect(engine, job("good"))) == "fine "
        assert engine.health().ready


async def test_a_foreign_model_that_exits_fails_its_request_alone() -> None:
    def leave(query: str) -> str:
        if "bad" in query:
            raise SystemExit(1)
        return query

    engine = QwenChatEngine.of(Original(leave), Letters(), name="m", context=4096)
    async with (
        live(engine) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="the server's log"):
            await ask(client, "bad")
        assert await ready(server.url) == 200
        assert await ask(client, "good") == "good"


@pytest.mark.usefixtures("broken_log")
async def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    error = ValueError("odd")
    async with running(lambda query: [error] if "bad" in query else ["fine"]) as engine:
        with pytest.raises(EngineFailed, match="Send the request again"):
            await collect(engine, job("bad"))
        assert text_of(await collect(engine, job("good"))) == "fine "


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_dead_thread_is_said_and_waited_for_by_nobody(gate: threading.Event) -> None:
    """The edge itself breaks: whatever did that, requests have an end and readiness shows it."""
    model = Scripted(lambda query: [gate, _Cramped()])
    async with live(QwenChatEngine(lambda: model, QwenChatOptions("m"))) as server:
        engine = server.gateway.default()[1].service.engine
        waiting = [asyncio.create_task(collect(engine, job("q"))) for _ in range(3)]
        await until(lambda: model.open == 1)
        gate.set()
        for task in waiting:
            with pytest.raises(EngineFailed):
                await task
        await until(lambda: not engine.health().ready)
        assert "thread has ended" in engine.health().detail
        assert await ready(server.url) == 503
        with pytest.raises(EngineUnavailable, match="Restart the server"):
            await collect(engine, job("q"))


async def test_a_step_that_hangs_fails_all_who_wait_until_it_ends(gate: threading.Event) -> None:
    async with running(lambda query: [gate, "late"], stall_timeout=0.1) as engine:
        waiting = [asyncio.create_task(collect(engine, job("q"))) for _ in range(3)]
        for task in waiting:
            with pytest.raises(EngineFailed, match=r"has hung: no progress for 0\.1 seconds"):
                await task
        assert engine.health().detail == "no progress for 0.1 seconds"
        with pytest.raises(EngineUnavailable, match="no progress"):
            await collect(engine, job("q"))
        gate.set()
        # It was no hang after all: the thread is done with those who left, and takes new ones.
        await until(lambda: engine.health().ready)
        assert text_of(await collect(engine, job("q"))) == "late "


async def test_a_hang_while_an_answer_is_closed_counts_too(gate: threading.Event) -> None:
    class Clinging(Scripted):
        def _steps(self, max_tokens: int, index: int) -> Generator[Text | Finish, None, None]:
            yield Text(index, "a")
            try:
                yield Finish(index, "stop", 1)
            finally:
                assert gate.wait(30)

    engine = QwenChatEngine(Clinging, QwenChatOptions("m", stall_timeout=0.1))
    await engine.start()
    assert finish_of(await collect(engine, job("q"))).reason == "stop"
    assert not engine.health().ready
    await engine.aclose()


async def test_a_whole_answer_in_one_step_lives_while_it_asks() -> None:
    """`chat` makes many tokens in one step; its stopping criterion is asked at each."""
    model = Original(lambda _: "x" * 20)
    model.steps = lambda: time.sleep(0.02)
    options = QwenChatOptions("m", 4096, stall_timeout=0.2, tokenizer=Letters())
    engine = QwenChatEngine(lambda: model, options)
    await engine.start()
    try:
        events = await collect(engine, replace(job("q"), watched=False))
        assert text_of(events) == "x" * 20
    finally:
        await engine.aclose()


@pytest.mark.parametrize("stall_timeout", [0.1, 600.0])
async def test_closing_leaves_a_stuck_thread_behind(
    gate: threading.Event, stall_timeout: float
) -> None:
    model = Scripted(lambda query: [gate])
    options = QwenChatOptions("m", stall_timeout=stall_timeout)
    engine = QwenChatEngine(lambda: model, options)
    await engine.start()
    waiting = asyncio.create_task(collect(engine, job("q")))
    await until(lambda: model.open == 1)
    waiting.cancel()
    async with asyncio.timeout(10):
        await engine.aclose()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert any(thread.name == THREAD_NAME for thread in threading.enumerate())
    gate.set()
    await until(lambda: all(thread.name != THREAD_NAME for thread in threading.enumerate()))


async def test_a_hang_is_an_error_over_http_and_the_server_still_ends(
    gate: threading.Event,
) -> None:
    model = Scripted(lambda query: [gate])
    engine = QwenChatEngine(lambda: model, QwenChatOptions("m", stall_timeout=0.2))
    async with (
        asyncio.timeout(30),
        live(engine) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="has hung") as caught:
            await ask(client, "q")
        assert caught.value.status_code == 500
        assert await ready(server.url) == 503
        with pytest.raises(openai.InternalServerError, match="not ready") as caught:
            await ask(client, "q")
        assert caught.value.status_code == 503
