"""Requests to jobs: roles, system messages, defaults, limits."""

import pytest

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.history import to_history
from qwen_openai.adapter.limits import Limits
from qwen_openai.core import Job, Message, Sampling, Tool, ToolCall
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.families import DEFAULT_FAMILY, Family, family_named, family_of
from tests.protocol.bodies import HELLO, parsed

FAMILY = family_of("qwen2.5-coder-0.5b")
LIMITS = Limits(max_n=8, max_messages=2048)
MERGED = "system messages merged into one leading message"
MOVED = "system message moved to the front"


def job(**changes: object) -> Job:
    return chat_job(parsed(**changes), id="chatcmpl-1", family=FAMILY, limits=LIMITS)


def turns(*pairs: tuple[str, str]) -> list[object]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_defaults_are_the_familys() -> None:
    made = job()
    assert made == Job(
        id="chatcmpl-1",
        model="m",
        messages=(Message("user", "hi"),),
        sampling=Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0.0, repetition_penalty=1.1),
        watched=False,
    )
    assert made.sampling.max_tokens is None


def test_every_value_arrives() -> None:
    made = job(
        temperature=0,
        top_p=1,
        top_k=5,
        min_p=0.1,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1,
        seed=-7,
        max_tokens=9,
        stop=["b", "a", "b"],
        n=8,
        user="u",
    )
    assert made.sampling == Sampling(0, 1, 5, 0.1, 1, -1, 1, -7, 9, ("b", "a"))
    assert made.n == 8
    assert made.ignored == ("user",)


def test_small_translations() -> None:
    assert job(top_k=-1).sampling.top_k == 0
    assert job(top_k=0).sampling.top_k == 0
    assert job(stop="x").sampling.stop == ("x",)
    assert job(max_tokens=9, max_completion_tokens=3).sampling.max_tokens == 3
    assert job(max_tokens=3, max_completion_tokens=9).sampling.max_tokens == 9


@pytest.mark.parametrize(
    ("sent", "made", "changes"),
    [
        ([("user", "a")], [("user", "a")], ()),
        ([("system", "s"), ("user", "a")], [("system", "s"), ("user", "a")], ()),
        ([("developer", "s"), ("user", "a")], [("system", "s"), ("user", "a")], ()),
        ([("system", "s")], [("system", "s")], ()),
        ([("user", "a"), ("system", "s")], [("system", "s"), ("user", "a")], (MOVED,)),
        (
            [("system", "s"), ("developer", "d"), ("user", "a")],
            [("system", "s\n\nd"), ("user", "a")],
            (MERGED,),
        ),
        (
            [("system", "1"), ("user", "a"), ("assistant", "b"), ("system", "2"), ("user", "c")],
            [("system", "1\n\n2"), ("user", "a"), ("assistant", "b"), ("user", "c")],
            (MERGED,),
        ),
        (
            [("user", "a"), ("assistant", "b")],
            [("user", "a"), ("assistant", "b")],
            (),
        ),
    ],
)
def test_one_leading_system_message(
    sent: list[tuple[str, str]], made: list[tuple[str, str]], changes: tuple[str, ...]
) -> None:
    result = job(messages=turns(*sent))
    assert [(message.role, message.content) for message in result.messages] == made
    assert result.changes == changes
    assert not result.continue_final_message


def test_text_parts_are_joined_by_a_newline() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "b"},
    ]
    assert job(messages=[{"role": "user", "content": parts}]).messages[0].content == "a\n\nb"


def test_continuing_the_final_message() -> None:
    messages = turns(("user", "a"), ("assistant", "I th"))
    assert job(messages=messages, continue_final_message=True).continue_final_message


@pytest.mark.parametrize("n", [9, 16384, 10**9])
def test_n_is_limited(n: int) -> None:
    with pytest.raises(InvalidRequest, match=f"between 1 and 8, got {n}") as caught:
        job(n=n)
    assert caught.value.param == "n"


