"""Enforced formats on the wire: threat rows 6 and 33 to 35, as far as a body alone can tell."""

import json

import pytest

from qwen_openai.errors import UnsupportedParameter
from qwen_openai.protocol.chat import parse_chat
from qwen_openai.protocol.formats import JsonObjectFormat, JsonSchemaFormat, TextFormat
from qwen_openai.protocol.schemas import MAX_BYTES, MAX_DEPTH
from tests.protocol.bodies import HELLO, chat_body, parsed, refused

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f"}}
STRICT = {"type": "function", "function": {"name": "f", "strict": True}}


def by_schema(schema: object = ..., **more: object) -> dict[str, object]:
    inner = {"name": "n", "schema": schema, **more}
    return {
        "type": "json_schema",
        "json_schema": {key: value for key, value in inner.items() if value is not ...},
    }


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(depth - 1):
        schema = {"a": schema}
    return schema


def test_the_three_formats() -> None:
    assert isinstance(parsed(response_format={"type": "text"}).response_format, TextFormat)
    request = parsed(response_format={"type": "json_object"})
    assert isinstance(request.response_format, JsonObjectFormat)
    assert request.enforced_by == "response_format"
    for strict in (True, False, None, ...):
        chosen = by_schema(SCHEMA, strict=strict, description="d")
        request = parsed(response_format=chosen)
        assert isinstance(request.response_format, JsonSchemaFormat)
        assert request.response_format.json_schema.schema_ == SCHEMA
        assert request.enforced_by == "response_format"
        assert request.ignored == ()


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("text", "response_format"),
        (5, "response_format"),
        ([], "response_format"),
        ({}, "response_format.type"),
        ({"type": "grammar"}, "response_format.type"),
        ({"type": 5}, "response_format.type"),
        ({"type": ["json_schema"]}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "schema": {}}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": "x"}, "response_format.json_schema"),
        (by_schema(), "response_format.json_schema.schema"),
        (by_schema(None), "response_format.json_schema.schema"),
        (by_schema(True), "response_format.json_schema.schema"),
        (by_schema("{}"), "response_format.json_schema.schema"),
        (by_schema({}, name=...), "response_format.json_schema.name"),
        (by_schema({}, name="a b"), "response_format.json_schema.name"),
        (by_schema({}, name="x" * 65), "response_format.json_schema.name"),
        (by_schema({}, strict="yes"), "response_format.json_schema.strict"),
        (by_schema({}, description=5), "response_format.json_schema.description"),
        (by_schema(nested(MAX_DEPTH + 1)), "response_format.json_schema.schema"),
        (by_schema(nested(900)), "response_format.json_schema.schema"),
        (by_schema({"a": "x" * MAX_BYTES}), "response_format.json_schema.schema"),
    ],
)
def test_bad_formats(value: object, param: str) -> None:
    error = refused(chat_body(response_format=value))
    assert error.param == param
    assert error.message.startswith(param)


@pytest.mark.parametrize(
    "outputs",
    [
        {"json": SCHEMA},
        {"json": json.dumps(SCHEMA)},
        {"json": {}},
        {"regex": r"\d+"},
        {"choice": ["yes", "no"]},
        {"grammar": 'start: "a"'},
        {"json_object": True},
        {"json": SCHEMA, "regex": None, "json_object": False, "disable_any_whitespace": False},
    ],
)
def test_each_kind_of_structured_outputs(outputs: dict[str, object]) -> None:
    request = parsed(structured_outputs=outputs, response_format={"type": "text"})
    assert request.structured_outputs is not None
    assert request.enforced_by == "structured_outputs"
    assert request.ignored == ()


def test_a_schema_comes_as_an_object_or_as_text() -> None:
    for given in (SCHEMA, json.dumps(SCHEMA)):
        outputs = parsed(structured_outputs={"json": given}).structured_outputs
        assert outputs is not None
        assert outputs.json_schema == SCHEMA
    outputs = parsed(structured_outputs={"regex": "a"}).structured_outputs
    assert outputs is not None
    assert outputs.json_schema is None


