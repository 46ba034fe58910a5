"""Messages and tools as templates take them."""

import json

import pytest

from qwen_openai.core import Message, Tool, ToolCall
from qwen_openai.errors import InvalidRequest
from qwen_openai.prompting.inert import Inert
from qwen_openai.prompting.turns import covered, tool_of, turn_of

INERT = Inert(("<think>", "</think>", "<tool_call>"), [])


def turn(message: Message, splits: bool = False) -> dict[str, object]:
    return turn_of(message, INERT, splits_thoughts=splits)


def call(arguments: str) -> object:
    calls = turn(Message("assistant", "", (ToolCall("c", "f", arguments),)))["tool_calls"]
    assert isinstance(calls, list)
    return calls[0]["function"]["arguments"]


def test_a_turn_has_what_the_message_has() -> None:
    assert turn(Message("user", "q")) == {"role": "user", "content": "q"}
    assert turn(Message("tool", "r", tool_call_id="c")) == {
        "role": "tool",
        "content": "r",
        "tool_call_id": "c",
    }
    assert turn(Message("assistant", "", (ToolCall("c", "f", "{}"),), reasoning="hm")) == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "thinking": "hm",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}],
    }


def test_a_tool_has_what_was_given() -> None:
    schema: dict[str, object] = {"type": "object"}
    assert tool_of(Tool("f"), INERT) == {"type": "function", "function": {"name": "f"}}
    assert list(tool_of(Tool("f", "d", schema, strict=True), INERT).items()) == [
        ("type", "function"),
        ("function", {"name": "f", "description": "d", "parameters": schema}),
    ]


@pytest.mark.parametrize("arguments", ["", " \n"])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    assert call(arguments) == {}


def test_arguments_are_an_object() -> None:
    assert call('{"b": [1, 1.5, null, true], "a": "x\ny"}') == {
        "b": [1, 1.5, None, True],
        "a": "x\ny",
    }


@pytest.mark.parametrize(
    "arguments",
    ["{", "[]", "1", '"x"', "null", "{}{}", "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "{'a': 1}"],
)
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    with pytest.raises(InvalidRequest, match="no JSON object") as caught:
        call(arguments)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("number", [0xD800, 0xDE00, 0xDFFF])
def test_a_surrogate_out_of_an_escape_is_refused(number: int) -> None:
    text = chr(number)
    for arguments in ({"a": text}, {text: 1}, {"a": [{"b": text}]}):
        with pytest.raises(InvalidRequest, match="surrogate"):
            call(json.dumps(arguments))
    with pytest.raises(InvalidRequest, match="surrogate") as caught:
        tool_of(Tool("f", parameters={"enum": [text]}), INERT)
    assert caught.value.param == "tools"


def test_covers_keys_and_values_at_any_depth() -> None:
    hostile = {"<think>": [{"a": "<tool_call>"}, 1, None, True, ("</think>",)]}
    text = json.dumps(covered(hostile, INERT, "tools"), ensure_ascii=False)
    assert "<" not in text
    assert INERT.uncover(text) == json.dumps(hostile)


def test_what_is_too_deep_is_refused() -> None:
    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="too deeply") as caught:
        covered(deep, INERT, "tools")
    assert caught.value.param == "tools"


def test_tags_of_thoughts_stay_only_where_the_template_takes_them_out() -> None:
    text = "<think>a<tool_call></think>b<think>"
    kept = turn(Message("assistant", text), splits=True)["content"]
    assert isinstance(kept, str)
    assert kept.count("<think>") == kept.count("</think>") == 1
    assert "<tool_call>" not in kept
    assert INERT.uncover(kept) == text
    for message in (
        Message("user", text),
        Message("assistant", text, reasoning="hm"),
        Message("assistant", "<think>open"),
    ):
        assert "<" not in str(turn(message, splits=True)["content"])
    assert "<" not in str(turn(Message("assistant", text))["content"])