def test_messages_are_limited() -> None:
    request = parsed(messages=HELLO * 3)
    with pytest.raises(InvalidRequest, match="at most 2") as caught:
        chat_job(request, id="x", family=FAMILY, limits=Limits(max_messages=2))
    assert caught.value.param == "messages"


QWEN1 = family_named("qwen1")
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"a": 1}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ROUND: list[object] = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "r"},
]


def qwen1_job(**changes: object) -> Job:
    return chat_job(parsed(**changes), id="chatcmpl-1", family=QWEN1, limits=LIMITS)


def test_tools_and_calls_arrive() -> None:
    made = qwen1_job(messages=ROUND, tools=[TOOL], parallel_tool_calls=False, stream=True)
    assert made.tools == (Tool("f", "d", {"a": 1}),)
    assert made.tool_syntax == "react"
    assert not made.parallel_tool_calls
    assert not made.bare_calls
    assert made.watched
    assert made.messages == (
        Message("user", "x"),
        Message("assistant", "", (ToolCall("c", "f", "{}"),)),
        Message("tool", "r", tool_call_id="c"),
    )
    assert made.changes == ()


def test_results_come_in_the_order_of_their_calls() -> None:
    calls = [{**CALL, "id": id} for id in "abc"]
    system = {"role": "system", "content": "s"}
    results = [{"role": "tool", "tool_call_id": id, "content": f"r{id}"} for id in "cab"]
    sent = [ROUND[0], {"role": "assistant", "tool_calls": calls}, results[0], system, *results[1:]]
    made = job(messages=sent)
    told = [(each.tool_call_id, each.content) for each in made.messages if each.role == "tool"]
    assert told == [("a", "ra"), ("b", "rb"), ("c", "rc")]
    assert made.changes == ("tool results put in the order of their calls", MOVED)
    assert job(messages=ROUND).changes == ()


CLOSED = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
NAMED = {"type": "object", "properties": {"name": {}, "arguments": {}}}


def in_schema(schema: object) -> dict[str, object]:
    named = {"name": "s", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


@pytest.mark.parametrize(
    ("format", "bare"),
    [
        ({"response_format": {"type": "json_object"}}, True),
        ({"structured_outputs": {"json_object": True}}, True),
        (in_schema({"type": "object"}), True),
        (in_schema(CLOSED), True),
        ({"structured_outputs": {"json": CLOSED}}, True),
        ({"structured_outputs": {"json": '{"type": "integer"}'}}, True),
        (in_schema(NAMED), False),
        ({"structured_outputs": {"json": NAMED}}, False),
        ({"structured_outputs": {"regex": "a+"}}, False),
        ({"structured_outputs": {"choice": ["a"]}}, False),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, False),
    ],
)
def test_a_bare_call_beside_a_format_that_could_be_none(
    format: dict[str, object], bare: bool
) -> None:
    made = job(tools=[TOOL], **format)
    assert made.calls_lead
    assert made.bare_calls is bare
    assert made.grammar is not None
    assert ("bare" in made.grammar.rules) is bare
    assert not job(**format).bare_calls


def test_a_bare_call_is_none_where_it_could_not_be_held_to_its_schema() -> None:
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    assert not job(tools=[strict], response_format={"type": "json_object"}).bare_calls
    assert job(tools=[strict], **in_schema(CLOSED)).bare_calls


def test_behind_a_result_the_answer_has_the_schema_or_tags() -> None:
    assert not job(messages=ROUND, tools=[TOOL], **in_schema(CLOSED)).bare_calls
    asked = [*ROUND, {"role": "user", "content": "And now?"}]
    assert job(messages=asked, tools=[TOOL], **in_schema(CLOSED)).bare_calls
    any_object = {"type": "json_object"}
    assert job(messages=ROUND, tools=[TOOL], response_format=any_object).bare_calls
    assert job(messages=ROUND, tools=[TOOL]).bare_calls


