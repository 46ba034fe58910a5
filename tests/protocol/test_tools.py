"""Tools on the wire, in both forms: threat rows 15 to 18 and 32."""

import json

import pytest

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.chat import parse_chat
from qwen_openai.protocol.schemas import MAX_BYTES, MAX_DEPTH
from qwen_openai.protocol.tools import AllowedTools, FunctionCallName, NamedChoice
from tests.protocol.bodies import HELLO, chat_body, parsed
from tests.protocol.bodies import refused as refusal


def function(name: object = "f", **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **more}}


def call(id: object = "c", arguments: object = "{}", name: object = "f") -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(*calls: object, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def refused(**changes: object) -> InvalidRequest:
    return refusal(chat_body(**changes))


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
        tools=[function(description="d", parameters=schema, strict=True), function("g-1_B")],
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
        ([function()] * 5_000, "tools"),
        ([5], "tools[0]"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"function": {"name": "f"}}], "tools[0].type"),
        ([{"type": "custom", "custom": {"name": "f"}}], "tools[0].type"),
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


def test_schemas_up_to_the_bounds_are_taken() -> None:
    request = parsed(tools=[function(parameters=nested(MAX_DEPTH)), function("g", parameters={})])
    assert request.tools is not None
    wide = {str(i): {"enum": list(range(20))} for i in range(1000)}
    assert parsed(tools=[function(parameters=wide)]).tools is not None


NAMED = {"type": "function", "function": {"name": "f"}}
OTHER = {"type": "function", "function": {"name": "g"}}


def allowed(mode: object = "auto", *tools: object) -> dict[str, object]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_choice_by_word(choice: str) -> None:
    request = parsed(tools=[function()], tool_choice=choice)
    assert request.tool_choice == choice
    assert request.call_is_required == (choice == "required")


def test_a_choice_by_name() -> None:
    request = parsed(tools=[function(), function("g")], tool_choice=OTHER)
    assert isinstance(request.tool_choice, NamedChoice)
    assert request.tool_choice.function.name == "g"
    assert request.call_is_required


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_choice_of_some(mode: str) -> None:
    tools = [function(), function("g"), function("h")]
    request = parsed(tools=tools, tool_choice=allowed(mode, OTHER, NAMED))
    assert isinstance(request.tool_choice, AllowedTools)
    names = [tool.function.name for tool in request.tool_choice.allowed_tools.tools]
    assert names == ["g", "f"]
    assert request.call_is_required == (mode == "required")


_ANY_CHOICE = 'tool_choice must be "none", "auto", "required", a function of tools or allowed_tools'


@pytest.mark.parametrize("choice", ["any", "f", 5, True, [], ["auto"], "", 0.5])
def test_no_choice(choice: object) -> None:
    error = refused(tools=[function()], tool_choice=choice)
    assert error.message.startswith(_ANY_CHOICE)


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ({}, "tool_choice.type"),
        ({"type": "custom", "custom": {"name": "f"}}, "tool_choice.type"),
        ({"type": 5}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "function": "f"}, "tool_choice.function"),
        ({"type": "function", "name": "f"}, "tool_choice.function"),
        ({"type": "function", "function": {}}, "tool_choice.function.name"),
        ({"type": "function", "function": {"name": "../x"}}, "tool_choice.function.name"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        (allowed("none", NAMED), "tool_choice.allowed_tools.mode"),
        (allowed(), "tool_choice.allowed_tools.tools"),
        (allowed("auto", *[NAMED] * 129), "tool_choice.allowed_tools.tools"),
        (allowed("auto", 5), "tool_choice.allowed_tools.tools[0]"),
        (allowed("auto", NAMED, {"type": "x"}), "tool_choice.allowed_tools.tools[1].type"),
        (OTHER, "tool_choice"),
        (allowed("auto", NAMED, OTHER), "tool_choice"),
    ],
)
def test_bad_choices(choice: object, param: str) -> None:
    error = refused(tools=[function()], tool_choice=choice)
    assert error.param == param
    assert error.message.startswith(param)


