"""The official clients' responses against a live server, and every byte of them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import FunctionToolParam, ResponseInputParam
from pydantic import BaseModel

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step, reply
from qwen_openai.errors import EngineFailed
from qwen_openai.sse import SseDecoder
from tests.live import Answer, Live, call, live, threaded
from tests.spec import check

PATH = "/v1/responses"
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
THOUGHT = "<think>\nWhere is it?\n</think>\n\n"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


class City(BaseModel):
    """What a parsed answer is."""

    name: str
    country: str


def script(job: Job) -> Iterable[Step]:
    """Think where that is not switched off, then call a tool, or fill in a form, or answer."""
    last = job.messages[-1]
    if last.content == "break":
        return ["one", " two", EngineFailed("The engine broke.")]
    thought = THOUGHT if job.thinks else ""
    if last.role == "tool":
        text = f"It is {last.content}."
    elif job.tools:
        text = CALL
    elif job.grammar is not None:
        text = '{"name": "Paris", "country": "France"}'
    else:
        text = "A plain answer."
    return reply(thought + text)(job)


def make_engine() -> FakeEngine:
    return FakeEngine(script, tools="hermes", thinking="switched", context=512)


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(make_engine, served_model_name=("fake",)) as running:
        yield running


@pytest.fixture
def client(server: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as made:
        yield made


def post(server: Live, **body: object) -> Answer:
    return call(server.port, "POST", PATH, {"model": "fake", "input": "hi", **body})


def events(answer: Answer) -> list[Any]:
    """The events of a stream, each held to the specification and to its own name."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert b"[DONE]" not in answer.body
    data = [json.loads(each) for each in SseDecoder().feed(answer.body)]
    names = [line[7:] for line in answer.body.decode().split("\n") if line.startswith("event: ")]
    assert names == [event["type"] for event in data]
    assert [event["sequence_number"] for event in data] == list(range(len(data)))
    for event in data:
        check("ResponseStreamEvent", event)
    return data


BODIES: list[dict[str, object]] = [
    {},
    {"reasoning": {"effort": "none"}},
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": "required", "reasoning": {"effort": "none"}},
    {"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
    {"text": {"format": {"type": "json_object"}}},
    {"top_logprobs": 2},
    {"max_output_tokens": 2},
]


@pytest.mark.parametrize("changes", BODIES)
def test_a_stream_ends_with_the_plain_answer(server: Live, changes: dict[str, object]) -> None:
    plain = post(server, **changes)
    assert plain.status == 200
    body = plain.json()
    check("Response", body)
    streamed = events(post(server, stream=True, **changes))
    last = streamed[-1]["response"]
    assert [_told(item) for item in last["output"]] == [_told(item) for item in body["output"]]
    alike = ("status", "usage", "tools", "tool_choice", "text", "incomplete_details")
    assert {name: last.get(name) for name in alike} == {name: body.get(name) for name in alike}


def _told(item: dict[str, Any]) -> dict[str, Any]:
    """An item without the ids that are made anew for every request."""
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}


def test_plain(client: OpenAI) -> None:
    answer = client.responses.create(model="fake", input="hi", reasoning={"effort": "none"})
    assert answer.output_text == "A plain answer."
    assert answer.status == "completed"
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (1, 3)
    assert answer.to_dict()["store"] is False


def test_thoughts_are_an_item_and_may_come_back(client: OpenAI) -> None:
    answer = client.responses.create(model="fake", input="hi")
    thoughts, message = answer.output
    assert thoughts.type == "reasoning"
    assert thoughts.content is not None
    assert thoughts.content[0].text.strip() == "Where is it?"
    assert message.type == "message"
    assert answer.output_text == "A plain answer."
    assert answer.usage is not None
    assert 0 < answer.usage.output_tokens_details.reasoning_tokens < answer.usage.output_tokens
    said = [item.model_dump(exclude_none=True) for item in answer.output]
    again: Any = [{"role": "user", "content": "hi"}, *said, {"role": "user", "content": "more"}]
    assert client.responses.create(model="fake", input=again).output_text == "A plain answer."


def test_stream_helper(client: OpenAI) -> None:
    with client.responses.stream(model="fake", input="hi") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "A plain answer."
    assert [item.type for item in final.output] == ["reasoning", "message"]


