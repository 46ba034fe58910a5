"""The chain of one choice: what comes out, and that no token is lost on the way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Job,
    Message,
    Sampling,
    Started,
    Text,
    Tool,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.parsing.chain import Chain


def job(*stops: str) -> Job:
    return Job(id="x", model="m", messages=(), sampling=Sampling(stop=stops))


def run(chain: Chain, events: list[Event]) -> list[Event]:
    out: list[Event] = []
    for event in events:
        out += chain.feed(event)
        if out and isinstance(out[-1], Finish):
            break
    return out


def test_without_stop_strings_events_pass() -> None:
    events: list[Event] = [Started(0, 5), Text(0, "a"), Text(0, "", 2), Finish(0, "length", 3)]
    assert run(Chain(job()), events) == events


def test_a_stop_string_ends_the_choice() -> None:
    events: list[Event] = [
        Started(1, 5),
        Text(1, "one "),
        Text(1, "two S"),
        Text(1, "TO"),
        Text(1, "P three", 2),
        Finish(1, "length", 9),
    ]
    assert run(Chain(job("STOP")), events) == [
        Started(1, 5),
        Text(1, "one "),
        Text(1, "two "),
        Text(1, "", 1),
        Finish(1, "stop", 5),
    ]


def test_text_before_the_stop_string_in_one_piece() -> None:
    assert run(Chain(job("!")), [Text(0, "hi! there", 4)]) == [
        Text(0, "hi", 4),
        Finish(0, "stop", 4),
    ]


def test_held_text_comes_out_at_the_end() -> None:
    events: list[Event] = [Text(0, "a ST"), Finish(0, "length", None, 3)]
    assert run(Chain(job("STOP")), events) == [
        Text(0, "a "),
        Text(0, "ST", 0),
        Finish(0, "length", None, 3),
    ]


@pytest.mark.parametrize(
    ("text", "clean"),
    [("a\ud800b", "a�b"), ("\udcff", "�"), ("\ud83d\ude00", "😀"), ("你好", "你好")],
)
def test_text_is_always_encodable(text: str, clean: str) -> None:
    for stops in ((), ("zzz",)):
        (event,) = Chain(job(*stops)).feed(Text(0, text, 2))
        assert event == Text(0, clean, 2)


pieces = st.lists(st.tuples(st.text(alphabet="ab<", max_size=4), st.integers(0, 3)), max_size=12)
stop_strings = st.lists(st.text(alphabet="ab<", min_size=1, max_size=4), max_size=4)


@given(pieces, stop_strings, st.sampled_from([None, 40]))
def test_tokens_are_exact_at_every_moment(
    fed: list[tuple[str, int]], stops: list[str], total: int | None
) -> None:
    chain = Chain(job(*stops))
    seen = counted = 0
    for text, tokens in fed:
        out = chain.feed(Text(0, text, tokens))
        seen += tokens
        if out and isinstance(out[-1], Finish):
            assert out[-1].completion_tokens == seen
            assert out[-1].reason == "stop"
            return
        counted += sum(event.tokens for event in out if isinstance(event, Text))
        assert counted == seen
    *texts, finish = chain.feed(Finish(0, "length", total))
    assert finish == Finish(0, "length", total)
    assert counted + sum(event.tokens for event in texts if isinstance(event, Text)) == seen


def react_job(*stops: str, **changes: object) -> Job:
    made = Job("x", "m", (), Sampling(stop=stops), tools=(Tool("f"),), tool_syntax="react")
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests name fields of Job


CALL = 'Thought: I look.\nAction: f\nAction Input: {"x": 1}'


def call_events(call: int, id: str) -> list[Event]:
    return [ToolCallStart(0, call, id, "f"), ToolCallArguments(0, call, '{"x": 1}')]


def ids_of(events: list[Event]) -> list[str]:
    return [event.id for event in events if isinstance(event, ToolCallStart)]


def test_a_call_ends_at_the_observation_with_all_tokens_counted() -> None:
    events: list[Event] = [Text(0, CALL, 9), Text(0, "\nObs", 2), Text(0, "ervation: 5", 3)]
    out = run(Chain(react_job()), events)
    (id,) = ids_of(out)
    assert id.startswith("call_")
    assert out == [
        Text(0, "", 9),
        Text(0, "", 2),
        Text(0, "I look.", 3),
        *call_events(0, id),
        Finish(0, "tool_calls", 14),
    ]


def test_a_call_at_the_end_of_the_reply() -> None:
    out = run(Chain(react_job()), [Text(0, CALL, 9), Finish(0, "stop", 10)])
    assert out == [
        Text(0, "", 9),
        Text(0, "I look.", 0),
        *call_events(0, ids_of(out)[0]),
        Finish(0, "tool_calls", 10),
    ]


def test_a_call_that_is_cut_is_text() -> None:
    out = run(Chain(react_job()), [Text(0, CALL[:-1], 9), Finish(0, "length", 9)])
    assert out == [Text(0, "", 9), Text(0, CALL[:-1], 0), Finish(0, "length", 9)]


def test_a_whole_call_in_an_answer_that_is_cut() -> None:
    out = run(Chain(react_job()), [Text(0, f"{CALL}\n", 9), Finish(0, "length", 9)])
    assert len(ids_of(out)) == 1
    assert out[-1] == Finish(0, "length", 9)


def test_a_stop_string_may_end_a_call() -> None:
    events: list[Event] = [Text(0, f"{CALL}\nObservation", 9), Text(0, ": 5", 2)]
    out = run(Chain(react_job("Observation:")), events)
    assert len(ids_of(out)) == 1
    assert out[-1] == Finish(0, "tool_calls", 11)


def test_ids_differ_for_every_call_and_choice() -> None:
    two = f"{CALL}\n{CALL}\nObservation:"
    ids = [
        *ids_of(Chain(react_job()).feed(Text(0, two))),
        *ids_of(Chain(react_job(choice=1)).feed(Text(0, two))),
        *ids_of(Chain(react_job(id="y")).feed(Text(0, two))),
    ]
    assert len(set(ids)) == 6
    assert ids_of(Chain(react_job()).feed(Text(0, two))) == ids[:2]


def test_one_call_where_only_one_is_wanted() -> None:
    out = Chain(react_job(parallel_tool_calls=False)).feed(Text(0, f"{CALL}\n{CALL}\n", 7))
    assert len(ids_of(out)) == 1
    assert out[-1] == Finish(0, "tool_calls", 7)


RESULT = Message("tool", "5", tool_call_id="a")
SYSTEM = Message("system", "s")


@pytest.mark.parametrize(
    ("changes", "reply", "content"),
    [
        ({"messages": (RESULT,)}, " I know.\nFinal Answer: 5", "5"),
        ({"messages": (RESULT, SYSTEM)}, " I know.\nFinal Answer: 5", "5"),
        ({"messages": (RESULT,), "tools": ()}, " 5\nAction: f", "5\nAction: f"),
        ({"messages": (RESULT, Message("user", "x"))}, "Final Answer: 5", "5"),
        ({"continue_final_message": True}, " 5", " 5"),
        ({"tools": ()}, "Thought: I know.\nFinal Answer: 5", "5"),
        ({"tool_syntax": None}, "Final Answer: 5", "Final Answer: 5"),
    ],
)
def test_the_reply_goes_on_where_the_prompt_ended(
    changes: dict[str, object], reply: str, content: str
) -> None:
    out = run(Chain(react_job(**changes)), [Text(0, reply, 3), Finish(0, "stop", 4)])
    assert "".join(event.text for event in out if isinstance(event, Text)) == content


steps = st.lists(
    st.tuples(
        st.sampled_from(
            [CALL, "\n", "\nObserv", "ation:", "Thought: ", "Final Answer: ", "x", "S"]
        ),
        st.integers(0, 3),
    ),
    max_size=8,
)


@given(steps, st.sampled_from([(), ("S",)]), st.sampled_from(["stop", "length"]))
def test_tokens_are_exact_with_calls_too(
    fed: list[tuple[str, int]], stops: tuple[str, ...], reason: FinishReason
) -> None:
    chain = Chain(react_job(*stops))
    seen = counted = 0
    for text, tokens in fed:
        out = chain.feed(Text(0, text, tokens))
        seen += tokens
        if out and isinstance(out[-1], Finish):
            assert out[-1].completion_tokens == seen
            return
        counted += sum(event.tokens for event in out if isinstance(event, Text))
        assert counted == seen
    *rest, finish = chain.feed(Finish(0, reason, None))
    assert isinstance(finish, Finish)
    assert all(event.tokens == 0 for event in rest if isinstance(event, Text))
