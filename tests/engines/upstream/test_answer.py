"""Chunks and bodies to events: whatever the split, whichever server's habits."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import (
    Event,
    Extra,
    Finish,
    Job,
    RawPrompt,
    Reasoning,
    Sampling,
    Started,
    Text,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.engines.upstream.answer import Reader
from qwen_openai.engines.upstream.failures import Reporter
from qwen_openai.errors import ApiError, UpstreamFailed
from qwen_openai.responses.chat import ChatReply, Wanted
from qwen_openai.responses.fold import Fold
from qwen_openai.sse import SseDecoder
from tests.engines.upstream.scripted import DONE, a_job, chunk, event, usage_chunk
from tests.spec import check


def reader(job: Job | None = None) -> Reader:
    return Reader(job or a_job(), Reporter("east"), estimate=5)


def read(data: bytes, sizes: Sequence[int] = (), job: Job | None = None) -> list[Event]:
    """The events of a stream's bytes, in pieces of these sizes, the last one over and over."""
    reading, decoder = reader(job), SseDecoder()
    events: list[Event] = []
    place = turn = 0
    while place < len(data):
        size = sizes[min(turn, len(sizes) - 1)] if sizes else len(data)
        for told in decoder.feed(data[place : place + size]):
            events += reading.feed(told)
        place, turn = place + size, turn + 1
    reading.end()
    return events


def stream(*chunks: dict[str, object]) -> bytes:
    return b"".join(map(event, chunks)) + DONE


def told(*chunks: dict[str, object], job: Job | None = None) -> list[Event]:
    """The events of chunks but for the first and the last."""
    events = read(stream(*chunks, chunk(reason="stop")), job=job)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finish)
    return events[1:-1]


def call(**members: object) -> dict[str, object]:
    return chunk({"tool_calls": [members]})


TOKEN = {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []}
RICH = (
    chunk({"role": "assistant", "content": ""}, service_tier="default"),
    chunk({"reasoning_content": "Hmm, "}),
    chunk({"reasoning": "ja"}),
    chunk({"content": "日本 🦜"}),
    {**chunk({"content": "é", "remarks": [1]}), "new": {"a": [1, None]}},
    call(index=0, id="call_a", type="function", function={"name": "f", "arguments": ""}),
    call(index=0, function={"arguments": '{"x":'}),
    call(index=0, function={"arguments": "1}"}),
    call(index=1, id="call_b", type="function", function={"name": "g", "arguments": "{}"}),
    chunk(reason="tool_calls"),
    usage_chunk(9, 31, prompt_tokens_details={"cached_tokens": 4, "image_tokens": 3}),
)
RICH_EVENTS: list[Event] = [
    Started(0, 5),
    Extra(0, {"service_tier": "default"}),
    Reasoning(0, "Hmm, "),
    Reasoning(0, "ja"),
    Text(0, "日本 🦜"),
    Extra(0, {"new": {"a": [1, None]}}, {}, {"remarks": [1]}),
    Text(0, "é"),
    Text(0, ""),
    ToolCallStart(0, 0, "call_a", "f"),
    Text(0, ""),
    ToolCallArguments(0, 0, '{"x":'),
    Text(0, ""),
    ToolCallArguments(0, 0, "1}"),
    Text(0, ""),
    ToolCallStart(0, 1, "call_b", "g"),
    ToolCallArguments(0, 1, "{}"),
    Extra(0, usage={"prompt_tokens_details": {"image_tokens": 3}}),
    Finish(0, "tool_calls", 31, 4, 9),
]


def test_a_rich_stream() -> None:
    assert read(stream(*RICH)) == RICH_EVENTS


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_any_split_of_the_bytes_gives_the_same_events(sizes: list[int], end: str) -> None:
    data = stream(*RICH).replace(b"\n", end.encode())
    assert read(b": ping" + end.encode() * 2 + data, sizes) == RICH_EVENTS


def body_of(reply: ChatReply, events: Sequence[Event]) -> Any:  # noqa: ANN401  # JSON
    fold = Fold(1)
    for each in events:
        fold.add(each)
    return json.loads(json.dumps(reply.body(fold)))


def new_reply(**wanted: object) -> ChatReply:
    return ChatReply(
        id="chatcmpl-1",
        model="ours",
        created=1,
        system_fingerprint="fp_1",
        wanted=Wanted(1, include_usage=True, **wanted),  # type: ignore[arg-type]  # named by tests
    )


