"""A responses request asks for the same as the chat request that means the same."""

import json
from dataclasses import replace

import pytest

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.limits import Limits
from qwen_openai.adapter.responses_api import responses_job
from qwen_openai.core import Job, Message, ToolCall
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.families import DEFAULT_FAMILY, Family, family_named
from qwen_openai.protocol.responses_api import parse_responses
from tests.protocol.bodies import parsed

FAMILY = family_named("qwen3")
ALWAYS = replace(FAMILY, thinking="always")
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
}
USER = {"role": "user", "content": "u"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def job_of(
    changes: dict[str, object], family: Family, refuses: frozenset[str] = frozenset()
) -> Job:
    body = {"model": "m", "input": "hi", **changes}
    request = parse_responses(json.dumps(body).encode())
    return responses_job(request, id="x", family=family, limits=Limits(), refuses=refuses)


def job(**changes: object) -> Job:
    return job_of(changes, FAMILY)


def chat(**changes: object) -> Job:
    return chat_job(parsed(**changes), id="x", family=FAMILY, limits=Limits())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        (
            {"instructions": "s"},
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]},
        ),
        ({"max_output_tokens": 7, "temperature": 0}, {"max_tokens": 7, "temperature": 0}),
        ({"stop": ["x"], "seed": 4, "top_k": 3}, {"stop": ["x"], "seed": 4, "top_k": 3}),
        ({"reasoning": {"effort": "none"}}, {"reasoning_effort": "none"}),
        ({"stream": True}, {"stream": True}),
        ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"top_logprobs": 0}, {}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"tools": [TOOL]}, {"tools": [CHAT_TOOL]}),
        ({"tools": [], "tool_choice": "auto"}, {}),
        (
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [CHAT_TOOL], "parallel_tool_calls": False},
        ),
        (
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [CHAT_TOOL], "tool_choice": "required"},
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
            {
                "tools": [CHAT_TOOL],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {
                "tools": [CHAT_TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": "f"}}],
                    },
                },
            },
        ),
    ],
)
def test_the_same_job(ours: dict[str, object], theirs: dict[str, object]) -> None:
    assert job(**ours) == chat(**theirs)


def test_a_format_is_named_as_it_came() -> None:
    format = {"type": "json_schema", "name": "s", "schema": SCHEMA}
    made = job(text={"format": format})
    theirs = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
    expected = chat(response_format=theirs)
    assert made.grammar is not None
    assert expected.grammar is not None
    assert (made.grammar.rules, made.grammar.param) == (expected.grammar.rules, "text.format")
    moot = job(text={"format": {"type": "json_object"}}, tools=[TOOL], tool_choice="required")
    assert moot.ignored == ("text.format",)


def call(id: str, arguments: str = "{}") -> dict[str, object]:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": arguments}


def result(id: str, output: object = "r") -> dict[str, object]:
    return {"type": "function_call_output", "call_id": id, "output": output}


def thought(text: str) -> dict[str, object]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}


def said(text: str) -> dict[str, object]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }


def test_the_items_of_one_turn_are_one_message() -> None:
    items = [USER, thought("t"), said("a"), call("1"), call("2"), result("2"), result("1")]
    assert job(input=items).messages == (
        Message("user", "u"),
        Message("assistant", "a", (ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}")), None, "t"),
        Message("tool", "r", tool_call_id="1"),
        Message("tool", "r", tool_call_id="2"),
    )
    assert job(input=items).ignored == ()


def test_thoughts_and_text_between_calls_do_not_part_them() -> None:
    items = [USER, thought("t"), call("1"), said("a"), thought("v"), call("2")]
    made = job(input=[*items, result("1"), result("2")]).messages[1]
    calls = (ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}"))
    assert made == Message("assistant", "a", calls, None, "t\nv")


def test_thoughts_that_nothing_follows_are_a_turn_of_their_own() -> None:
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}
    for items in ([USER, summary], [USER, summary, USER]):
        assert job(input=items).messages[1] == Message("assistant", "", reasoning="s")


def test_parts_are_joined() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    made = job(input=[{"role": "developer", "content": parts}, USER, call("1"), result("1", parts)])
    assert made.messages[0] == Message("system", "a\nb")
    assert made.messages[3].content == "a\nb"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": [USER, call("1")]}, "input[1].call_id"),
        ({"input": [USER, call("1"), call("2"), result("1")]}, "input[2].call_id"),
        ({"input": [USER, result("1")]}, "input[1].call_id"),
        ({"input": [USER, call("1"), result("2")]}, "input[2].call_id"),
        ({"input": [USER, call("1", "[]"), result("1")]}, "input[1].arguments"),
        ({"input": [USER, *[call(str(n)) for n in range(129)]]}, "input[129]"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        (
            {"text": {"format": {"type": "json_schema", "name": "s", "schema": {"$ref": "x:y"}}}},
            "text.format",
        ),
    ],
)
def test_faults_are_named_where_they_are(changes: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        job(**changes)
    assert caught.value.param == param
    assert "messages[" not in caught.value.message
    assert "tool_call" not in caught.value.message


@pytest.mark.parametrize(
    ("family", "refuses", "changes", "param"),
    [
        (DEFAULT_FAMILY, frozenset(), {"tools": [TOOL]}, "tools"),
        (DEFAULT_FAMILY, frozenset(), {"input": [USER, call("1"), result("1")]}, "input[1]"),
        (ALWAYS, frozenset(), {"reasoning": {"effort": "none"}}, "reasoning.effort"),
        (FAMILY, frozenset({"logprobs"}), {"top_logprobs": 1}, "top_logprobs"),
        (
            FAMILY,
            frozenset({"response_format"}),
            {"text": {"format": {"type": "json_object"}}},
            "text.format",
        ),
    ],
)
def test_what_cannot_be_done_is_named_where_it_is_asked_for(
    family: Family, refuses: frozenset[str], changes: dict[str, object], param: str
) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        job_of(changes, family, refuses)
    assert caught.value.param == param
    assert param in caught.value.message


def test_what_has_no_effect_is_named_as_it_came() -> None:
    never = replace(FAMILY, thinking="never")
    assert job_of({"reasoning": {"effort": "low"}}, never).ignored == ("reasoning.effort",)


def test_truncation_lets_old_turns_go() -> None:
    assert job(truncation="auto").drop_oldest_pairs
    assert not job(truncation="disabled").drop_oldest_pairs
