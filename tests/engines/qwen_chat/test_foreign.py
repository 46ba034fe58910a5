"""A model object of the original's shape, with the original's defects, behind the engine."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from qwen_openai.core import Grammar, Job, Message, RawPrompt, Sampling, Text, Tool
from qwen_openai.engines.base import Engine
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine, QwenChatOptions
from qwen_openai.errors import (
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    StartupError,
    UnsupportedParameter,
)
from tests.engines.contract import (
    EngineContract,
    collect,
    finish_of,
    job,
    started_of,
    text_of,
    until,
)
from tests.engines.qwen_chat.original import Letters, Original


@asynccontextmanager
async def running(
    model: Original, *, tokenizer: object = None, context: int = 4096
) -> AsyncIterator[QwenChatEngine]:
    engine = QwenChatEngine.of(
        model,
        tokenizer or Letters(),  # type: ignore[arg-type]  # other tokenizers of the tests
        name="qwen-7b-chat",
        context=context,
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


class TestContract(EngineContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        async with running(Original()) as engine:
            yield engine

    @pytest.fixture
    def unstarted(self) -> Engine:
        return QwenChatEngine.of(Original(), Letters(), name="m", context=1024)


@pytest.mark.parametrize("watched", [True, False])
async def test_text_counts_and_reason_are_right(watched: bool) -> None:
    async with running(Original(lambda _: "Grüße, 你好")) as engine:
        wanted = replace(job("Hi"), watched=watched)
        for limit in (1, 4, 8, 9):
            events = await collect(engine, replace(wanted, sampling=Sampling(max_tokens=limit)))
            assert text_of(events) == "Grüße, 你好"[:limit]
            assert finish_of(events).reason == "length"
            assert finish_of(events).completion_tokens == limit
        for limit in (10, 100):
            events = await collect(engine, replace(wanted, sampling=Sampling(max_tokens=limit)))
            assert text_of(events) == "Grüße, 你好"
            assert finish_of(events).reason == "stop"
            assert finish_of(events).completion_tokens == 9


@pytest.mark.parametrize("watched", [True, False])
async def test_every_call_gets_lists_of_its_own(watched: bool) -> None:
    model = Original()
    messages = (
        Message("system", "Be kind."),
        Message("user", "e\u0301"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    async with running(model) as engine:
        for _ in range(2):
            await collect(engine, Job("j", "m", messages, watched=watched))
    for call in model.calls:
        assert call["history"] == [("é", "b")]
        assert call["query"] == "c"
        assert call["system"] == "Be kind."


@pytest.mark.parametrize(
    ("temperature", "wanted"), [(0.0, (1.0, 1)), (1e-4, (1.0, 1)), (1, (1.0, 0)), (2, (2.0, 0))]
)
async def test_greedy_is_one_candidate(temperature: float, wanted: tuple[float, int]) -> None:
    model = Original()
    async with running(model) as engine:
        await collect(engine, job("q", Sampling(temperature=temperature, top_p=1)))
    assert (model.calls[0]["temperature"], model.calls[0]["top_k"]) == wanted


async def test_the_prompt_is_counted_as_the_original_builds_it() -> None:
    """By characters: 7 roles and marks of the default system, the query's turn, the answer's."""
    async with running(Original()) as engine:
        events = await collect(engine, job("four"))
    system = 1 + len("system\n") + len("You are a helpful assistant.") + 2
    user = 1 + len("user\n") + len("four") + 2
    assert started_of(events).prompt_tokens == system + user + 1 + len("assistant\n")


async def test_old_pairs_are_dropped_and_said() -> None:
    model = Original()
    messages = [Message("user", "q" * 100), Message("assistant", "a" * 100)] * 4
    wanted = Job(
        "j", "m", (*messages, Message("user", "last")), Sampling(max_tokens=10),
        drop_oldest_pairs=True,
    )  # fmt: skip
    async with running(model, context=512) as engine:
        events = await collect(engine, wanted)
        assert started_of(events).changes == ("history: dropped 3 oldest pairs",)
        with pytest.raises(ContextLengthExceeded):
            await collect(engine, replace(wanted, drop_oldest_pairs=False))
    assert len(model.calls) == 1
    assert model.calls[0]["history"] == [("q" * 100, "a" * 100)]


async def test_the_models_own_window_bounds_the_context() -> None:
    model = Original()
    model.generation_config = SimpleNamespace(max_window_size=600)  # type: ignore[attr-defined]
    async with running(model) as engine:
        assert engine.info().context == 600
        assert engine.info().family == "qwen1"
        assert engine.info().device == "cuda:0"


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (Sampling(presence_penalty=0.5), "presence_penalty"),
        (Sampling(frequency_penalty=-1), "frequency_penalty"),
        (Sampling(min_p=0.1), "min_p"),
        (Sampling(seed=0), "seed"),
        (Sampling(logprobs=0), "logprobs"),
        (Sampling(logit_bias=((1, 1.0),)), "logit_bias"),
        (Sampling(stop_token_ids=(1,)), "stop_token_ids"),
        (Sampling(min_tokens=1), "min_tokens"),
        (Sampling(ignore_eos=True), "ignore_eos"),
    ],
)
async def test_what_it_cannot_do_is_refused(sampling: Sampling, param: str) -> None:
    model = Original()
    async with running(model) as engine:
        assert param in engine.info().refuses
        with pytest.raises(UnsupportedParameter) as caught:
            await collect(engine, job("q", sampling))
        assert caught.value.param == param
    assert model.calls == []


@pytest.mark.parametrize("param", ["response_format", "structured_outputs", "tool_choice", "tools"])
async def test_it_cannot_be_held_to_a_grammar(param: str) -> None:
    model = Original()
    async with running(model) as engine:
        assert param in engine.info().refuses
        with pytest.raises(UnsupportedParameter) as caught:
            await collect(engine, replace(job("q"), grammar=Grammar("answer: /a/", param)))
        assert caught.value.param == param
    assert model.calls == []


async def test_it_takes_conversations_only() -> None:
    async with running(Original()) as engine:
        with pytest.raises(UnsupportedParameter) as caught:
            await collect(engine, replace(job("q"), prompt=RawPrompt("a")))
        assert caught.value.param == "prompt"


async def test_info_tells_that_it_takes_tools() -> None:
    async with running(Original()) as engine:
        assert (engine.info().tools, engine.info().thinking) == ("react", "never")


async def test_it_cannot_continue_a_message() -> None:
    messages = (Message("user", "a"), Message("assistant", "b"))
    async with running(Original()) as engine:
        with pytest.raises(InvalidRequest) as caught:
            await collect(engine, Job("j", "m", messages, continue_final_message=True))
    assert caught.value.param == "continue_final_message"


async def test_tools_go_into_the_query() -> None:
    model = Original()
    tools = (Tool("get_weather", "Tells the weather."),)
    wanted = Job("j", "m", (Message("user", "Rain?"),), tools=tools, tool_syntax="react")
    async with running(model) as engine:
        await collect(engine, wanted)
    assert "get_weather" in str(model.calls[0]["query"])


async def test_who_leaves_a_stream_closes_it() -> None:
    model = Original(lambda _: "x" * 1000)
    async with running(model) as engine:
        async with aclosing(engine.generate(job("q"))) as events:
            async for event in events:
                if isinstance(event, Text):
                    break
        assert model.closed == 1
        assert model.given < 1000


async def test_who_leaves_an_unwatched_answer_ends_it_within_a_token() -> None:
    begun, gate = threading.Event(), threading.Event()
    model = Original(lambda _: "x" * 1000)

    def step() -> None:
        begun.set()
        assert gate.wait(30)

    model.steps = step
    async with running(model) as engine:
        reading = asyncio.create_task(collect(engine, replace(job("q"), watched=False)))
        await until(begun.is_set)
        reading.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert model.given == 1


@pytest.mark.parametrize("watched", [True, False])
async def test_its_exceptions_fail_one_answer(watched: bool) -> None:
    def reply(query: str) -> str:
        if query == "bad":
            raise RuntimeError("The size of tensor a (8192) must match tensor b (8193)")
        return "good"

    async with running(Original(reply)) as engine:
        with pytest.raises(EngineFailed):
            await collect(engine, replace(job("bad"), watched=watched))
        assert text_of(await collect(engine, replace(job("fine"), watched=watched))) == "good"


class Jumpy(Original):
    """A stream whose texts are no prefixes of each other, with broken characters at their ends."""

    texts: Sequence[str] = ()

    def chat_stream(self, *_: object, **__: object) -> Iterator[str]:
        yield from self.texts


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["a", "ab", "abc"], "abc"),
        (["a", "a\ufffd", "a你"], "a你"),
        (["a", "a\ufffd"], "a"),
        (["abc", "ab", "abcd"], "abcd"),
        (["Hello", "Hallo you"], "Hello you"),
        (["", "", "x"], "x"),
        ([], ""),
    ],
)
async def test_a_stream_that_jumps_does_not_break(texts: list[str], wanted: str) -> None:
    model = Jumpy()
    model.texts = texts
    async with running(model) as engine:
        events = await collect(engine, job("q"))
    assert text_of(events) == wanted
    assert finish_of(events).completion_tokens == len(wanted)


async def test_a_tokenizer_that_knows_no_tiktoken_will_do() -> None:
    class Plain:
        def encode(self, text: str) -> list[int]:
            return [0] * len(text)

    async with running(Original(), tokenizer=Plain()) as engine:
        events = await collect(engine, job("hello", Sampling(max_tokens=3)))
    assert text_of(events) == "hel"


async def test_a_model_without_its_tokenizer_is_refused() -> None:
    engine = QwenChatEngine(Original, QwenChatOptions("m"))
    with pytest.raises(StartupError, match="without its tokenizer"):
        await engine.start()


async def test_a_lone_surrogate_is_refused_before_the_model_sees_it() -> None:
    async with running(Original()) as engine:
        with pytest.raises(InvalidRequest, match="surrogate"):
            await collect(engine, job("\ud800"))