@pytest.mark.parametrize(
    ("outputs", "param"),
    [
        ("x", "structured_outputs"),
        ([], "structured_outputs"),
        ({}, "structured_outputs"),
        ({"json": None}, "structured_outputs"),
        ({"json_object": False}, "structured_outputs"),
        ({"json": {}, "regex": "a"}, "structured_outputs"),
        ({"json": {}, "json_object": True}, "structured_outputs"),
        ({"json": 5}, "structured_outputs.json"),
        ({"json": []}, "structured_outputs.json"),
        ({"json": "{"}, "structured_outputs.json"),
        ({"json": "[]"}, "structured_outputs.json"),
        ({"json": "NaN"}, "structured_outputs.json"),
        ({"json": "[" * 40_000}, "structured_outputs.json"),
        ({"json": '{"a":' * 100 + "1" + "}" * 100}, "structured_outputs.json"),
        ({"json": nested(MAX_DEPTH + 1)}, "structured_outputs.json"),
        ({"json": {"a": "x" * MAX_BYTES}}, "structured_outputs.json"),
        ({"json": '{"a":"' + "€" * (MAX_BYTES // 3) + '"}'}, "structured_outputs.json"),
        ({"regex": 5}, "structured_outputs.regex"),
        ({"regex": "x" * (MAX_BYTES + 1)}, "structured_outputs.regex"),
        ({"grammar": ["x"]}, "structured_outputs.grammar"),
        ({"grammar": "€" * MAX_BYTES}, "structured_outputs.grammar"),
        ({"choice": []}, "structured_outputs.choice"),
        ({"choice": "ab"}, "structured_outputs.choice"),
        ({"choice": ["a"] * 4097}, "structured_outputs.choice"),
        ({"choice": ["x" * 1000] * 300}, "structured_outputs.choice"),
        ({"choice": ["a", 5]}, "structured_outputs.choice[1]"),
        ({"json_object": 1}, "structured_outputs.json_object"),
    ],
)
def test_bad_structured_outputs(outputs: object, param: str) -> None:
    error = refused(chat_body(structured_outputs=outputs))
    assert error.param == param
    assert error.message.startswith(param)


@pytest.mark.parametrize(
    ("member", "param"),
    [
        ("structural_tag", "structured_outputs.structural_tag"),
        ("whitespace_pattern", "structured_outputs.whitespace_pattern"),
        ("disable_any_whitespace", "structured_outputs.disable_any_whitespace"),
        ("a b\r\n" + "x" * 100, "structured_outputs.a_b__" + "x" * 59),
    ],
)
def test_other_members_of_structured_outputs(member: str, param: str) -> None:
    error = refused(chat_body(structured_outputs={"json": {}, member: True}))
    assert isinstance(error, UnsupportedParameter)
    assert error.param == param


def test_one_format_at_a_time() -> None:
    body = chat_body(response_format={"type": "json_object"}, structured_outputs={"regex": "a"})
    assert refused(body).param == "structured_outputs"


ENFORCED = [
    {"response_format": {"type": "json_object"}},
    {"response_format": by_schema({})},
    {"structured_outputs": {"regex": "a"}},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": TOOL},
    {"tools": [STRICT]},
    {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
    {
        "tools": [TOOL],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [TOOL]},
        },
    },
]


@pytest.mark.parametrize("enforced", ENFORCED)
def test_what_a_grammar_leaves_no_room_for(enforced: dict[str, object]) -> None:
    assert refused(chat_body(ignore_eos=True, **enforced)).param == "ignore_eos"
    assert refused(chat_body(min_tokens=5, **enforced)).param == "min_tokens"
    messages = [*HELLO, {"role": "assistant", "content": '{"a'}]
    error = refused(chat_body(continue_final_message=True, messages=messages, **enforced))
    assert error.param == "continue_final_message"
    body = chat_body(ignore_eos=False, min_tokens=0, continue_final_message=False, **enforced)
    assert parse_chat(body).enforced_by in enforced


@pytest.mark.parametrize(
    "free",
    [
        {"response_format": {"type": "text"}},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [STRICT], "tool_choice": "none"},
        {"functions": [{"name": "f"}]},
        {"functions": [{"name": "f", "strict": True}], "function_call": "none"},
    ],
)
def test_where_nothing_is_enforced(free: dict[str, object]) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "I th"}]
    request = parsed(
        ignore_eos=True, min_tokens=5, continue_final_message=True, messages=messages, **free
    )
    assert request.enforced_by is None


def test_the_sdk_and_langchain_send_nothing_else() -> None:
    openai = pytest.importorskip("langchain_openai")
    model = openai.ChatOpenAI(model="m", api_key="k", base_url="http://x/v1")
    schema = {"title": "n", "description": "d", "type": "object", "properties": {}}
    for method in ("json_schema", "json_mode", "function_calling"):
        runnable = model.with_structured_output(
            None if method == "json_mode" else schema, method=method
        )
        bound = runnable.steps[0]
        kwargs = {name: value for name, value in bound.kwargs.items() if name != "ls_structured"}
        payload = model._get_request_payload([("user", "hi")], **kwargs)
        request = parse_chat(json.dumps(payload, default=str).encode())
        assert request.enforced_by is not None
