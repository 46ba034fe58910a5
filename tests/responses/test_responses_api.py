"""A response's stream: its events in order, and put together the plain answer."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import (
    Event,
    Finish,
    Job,
    Message,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.errors import EngineFailed
from qwen_openai.protocol.responses_api import ResponsesRequest, parse_responses
from qwen_openai.responses.responses_api import ResponseFold, ResponsesReply
from tests.responses.events import choices
from tests.spec import check

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def request(**changes: object) -> ResponsesRequest:
    return parse_responses(json.dumps({"model": "m", "input": "hi", **changes}).encode())


class Stream:
    """A reply that has been given events, what it said of them, and its plain answer."""

    def __init__(self, events: Sequence[Event], **changes: object) -> None:
        asked = request(**changes)
        job = Job("resp_abc", "m", (Message("user", "hi"),))
        self.fold = ResponseFold(job.id)
        self.reply = ResponsesReply(asked, job, self.fold, created=5)
        self.said = self.reply.opening()
        for event in events:
            self.fold.add(event)
            self.said += self.reply.chunks(event)

    def end(self) -> dict[str, Any]:
        self.said += self.reply.closing(self.fold)
        return self.reply.body(self.fold)

    @property
    def types(self) -> list[str]:
        return [str(event["type"]).removeprefix("response.") for event in self.said]


def collect(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as a client makes them of deltas alone, each held against its `done` events."""
    items: list[dict[str, Any]] = []
    done = 0
    for event in said:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items) == done, "one item is open at a time"
            items.append({**event["item"], "text": "", "tokens": []})
            assert event["item"]["status"] == "in_progress"
            continue
        if "output_index" not in event:
            continue
        item = items[event["output_index"]]
        assert event.get("item_id", item["id"]) == item["id"]
        if kind.endswith(".delta"):
            assert event["delta"]
            item["text"] += event["delta"]
            item["tokens"] += event.get("logprobs", [])
        elif kind.endswith(("text.done", "arguments.done")):
            assert event.get("text", event.get("arguments")) == item["text"]
            # Tokens that made no text have no delta to come with.
            assert event.get("logprobs", [])[: len(item["tokens"])] == item["tokens"]
        elif kind == "output_item.done":
            done += 1
            text = item["text"]
            assert event["item"]["id"] == item["id"]
            items[event["output_index"]] = event["item"]
            assert _text(event["item"]) == text
    return items


def _text(item: dict[str, Any]) -> str:
    if item["type"] == "function_call":
        return str(item["arguments"])
    return "".join(part["text"] for part in item["content"])


@given(choices(), st.booleans())
def test_a_stream_put_together_is_the_plain_answer(events: list[Event], told: bool) -> None:
    changes: dict[str, object] = {"tools": [TOOL], "instructions": "s"} if told else {}
    stream = Stream(events, **changes)
    body = stream.end()
    for event in stream.said:
        check("ResponseStreamEvent", event)
        check(_schema(str(event["type"])), event)
    check("Response", body)
    assert [event["sequence_number"] for event in stream.said] == list(range(len(stream.said)))
    assert stream.said[-1]["response"] == body
    assert body["output"] == collect(stream.said)
    assert body["status"] == ("incomplete" if _cut(events) else "completed")
    assert "".join(_text(i) for i in body["output"] if i["type"] == "message") == "".join(
        event.text for event in events if isinstance(event, Text)
    )


def _cut(events: list[Event]) -> bool:
    return cast("Finish", events[-1]).reason == "length"


def _schema(type: str) -> str:
    """The schema of one kind of event, which judges harder than the union of all."""
    named = {
        "response.output_text.delta": "ResponseTextDeltaEvent",
        "response.output_text.done": "ResponseTextDoneEvent",
        "error": "ResponseErrorEvent",
    }
    words = type.replace(".", "_").split("_")
    return named.get(type, "".join(word.capitalize() for word in words) + "Event")


CALL: list[Event] = [
    Text(0, "", 2),
    ToolCallStart(0, 0, "call_1", "f"),
    ToolCallArguments(0, 0, '{"a": '),
    ToolCallArguments(0, 0, "1}"),
]