def test_a_streamed_answer_folds_to_the_plain_one() -> None:
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    message = {
        "role": "assistant",
        "content": "日本 🦜é",
        "reasoning_content": "Hmm, ja",
        "tool_calls": calls,
        "remarks": [1],
    }
    plain = {
        "id": "x",
        "service_tier": "default",
        "new": {"a": [1, None]},
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": RICH[-1]["usage"],
    }
    whole = reader().plain(json.dumps(plain).encode())
    streamed, folded = body_of(new_reply(), RICH_EVENTS), body_of(new_reply(), whole)
    details = [each["usage"].pop("completion_tokens_details") for each in (streamed, folded)]
    assert streamed == folded
    assert all(each["reasoning_tokens"] for each in details)
    assert folded["choices"][0]["message"]["remarks"] == [1]
    assert folded["usage"]["prompt_tokens_details"] == {
        "cached_tokens": 4,
        "audio_tokens": 0,
        "image_tokens": 3,
    }
    assert (folded["model"], folded["id"]) == ("ours", "chatcmpl-1")
    check("CreateChatCompletionResponse", folded)


def test_what_our_shapes_do_not_have_goes_out_in_the_chunk_it_came_with() -> None:
    fold, reply, chunks = Fold(1), new_reply(), []
    stopped = chunk(reason="stop")
    stopped["choices"][0]["stop_reason"] = 151645  # type: ignore[index]  # JSON
    for each in read(stream(*RICH[:5], stopped, RICH[-1])):
        fold.add(each)
        chunks += reply.chunks(each)
    chunks += reply.closing(fold)
    for each_chunk in chunks:
        check("CreateChatCompletionStreamResponse", each_chunk)
    shown: Any = chunks
    assert [c.get("service_tier") for c in shown] == ["default", None, None, None, None, None]
    assert shown[3]["new"] == {"a": [1, None]}
    assert shown[3]["choices"][0]["delta"] == {"content": "é", "remarks": [1]}
    assert shown[4]["choices"][0]["stop_reason"] == 151645
    assert shown[5]["usage"]["prompt_tokens_details"]["image_tokens"] == 3


@pytest.mark.parametrize(
    "pieces",
    [
        # Numbered as they should be; not numbered; all numbered 0; whole, by ids alone.
        [("0", "a", "f", '{"x"'), ("0", None, None, ":1}"), ("1", "b", "g", "{}")],
        [("", "a", "f", '{"x"'), ("", None, None, ":1}"), ("", "b", "g", "{}")],
        [("0", "a", "f", '{"x":1}'), ("0", "b", "g", "{}")],
        # The id and the name in every piece; the name late; no arguments at all.
        [("0", "a", "f", '{"x"'), ("0", "a", "f", ":1}"), ("1", "b", "g", "")],
        [("0", "a", None, None), ("0", None, "f", '{"x":1}'), ("1", "b", "g", None)],
        [("0", "a", None, '{"x":'), ("0", None, "f", "1}"), ("5", "b", "g", "{}")],
    ],
)
def test_calls_in_any_known_form(
    pieces: list[tuple[str, str | None, str | None, str | None]],
) -> None:
    chunks = []
    for index, id, name, arguments in pieces:
        function = {"name": name, "arguments": arguments}
        members: dict[str, object] = {"id": id, "function": function}
        if index:
            members["index"] = int(index)
        chunks.append(call(**members))
    fold = Fold(1)
    for each in read(stream(*chunks, chunk(reason="tool_calls"))):
        fold.add(each)
    made = [(each.id, each.name, each.arguments) for each in fold.choices[0].tool_calls]
    assert made == [("a", "f", '{"x":1}'), ("b", "g", "{}")]
    assert fold.choices[0].reason == "tool_calls"


def test_calls_without_ids_get_some() -> None:
    function = {"name": "f", "arguments": {"x": 1}}
    events = told(call(index=0, function=function), call(index=1, function=function))
    starts = [each for each in events if isinstance(each, ToolCallStart)]
    assert len({each.id for each in starts} | {""}) == 3
    assert ToolCallArguments(0, 0, '{"x":1}') in events


def test_the_older_form_of_a_call() -> None:
    events = read(
        stream(
            chunk({"function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": "{}"}}),
            chunk(reason="function_call"),
        )
    )
    kinds = [type(each) for each in events]
    assert kinds.count(ToolCallStart) == kinds.count(ToolCallArguments) == 1
    assert events[-1] == Finish(0, "tool_calls", None)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
        ("eos_token", "stop"),
    ],
)
def test_how_an_answer_ended(said: str, reason: str) -> None:
    events = read(stream(chunk({"content": "x"}), chunk(reason=said)))
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == reason
    extra = [each for each in events if isinstance(each, Extra)]
    own = {"native_finish_reason": said} if said == "eos_token" else {}
    assert [each.choice for each in extra] == ([own] if own else [])


