"""Calls and results in a conversation: threat rows 17 and 18, each named by index and id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.adapter.tools import results_of_calls
from qwen_openai.core import Message, ToolCall
from qwen_openai.errors import InvalidRequest

USER = Message("user", "u")


def calls(*ids: str, name: str = "f", arguments: str = "{}") -> Message:
    return Message("assistant", "", tuple(ToolCall(id, name, arguments) for id in ids))


def result(id: str | None, content: str = "r") -> Message:
    return Message("tool", content, tool_call_id=id)


def test_results_come_in_the_order_of_the_calls() -> None:
    messages = [USER, calls("a", "b"), result("b", "2"), Message("system", "s"), result("a", "1")]
    assert results_of_calls(messages) == {1: ("1", "2")}


def test_an_id_may_come_again_in_a_later_message() -> None:
    messages = [USER, calls("a"), result("a", "1"), calls("a"), result("a", "2"), USER]
    assert results_of_calls(messages) == {1: ("1",), 3: ("2",)}


@pytest.mark.parametrize(
    ("messages", "param", "says"),
    [
        ([result("c")], "messages[0].tool_call_id", '"c"'),
        ([USER, result("c")], "messages[1].tool_call_id", "no assistant message"),
        ([USER, calls("a"), result("c")], "messages[2].tool_call_id", '"c", which is no id'),
        ([USER, calls("a"), result(None)], "messages[2].tool_call_id", "required"),
        ([calls("a"), result("a"), result("a")], "messages[2].tool_call_id", "already"),
        ([calls("a"), result("a"), USER, result("a")], "messages[3].tool_call_id", "no assistant"),
        ([calls("a", "b"), result("a"), USER], "messages[0].tool_calls[1].id", '"b" has no result'),
        ([USER, calls("a")], "messages[1].tool_calls[0].id", "no result"),
        ([calls("a"), calls("b"), result("b")], "messages[0].tool_calls[0].id", "no result"),
        ([calls("a", "a"), result("a")], "messages[0].tool_calls[1].id", '"a"'),
        ([calls(""), result("")], "messages[0].tool_calls[0].id", "empty"),
        ([calls("a", name="x\ny")], "messages[0].tool_calls[0].function.name", '"a"'),
        ([calls("a", name="")], "messages[0].tool_calls[0].function.name", '"a"'),
        ([calls("a", arguments="")], "messages[0].tool_calls[0].function.arguments", '"a"'),
        ([calls("a", arguments="[1]")], "messages[0].tool_calls[0].function.arguments", "object"),
        (
            [calls("a", arguments="{'x': 1}")],
            "messages[0].tool_calls[0].function.arguments",
            "JSON",
        ),
        (
            [calls("a", arguments='{"a":' * 100_000)],
            "messages[0].tool_calls[0].function.arguments",
            "JSON",
        ),
        (
            [Message("user", "u", (ToolCall("a", "f", "{}"),))],
            "messages[0].tool_calls",
            "a user message",
        ),
        ([Message("user", "u", tool_call_id="a")], "messages[0].tool_call_id", "a user message"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    messages: list[Message], param: str, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        results_of_calls(messages)
    assert caught.value.param == param
    assert caught.value.message.startswith(param)
    assert says in caught.value.message
    assert len(caught.value.message) < 400


ids = st.sampled_from(["a", "b", "c"])
some_messages = st.lists(
    st.one_of(
        st.sampled_from([USER, Message("system", "s"), Message("assistant", "x")]),
        st.lists(ids, min_size=1, max_size=3).map(lambda many: calls(*many)),
        ids.map(result),
    ),
    max_size=8,
)


@given(some_messages)
def test_every_call_has_its_results_or_all_is_refused(messages: list[Message]) -> None:
    refused: str | None = None
    try:
        found = results_of_calls(messages)
    except InvalidRequest as error:
        refused = error.param or ""
    if refused is not None:
        assert refused.startswith("messages[")
        return
    asked = {index: each for index, each in enumerate(messages) if each.tool_calls}
    assert found.keys() == asked.keys()
    assert sum(len(each) for each in found.values()) == sum(m.role == "tool" for m in messages)
    assert all(len(found[index]) == len(each.tool_calls) for index, each in asked.items())
