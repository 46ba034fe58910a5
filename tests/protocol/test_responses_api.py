"""The body of POST /v1/responses: what is taken, what is reported, what is refused by name."""

import json
from typing import cast

import pytest
from pydantic import ValidationError

from qwen_openai.errors import ApiError, ModelNotFound, UnsupportedContent, UnsupportedParameter
from qwen_openai.protocol.responses_api import (
    RESPONSES_PARAMETERS,
    ResponsesRequest,
    parse_responses,
)
from tests import spec


def body(**changes: object) -> bytes:
    whole = {"model": "m", "input": "hi", **changes}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def parsed(**changes: object) -> ResponsesRequest:
    return parse_responses(body(**changes))


TOOL = {"type": "function", "name": "f", "parameters": None, "strict": None}
USER = {"role": "user", "content": "u"}
ITEMS: list[object] = [
    USER,
    {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": "a"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc_1"},
    {"type": "function_call_output", "call_id": "c", "output": "r"},
]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input": ITEMS},
        {"input": ""},
        {"tools": []},
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"text": {"format": {"type": "json_schema", "name": "s", "schema": {}, "strict": True}}},
        {"reasoning": {"effort": "max", "summary": None}},
        {"metadata": {"a": "b"}, "truncation": "disabled"},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 20},
        {"store": False, "background": False, "service_tier": "auto"},
        {"previous_response_id": None, "conversation": None, "prompt": None, "text": None},
        {"n": 1, "logprobs": False, "ignore_eos": False, "min_tokens": 0, "logit_bias": {}},
    ],
)
def test_what_is_taken_in_silence(changes: dict[str, object]) -> None:
    assert parsed(**changes).ignored == ()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"store": True}, ("store",)),
        ({"user": "u", "safety_identifier": "s"}, ("user", "safety_identifier")),
        ({"max_tool_calls": 3}, ("max_tool_calls",)),
        ({"prompt_cache_retention": "24h"}, ("prompt_cache_retention",)),
        ({"prompt_cache_options": {"ttl": "30m"}}, ("prompt_cache_options",)),
        ({"reasoning": {"summary": "auto"}}, ("reasoning.summary",)),
        ({"text": {"verbosity": "low"}}, ("text.verbosity",)),
        ({"include": ["reasoning.encrypted_content"]}, ("include.reasoning.encrypted_content",)),
        ({"parallel_tool_calls": True}, ("parallel_tool_calls",)),
        ({"input": [{**USER, "odd": 1}]}, ("input.odd",)),
        ({"tools": [{**TOOL, "defer_loading": True}]}, ("tools.defer_loading",)),
        ({"odd": 1}, ("odd",)),
    ],
)
def test_what_has_no_effect_is_reported(changes: dict[str, object], names: tuple[str, ...]) -> None:
    assert parsed(**changes).ignored == names
    with pytest.raises(UnsupportedParameter) as caught:
        parse_responses(body(**changes), strict=True)
    assert caught.value.param == names[0]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": ...}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"id": "msg_1"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
        ({"input": [USER, {"role": "user", "content": [{"type": "text"}]}]}, "input[1].content[0]"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": [{"type": "x"}]}]}, "input[0].summary[0]"),
        ({"input": [USER] * 2049}, "input"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "strict": 1}]}, "tools[0].strict"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "s"}}}, "text.format.schema"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"reasoning": {"effort": "big"}}, "reasoning.effort"),
        ({"include": ["everything"]}, "include[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"truncation": "some"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"service_tier": "slow"}, "service_tier"),
        ({"prompt_cache_retention": "1h"}, "prompt_cache_retention"),
        ({"prompt_cache_options": []}, "prompt_cache_options"),
        ({"max_tool_calls": "3"}, "max_tool_calls"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"instructions": [USER]}, "instructions"),
        ({"chat_template": "x"}, "chat_template"),
    ],
)
def test_faults_are_named(changes: dict[str, object], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parsed(**changes)
    assert caught.value.status == 400
    assert (caught.value.param or "").startswith(param)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "input"),
        ({"conversation": "conv_1"}, "conversation", "input"),
        ({"conversation": {"id": "conv_1"}}, "conversation", "input"),
        ({"background": True}, "background", "stream"),
        ({"prompt": {"id": "p"}}, "prompt", "instructions"),
        ({"messages": []}, "messages", "input"),
        ({"max_tokens": 3}, "max_tokens", "max_output_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format", "text.format"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "reasoning.effort"),
        ({"functions": []}, "functions", "tools"),
        ({"n": 2}, "n", "leave it out"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "functions"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "tools[0].type", "functions"),
    ],
)
def test_what_is_refused_by_name(changes: dict[str, object], param: str, says: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        parsed(**changes)
    assert caught.value.param == param
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"type": "item_reference", "id": "msg_1"}], "input[0]"),
        ([USER, {"type": "web_search_call", "id": "ws_1"}], "input[1]"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}],
            "input[0].content[0]",
        ),
        (
            [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]}],
            "input[0].output[0]",
        ),
    ],
)
def test_what_is_no_text_is_refused(items: list[object], param: str) -> None:
    with pytest.raises(UnsupportedContent) as caught:
        parsed(input=items)
    assert caught.value.param == param


def test_a_model_that_is_no_name() -> None:
    with pytest.raises(ModelNotFound):
        parsed(model=42)
    assert parsed(model=None).model == ""


def test_every_parameter_of_the_specification_has_its_row() -> None:
    if not spec.present():
        return
    document = json.loads((spec.folder() / spec.FILE).read_text(encoding="utf-8"))
    schemas = document["components"]["schemas"]
    found: set[str] = set()
    waiting = [schemas["CreateResponse"]]
    while waiting:
        schema = cast("dict[str, dict[str, object]]", waiting.pop())
        found |= schema.get("properties", {}).keys()
        for part in cast("list[dict[str, str]]", schema.get("allOf", [])):
            waiting.append(schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part)
    assert found
    assert found <= RESPONSES_PARAMETERS.keys()


def test_a_big_object_is_refused_before_its_entries_are_looked_at() -> None:
    """Each entry would be a fault of its own, and 90,000 of them cost two seconds to tell."""
    metadata = dict.fromkeys(map(str, range(1000)), 5)
    with pytest.raises(ValidationError) as caught:
        ResponsesRequest.model_validate({"input": "hi", "metadata": metadata})
    assert caught.value.error_count() == 1
