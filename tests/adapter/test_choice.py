"""Which tools a model is told of, which it may call, and what of that is enforced."""

import pytest

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.limits import Limits
from qwen_openai.core import FinishReason, Job
from qwen_openai.families import family_named
from qwen_openai.grammars import build
from tests.protocol.bodies import parsed

FAMILY = family_named("qwen3")


def tool(name: str, *, strict: bool | None = None) -> dict[str, object]:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": schema, "strict": strict}}


def named(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, object]:
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


TWO = [tool("f"), tool("g")]


def job(**changes: object) -> Job:
    request = parsed(**changes)
    return chat_job(request, id="chatcmpl-1", family=FAMILY, limits=Limits())


@pytest.mark.parametrize(
    ("choice", "told", "enforced", "reason"),
    [
        (None, "fg", None, "tool_calls"),
        ("auto", "fg", None, "tool_calls"),
        ("none", "", None, "tool_calls"),
        ("required", "fg", "fg", "tool_calls"),
        (named("g"), "fg", "g", "stop"),
        (allowed("auto", "g"), "g", None, "tool_calls"),
        (allowed("required", "g", "f"), "fg", "fg", "tool_calls"),
    ],
)
def test_the_choice(choice: object, told: str, enforced: str | None, reason: FinishReason) -> None:
    made = job(tools=TWO, tool_choice=choice)
    assert "".join(each.name for each in made.tools) == told
    assert made.calls_reason == reason
    assert made.tool_syntax == ("hermes" if told else None)
    if enforced is None:
        assert made.grammar is None
        return
    assert made.grammar is not None
    assert made.grammar.param == "tool_choice"
    every = job(tools=TWO).tools
    assert made.grammar.rules == build.calls(
        [each for each in every if each.name in enforced],
        "hermes",
        required=True,
        parallel=reason == "tool_calls",
    )


def test_parallel_calls_are_allowed_unless_said_otherwise_or_one_is_named() -> None:
    assert job(tools=TWO).parallel_tool_calls
    assert not job(tools=TWO, parallel_tool_calls=False).parallel_tool_calls
    assert not job(tools=TWO, tool_choice=named("f")).parallel_tool_calls
    one = job(tools=TWO, tool_choice="required", parallel_tool_calls=False)
    assert one.grammar != job(tools=TWO, tool_choice="required").grammar


def test_strict_functions_are_enforced_where_they_may_be_called() -> None:
    tools = [tool("f", strict=True), tool("g")]
    made = job(tools=tools)
    assert made.grammar is not None
    assert made.grammar.param == "tools"
    assert made.tools[0].strict
    assert job(tools=tools, tool_choice="none").grammar is None
    assert job(tools=tools, tool_choice=allowed("auto", "g")).grammar is None


def test_with_a_format_an_answer_is_calls_or_has_it() -> None:
    made = job(tools=TWO, response_format={"type": "json_object"})
    assert made.grammar is not None
    assert made.grammar.param == "response_format"
    assert made.grammar.rules == build.calls(
        made.tools, "hermes", required=False, parallel=True, answer=build.json_object()
    )


def test_with_choice_none_the_model_is_not_told() -> None:
    calling = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [calling]},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ]
    # Earlier calls stand in its prompt all the same, so it may write in their format.
    made = job(messages=messages, tools=TWO, tool_choice="none")
    assert (made.tools, made.tool_syntax) == ((), "hermes")
    made = job(messages=messages, tool_choice="none", response_format={"type": "json_object"})
    assert made.grammar is not None
    assert made.grammar.rules == build.json_object()


def test_a_family_with_the_habit_of_bare_calls() -> None:
    family = family_named("qwen2.5-coder")
    made = chat_job(parsed(tools=TWO), id="x", family=family, limits=Limits())
    assert made.bare_calls
    assert not chat_job(parsed(), id="x", family=family, limits=Limits()).bare_calls
    strict = parsed(tools=[tool("f", strict=True)])
    made = chat_job(strict, id="x", family=family, limits=Limits())
    assert made.grammar is not None
    assert made.grammar.rules == build.calls(
        made.tools, "hermes", required=False, parallel=True, bare=True
    )


FUNCTIONS = [{"name": "f"}, {"name": "g", "parameters": {"type": "object"}}]


@pytest.mark.parametrize(
    ("call", "told", "reason", "param"),
    [
        (None, "fg", "tool_calls", None),
        ("auto", "fg", "tool_calls", None),
        ("none", "", "tool_calls", None),
        ({"name": "g"}, "fg", "stop", "function_call"),
    ],
)
def test_the_older_form(call: object, told: str, reason: FinishReason, param: str | None) -> None:
    made = job(functions=FUNCTIONS, function_call=call)
    assert "".join(each.name for each in made.tools) == told
    assert made.calls_reason == reason
    assert not made.parallel_tool_calls
    assert (made.grammar.param if made.grammar else None) == param
