"""The exact shapes of chat answers and chunks."""

import pytest

from qwen_openai.core import (
    Event,
    Finish,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.errors import EngineFailed
from qwen_openai.responses.chat import ChatReply, ReasoningField, Wanted
from qwen_openai.responses.fold import Fold
from tests.spec import check

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def reply(
    n: int = 1,
    *,
    usage: bool = False,
    reasoning: ReasoningField = "reasoning_content",
    legacy: bool = False,
    logprobs: bool = False,
) -> ChatReply:
    return ChatReply(
        id="chatcmpl-1",
        model="Qwen/x",
        created=9,
        system_fingerprint="fp_1",
        wanted=Wanted(n, usage, reasoning, legacy, logprobs),
    )


def chunk(
    delta: dict[str, object],
    reason: str | None,
    index: int = 0,
    logprobs: dict[str, object] | None = None,
) -> dict[str, object]:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    made = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 9,
        "model": "Qwen/x",
        "choices": [choice],
        "system_fingerprint": "fp_1",
    }
    check("CreateChatCompletionStreamResponse", made)
    return made


def folded(*events: Event, n: int = 1) -> Fold:
    fold = Fold(n)
    for event in events:
        fold.add(event)
    return fold


def message(body: dict[str, object]) -> dict[str, object]:
    """The message of an answer with one choice, after a look at the whole."""
    check("CreateChatCompletionResponse", body)
    assert isinstance(body["choices"], list)
    (choice,) = body["choices"]
    assert isinstance(choice["message"], dict)
    return choice["message"]


def test_the_chunks() -> None:
    role: dict[str, object] = {"role": "assistant", "content": ""}
    assert reply(2).opening() == [chunk(role, None), chunk(role, None, 1)]
    assert reply().chunks(Started(0, 5)) == []
    assert reply().chunks(Text(0, "", 1)) == []
    assert reply().chunks(Text(1, "hi")) == [chunk({"content": "hi"}, None, 1)]
    assert reply().chunks(Finish(0, "length")) == [chunk({}, "length")]
    assert reply().closing(Fold(1)) == []


def test_usage_is_null_but_in_the_last_chunk_when_asked() -> None:
    asked = reply(usage=True)
    assert asked.chunks(Text(0, "hi")) == [{**chunk({"content": "hi"}, None), "usage": None}]
    assert all(each["usage"] is None for each in asked.opening())
    (last,) = asked.closing(folded(Started(0, 5, 2), Text(0, "hi", 3)))
    check("CreateChatCompletionStreamResponse", last)
    assert last["choices"] == []
    assert last["usage"] == USAGE


def test_the_plain_answer() -> None:
    fold = Fold(2)
    for event in (
        Started(1, 5, 4),
        Text(1, "b"),
        Started(0, 5, 2),
        Finish(1, "stop", 2),
        Text(0, "a"),
        Finish(0, "length", 1),
    ):
        fold.add(event)
    body = reply(2).body(fold)
    check("CreateChatCompletionResponse", body)
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 9,
        "model": "Qwen/x",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, (text, reason) in enumerate([("a", "length"), ("b", "stop")])
        ],
        "usage": USAGE,
        "system_fingerprint": "fp_1",
    }


def test_an_answer_without_an_end_is_an_error() -> None:
    fold = Fold(1)
    fold.add(Text(0, "a"))
    with pytest.raises(EngineFailed):
        reply().body(fold)


