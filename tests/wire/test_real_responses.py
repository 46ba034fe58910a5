"""Responses of the real embedded model: text, an enforced call, an enforced form, logprobs."""

import json
from collections.abc import Iterator
from typing import Literal, cast

import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam, ResponseInputParam, ToolChoiceFunctionParam
from pydantic import BaseModel

from tests.live import Live, threaded
from tests.real import MODEL, real_engine
from tests.spec import check

pytestmark = pytest.mark.real

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Person(BaseModel):
    """The form that an answer must have."""

    name: str
    age: int


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(real_engine) as running:
        yield running


@pytest.fixture
def client(server: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as made:
        yield made


def test_text_with_its_log_probabilities(client: OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL,
        input="Say hello.",
        max_output_tokens=12,
        temperature=0,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    )
    check("Response", answer.to_dict())
    (message,) = answer.output
    assert message.type == "message"
    (part,) = message.content
    assert part.type == "output_text"
    assert part.logprobs
    assert "".join(bytes(t.bytes).decode() for t in part.logprobs).startswith(part.text)
    assert all(len(token.top_logprobs) == 2 for token in part.logprobs)
    with client.responses.stream(
        model=MODEL, input="Say hello.", max_output_tokens=12, temperature=0
    ) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert text == part.text


NAMED: ToolChoiceFunctionParam = {"type": "function", "name": "get_weather"}
CHOICES: list[Literal["auto"] | ToolChoiceFunctionParam] = ["auto", NAMED]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_call_and_what_is_made_of_its_result(
    client: OpenAI, choice: Literal["auto"] | ToolChoiceFunctionParam
) -> None:
    answer = client.responses.create(
        model=MODEL,
        input="What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice=choice,
        temperature=0,
        max_output_tokens=64,
    )
    check("Response", answer.to_dict())
    called = answer.output[-1]
    assert called.type == "function_call"
    assert json.loads(called.arguments).keys() == {"city"}
    said = [item.to_dict() for item in answer.output]
    result = {"type": "function_call_output", "call_id": called.call_id, "output": "sunny, 25 C"}
    asked = {"role": "user", "content": "What is the weather in Paris?"}
    again = client.responses.create(
        model=MODEL,
        input=cast("ResponseInputParam", [asked, *said, result]),
        tools=[WEATHER],
        tool_choice="none",  # left to itself this small model calls once more
        temperature=0,
        max_output_tokens=64,
    )
    check("Response", again.to_dict())
    assert again.output_text


def test_a_form(client: OpenAI) -> None:
    answer = client.responses.parse(
        model=MODEL,
        input="Make up a person.",
        text_format=Person,
        max_output_tokens=64,
        temperature=0,
    )
    assert isinstance(answer.output_parsed, Person)
