"""Tools on the wire: threat rows 15 to 18 and 32, for a model with tools and for one without."""

import json

import orjson
import pytest
from hypothesis import given

from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.protocol.chat import ChatRequest, parse_chat
from qwen_openai.protocol.tools import MAX_BYTES, MAX_DEPTH
from tests.protocol.bodies import HELLO, chat_body
from tests.protocol.test_chat import json_values
from tests.spec import check


def function(name: object = "f", **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **more}}


def call(id: object = "c", arguments: object = "{}", name: object = "f") -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(*calls: object, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def parsed(**changes: object) -> ChatRequest:
    return parse_chat(chat_body(**changes), tools=True)


def refused(*, tools_model: bool = True, **changes: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(chat_body(**changes), tools=tools_model)
    wire = orjson.dumps({"error": caught.value.to_object()})
    assert len(wire) < 600
    check("ErrorResponse", orjson.loads(wire))
    return caught.value


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(depth - 1):
        schema = {"a": schema}
    return schema


def test_a_full_request() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    request = parsed(
        messages=[
            *HELLO,
            assistant(call()),
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "r"}]},
            {"role": "assistant", "content": ""},
        ],
        tools=[function(description="d", parameters=schema, strict=False), function("g-1_B")],
        tool_choice="auto",
        parallel_tool_calls=False,
    )
    assert request.ignored == ()
    assert request.tools is not None
    assert request.tools[0].function.parameters == schema
    assert request.tools[1].function.parameters is None
    made = request.messages[1]
    assert made.content is None
    assert made.tool_calls is not None
    assert made.tool_calls[0].function.arguments == "{}"
    assert request.messages[2].tool_call_id == "c"


@pytest.mark.parametrize("content", [..., None, "", "text", [{"type": "text", "text": "a"}]])
def test_content_beside_calls(content: object) -> None:
    message = assistant(call())
    if content is ...:
        del message["content"]
    else:
        message["content"] = content
    assert parsed(messages=[message]).messages[0].tool_calls


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([], "tools"),
        ("f", "tools"),
        ({"f": 1}, "tools"),
        ([function(f"f{i}") for i in range(129)], "tools"),
        ([function()] * 10_000, "tools"),
        ([5], "tools[0]"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"function": {"name": "f"}}], "tools[0].type"),
        ([{"type": "custom", "custom": {"name": "f"}}], "tools[0].function"),
        ([function(...)], "tools[0].function.name"),
        ([function("../../x")], "tools[0].function.name"),
        ([function("x" * 65)], "tools[0].function.name"),
        ([function("f\n")], "tools[0].function.name"),
        ([function("函数")], "tools[0].function.name"),
        ([function("")], "tools[0].function.name"),
        ([function(), function("g"), function()], "tools[2].function.name"),
        ([function(description=5)], "tools[0].function.description"),
        ([function(description="x" * 1_000_000)], "tools"),
        ([function(parameters=[])], "tools[0].function.parameters"),
        ([function(parameters="{}")], "tools[0].function.parameters"),
        ([function(parameters=nested(MAX_DEPTH + 1))], "tools[0].function.parameters"),
        ([function(parameters=nested(900))], "tools[0].function.parameters"),
        ([function(parameters={"a": "x" * MAX_BYTES})], "tools"),
        ([function(strict=1)], "tools[0].function.strict"),
    ],
)
def test_bad_tools(tools: object, param: str) -> None:
    if isinstance(tools, list) and tools and isinstance(tools[0], dict):
        inner = tools[0].get("function")
        if isinstance(inner, dict) and inner.get("name") is ...:
            del inner["name"]
    error = refused(tools=tools)
    assert error.param == param
    assert error.message.startswith(param)


def test_what_nothing_enforces_is_refused_by_name() -> None:
    error = refused(tools=[function("a"), function(strict=True)])
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "tools[1].function.strict"


def test_schemas_up_to_the_bounds_are_taken() -> None:
    request = parsed(tools=[function(parameters=nested(MAX_DEPTH)), function("g", parameters={})])
    assert request.tools is not None
    wide = {str(i): {"enum": list(range(20))} for i in range(1000)}
    assert parsed(tools=[function(parameters=wide)]).tools is not None


