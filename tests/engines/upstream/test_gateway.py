"""Through the whole gateway, with this very server as its upstream and the openai SDK in front."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from qwen_openai.engines.fake import FakeEngine, reply
from tests.engines.upstream.scripted import (
    Asked,
    Step,
    chunk,
    event,
    plain,
    scripted,
    usage_chunk,
    words,
)
from tests.live import live, until

SAID = (
    '<think>\nhm hm\n</think>\n\nok <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
)
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
HI = [{"role": "user", "content": "hi there"}]
MODEL = "Qwen3-8B"


@pytest.fixture
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    fake = FakeEngine(reply(SAID), tools="hermes", thinking="switched")
    async with (
        live(fake, served_model_name=(MODEL,)) as server,
        live(None, upstreams=[{"url": server.url}]) as gate,
    ):
        await until(lambda: MODEL in gate.gateway.model_names)
        async with openai.AsyncOpenAI(base_url=gate.base_url, api_key="x") as made:
            yield made


async def test_a_plain_answer(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=HI,  # type: ignore[arg-type]  # plain dicts
        tools=TOOLS,  # type: ignore[arg-type]  # plain dicts
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "ok"
    assert choice.message.to_dict()["reasoning_content"] == "hm hm"
    calls = choice.message.to_dict()["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "f", "arguments": '{"x": 1}'}]  # type: ignore[attr-defined]  # JSON
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 12)


async def test_a_stream_is_the_plain_answer(client: openai.AsyncOpenAI) -> None:
    stream = client.chat.completions.stream(
        model=MODEL,
        messages=HI,  # type: ignore[arg-type]  # plain dicts
        tools=TOOLS,  # type: ignore[arg-type]  # plain dicts
        stream_options={"include_usage": True},
    )
    async with stream as events:
        answer = await events.get_final_completion()
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "ok")
    assert choice.message.to_dict()["reasoning_content"] == "hm hm"
    assert [call.function.arguments for call in choice.message.tool_calls or ()] == ['{"x": 1}']
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 12)


async def test_responses(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input="hi there")
    assert answer.output_text == SAID.partition("\n\n")[2]
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 12)


async def test_completions_of_several_prompts(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt=["a b", "c"], n=2, echo=True)
    assert [choice.text for choice in answer.choices] == [
        prompt + SAID for prompt in ("a b", "a b", "c", "c")
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 48)


async def test_what_we_have_no_room_for_comes_through_both_ways() -> None:
    tail: list[Step] = [
        event(chunk({"content": "x", "annotations": []}, service_tier="flex", new=[1])),
        event({**chunk(reason="stop"), "more": 2}),
        event(usage_chunk(3, 1, cost=0.5)),
        words()[-1],
    ]
    body = {
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop", "seen": 1}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "cost": 0.5},
        "service_tier": "flex",
        "new": [1],
    }
    models = plain({"data": [{"id": MODEL, "owned_by": "vllm", "max_model_len": 4096}]})

    def script(asked: Asked) -> list[Step]:
        if asked.line.startswith("GET"):
            return [models]
        return [words()[0], *tail] if asked.body.get("stream") else [plain(body)]

    async with (
        scripted(script) as server,
        live(None, upstreams=[{"url": server.url}]) as gate,
        openai.AsyncOpenAI(base_url=gate.base_url, api_key="x") as made,
    ):
        await until(lambda: MODEL in gate.gateway.model_names)
        create: Any = made.chat.completions.create
        whole = (await create(model=MODEL, messages=HI)).to_dict()
        options = {"include_usage": True}
        stream = await create(model=MODEL, messages=HI, stream=True, stream_options=options)
        chunks = [each.to_dict() async for each in stream]
    assert (whole["service_tier"], whole["new"], whole["model"]) == ("flex", [1], MODEL)
    assert (whole["choices"][0]["seen"], whole["usage"]["cost"]) == (1, 0.5)
    assert (chunks[1]["service_tier"], chunks[1]["new"]) == ("flex", [1])
    assert chunks[2]["more"] == 2
    assert chunks[3]["usage"]["cost"] == 0.5