def test_usage_in_every_chunk_is_the_tokens_of_each() -> None:
    def counted(text: str, tokens: int) -> dict[str, object]:
        usage = {"prompt_tokens": 11, "completion_tokens": tokens, "total_tokens": 0}
        return chunk({"content": text}, usage=usage)

    events = read(stream(counted("", 0), counted("a", 1), counted("bcd", 4), chunk(reason="stop")))
    assert events == [
        Started(0, 11),
        Text(0, "a", 1),
        Text(0, "bcd", 3),
        Finish(0, "stop", 4, None, 11),
    ]


@pytest.mark.parametrize(
    "usage",
    [None, 7, {}, {"completion_tokens": -1}, {"completion_tokens": "x"}, {"prompt_tokens": True}],
)
def test_without_a_usage_events_count(usage: object) -> None:
    events = read(stream(chunk({"content": "a"}, usage=usage), chunk(reason="stop")))
    fold = Fold(1)
    for each in events:
        fold.add(each)
    assert (fold.usage.prompt_tokens, fold.usage.completion_tokens) == (5, 1)


def test_logprobs_of_a_chat() -> None:
    job = a_job(sampling=Sampling(logprobs=1))
    top = {"token": "x", "logprob": -1, "bytes": None}
    bearing = chunk({"content": "é"})
    bearing["choices"][0]["logprobs"] = {  # type: ignore[index]  # JSON
        "content": [{**TOKEN, "top_logprobs": [top]}],
        "refusal": None,
    }
    entry = TokenLogprob("é", "é".encode(), -0.5, (TokenLogprob("x", b"x", -1.0),))
    assert told(bearing, job=job) == [Text(0, "é", 1, (entry,))]
    assert told(bearing) == [Text(0, "é")]


def test_logprobs_of_a_completion() -> None:
    job = Job("job", "m", (), Sampling(logprobs=1), prompt=RawPrompt("x"))
    choice = {
        "index": 0,
        "text": "ab",
        "finish_reason": None,
        "logprobs": {
            "tokens": ["a", "bytes:\\xc3"],
            "token_logprobs": [-0.5, None],
            "top_logprobs": [{"z": -2.0, "a": -0.5}, None],
            "text_offset": [0, 1],
        },
    }
    entries = (
        TokenLogprob("a", b"a", -0.5, (TokenLogprob("a", b"a", -0.5),)),
        TokenLogprob("\ufffd", b"\xc3", float("-inf")),
    )
    assert told({**chunk(), "choices": [choice]}, job=job) == [Text(0, "ab", 1, entries)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (r'{"choices":[{"index":0,"delta":{"content":"a\ud83db"}}]}', "a\ufffdb"),
        (r'{"choices":[{"index":0,"delta":{"content":"\ud83e\udd9c\udd9c"}}]}', "🦜\ufffd"),
        (r'{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}],"x":NaN}', "\\ud83d"),
    ],
)
def test_what_only_python_reads(data: str, text: str) -> None:
    (event,) = [each for each in reader().feed(data) if isinstance(each, Text)]
    assert event.text == text


_NAMES = (
    *("choices", "delta", "message", "content", "tool_calls", "function", "index", "name"),
    *("logprobs", "finish_reason", "usage", "error", "reasoning", "arguments", "id", "text"),
)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON, st.booleans())
def test_no_answer_breaks_the_reader(value: Any, whole: bool) -> None:  # noqa: ANN401  # JSON
    job = a_job(sampling=Sampling(logprobs=1))
    data = json.dumps({"choices": [{"index": 0, "delta": value, "message": value, "logprobs": value,
                                    "finish_reason": "stop"}], "usage": value})  # fmt: skip
    for each in (data, json.dumps(value)):
        reading = reader(job)
        try:
            events = reading.plain(each.encode()) if whole else reading.feed(each)
        except ApiError:
            continue
        assert all(isinstance(each.text, str) for each in events if isinstance(each, Text))


@pytest.mark.parametrize("where", ["body", "choice", "delta", "usage", "detail"])
@pytest.mark.parametrize("member", ["[" * 300 + "]" * 300, f"[NaN, {2**70}]"])
def test_what_could_not_be_sent_on_is_no_answer(where: str, member: str) -> None:
    made: dict[str, Any] = chunk({"content": "x"}, usage={"prompt_tokens_details": {}})
    choice = made["choices"][0]
    places = {"body": made, "choice": choice, "delta": choice["delta"], "usage": made["usage"]}
    places["detail"] = made["usage"]["prompt_tokens_details"]
    places[where]["odd"] = "ODD"
    data = json.dumps(made).replace('"ODD"', member).encode()
    with pytest.raises(UpstreamFailed):
        read(b"data: " + data + b"\n\n" + stream(chunk(reason="stop")))


def test_an_index_of_null_is_the_first() -> None:
    made: dict[str, Any] = chunk({"content": "x"})
    made["choices"][0]["index"] = None
    assert told(made) == [Text(0, "x")]
