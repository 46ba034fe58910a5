"""The corpus of schemas and tools on the real model: what is enforced always validates.

All of it in scripts/soak, every fourth of it in scripts/test.
Each asks for something the model knows nothing of, so nothing but the enforcement can make it fit.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

import jsonschema_rs
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionToolParam
from openai.types.shared_params import ResponseFormatJSONSchema

from qwen_openai.core import Tool
from tests.grammars.schemas import schemas, tools
from tests.live import live
from tests.real import MODEL, real_engine

pytestmark = pytest.mark.real

STREAMS = 4
_Item = TypeVar("_Item")


async def _each(
    items: Sequence[_Item], ask: Callable[[AsyncOpenAI, int, _Item], Awaitable[str]]
) -> list[str]:
    """Ask for every item, a few at once; return what each came to."""
    room = asyncio.Semaphore(STREAMS)
    async with (
        live(real_engine(slots=STREAMS), queue_size=STREAMS) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
    ):

        async def one(number: int, item: _Item) -> str:
            async with room:
                return await ask(client, number, item)

        return await asyncio.gather(*(one(n, item) for n, item in enumerate(items)))


def _is_cut(answer: ChatCompletion) -> bool:
    return answer.choices[0].finish_reason == "length"


async def _in_format(client: AsyncOpenAI, number: int, schema: dict[str, object]) -> str:
    wanted: ResponseFormatJSONSchema = {
        "type": "json_schema",
        "json_schema": {"name": "made_up", "strict": True, "schema": schema},
    }
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Make up an example, short."}],
        response_format=wanted,
        temperature=number % 2,  # half of them sampled, where a model strays soonest
        seed=number,
        max_tokens=160,
    )
    if _is_cut(answer):
        return "length"
    document = json.loads(answer.choices[0].message.content or "")
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(document)
    return "valid"


async def _by_call(client: AsyncOpenAI, number: int, tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description}
    if tool.parameters is not None:
        function["parameters"] = tool.parameters  # type: ignore[assignment]  # JSON
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Use the tool, with made up values, short."}],
        tools=[cast("ChatCompletionToolParam", {"type": "function", "function": function})],
        tool_choice={"type": "function", "function": {"name": tool.name}},
        temperature=number % 2,
        seed=number,
        max_tokens=160,
    )
    if _is_cut(answer):
        return "length"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == tool.name
    arguments = json.loads(call.function.arguments)
    jsonschema_rs.validator_for(tool.parameters or {"type": "object"}).validate(arguments)
    return "valid"


async def test_two_hundred_schemas_are_kept(soak: bool) -> None:
    corpus = schemas()
    assert len(corpus) >= 200
    corpus = corpus if soak else corpus[::4]
    outcomes = await _each(corpus, _in_format)
    # "length" keeps no promise of a whole document; were it common, nothing would be shown.
    assert outcomes.count("valid") >= 0.9 * len(corpus), outcomes


async def test_fifty_tools_are_called_as_they_are_defined(soak: bool) -> None:
    corpus = tools()
    assert len(corpus) >= 50
    corpus = corpus if soak else corpus[::4]
    outcomes = await _each(corpus, _by_call)
    assert outcomes.count("valid") >= 0.9 * len(corpus), outcomes