NAMED = {"type": "function", "function": {"name": "f"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}


@pytest.mark.parametrize("choice", ["required", NAMED, ALLOWED, {"type": "custom"}, {}])
def test_a_choice_that_would_have_to_be_enforced(choice: object) -> None:
    error = refused(tools=[function()], tool_choice=choice)
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "tool_choice"
    assert "cannot be enforced for this model yet" in error.message


@pytest.mark.parametrize("choice", ["any", "f", 5, True, [], ["auto"]])
def test_no_choice(choice: object) -> None:
    error = refused(tools=[function()], tool_choice=choice)
    assert error.message.startswith('tool_choice must be "none" or "auto", got ')


def test_a_choice_without_tools() -> None:
    for choice in ("auto", "required", NAMED):
        assert refused(tool_choice=choice).param == "tool_choice"
    request = parsed(tool_choice="none", parallel_tool_calls=True)
    assert request.ignored == ("parallel_tool_calls",)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (assistant(5), "messages[0].tool_calls[0]"),
        (assistant(*[call()] * 129), "messages[0].tool_calls"),
        ({**assistant(), "tool_calls": "x"}, "messages[0].tool_calls"),
        (assistant(), "messages[0].content"),
        (assistant(call(5)), "messages[0].tool_calls[0].id"),
        (assistant(call("")), "messages[0].tool_calls[0].id"),
        (assistant(call("x" * 513)), "messages[0].tool_calls[0].id"),
        (assistant(call(name="a b")), "messages[0].tool_calls[0].function.name"),
        (assistant(call(arguments={})), "messages[0].tool_calls[0].function.arguments"),
        (assistant(call(arguments=None)), "messages[0].tool_calls[0].function.arguments"),
        (assistant({**call(), "type": "custom"}), "messages[0].tool_calls[0].type"),
        (assistant({"id": "c", "type": "function"}), "messages[0].tool_calls[0].function"),
        (assistant(function_call={"name": "f"}), "messages[0].function_call"),
        ({"role": "tool", "tool_call_id": "c"}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": "c", "content": None}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": "c", "content": []}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": 5, "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": None, "tool_calls": [call()]}, "messages[0].content"),
    ],
)
def test_bad_messages(message: object, param: str) -> None:
    error = refused(messages=[message], tools=[function()])
    assert error.param == param
    assert error.message.startswith(param)


def test_what_is_not_read_is_reported() -> None:
    more = {**call(), "index": 0}
    more["function"] = {"name": "f", "arguments": "{}", "parsed": {}}
    tool = {**function(), "cache_control": {}}
    tool["function"] = {"name": "f", "examples": []}
    request = parsed(messages=[assistant(more, reasoning_content="x", audio=None)], tools=[tool])
    assert request.ignored == (
        "messages.reasoning_content",
        "messages.tool_calls.function.parsed",
        "messages.tool_calls.index",
        "tools.cache_control",
        "tools.function.examples",
    )


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": []}, "tools"),
        ({"tools": [function()]}, "tools"),
        ({"tools": [function()], "tool_choice": "none"}, "tools"),
        ({"tools": [{"parameters": nested(900)}]}, "tools"),
        ({"tools": "nonsense"}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [assistant(call())]}, "messages[0].tool_calls"),
        ({"messages": [assistant("nonsense")]}, "messages[0].tool_calls"),
        ({"messages": [*HELLO, {"role": "tool"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": "", "tool_call_id": ""}]},
         "messages[0].tool_call_id"),
    ],
)  # fmt: skip
def test_a_model_without_tools_refuses_all_of_it(changes: dict[str, object], param: str) -> None:
    error = refused(tools_model=False, **changes)
    assert error.param == param
    assert "this model" in error.message


def test_langchain_and_the_sdk_send_nothing_else() -> None:
    openai = pytest.importorskip("langchain_openai")
    model = openai.ChatOpenAI(model="m", api_key="k", base_url="http://x/v1")
    schema = {"title": "f", "description": "d", "type": "object", "properties": {}}
    bound = model.bind_tools([schema])
    messages = [
        ("user", "hi"),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "name": "f", "args": {}, "type": "tool_call"}],
        },
        {"role": "tool", "content": "r", "tool_call_id": "c"},
    ]
    payload = model._get_request_payload(messages, **bound.kwargs)
    request = parse_chat(json.dumps(payload).encode(), tools=True)
    assert request.tools is not None
    assert request.ignored == ()


@given(json_values, json_values, json_values)
def test_any_values_give_a_request_or_an_encodable_refusal(
    tools: object, calls: object, choice: object
) -> None:
    body = {
        "messages": [{"role": "assistant", "content": "", "tool_calls": calls}],
        "tools": tools,
        "tool_choice": choice,
    }
    for model in (True, False):
        refusal: InvalidRequest | None = None
        try:
            parse_chat(json.dumps(body).encode(), tools=model)
        except InvalidRequest as error:
            refusal = error
        assert refusal is None or len(orjson.dumps(refusal.to_object())) < 600
