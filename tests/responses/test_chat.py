"""The exact shapes of chat answers and chunks."""

import pytest

from qwen_openai.core import Finish, Started, Text, ToolCallArguments, ToolCallStart, Usage
from qwen_openai.errors import EngineFailed
from qwen_openai.responses.chat import ChatReply
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


def reply(n: int = 1, *, usage: bool = False) -> ChatReply:
    return ChatReply(id="chatcmpl-1", model="Qwen/x", created=9, n=n, include_usage=usage)


def chunk(delta: dict[str, object], reason: str | None, index: int = 0) -> dict[str, object]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
    made = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 9,
        "model": "Qwen/x",
        "choices": [choice],
    }
    check("CreateChatCompletionStreamResponse", made)
    return made


def test_the_chunks() -> None:
    role: dict[str, object] = {"role": "assistant", "content": ""}
    assert reply(2).opening() == [chunk(role, None), chunk(role, None, 1)]
    assert reply().chunk(Started(0, 5)) is None
    assert reply().chunk(Text(0, "", 1)) is None
    assert reply().chunk(Text(1, "hi")) == chunk({"content": "hi"}, None, 1)
    assert reply().chunk(Finish(0, "length")) == chunk({}, "length")
    assert reply().closing(Usage()) == []


def test_usage_is_null_but_in_the_last_chunk_when_asked() -> None:
    asked = reply(usage=True)
    assert asked.chunk(Text(0, "hi")) == {**chunk({"content": "hi"}, None), "usage": None}
    assert all(each["usage"] is None for each in asked.opening())
    (last,) = asked.closing(Usage(5, 3, 2))
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
    assert reply().chunk(ToolCallStart(0, 1, "call_a", "f")) == chunk({"tool_calls": [begun]}, None)
    more = {"index": 1, "function": {"arguments": '{"x'}}
    assert reply().chunk(ToolCallArguments(0, 1, '{"x')) == chunk({"tool_calls": [more]}, None)
    assert reply().chunk(Finish(0, "tool_calls")) == chunk({}, "tool_calls")


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
