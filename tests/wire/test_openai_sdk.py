"""The official clients against a live server: what they send and what they make of our answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step
from qwen_openai.errors import EngineFailed
from tests.live import Live, call, live, threaded
from tests.spec import check

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(FakeEngine, served_model_name=("fake", "Qwen/Qwen-Fake")) as running:
        yield running


@pytest.fixture
def client(server: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(server: Live) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as made:
        yield made


def test_plain(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=HELLO)
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)
    assert answer._request_id


def test_stream(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="fake", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert sum(1 for c in chunks if c.choices and c.choices[0].delta.role) == 1
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_stream_helper_accumulates_the_plain_answer(client: OpenAI) -> None:
    with client.chat.completions.stream(model="fake", messages=HELLO, n=3) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == ["one two three"] * 3
    assert [choice.message.role for choice in final.choices] == ["assistant"] * 3


async def test_async_plain_and_stream(async_client: AsyncOpenAI) -> None:
    answer = await async_client.chat.completions.create(model="fake", messages=HELLO)
    stream = await async_client.chat.completions.create(model="fake", messages=HELLO, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == answer.choices[0].message.content


def test_models(client: OpenAI, shared: Path) -> None:
    assert [model.id for model in client.models.list()] == ["fake", "Qwen/Qwen-Fake"]
    assert client.models.retrieve("Qwen/Qwen-Fake").object == "model"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("Qwen/Other")
    assert missing.value.code == "model_not_found"


def test_every_body_and_chunk_fits_the_specification(server: Live, shared: Path) -> None:
    chat = {"model": "fake", "messages": HELLO, "n": 2}
    check(
        "CreateChatCompletionResponse",
        call(server.port, "POST", "/v1/chat/completions", chat).json(),
    )
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = call(server.port, "POST", "/v1/chat/completions", {**chat, **options})
    frames = answer.body.decode().strip().split("\n\n")
    assert frames[-1] == "data: [DONE]"
    for frame in frames[:-1]:
        check("CreateChatCompletionStreamResponse", json.loads(frame.removeprefix("data: ")))
    check("ListModelsResponse", call(server.port, "GET", "/v1/models").json())
    check("Model", call(server.port, "GET", "/v1/models/fake").json())
    check("ErrorResponse", call(server.port, "GET", "/v1/nothing").json())


def test_errors_become_the_sdks_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="fake", messages=HELLO, temperature=3)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    assert bad.value.request_id
    with pytest.raises(openai.BadRequestError) as tools:
        client.chat.completions.create(
            model="fake",
            messages=HELLO,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )
    assert tools.value.param == "tools"
    words: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="fake", messages=words)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=HELLO)


def test_what_is_ignored_and_changed_is_said(client: OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="fake",
        messages=[*HELLO, {"role": "system", "content": "Be brief."}],
        user="me",
        store=True,
        metadata={"a": "b"},
        max_tokens=10**6,
    )
    ignored = answer.headers["x-qwen-openai-ignored"].split(", ")
    assert sorted(ignored) == ["metadata", "store", "user"]
    assert "system message moved to the front" in answer.headers["x-qwen-openai-changed"]
    assert "max_tokens" in answer.headers["x-qwen-openai-changed"]


def test_stop_strings_and_limits(client: OpenAI) -> None:
    stopped = client.chat.completions.create(model="fake", messages=HELLO, stop=["o thr"])
    assert stopped.choices[0].message.content == "one tw"
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.usage is not None
    assert stopped.usage.completion_tokens == 3
    cut = client.chat.completions.create(model="fake", messages=HELLO, max_completion_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one two", "length")


def _break(after: int) -> FakeEngine:
    def script(job: Job) -> list[Step]:
        return [*["word "] * after, EngineFailed("The engine died.")]

    return FakeEngine(script)


@pytest.mark.parametrize("n", [1, 2])
async def test_a_failure_before_the_first_token_keeps_its_status(n: int) -> None:
    async with live(_break(0)) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError, match="The engine died") as failed:
                await client.chat.completions.create(model="fake", messages=HELLO, stream=True, n=n)
            assert failed.value.code == "engine_error"
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(model="fake", messages=HELLO)
        assert server.gateway.default()[1].service.admission.running == 0


@pytest.mark.parametrize("n", [1, 2])
async def test_a_failure_in_the_middle_of_a_stream_is_an_error_event(n: int) -> None:
    async with (
        live(_break(3)) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="fake", messages=HELLO, stream=True, n=n
        )
        with pytest.raises(openai.APIError, match="The engine died"):
            async for _ in stream:
                pass


@asynccontextmanager
async def langchain(server: Live) -> AsyncIterator[ChatOpenAI]:
    """A LangChain model with clients of its own: the ones it shares outlive a test's loop."""
    async with DefaultAsyncHttpxClient() as client:
        with DefaultHttpxClient() as blocking:
            yield ChatOpenAI(
                base_url=server.base_url,
                api_key="unused",
                model="fake",
                http_async_client=client,
                http_client=blocking,
            )


async def test_langchain(server: Live) -> None:
    async with langchain(server) as model:
        await _use(model)


async def _use(model: ChatOpenAI) -> None:
    expected = "one two three"

    def blocking() -> list[str]:
        return [
            str(model.invoke(expected).content),
            "".join(str(chunk.content) for chunk in model.stream(expected)),
            *[str(answer.content) for answer in model.batch([expected, expected])],
        ]

    assert await asyncio.to_thread(blocking) == [expected] * 4
    answer = await model.ainvoke(expected)
    assert (answer.content, answer.response_metadata["finish_reason"]) == (expected, "stop")
    assert "".join([str(chunk.content) async for chunk in model.astream(expected)]) == expected


async def test_the_usage_chunk_can_be_sent_unasked() -> None:
    async with live(FakeEngine(), always_stream_usage=True) as server, langchain(server) as model:
        chunks = [chunk async for chunk in model.astream("one two three")]
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    assert total.usage_metadata is not None
    assert total.usage_metadata["total_tokens"] == 6
