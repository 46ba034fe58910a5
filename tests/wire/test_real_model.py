"""The product on the real model: official clients, many streams, a killed engine."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient
from openai.types.chat import ChatCompletionMessageParam

from qwen_openai.engines.llamacpp import LlamaCppEngine
from tests.live import Live, live, until
from tests.real import MODEL, real_engine

pytestmark = pytest.mark.real

CHINESE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "你好"}]
STORY: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell a very long story about a river. Never stop."}
]


def _engine(**values: object) -> LlamaCppEngine:
    engine = real_engine(**values)
    assert isinstance(engine, LlamaCppEngine)
    return engine


@pytest.fixture
async def server() -> AsyncIterator[Live]:
    async with live(_engine()) as running:
        yield running


@pytest.fixture
async def client(server: Live) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as made:
        yield made


def _is_chinese(text: str) -> bool:
    return sum("\u4e00" <= character <= "\u9fff" for character in text) >= 3


async def test_sensible_chinese_through_every_client(server: Live, client: AsyncOpenAI) -> None:
    async with aiohttp.ClientSession() as session:
        body = {"prompt": "你好", "history": []}
        async with session.post(server.url, json=body) as response:
            legacy = await response.json()
    assert legacy["status"] == 200
    assert _is_chinese(legacy["response"])
    assert legacy["history"] == [["你好", legacy["response"]]]
    plain = await client.chat.completions.create(model=MODEL, messages=CHINESE, max_tokens=64)
    assert _is_chinese(plain.choices[0].message.content or "")
    async with DefaultAsyncHttpxClient() as asynchronous:
        with DefaultHttpxClient() as synchronous:
            model = ChatOpenAI(
                base_url=server.base_url,
                api_key="x",
                model=MODEL,
                http_async_client=asynchronous,
                http_client=synchronous,
            )
            await _check_langchain(model)


async def _check_langchain(model: ChatOpenAI) -> None:
    assert _is_chinese(str((await model.ainvoke("你好")).content))
    assert _is_chinese("".join([str(c.content) async for c in model.astream("你好")]))

    def blocking() -> list[str]:
        whole = [str(model.invoke("你好").content)]
        whole.append("".join(str(chunk.content) for chunk in model.stream("你好")))
        return whole + [str(answer.content) for answer in model.batch(["你好", "你好"])]

    assert all(_is_chinese(text) for text in await asyncio.to_thread(blocking))


CASES: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 1.2, "seed": 7, "top_p": 0.95, "extra_body": {"top_k": 0}},
    "stop string": {"temperature": 0, "stop": ["river", "\n\n"]},
    "penalties": {"temperature": 0, "presence_penalty": 1, "frequency_penalty": 0.5},
    "cut": {"temperature": 0, "max_completion_tokens": 3},
    "emoji": {
        "temperature": 0,
        "messages": [{"role": "user", "content": "Reply only with ten different emoji."}],
    },
}


@pytest.mark.parametrize("name", CASES)
async def test_the_collected_stream_is_the_plain_answer(client: AsyncOpenAI, name: str) -> None:
    """One request at a time, prompt cache off: the same request then repeats exactly."""
    body = {"model": MODEL, "messages": STORY, "max_tokens": 24, "n": 1, **CASES[name]}
    plain = await client.chat.completions.create(**body)  # type: ignore[call-overload]  # a table
    async with client.chat.completions.stream(
        **{k: v for k, v in body.items() if k != "stream"},  # type: ignore[arg-type]  # a table
        stream_options={"include_usage": True},
    ) as stream:
        async for event in stream:
            assert event.type != "refusal.delta"
        # Not the final completion, which the SDK refuses to give for an answer cut by length.
        collected = stream.current_completion_snapshot
    assert collected.choices[0].message.content == plain.choices[0].message.content
    assert collected.choices[0].finish_reason == plain.choices[0].finish_reason
    assert collected.usage is not None
    assert collected.usage.model_dump() == plain.usage.model_dump()
    assert 0 < plain.usage.completion_tokens <= 24
    if name != "emoji":
        assert plain.choices[0].finish_reason == ("stop" if name == "stop string" else "length")


async def test_sixteen_streams_each_get_their_own_text() -> None:
    async with (
        live(_engine(slots=16, context=256)) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
    ):

        async def one(number: int) -> tuple[str, str]:
            code = f"{(number + 1) * 7919 % 10000:04d}"
            stream = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"Repeat this number: {code}"}],
                temperature=0,
                max_tokens=16,
                stream=True,
            )
            return code, "".join(
                [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            )

        answers = await asyncio.gather(*(one(number) for number in range(16)))
        codes = [code for code, _ in answers]
        assert len(set(codes)) == 16
        for code, text in answers:
            assert code in text, (code, text)
            assert not any(other in text for other in codes if other != code)


async def test_choices_differ_and_repeat_with_their_seed(client: AsyncOpenAI) -> None:
    async def ask() -> list[str | None]:
        answer = await client.chat.completions.create(
            model=MODEL, messages=STORY, max_tokens=12, n=3, seed=11, temperature=1.5, top_p=1
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 36
        return [choice.message.content for choice in answer.choices]

    first = await ask()
    assert len(set(first)) == 3
    # Beside each other llama.cpp's sums may differ in the last bit; one by one they do not.
    alone = [
        (
            await client.chat.completions.create(
                model=MODEL, messages=STORY, max_tokens=12, seed=11, temperature=1.5, top_p=1
            )
        )
        .choices[0]
        .message.content
        for _ in range(2)
    ]
    assert alone[0] == alone[1]


async def test_who_leaves_frees_the_slot_within_a_token() -> None:
    async with (
        live(_engine(slots=1, default_max_tokens=2000)) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model=MODEL, messages=STORY, stream=True, temperature=0
        )
        await anext(aiter(stream))
        await stream.close()
        admission = server.gateway.default()[1].service.admission
        await until(lambda: admission.running == 0)
        # The one slot is free in the engine too: another answer comes, long before the first
        # one's two thousand tokens could have been made.
        async with asyncio.timeout(20):
            answer = await client.chat.completions.create(
                model=MODEL, messages=CHINESE, max_tokens=2
            )
        assert answer.usage is not None


async def test_a_killed_engine_is_told_to_every_stream_and_comes_back() -> None:
    engine = _engine(slots=4)
    async with (
        live(engine) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
    ):
        streams = [
            await client.chat.completions.create(model=MODEL, messages=STORY, stream=True)
            for _ in range(4)
        ]
        iterators = [aiter(stream) for stream in streams]
        for iterator in iterators:
            await anext(iterator)
        before = engine.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)

        async def rest(iterator: AsyncIterator[object]) -> None:
            async for _ in iterator:
                pass

        # Promised within a second; guarded at five times that.
        async with asyncio.timeout(5):
            for iterator in iterators:
                with pytest.raises(openai.APIError, match="engine process died"):
                    await rest(iterator)
        async with aiohttp.ClientSession() as session:

            async def ready() -> int:
                async with session.get(f"{server.url}/health/ready") as response:
                    return response.status

            # The child is stopped dead as it comes back, so that the gap can be looked at.
            await until(lambda: engine.pid not in (None, before))
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
            try:
                assert await ready() == 503
                with pytest.raises(openai.InternalServerError) as refused:
                    await client.chat.completions.create(model=MODEL, messages=CHINESE)
                assert refused.value.status_code == 503
                assert int(refused.value.response.headers["retry-after"]) >= 1
            finally:
                os.kill(engine.pid, signal.SIGCONT)
            await until(lambda: engine.health().ready)
            assert await ready() == 200
        assert engine.pid != before
        answer = await client.chat.completions.create(
            model=MODEL, messages=CHINESE, max_tokens=16, temperature=0
        )
        assert _is_chinese(answer.choices[0].message.content or "")


async def test_the_context_is_exact(server: Live, client: AsyncOpenAI) -> None:
    """The longest prompt that fits leaves one token; one more is refused with both numbers."""

    async def ask(words: int) -> tuple[int, str]:
        answer = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": " a" * words}], max_tokens=5
        )
        assert answer.usage is not None
        return answer.usage.prompt_tokens, answer.choices[0].finish_reason

    async with live(_engine(context=256, slots=1)) as small:
        client = client.with_options(base_url=small.base_url)
        tokens, _ = await ask(100)
        longest = 100 + 255 - tokens
        assert await ask(longest) == (255, "length")
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(longest + 1)
    assert refused.value.code == "context_length_exceeded"
    assert "256" in refused.value.message
    assert refused.value.param == "messages"


async def test_control_tokens_in_user_text_do_nothing(client: AsyncOpenAI) -> None:
    """The prompt of hostile text is longer than that of its control tokens would be."""

    async def tokens(text: str) -> int:
        answer = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=1
        )
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    base = await tokens("")
    assert await tokens("<|im_end|>") - base > 1
    assert await tokens("<|im_start|>") - base > 1
