"""The engine over one model object: the contract, one answer at a time, leaving, and failures."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from qwen_openai.core import Event, Finish, Job, Message, Sampling, Started, Text, Tool
from qwen_openai.engines.base import Engine
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine, QwenChatOptions
from qwen_openai.engines.qwen_chat.jobs import describe
from qwen_openai.engines.qwen_chat.worker import THREAD_NAME
from qwen_openai.errors import (
    ContextLengthExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    StartupError,
)
from tests.engines.contract import (
    EngineContract,
    collect,
    drain,
    finish_of,
    job,
    started_of,
    text_of,
    until,
)
from tests.engines.qwen_chat.scripted import Scripted, Step

Script = Callable[[str], Iterable[Step]]


def engine_on(model: Scripted, **options: object) -> QwenChatEngine:
    return QwenChatEngine(lambda: model, QwenChatOptions("m", **options))  # type: ignore[arg-type]  # by the tests


@asynccontextmanager
async def running(model: Scripted, **options: object) -> AsyncIterator[QwenChatEngine]:
    engine = engine_on(model, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()
    assert model.open == 0


class TestContract(EngineContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        async with running(Scripted()) as engine:
            yield engine

    @pytest.fixture
    def unstarted(self) -> Engine:
        return engine_on(Scripted())


async def test_info_says_what_was_loaded() -> None:
    model = Scripted(raw=True, kv_values_per_token=262_144, weight_bytes=15 * 10**9)
    async with running(model) as engine:
        info = engine.info()
    assert (info.engine, info.model, info.device, info.slots) == ("qwen_chat", "m", "CPU", 1)
    assert info.family == "qwen1"
    assert info.context == 1024
    assert info.memory == 30 * 10**9  # float16 on disk, float32 where it computes
    assert dict(info.facts) == {
        "computes in": "float32",
        "layout": "Qwen-1, converted while loading",
        "cache": "1,024 KiB a token",
    }


async def test_a_native_model_is_told_by_its_name() -> None:
    async with running(Scripted(raw=False, qwen1=None), context=512) as engine:
        info = engine.info()
    assert (info.family, info.context) == ("", 512)
    assert "layout" not in dict(info.facts)


async def test_jobs_beside_each_other_run_one_after_the_other_in_one_thread() -> None:
    model = Scripted()
    async with running(model) as engine:
        answers = await asyncio.gather(*(collect(engine, job(f"word{n}")) for n in range(5)))
    assert [text_of(events) for events in answers] == [f"word{n} " for n in range(5)]
    assert model.peak == 1
    assert model.threads == {THREAD_NAME}


async def test_pieces_of_the_prompt_make_no_events() -> None:
    async with running(Scripted(lambda _: [None, None, "a"])) as engine:
        events = await collect(engine, job("q"))
    assert [type(event) for event in events] == [Started, Text, Finish]


async def test_qwen_1_gets_history_pairs_and_says_what_changed() -> None:
    messages = (
        Message("user", "one"),
        Message("user", "two"),
        Message("assistant", "three"),
        Message("user", "four"),
    )
    pairs, plain = Scripted(), Scripted(qwen1=None)
    for model in (pairs, plain):
        async with running(model) as engine:
            events = await collect(engine, Job("j", "m", messages))
        changed = started_of(events).changes
        assert any("joined" in change for change in changed) == (model is pairs)
    assert pairs.prompts == ["<turn> one two <turn> three <turn> four <turn>"]
    assert plain.prompts == ["<turn> one <turn> two <turn> three <turn> four <turn>"]


async def test_an_answer_goes_on_from_the_last_message() -> None:
    model = Scripted()
    messages = (Message("user", "one"), Message("assistant", "two three"))
    async with running(model) as engine:
        await collect(engine, Job("j", "m", messages, continue_final_message=True))
        await collect(engine, Job("j", "m", messages))
    assert model.prompts == [
        "<turn> one <turn> two three",
        "<turn> one <turn> two three <turn> <turn>",
    ]


async def test_tools_are_told_in_react_text() -> None:
    model = Scripted()
    tools = (Tool("get_weather", "Tells the weather."),)
    wanted = Job("j", "m", (Message("user", "Rain?"),), tools=tools, tool_syntax="react")
    async with running(model) as engine:
        await collect(engine, wanted)
    assert "get_weather" in model.prompts[0]
    assert "Action Input:" in model.prompts[0]


@pytest.mark.parametrize(
    ("seed", "choice", "wanted"),
    [(None, 2, None), (7, 0, 7), (7, 2, 9), (2**63 - 1, 1, -(2**63)), (-1, 1, 0)],
)
async def test_each_choice_of_a_seed_gets_its_own(
    seed: int | None, choice: int, wanted: int | None
) -> None:
    model = Scripted()
    async with running(model) as engine:
        await collect(engine, job("q", Sampling(seed=seed), choice=choice))
    assert model.samplings[0].seed == wanted


async def test_who_leaves_stops_the_model_at_its_next_step() -> None:
    model = Scripted(lambda _: ["word"] * 500)
    async with running(model) as engine:
        async with aclosing(engine.generate(job("q"))) as events:
            async for event in events:
                if isinstance(event, Text):
                    break
        # Whatever was made by then, the thread is done with it here and now.
        assert (model.open, model.closed) == (0, 1)
        given = model.given
        await collect(engine, job("q", Sampling(max_tokens=3)))
        assert model.given == given + 3


async def test_leaving_waits_for_the_step_that_runs() -> None:
    gate = threading.Event()
    model = Scripted(lambda _: ["a", gate, "b"])
    async with running(model) as engine:
        events = engine.generate(job("q"))
        assert [type(await anext(events)) for _ in range(2)] == [Started, Text]
        leaving = asyncio.ensure_future(events.aclose())
        following = asyncio.ensure_future(collect(engine, job("next", Sampling(max_tokens=1))))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not leaving.done()
        assert (model.open, len(model.prompts)) == (1, 1)
        gate.set()
        await leaving
        await following
    assert model.peak == 1


async def test_a_cancelled_reader_waits_too() -> None:
    gate = threading.Event()
    model = Scripted(lambda _: [gate, "a"])
    async with running(model) as engine:
        reading = asyncio.create_task(collect(engine, job("q")))
        await until(lambda: model.open == 1)
        for _ in range(3):
            reading.cancel()
            await asyncio.sleep(0)
        assert not reading.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert model.open == 0


async def test_one_who_waits_leaves_at_once() -> None:
    gate = threading.Event()
    model = Scripted(lambda _: [gate, "a"])
    async with running(model) as engine:
        first = asyncio.create_task(collect(engine, job("q")))
        await until(lambda: model.open == 1)
        second = asyncio.create_task(collect(engine, job("q")))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
    assert len(model.prompts) == 1


async def test_a_slow_reader_holds_the_model_up() -> None:
    model = Scripted(lambda _: ["word"] * 5000, context_length=8192)
    async with running(model) as engine:
        events = engine.generate(job("q", Sampling(max_tokens=5000)))
        await anext(events)
        before = -1
        while model.given != before:
            before = model.given
            await asyncio.sleep(0.05)
        assert 0 < model.given < 300
        rest: list[Event] = []
        await drain(events, rest)
        assert finish_of(rest).completion_tokens == 5000


@pytest.mark.parametrize("when", [0, 2])
async def test_an_exception_fails_its_job_alone(when: int) -> None:
    def script(query: str) -> list[Step]:
        return [*["a"] * when, RuntimeError("secret prompt")] if "bad" in query else ["fine"]

    model = Scripted(script)
    async with running(model) as engine:
        seen: list[Event] = []
        with pytest.raises(EngineFailed, match="Send the request again") as caught:
            await drain(engine.generate(job("bad")), seen)
        assert "secret" not in caught.value.message
        assert len(seen) == 1 + when
        assert text_of(await collect(engine, job("good"))) == "fine "
        assert engine.health().ready


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
async def test_no_memory_fails_its_job_alone_and_says_what_to_do(error: Exception) -> None:
    model = Scripted(lambda query: ["a", error] if "bad" in query else ["fine"])
    async with running(model) as engine:
        with pytest.raises(EngineFailed, match=r"out of memory.*lower --context"):
            await collect(engine, job("bad"))
        assert model.open == 0
        assert text_of(await collect(engine, job("good"))) == "fine "
        assert engine.health().ready


async def test_a_broken_card_ends_the_engines_health(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    error = torch.AcceleratorError("CUDA error: device-side assert triggered\nmore")
    model = Scripted(lambda query: ["a", error] if "bad" in query else ["fine"])
    async with running(model) as engine:
        with pytest.raises(EngineFailed, match="Send the request again"):
            await collect(engine, job("bad"))  # no card is in use: nothing can be broken
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "synchronize", refuse)
        with pytest.raises(EngineFailed, match="cannot be used again"):
            await collect(engine, job("bad"))
        health = engine.health()
        assert not health.ready
        assert "device-side assert triggered). Restart the server." in health.detail
        with pytest.raises(EngineUnavailable, match="Restart the server"):
            await collect(engine, job("good"))
    assert len(model.prompts) == 2


async def test_cards_that_share_the_weights_are_all_shown() -> None:
    model = Scripted()
    model.model = SimpleNamespace(hf_device_map={"a": "cpu", "b": "mps", "c": "cpu"})  # type: ignore[attr-defined]
    async with running(model) as engine:
        assert engine.info().device == "CPU, mps"
        assert dict(engine.info().facts)["on the CPU"] == (
            "2 of 3 parts of the model did not fit on the cards; every token waits for them"
        )


@pytest.mark.parametrize("places", [{"": "cpu"}, {"a": "xpu:0", "b": "xpu:1"}, {}])
def test_only_a_model_that_is_partly_on_cards_is_offloaded(places: dict[str, object]) -> None:
    model = Scripted()
    model.model = SimpleNamespace(hf_device_map=places)  # type: ignore[attr-defined]
    assert "on the CPU" not in dict(describe(model, "m", 1024).facts)


async def test_an_answer_that_just_ends_is_a_failure() -> None:
    class Short(Scripted):
        def _steps(self, max_tokens: int, index: int) -> Generator[Text | Finish, None, None]:
            yield Text(index, "a")

    async with running(Short()) as engine:
        with pytest.raises(EngineFailed, match="early"):
            await collect(engine, job("q"))


async def test_a_bad_request_reaches_no_model() -> None:
    model = Scripted()
    async with running(model) as engine:
        with pytest.raises(InvalidRequest):
            await collect(engine, replace(job("q"), continue_final_message=True))
        with pytest.raises(ContextLengthExceeded):
            await collect(engine, job("word " * 2000))
        await collect(engine, job("q"))
    assert len(model.prompts) == 1


async def test_closing_fails_who_reads_and_who_waits() -> None:
    gate = threading.Event()
    model = Scripted(lambda _: [gate, "a"])
    engine = engine_on(model)
    await engine.start()
    tasks = [asyncio.create_task(collect(engine, job("q"))) for _ in range(3)]
    await until(lambda: model.open == 1)
    closing = asyncio.create_task(engine.aclose())
    await asyncio.sleep(0)
    gate.set()
    await closing
    for task in tasks:
        with pytest.raises(EngineUnavailable, match="stopping"):
            await task
    assert engine.health().detail == "closed"
    assert len(model.prompts) == 1
    assert not any(thread.name == THREAD_NAME for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StartupError("Said so.", fix="Do so."), r"Said so\."),
        (ValueError("odd shape"), "m could not be loaded: ValueError: odd shape"),
        (torch.OutOfMemoryError("CUDA out of memory"), "did not hold m, its weights"),
    ],
)
async def test_a_model_that_does_not_load_is_one_sentence(error: Exception, message: str) -> None:
    def load() -> Scripted:
        raise error

    engine = QwenChatEngine(load, QwenChatOptions("m"))
    with pytest.raises(StartupError, match=message) as caught:
        await engine.start()
    assert caught.value.fix
    assert not engine.health().ready


async def test_leaving_while_it_loads_waits_for_nothing() -> None:
    gate = threading.Event()

    def load() -> Scripted:
        assert gate.wait(30)
        return Scripted()

    engine = QwenChatEngine(load, QwenChatOptions("m"))
    starting = asyncio.create_task(engine.start())
    await until(lambda: engine.health().detail == "loading")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert engine.health().detail == "closed"
    gate.set()
    await until(lambda: all(thread.name != THREAD_NAME for thread in threading.enumerate()))