def test_thoughts_text_and_calls_are_items_in_their_order() -> None:
    events = [
        Started(0, 5, 3),
        Reasoning(0, "so", 2),
        Text(0, "a", 1),
        Text(0, "b", 1),
        *CALL,
        ToolCallStart(0, 1, "call_2", "f"),
        ToolCallArguments(0, 1, "{}"),
        Finish(0, "tool_calls", 9),
    ]
    stream = Stream(events)
    body = stream.end()
    assert stream.types == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", *["function_call_arguments.delta"] * 2),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    assert [item["type"] for item in body["output"]] == [
        *("reasoning", "message", "function_call", "function_call")
    ]
    assert len({item["id"] for item in body["output"]}) == 4
    assert body["output"][2] == {
        "id": "fc_abc_2",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "f",
        "arguments": '{"a": 1}',
    }
    assert body["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    body = Stream([Started(0, 1), Finish(0, "stop", 1)]).end()
    (message,) = body["output"]
    assert message["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]


@pytest.mark.parametrize("events", [[Text(0, "a")], [Reasoning(0, "a")], CALL])
def test_a_cut_answer_is_incomplete_and_so_is_its_last_item(events: list[Event]) -> None:
    body = Stream([Started(0, 1), *events, Finish(0, "length")]).end()
    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["output"][-1]["status"] == "incomplete"


def test_log_probabilities_are_those_of_the_text() -> None:
    def token(text: str) -> tuple[TokenLogprob, ...]:
        return (TokenLogprob(text, text.encode(), -1.0),)

    events = [
        Reasoning(0, "t", 1, token("t")),
        Text(0, "a", 1, token("a")),
        Text(0, "", 1, token("b")),
        Text(0, "c", 1, token("c")),
        *CALL[1:],
        Text(0, "", 1, token("d")),
        Finish(0, "tool_calls"),
    ]
    stream = Stream([Started(0, 1), *events], top_logprobs=1)
    message = stream.end()["output"][1]
    assert [each["token"] for each in message["content"][0]["logprobs"]] == ["a", "b", "c"]
    sent = [event["logprobs"] for event in stream.said if event["type"] == DELTA]
    assert [[each["token"] for each in cast("list[Any]", one)] for one in sent] == [
        ["a"],
        ["b", "c"],
    ]


DELTA = "response.output_text.delta"


def test_what_the_request_said_is_said_back() -> None:
    body = Stream(
        [Started(0, 1), Finish(0, "stop")],
        instructions="s",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
        reasoning={"effort": "low"},
        metadata={"a": "b"},
        max_output_tokens=9,
        store=True,
        truncation="auto",
        user="u",
    ).end()
    check("Response", body)
    assert body["instructions"] == "s"
    assert body["tools"] == [{**TOOL, "description": None}]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["text"]["format"]["schema"] == {"type": "object"}
    assert body["reasoning"]["effort"] == "low"
    assert body["metadata"] == {"a": "b"}
    assert body["max_output_tokens"] == 9
    assert body["truncation"] == "auto"
    assert body["user"] == "u"
    assert (body["store"], body["previous_response_id"]) == (False, None)


def test_a_stream_that_breaks_says_so_in_its_last_events() -> None:
    stream = Stream([Started(0, 4), Text(0, "a", 2)])
    last = stream.reply.failed(EngineFailed("It broke."))
    frames = last.decode().strip().split("\n\n")
    names, data = zip(*(frame.split("\n") for frame in frames), strict=True)
    assert names == ("event: response.failed", "event: error")
    failed, error = (json.loads(each.removeprefix("data: ")) for each in data)
    check("ResponseFailedEvent", failed)
    check("ResponseErrorEvent", error)
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "It broke."}
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert failed["response"]["output"][0]["content"][0]["text"] == "a"
    assert failed["response"]["usage"]["output_tokens"] == 2
    assert error["message"] == "It broke."
    numbers = [event["sequence_number"] for event in (*stream.said, failed, error)]
    assert all(one == before + 1 for before, one in pairwise(numbers))


def test_an_answer_without_an_end_is_none() -> None:
    stream = Stream([Started(0, 1), Text(0, "a")])
    with pytest.raises(EngineFailed):
        stream.end()
