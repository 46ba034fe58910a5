"""Facts of the clients people use: the official SDK's helpers, and LangChain where it is installed.

Whatever these raise is a failure of the server: their users would meet it.
"""

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import openai
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, Field, SecretStr

from qwen_openai.conformance.fact import Fact, NotApplicable, expect
from qwen_openai.conformance.target import Target

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk
    from langchain_openai import ChatOpenAI

_HELLO: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Say hello in one short sentence."}
]
_WEATHER: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the weather in Paris?"}
]
_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Pet(BaseModel):
    """What structured answers are asked for."""

    name: str = Field(max_length=20)
    kind: Literal["cat", "dog"]


def _stream_helper(target: Target) -> None:
    pieces = []
    with target.sdk.chat.completions.stream(
        model=target.model, messages=_HELLO, max_tokens=24, temperature=0
    ) as stream:
        for event in stream:
            if event.type == "content.delta":
                pieces.append(event.delta)
        final = stream.get_final_completion()
    message = final.choices[0].message
    expect(message.role == "assistant", f"the accumulated role is {message.role!r}")
    expect(message.content == "".join(pieces), "the accumulated content is not the deltas'")


def _stream_tools(target: Target) -> None:
    with target.sdk.chat.completions.stream(
        model=target.model,
        messages=_WEATHER,
        tools=[_TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=96,
    ) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    expect(len(calls) == 1, f"{len(calls)} calls were accumulated")
    expect(calls[0].function.name == "get_weather", f"the name is {calls[0].function.name!r}")
    parsed = calls[0].function.parsed_arguments
    expect(isinstance(parsed, dict) and "city" in parsed, f"the arguments are {parsed!r}")


def _parse(target: Target) -> None:
    done = target.sdk.chat.completions.parse(
        model=target.model,
        messages=[{"role": "user", "content": "Invent a pet."}],
        response_format=Pet,
        max_tokens=96,
        temperature=0,
    )
    expect(isinstance(done.choices[0].message.parsed, Pet), "nothing was parsed")


def _exceptions(target: Target) -> None:
    try:
        target.sdk.chat.completions.create(model="no-such-model-anywhere", messages=_HELLO)
    except openai.NotFoundError as error:
        expect(error.code is not None, "the exception has no code")
        expect(error.request_id, "the exception has no request id")
    else:
        expect(False, "an unknown model raised nothing")


def _async(target: Target) -> None:
    async def run() -> str:
        text = ""
        async with openai.AsyncOpenAI(
            base_url=target.base_url, api_key=target.key or "none", max_retries=0
        ) as client:
            stream = await client.chat.completions.create(
                model=target.model, messages=_HELLO, max_tokens=8, stream=True
            )
            async for chunk in stream:
                if chunk.choices:
                    text += chunk.choices[0].delta.content or ""
        return text

    expect(asyncio.run(run()), "the stream held no text")


def _langchain(target: Target) -> "ChatOpenAI":
    if find_spec("langchain_openai") is None:
        raise NotApplicable("LangChain is not installed: pip install langchain-openai")
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        base_url=target.base_url,
        api_key=SecretStr(target.key or "none"),
        model=target.model,
        temperature=0,
        max_retries=0,
        timeout=target.timeout,
        max_completion_tokens=96,
    )


def sum_of(chunks: "list[AIMessageChunk]") -> "AIMessageChunk":
    """The message that LangChain makes of its chunks; there must be one at least."""
    expect(chunks, "no chunks")
    return chunks[0] + chunks[1:]


def _lc_invoke(target: Target) -> None:
    answer = _langchain(target).invoke("Say hello in one short sentence.")
    expect(answer.content, "no content")
    expect(answer.usage_metadata and answer.usage_metadata["total_tokens"] > 0, "no usage")


def _lc_stream(target: Target) -> None:
    model = _langchain(target)
    chunks = list(model.stream("Say hello in one short sentence.", stream_usage=True))
    whole = sum_of(chunks)
    reason = whole.response_metadata.get("finish_reason")
    expect(reason in ("stop", "length"), f"the merged finish_reason is {reason!r}")
    usage = whole.usage_metadata
    expect(usage is not None, "the merged message has no usage")
    counted = [chunk for chunk in chunks if chunk.usage_metadata]
    expect(len(counted) == 1, f"{len(counted)} chunks hold usage; LangChain adds them up")


def _lc_tools(target: Target) -> None:
    model = _langchain(target)
    from langchain_core.messages import AIMessageChunk

    bound = model.bind_tools([dict(_TOOL)], tool_choice="get_weather")
    answer = bound.invoke("What is the weather in Paris?")
    calls = getattr(answer, "tool_calls", [])
    expect(len(calls) == 1 and "city" in calls[0]["args"], f"the calls are {calls}")
    chunks = list(bound.stream("What is the weather in Paris?"))
    merged = sum_of([chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)])
    calls = merged.tool_calls
    expect(len(calls) == 1 and "city" in calls[0]["args"], f"the streamed calls are {calls}")


def _lc_structured(target: Target) -> None:
    made = _langchain(target).with_structured_output(Pet).invoke("Invent a pet.")
    expect(isinstance(made, Pet), f"the answer is {made!r}")


FACTS = (
    Fact("sdk.stream", "The SDK's stream helper adds the chunks up rightly.", _stream_helper),
    Fact("sdk.stream-tools", "It adds a call up, and parses its arguments.", _stream_tools),
    Fact("sdk.parse", "The SDK's parse() gives the asked-for object.", _parse),
    Fact("sdk.exceptions", "A refusal is the right exception, with code and id.", _exceptions),
    Fact("sdk.async", "The asynchronous client reads a stream.", _async),
    Fact("langchain.invoke", "LangChain gets content and usage.", _lc_invoke),
    Fact("langchain.stream", "LangChain's merged chunks say one reason, one usage.", _lc_stream),
    Fact("langchain.tools", "LangChain binds a tool, plain and streamed.", _lc_tools),
    Fact("langchain.structured", "with_structured_output gives the object.", _lc_structured),
)
