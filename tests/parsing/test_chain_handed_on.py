"""The chain behind another server: what it left in the text, and what it told apart itself."""

import pytest

from qwen_openai.core import (
    Event,
    Extra,
    Finish,
    Job,
    Message,
    Reasoning,
    Sampling,
    Started,
    Text,
    Tool,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.parsing.chain import Chain

TOOLS = (Tool("f"), Tool("g"))
CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'


def a_job(**members: object) -> Job:
    return Job("j", "m", (Message("user", "a"),), **members)  # type: ignore[arg-type]  # named by tests


def with_tools(**members: object) -> Job:
    return a_job(tools=TOOLS, tool_syntax="hermes", **members)


def fed(job: Job, *events: Event) -> list[Event]:
    chain = Chain(job, handed_on=True)
    out: list[Event] = []
    for event in events:
        out += chain.feed(event)
        if out and isinstance(out[-1], Finish):
            break
    return [each for each in out if not isinstance(each, Text) or each.text]


def test_stop_strings_are_the_servers_business() -> None:
    job = a_job(sampling=Sampling(stop=("b",)))
    events: list[Event] = [Text(0, "abc"), Finish(0, "stop", 3)]
    assert fed(job, *events) == events


def test_a_call_in_the_text_becomes_one() -> None:
    start, arguments, finish = fed(with_tools(), Text(0, CALL), Finish(0, "stop", 9))
    assert isinstance(start, ToolCallStart)
    assert (start.call, start.name) == (0, "f")
    assert arguments == ToolCallArguments(0, 0, '{"x": 1}')
    assert finish == Finish(0, "tool_calls", 9)


def test_thoughts_in_the_text_become_thoughts() -> None:
    events = fed(a_job(thinks=True), Text(0, "<think>\nhm\n</think>\n\nyes"), Finish(0, "stop", 5))
    assert [type(each) for each in events] == [Reasoning, Text, Finish]
    assert [each.text for each in events[:2]] == ["hm", "yes"]  # type: ignore[union-attr]  # those two


def test_thoughts_told_apart_stay_as_they_are() -> None:
    events: list[Event] = [Reasoning(0, "hm"), Text(0, "<think>yes"), Finish(0, "stop", 5)]
    assert fed(a_job(thinks=True), *events) == events


def test_behind_a_typed_call_no_more_are_looked_for() -> None:
    events: list[Event] = [
        Started(0, 1),
        Text(0, "I call."),
        ToolCallStart(0, 0, "c", "g"),
        ToolCallArguments(0, 0, "{}"),
        Text(0, CALL),
        Finish(0, "tool_calls", 9),
    ]
    assert fed(with_tools(), *events) == events


def test_what_was_held_comes_before_a_typed_call() -> None:
    events = fed(
        with_tools(),
        Text(0, "see <tool_"),
        ToolCallStart(0, 0, "c", "g"),
        ToolCallArguments(0, 0, "{}"),
        Finish(0, "tool_calls", 9),
    )
    text = "".join(each.text for each in events if isinstance(each, Text))
    assert text == "see <tool_"
    assert isinstance(events[-2], ToolCallArguments)


def test_typed_calls_are_numbered_behind_those_of_the_text() -> None:
    events = fed(
        with_tools(),
        Text(0, CALL),
        ToolCallStart(0, 0, "c", "g"),
        ToolCallArguments(0, 0, "{}"),
        Finish(0, "tool_calls", 9),
    )
    starts = [each for each in events if isinstance(each, ToolCallStart)]
    assert [(each.call, each.name) for each in starts] == [(0, "f"), (1, "g")]
    assert len({each.id for each in starts}) == 2
    assert [each.call for each in events if isinstance(each, ToolCallArguments)] == [0, 1]


@pytest.mark.parametrize("watched", [True, False])
def test_one_call_is_the_end_where_there_may_be_one(watched: bool) -> None:
    job = with_tools(parallel_tool_calls=False, watched=watched)
    events = fed(job, Text(0, CALL + CALL, 20), Finish(0, "stop", 25, None, 7))
    assert [type(each) for each in events] == [ToolCallStart, ToolCallArguments, Finish]
    finish = events[-1]
    assert isinstance(finish, Finish)
    # A stream is cut there; a whole answer has cost what it has cost.
    assert finish.completion_tokens == (20 if watched else 25)
    assert finish.reason == "tool_calls"


def test_members_without_a_place_pass() -> None:
    extra = Extra(0, {"service_tier": "default"})
    assert fed(with_tools(), extra, Text(0, "a"), Finish(0, "stop", 1))[0] == extra