def test_the_chunks_of_a_call_name_it_once() -> None:
    begun = {
        "index": 1,
        "id": "call_a",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    start = ToolCallStart(0, 1, "call_a", "f")
    assert reply().chunks(start) == [chunk({"tool_calls": [begun]}, None)]
    more = {"index": 1, "function": {"arguments": '{"x'}}
    assert reply().chunks(ToolCallArguments(0, 1, '{"x')) == [chunk({"tool_calls": [more]}, None)]
    assert reply().chunks(Finish(0, "tool_calls")) == [chunk({}, "tool_calls")]


@pytest.mark.parametrize("text", ["", "I look."])
def test_the_plain_answer_with_calls(text: str) -> None:
    fold = Fold(1)
    for event in (
        Text(0, text),
        ToolCallStart(0, 0, "call_a", "f"),
        ToolCallArguments(0, 0, "{}"),
        Finish(0, "tool_calls"),
    ):
        fold.add(event)
    body = reply().body(fold)
    check("CreateChatCompletionResponse", body)
    assert isinstance(body["choices"], list)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    function = {"name": "f", "arguments": "{}"}
    assert choice["message"] == {
        "role": "assistant",
        "content": text or None,
        "refusal": None,
        "tool_calls": [{"id": "call_a", "type": "function", "function": function}],
    }


FIELDS: list[tuple[ReasoningField, set[str]]] = [
    ("reasoning_content", {"reasoning_content"}),
    ("reasoning", {"reasoning"}),
    ("both", {"reasoning_content", "reasoning"}),
]


@pytest.mark.parametrize(("field", "names"), FIELDS)
def test_thoughts_go_out_under_the_name_that_is_set(field: ReasoningField, names: set[str]) -> None:
    asked = reply(reasoning=field)
    thought = Reasoning(0, "Hm.", 2)
    assert asked.chunks(thought) == [chunk(dict.fromkeys(names, "Hm."), None)]
    assert asked.chunks(Reasoning(0, "", 1)) == []
    body = asked.body(folded(Started(0, 5), thought, Text(0, "4"), Finish(0, "stop", 4)))
    assert message(body) == {
        "role": "assistant",
        "content": "4",
        "refusal": None,
        **dict.fromkeys(names, "Hm."),
    }
    assert isinstance(body["usage"], dict)
    assert body["usage"]["completion_tokens"] == 4
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2


def test_no_thoughts_no_member() -> None:
    body = reply().body(folded(Text(0, "a"), Finish(0, "stop")))
    assert set(message(body)) == {"role", "content", "refusal"}


HALF = TokenLogprob("\ufffd", b"\xe4\xbd", float("-inf"), (TokenLogprob("a", b"a", -0.5),))
HALF_WIRE = {
    "token": "\ufffd",
    "logprob": -9999.0,
    "bytes": [0xE4, 0xBD],
    "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
}


def test_logprobs_are_those_of_all_tokens_whatever_became_of_them() -> None:
    other = TokenLogprob("b", b"b", float("nan"))
    other_wire = {"token": "b", "logprob": -9999.0, "bytes": [98], "top_logprobs": []}
    wire: dict[str, object] = {"content": [HALF_WIRE], "refusal": None}
    asked = reply(logprobs=True)
    assert asked.chunks(Text(0, "", 1, (HALF,))) == [chunk({}, None, logprobs=wire)]
    assert asked.chunks(Text(0, "x", 0)) == [chunk({"content": "x"}, None)]
    assert asked.chunks(Text(0, "", 1)) == []
    thought = asked.chunks(Reasoning(0, "x", 1, (HALF,)))
    assert thought == [chunk({"reasoning_content": "x"}, None, logprobs=wire)]
    body = asked.body(
        folded(Reasoning(0, "x", 1, (HALF,)), Text(0, "b", 1, (other,)), Finish(0, "stop"))
    )
    message(body)
    assert isinstance(body["choices"], list)
    assert body["choices"][0]["logprobs"] == {"content": [HALF_WIRE, other_wire], "refusal": None}


def test_logprobs_that_nobody_asked_for_stay_here() -> None:
    assert reply().chunks(Text(0, "", 1, (HALF,))) == []
    body = reply().body(folded(Text(0, "x", 1, (HALF,)), Finish(0, "stop")))
    message(body)
    assert isinstance(body["choices"], list)
    assert body["choices"][0]["logprobs"] is None


def test_asked_for_and_none_there_is_an_empty_list() -> None:
    body = reply(logprobs=True).body(folded(Finish(0, "stop", 1)))
    message(body)
    assert isinstance(body["choices"], list)
    assert body["choices"][0]["logprobs"] == {"content": [], "refusal": None}


def test_the_older_form_of_a_call() -> None:
    asked = reply(legacy=True)
    events: list[Event] = [
        ToolCallStart(0, 0, "call_a", "f"),
        ToolCallArguments(0, 0, "{}"),
        ToolCallStart(0, 1, "call_b", "g"),
        ToolCallArguments(0, 1, "{}"),
        Finish(0, "tool_calls"),
    ]
    assert [made for event in events for made in asked.chunks(event)] == [
        chunk({"function_call": {"name": "f", "arguments": ""}}, None),
        chunk({"function_call": {"arguments": "{}"}}, None),
        chunk({}, "function_call"),
    ]
    body = asked.body(folded(*events))
    assert message(body) == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": {"name": "f", "arguments": "{}"},
    }
    assert isinstance(body["choices"], list)
    assert body["choices"][0]["finish_reason"] == "function_call"


def test_a_stream_that_breaks_ends_with_the_error() -> None:
    failed = reply().failed(EngineFailed("It broke."))
    assert failed.startswith(b'data: {"error":{"message":"It broke."')
    assert failed.endswith(b"data: [DONE]\n\n")