def test_a_choice_without_tools() -> None:
    for choice in ("auto", "required", NAMED, allowed("auto", NAMED)):
        assert refused(tool_choice=choice).param == "tool_choice"
        assert refused(tool_choice=choice, functions=[{"name": "f"}]).param == "tool_choice"
    request = parsed(tool_choice="none", parallel_tool_calls=True)
    assert request.ignored == ("parallel_tool_calls",)


def test_the_older_form() -> None:
    called = {"name": "f", "arguments": "{}"}
    functions = [{"name": "f", "description": "d", "parameters": {}}, {"name": "g", "odd": 1}]
    request = parsed(
        messages=[
            *HELLO,
            {"role": "assistant", "content": None, "function_call": called},
            {"role": "function", "name": "f", "content": "r"},
        ],
        functions=functions,
        function_call={"name": "g"},
    )
    assert request.functions is not None
    assert request.functions[0].description == "d"
    assert request.function_call == FunctionCallName(name="g")
    assert request.call_is_required
    assert request.messages[1].function_call is not None
    assert request.messages[1].function_call.name == "f"
    assert request.messages[2].name == "f"
    assert request.ignored == ("functions.odd",)
    for choice in ("auto", "none", None):
        assert not parsed(functions=functions, function_call=choice).call_is_required


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"functions": []}, "functions"),
        ({"functions": [{"name": "f"}] * 129}, "functions"),
        ({"functions": "f"}, "functions"),
        ({"functions": [5]}, "functions[0]"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"functions": [{"name": "f"}, {"name": "f"}]}, "functions[1].name"),
        ({"functions": [{"name": "f", "parameters": nested(65)}]}, "functions[0].parameters"),
        ({"functions": [{"name": "f"}], "tools": [function("g")]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"function_call": "auto", "tools": [function()]}, "function_call"),
        ({"function_call": "required", "functions": [{"name": "f"}]}, "function_call"),
        ({"function_call": {}, "functions": [{"name": "f"}]}, "function_call.name"),
        ({"function_call": {"name": "g"}, "functions": [{"name": "f"}]}, "function_call"),
    ],
)
def test_bad_use_of_the_older_form(changes: dict[str, object], param: str) -> None:
    error = refused(**changes)
    assert error.param == param
    assert error.message.startswith(param)


def test_thoughts_of_earlier_turns() -> None:
    request = parsed(
        messages=[
            {"role": "assistant", "content": None, "reasoning_content": "cut"},
            {"role": "assistant", "content": "a", "reasoning": "b", "reasoning_content": None},
            {"role": "user", "content": "c", "reasoning": "d"},
        ]
    )
    assert request.messages[0].reasoning_content == "cut"
    assert request.messages[1].reasoning == "b"
    assert request.ignored == ("messages.reasoning",)


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
        (assistant(function_call={"name": "f"}), "messages[0].function_call.arguments"),
        (assistant(function_call="f"), "messages[0].function_call"),
        (
            assistant(call(), function_call={"name": "f", "arguments": ""}),
            "messages[0].function_call",
        ),
        (
            {"role": "user", "content": "x", "function_call": {"name": "f", "arguments": ""}},
            "messages[0].function_call",
        ),
        (assistant(reasoning=5, content="x"), "messages[0].reasoning"),
        (assistant(reasoning_content="", reasoning=None), "messages[0].content"),
        ({"role": "tool", "tool_call_id": "c"}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": "c", "content": None}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": "c", "content": []}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": 5, "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "function", "content": "x"}, "messages[0].name"),
        ({"role": "function", "content": "x", "name": "a b"}, "messages[0].name"),
        ({"role": "function", "content": "x", "name": 5}, "messages[0].name"),
        ({"role": "function", "content": None, "name": "f"}, "messages[0].content"),
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
    request = parsed(messages=[assistant(more, name="x", audio=None)], tools=[tool])
    assert request.ignored == (
        "messages.name",
        "messages.tool_calls.function.parsed",
        "messages.tool_calls.index",
        "tools.cache_control",
        "tools.function.examples",
    )


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
    request = parse_chat(json.dumps(payload).encode())
    assert request.tools is not None
    assert request.ignored == ()