def test_calls_lead_only_with_a_format() -> None:
    assert job(tools=[TOOL]).bare_calls
    assert not job(tools=[TOOL]).calls_lead
    assert job(tools=[TOOL], response_format={"type": "text"}).bare_calls


def test_pairs_keep_the_callers_order_and_tell_the_changes_once() -> None:
    sent = turns(("user", "a"), ("system", "s"), ("user", "b"))
    made = qwen1_job(messages=sent)
    assert [message.role for message in made.messages] == ["user", "system", "user"]
    assert made.changes == (MOVED, "consecutive user messages joined")
    again = to_history(made.messages, tools=made.tools)
    assert again.changes == made.changes


@pytest.mark.parametrize("family", [QWEN1, FAMILY], ids=["pairs", "template"])
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([ROUND[0], *ROUND[:2]], "messages[2].tool_calls[0].id"),
        ([ROUND[0], ROUND[2]], "messages[1].tool_call_id"),
        ([{"role": "system", "content": "s"}, *ROUND, ROUND[2]], "messages[4].tool_call_id"),
        ([ROUND[0], {"role": "system", "content": "s"}, ROUND[1]], "messages[2].tool_calls[0].id"),
    ],
)
def test_calls_that_do_not_fit_are_refused_with_the_callers_places(
    messages: list[object], param: str, family: Family
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat_job(parsed(messages=messages), id="x", family=family, limits=LIMITS)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": ROUND}, "messages[1].tool_calls"),
    ],
)
def test_a_model_without_tools_refuses_them_by_name(changes: dict[str, object], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        chat_job(parsed(**changes), id="x", family=DEFAULT_FAMILY, limits=LIMITS)
    assert caught.value.param == param


def test_a_format_that_can_never_be_is_reported() -> None:
    made = job(tools=[TOOL], tool_choice="required", response_format={"type": "json_object"})
    assert made.ignored == ("response_format",)
    assert made.grammar is not None
    assert made.grammar.param == "tool_choice"
    assert job(response_format={"type": "json_object"}).ignored == ()


def refused(*names: str, **changes: object) -> str | None:
    """The parameter that is refused of an engine that cannot honour `names`."""
    try:
        chat_job(parsed(**changes), id="x", family=FAMILY, limits=LIMITS, refuses=frozenset(names))
    except UnsupportedParameter as error:
        return error.param
    return None


STRICT = {"type": "function", "function": {"name": "f", "strict": True}}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("min_tokens", {"min_tokens": 1}),
        ("seed", {"seed": 0}),
        ("n", {"n": 2}),
        ("min_p", {"min_p": 0.1}),
        ("logprobs", {"logprobs": True}),
        ("logit_bias", {"logit_bias": {"1": 5}}),
        ("stop_token_ids", {"stop_token_ids": [1]}),
        ("repetition_penalty", {"repetition_penalty": 1.1}),
        ("parallel_tool_calls", {"tools": [TOOL], "parallel_tool_calls": False}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("structured_outputs", {"structured_outputs": {"choice": ["a"]}}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": "required"}),
        ("tools", {"tools": [STRICT]}),
    ],
)
def test_what_an_engine_cannot_do_is_refused_by_name(name: str, changes: dict[str, object]) -> None:
    assert refused(name, **changes) == name
    assert refused(**changes) is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("min_tokens", {"min_tokens": 0}),
        ("min_tokens", {}),
        ("n", {"n": 1}),
        ("logprobs", {"logprobs": False}),
        ("logit_bias", {"logit_bias": {}}),
        ("top_p", {"top_p": 1}),
        ("repetition_penalty", {"repetition_penalty": 1}),
        ("parallel_tool_calls", {"tools": [TOOL], "parallel_tool_calls": True}),
        ("response_format", {"response_format": {"type": "text"}}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": "auto"}),
        ("tools", {"tools": [TOOL]}),
    ],
)
def test_what_asks_for_nothing_is_not_refused(name: str, changes: dict[str, object]) -> None:
    assert refused(name, **changes) is None
