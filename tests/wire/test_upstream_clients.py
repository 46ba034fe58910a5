"""The official clients through a gateway to an upstream: plain, as streams, with tools."""

import asyncio
import functools
import operator
from collections.abc import Iterator

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import (
    ChatCompletionMessageParam,
    ChatCompletionMessageToolCallUnion,
    ChatCompletionToolParam,
)

from tests.live import Live, threaded
from tests.upstream.deltas import whole
from tests.upstream.process import Mock, ask, mocks

TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def said(text: str) -> list[ChatCompletionMessageParam]:
    """One message."""
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


@pytest.fixture(scope="module")
def server(pair: list[Mock]) -> Iterator[Live]:
    rows = [{"name": mock.name, "url": mock.url} for mock in pair]
    values: dict[str, object] = {
        "engine": "upstream",
        "upstreams": rows,
        "aliases": {"gpt-4o": "m"},
        "probe_interval": 0.2,
        # The tests' failures are no reason to leave an upstream alone in the test after.
        "breaker_failures": 1000,
    }
    with threaded(lambda: None, lambda app: app, **values) as running:
        while ask(running.port, "GET", "/health/ready")[0] != 200:
            pass
        yield running


@pytest.fixture
def client(server: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as made:
        yield made


def test_plain(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=said("hi"), max_tokens=5)
    assert answer.choices[0].message.content == whole("hi", 5)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1, 5)
    assert answer.model == "m"


def test_an_alias(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=said("hi"), max_tokens=2)
    assert answer.choices[0].message.content == whole("hi", 2)
    assert answer.model == "gpt-4o"
    assert {"m", "gpt-4o"} <= {model.id for model in client.models.list()}


def test_headers_tell_where_it_came_from(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="m", messages=said("hi"))
    assert raw.headers["x-gateway-upstream"] in ("a", "b")
    assert raw.headers["x-gateway-attempts"] == "1"
    assert float(raw.headers["x-gateway-queue-ms"]) >= 0


def test_stream(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="m",
            messages=said("hi"),
            max_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert sum(1 for each in chunks if each.choices and each.choices[0].delta.role) == 1
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == whole("hi", 9)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9


def test_the_streaming_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(model="m", messages=said("hi"), max_tokens=4) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole("hi", 4)
    assert final.choices[0].message.role == "assistant"


def test_several_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=said("hi"), max_tokens=3, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.message.content for choice in answer.choices} == {whole("hi", 3)}


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model="m", prompt="hi", max_tokens=3)
    assert answer.choices[0].text == whole("hi", 3)
    chunks = client.completions.create(model="m", prompt="hi", max_tokens=3, stream=True)
    assert "".join(each.choices[0].text for each in chunks if each.choices) == whole("hi", 3)


def test_responses(client: OpenAI) -> None:
    answer = client.responses.create(model="m", input="hi", max_output_tokens=3)
    assert answer.output_text == whole("hi", 3)


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: OpenAI, stream: bool) -> None:
    """A call, its result, the answer."""
    messages = said("How is it in Paris?")
    calls: list[ChatCompletionMessageToolCallUnion]
    if stream:
        with client.chat.completions.stream(model="m", messages=messages, tools=[TOOL]) as running:
            parsed = running.get_final_completion().choices[0]
            reason, calls = parsed.finish_reason, [*(parsed.message.tool_calls or ())]
    else:
        plain = client.chat.completions.create(model="m", messages=messages, tools=[TOOL])
        reason = plain.choices[0].finish_reason
        calls = plain.choices[0].message.tool_calls or []
    assert reason == "tool_calls"
    [call] = calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
    messages += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": "weather", "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "sun"},
    ]
    answer = client.chat.completions.create(
        model="m", messages=messages, tools=[TOOL], max_tokens=3
    )
    assert answer.choices[0].message.content == whole("sun", 3)


def test_a_broken_stream_raises(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="m", messages=said("x mock:at=2,deltas=5,ending=cut"), stream=True
    )
    seen: list[str] = []

    def read() -> None:
        for chunk in stream:
            seen.extend(choice.delta.content or "" for choice in chunk.choices)

    with pytest.raises(openai.APIError):
        read()
    assert whole("x mock:at=2,deltas=5,ending=cut", 2).startswith("".join(seen))


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("status=400", openai.BadRequestError),
        ("status=429", openai.InternalServerError),
        ("status=401", openai.InternalServerError),
        ("status=500", openai.InternalServerError),
    ],
)
def test_failures_raise_what_they_should(
    client: OpenAI, behaviour: str, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind):
        client.chat.completions.create(model="m", messages=said(f"x mock:{behaviour}"))


async def test_many_at_once(server: Live) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client:

        async def one(index: int) -> None:
            text = f"q{index}"
            answer = await client.chat.completions.create(
                model="m", messages=said(text), max_tokens=4
            )
            assert answer.choices[0].message.content == whole(text, 4)

        await asyncio.gather(*(one(index) for index in range(60)))


@tool
def weather(city: str) -> str:
    """Weather of a city."""
    return f"sun in {city}"


@pytest.fixture
def langchain(server: Live) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=server.base_url, api_key="unused", model="m", max_retries=0, stream_usage=True
    )


def test_langchain_plain_and_stream(langchain: ChatOpenAI) -> None:
    assert langchain.invoke("hi", max_tokens=4).content == whole("hi", 4)
    chunks = list(langchain.stream("hi", max_tokens=4))
    assert "".join(str(chunk.content) for chunk in chunks) == whole("hi", 4)
    total = functools.reduce(operator.add, chunks)
    assert total.usage_metadata is not None
    assert total.usage_metadata["output_tokens"] == 4
    assert total.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_langchain_tools(langchain: ChatOpenAI, stream: bool) -> None:
    bound = langchain.bind_tools([weather])
    asked = HumanMessage("How is it in Paris?")
    if stream:
        # Pieces of a message add up to one; its calls are whole once all pieces are there.
        calls = functools.reduce(operator.add, bound.stream([asked])).tool_calls
    else:
        calls = bound.invoke([asked]).tool_calls
    assert [(call["name"], call["args"]) for call in calls] == [("weather", {"city": "Paris"})]
    result = ToolMessage("sun", tool_call_id=calls[0]["id"])
    final = bound.invoke([asked, AIMessage("", tool_calls=calls), result])
    assert str(final.content).startswith(whole("sun", 1))
