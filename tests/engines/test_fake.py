"""The fake engine: the contract, and what scripts can do."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from qwen_openai.core import Event, Finish, Job, Message, RawPrompt, Sampling, Started, Text
from qwen_openai.engines.base import Engine
from qwen_openai.engines.fake import FakeEngine, Record, Step, reply
from qwen_openai.errors import (
    ContextLengthExceeded,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
)
from tests.engines.contract import EngineContract, collect, drain, job, started_of, text_of
from tests.engines.wishes import TokenContract, wish


class TestContract(EngineContract, TokenContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        engine = FakeEngine()
        await engine.start()
        yield engine
        await engine.aclose()
        assert engine.record.open == 0

    @pytest.fixture
    def unstarted(self) -> Engine:
        return FakeEngine()


async def started(*args: object, **options: object) -> FakeEngine:
    engine = FakeEngine(*args, **options)  # type: ignore[arg-type]  # passed through by the tests
    await engine.start()
    return engine


@pytest.mark.parametrize("text", ["", " ", "one", " two  words\n", "你好 世界", "tail  "])
async def test_echo_gives_back_every_character(text: str) -> None:
    assert text_of(await collect(await started(), job(text))) == text


async def test_replies_go_round() -> None:
    engine = await started(reply("a b", "c"))
    texts = [text_of(await collect(engine, job())) for _ in range(3)]
    assert texts == ["a b", "c", "a b"]


@pytest.mark.parametrize(("tokens", "events"), [(0, 0), (1, 2), (3, 4)])
async def test_an_error_comes_where_the_script_puts_it(tokens: int, events: int) -> None:
    def script(_: Job) -> list[Step]:
        return [*["x"] * tokens, Overloaded("full")]

    engine = await started(script)
    seen: list[Event] = []
    with pytest.raises(Overloaded):
        await drain(engine.generate(job()), seen)
    assert len(seen) == events
    assert engine.record == Record(started=1, failed=1, peak=1)


async def test_a_gate_holds_the_stream() -> None:
    gate = asyncio.Event()
    engine = await started(lambda _: ["a", gate, "b"])
    events = engine.generate(job())
    assert [await anext(events), await anext(events)] == [Started(0, 73), Text(0, "a")]
    held = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    assert not held.done()
    assert engine.record.open == 1
    gate.set()
    assert await held == Text(0, "b")
    assert await anext(events) == Finish(0, "stop", 2)
    await events.aclose()
    assert engine.record == Record(started=1, finished=1, peak=1)


async def test_closing_the_engine_ends_a_wait() -> None:
    engine = await started(lambda _: ["a", 3600.0])
    events = engine.generate(job())
    assert [await anext(events), await anext(events)] == [Started(0, 73), Text(0, "a")]
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await engine.aclose()
    with pytest.raises(EngineFailed, match="stopped"):
        await waiting
    assert engine.record == Record(started=1, failed=1, peak=1)


async def test_the_record_counts_cancelled_jobs() -> None:
    engine = await started(lambda _: ["a", "b"])
    events = engine.generate(job())
    await anext(events)
    await events.aclose()
    assert engine.record == Record(started=1, cancelled=1, peak=1)
    assert list(engine.jobs) == [job()]


async def test_the_loop_gets_its_turns() -> None:
    engine = await started(lambda _: ["x"] * 100, yield_every=10)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count())
    await collect(engine, job())
    counter.cancel()
    assert turns >= 10


async def test_health_is_switched() -> None:
    engine = await started()
    engine.set_health(False, "restarting")
    assert not engine.health().ready
    with pytest.raises(EngineUnavailable, match="restarting"):
        await collect(engine, job())
    engine.set_health(True)
    assert text_of(await collect(engine, job("back"))) == "back"


@pytest.mark.parametrize(("count_by", "fits"), [("words", True), ("characters", False)])
async def test_tokens_are_words_or_characters(count_by: str, fits: bool) -> None:
    engine = await started(context=10, count_by=count_by)
    if fits:
        await collect(engine, job("several long words"))
    else:
        with pytest.raises(ContextLengthExceeded, match="18 tokens"):
            await collect(engine, job("several long words"))


def conversation(pairs: int) -> tuple[Message, ...]:
    turns = [Message("user", "one two"), Message("assistant", "three four")] * pairs
    return (Message("system", "be kind"), *turns, Message("user", "last words"))


async def test_old_pairs_are_dropped_only_when_asked() -> None:
    engine = await started(context=10)
    long = Job("j", "m", conversation(3), Sampling(max_tokens=1))
    with pytest.raises(ContextLengthExceeded):
        await collect(engine, long)
    dropping = Job("j", "m", conversation(3), Sampling(max_tokens=1), drop_oldest_pairs=True)
    events = await collect(engine, dropping)
    assert events[0] == Started(0, 8, changes=("history: dropped 2 oldest pairs",))
    defaulted = Job("j", "m", conversation(3), Sampling(max_tokens=9), drop_oldest_pairs=True)
    events = await collect(engine, defaulted)
    assert events[0] == Started(0, 8, changes=("history: dropped 2 oldest pairs",))
    hopeless = Job("j", "m", (Message("user", "w " * 20),), drop_oldest_pairs=True)
    with pytest.raises(ContextLengthExceeded):
        await collect(engine, hopeless)


async def test_it_plays_any_model() -> None:
    plain = (await started()).info()
    assert (plain.tools, plain.thinking, plain.fills_in, plain.family) == (None, "never", False, "")
    engine = await started(tools="xml", thinking="switched", fills_in=True, family="qwen3.5")
    info = engine.info()
    assert (info.tools, info.thinking) == ("xml", "switched")
    assert (info.fills_in, info.family) == (True, "qwen3.5")


async def test_a_prompt_ends_in_a_thought_where_the_model_opens_one() -> None:
    engine = await started(in_thought=True)
    assert started_of(await collect(engine, job())).in_thought
    prompt = Job("j", "m", (), prompt=RawPrompt("once more"))
    events = await collect(engine, prompt)
    assert not started_of(events).in_thought
    assert text_of(events) == "once more"


async def test_a_word_has_one_id() -> None:
    engine = await started()
    first = await engine.tokenize(job("a b a b"))
    assert await engine.tokenize(job("a b a b")) == first
    assert first[1] == first[3]
    assert len(set(first)) == 3  # a word has its blank
    assert await engine.tokenize(Job("j", "m", (), prompt=RawPrompt((5, 7)))) == [5, 7]


async def test_what_is_too_short_is_written_on() -> None:
    engine = await started(reply("one"))
    assert text_of(await collect(engine, wish(min_tokens=3))) == "one and and"


async def test_a_raw_prompt_that_does_not_fit_is_named() -> None:
    engine = await started(context=2)
    with pytest.raises(ContextLengthExceeded) as caught:
        await collect(engine, Job("j", "m", (), prompt=RawPrompt((1, 2, 3))))
    assert caught.value.param == "prompt"