def test_parse(client: OpenAI) -> None:
    answer = client.responses.parse(model="fake", input="hi", text_format=City)
    assert answer.output_parsed == City(name="Paris", country="France")
    with client.responses.stream(model="fake", input="hi", text_format=City) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == City(name="Paris", country="France")


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_call_and_its_result(client: OpenAI, choice: Any) -> None:  # noqa: ANN401  # SDK's union
    items: ResponseInputParam = [{"role": "user", "content": "How is the weather?"}]
    answer = client.responses.create(model="fake", input=items, tools=[TOOL], tool_choice=choice)
    called = answer.output[-1]
    assert called.type == "function_call"
    assert (called.name, json.loads(called.arguments)) == ("weather", {"city": "Paris"})
    items += [item.model_dump(exclude_none=True) for item in answer.output]  # type: ignore[misc]  # what was said, as it was
    items.append({"type": "function_call_output", "call_id": called.call_id, "output": "warm"})
    answer = client.responses.create(model="fake", input=items, tools=[TOOL])
    assert answer.output_text == "It is warm."


def test_the_stream_helper_collects_arguments(client: OpenAI) -> None:
    with client.responses.stream(model="fake", input="hi", tools=[TOOL]) as stream:
        pieces = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    called = final.output[-1]
    assert called.type == "function_call"
    assert "".join(pieces) == called.arguments
    assert called.parsed_arguments == {"city": "Paris"}


def test_an_answer_that_is_cut(client: OpenAI) -> None:
    answer = client.responses.create(model="fake", input="hi", max_output_tokens=4)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_a_stream_that_breaks_is_raised(client: OpenAI, server: Live) -> None:
    seen = []
    stream = client.responses.create(model="fake", input="break", stream=True)
    with pytest.raises(openai.APIError, match="broke"):  # noqa: PT012  # the stream begins well
        for event in stream:
            seen.append(event.type)
    assert seen[-1] == "response.failed"
    streamed = events(post(server, input="break", stream=True))
    check("ResponseFailedEvent", streamed[-2])
    check("ResponseErrorEvent", streamed[-1])
    assert post(server, input="break").status == 500


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"input": "x " * 600}, "input", "context_length_exceeded"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        (
            {"text": {"format": {"type": "json_schema", "name": "s", "schema": {"$ref": "#"}}}},
            "text.format",
            "invalid_value",
        ),
    ],
)
def test_refused_before_the_first_byte(
    server: Live, changes: dict[str, object], param: str, code: str
) -> None:
    answer = post(server, stream=True, **changes)
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


def test_an_unknown_model(server: Live) -> None:
    assert post(server, model="other").status == 404


def test_what_had_no_effect_is_told(server: Live) -> None:
    answer = post(server, store=True, reasoning={"summary": "auto"})
    assert answer.headers["x-qwen-openai-ignored"] == "store, reasoning.summary"
    assert answer.json()["store"] is False
    body = {"model": "fake", "input": "hi"}
    strict = f"{PATH}?strict=1"
    assert call(server.port, "POST", strict, {**body, "store": True}).status == 400
    assert call(server.port, "POST", strict, body).status == 200


async def test_async() -> None:
    async with (
        live(make_engine(), served_model_name=("fake",)) as running,
        AsyncOpenAI(base_url=running.base_url, api_key="unused", max_retries=0) as client,
    ):
        answer = await client.responses.create(model="fake", input="hi")
        assert answer.output_text == "A plain answer."
        async with client.responses.stream(model="fake", input="hi") as stream:
            final = await stream.get_final_response()
        assert final.output_text == "A plain answer."


def test_langchain(server: Live) -> None:
    model = ChatOpenAI(
        base_url=server.base_url, api_key="unused", model="fake", use_responses_api=True
    )
    answer = model.invoke("hi")
    assert answer.text == "A plain answer."
    assert answer.usage_metadata is not None
    pieces = list(model.stream("hi"))
    assert "".join(piece.text for piece in pieces) == "A plain answer."
    tools = model.bind_tools([{"type": "function", "function": _without_type(TOOL)}])
    asked = HumanMessage("How is the weather?")
    called = tools.invoke([asked])
    assert isinstance(called, AIMessage)
    assert called.tool_calls[0]["args"] == {"city": "Paris"}
    result = ToolMessage("warm", tool_call_id=called.tool_calls[0]["id"])
    assert tools.invoke([asked, called, result]).text == "It is warm."
    form = model.with_structured_output(City, method="json_schema")
    assert form.invoke("hi") == City(name="Paris", country="France")


def _without_type(tool: FunctionToolParam) -> dict[str, object]:
    return {name: value for name, value in tool.items() if name != "type"}
