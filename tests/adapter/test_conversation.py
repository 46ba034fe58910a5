"""Messages: the older form of calls and results, thoughts, parts."""

import pytest

from qwen_openai.adapter.conversation import conversation
from qwen_openai.core import Message, ToolCall
from qwen_openai.errors import InvalidRequest
from tests.protocol.bodies import parsed

USER = {"role": "user", "content": "x"}


def called(name: str = "f", arguments: str = "{}") -> dict[str, object]:
    call = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": None, "function_call": call}


def result(name: str = "f") -> dict[str, object]:
    return {"role": "function", "name": name, "content": "r"}


def made(*messages: object) -> list[Message]:
    return conversation(parsed(messages=list(messages)).messages)


def test_a_call_in_the_older_form_gets_an_id_of_its_place() -> None:
    system = {"role": "system", "content": "s"}
    once = made(USER, called(), result(), called("g"), system, result("g"))
    assert once == [
        Message("user", "x"),
        Message("assistant", "", (ToolCall("call_1", "f", "{}"),)),
        Message("tool", "r", tool_call_id="call_1"),
        Message("assistant", "", (ToolCall("call_3", "g", "{}"),)),
        Message("system", "s"),
        Message("tool", "r", tool_call_id="call_3"),
    ]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, result()], "messages[1].name"),
        ([USER, called("g"), result()], "messages[2].name"),
        ([USER, called(), result(), result()], "messages[3].name"),
        ([USER, called()], "messages[1].function_call"),
        ([USER, called(), USER], "messages[1].function_call"),
        ([USER, called(arguments="[1]"), result()], "messages[1].function_call.arguments"),
    ],
)
def test_calls_and_results_in_the_older_form_must_fit(messages: list[object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        made(*messages)
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_come_back_under_either_name(name: str) -> None:
    assert made(USER, {"role": "assistant", "content": "a", name: "t"})[1] == Message(
        "assistant", "a", reasoning="t"
    )
    assert made({**USER, name: "t"}) == [Message("user", "x")]
