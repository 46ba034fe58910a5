"""The exact shapes of completions and their chunks."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Event, Finish, Reasoning, Started, Text, TokenLogprob
from qwen_openai.errors import EngineFailed
from qwen_openai.responses.completions import CompletionReply, Wanted
from qwen_openai.responses.fold import Fold
from tests.responses.events import choices, interleaved
from tests.spec import check


def reply(**wanted: object) -> CompletionReply:
    return CompletionReply(
        id="cmpl-1",
        model="m",
        created=9,
        system_fingerprint="fp_1",
        wanted=Wanted(**wanted),  # type: ignore[arg-type]  # a test's few fields
    )


def folded(*events: Event, n: int = 1, prompts: int = 1) -> Fold:
    fold = Fold(n, prompts=prompts)
    for event in events:
        fold.add(event)
    return fold


def token(raw: bytes, logprob: float, *top: TokenLogprob) -> TokenLogprob:
    return TokenLogprob(raw.decode("utf-8", "replace"), raw, logprob, top)


def chunk(text: str, reason: str | None, index: int = 0) -> dict[str, object]:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 9,
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [choice],
    }


def test_the_chunks() -> None:
    assert reply().opening() == []
    echoed = reply(n=2, echoes=["p", "q"]).opening()
    assert echoed == [chunk(text, None, at) for at, text in enumerate("ppqq")]
    assert reply().chunks(Started(0, 5)) == []
    assert reply().chunks(Text(0, "", 1)) == []
    assert reply().chunks(Reasoning(0, "x")) == []
    assert reply().chunks(Text(3, "x")) == [chunk("x", None, 3)]
    assert reply().chunks(Finish(0, "length")) == [chunk("", "length")]
    assert reply().closing(Fold(1)) == []
    (last,) = reply(include_usage=True).closing(folded(Started(0, 5, 2), Text(0, "a", 3)))
    check("CreateCompletionResponse", last)
    assert last["choices"] == []


def test_logprobs_in_the_old_shape() -> None:
    likely = token(b"a", -0.1)
    events = [
        Text(0, "a", 1, (token(b"a", -0.1, likely, token(b"b", -2.0)),)),
        Text(0, "", 1, (token(b"\xe5\x81", float("-inf"), likely),)),
        Text(0, "停", 1, (token(b"\x9c", -1.0, likely),)),
        Text(0, "b", 1, (token(b"b", -3.0, likely),)),
    ]
    body = reply(logprobs=1).body(folded(*events, Finish(0, "stop")))
    check("CreateCompletionResponse", body)
    assert isinstance(body["choices"], list)
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["a", "bytes:\\xe5\\x81", "bytes:\\x9c", "b"],
        "token_logprobs": [-0.1, -9999.0, -1.0, -3.0],
        "top_logprobs": [
            {"a": -0.1},
            {"a": -0.1, "bytes:\\xe5\\x81": -9999.0},
            {"a": -0.1, "bytes:\\x9c": -1.0},
            {"a": -0.1, "b": -3.0},
        ],
        "text_offset": [0, 1, 1, 2],
    }
    none = reply(logprobs=0).body(folded(*events, Finish(0, "stop")))
    assert isinstance(none["choices"], list)
    assert none["choices"][0]["logprobs"]["top_logprobs"][3] == {"b": -3.0}
    assert reply().chunks(events[1]) == []


def test_the_best_by_mean_log_probability_best_first() -> None:
    events: list[Event] = []
    for index, means in enumerate([(-3.0,), (-1.0, -1.0, -1.0), (-2.0, -0.5), (-9.0,)]):
        events += [Text(index, str(index), 1, (token(b"x", mean),)) for mean in means]
        events.append(Finish(index, "stop"))
    body = reply(n=1).body(folded(*events, n=2, prompts=2))
    assert isinstance(body["choices"], list)
    assert [(each["index"], each["text"]) for each in body["choices"]] == [(0, "111"), (1, "22")]
    assert isinstance(body["usage"], dict)
    assert body["usage"]["completion_tokens"] == 7


def test_an_answer_without_an_end_is_an_error() -> None:
    with pytest.raises(EngineFailed):
        reply().body(folded(Text(0, "a")))


@given(st.integers(1, 2), st.integers(1, 2), st.booleans(), st.none() | st.just(2), st.data())
def test_a_stream_collected_is_the_plain_answer(
    n: int, prompts: int, echo: bool, logprobs: int | None, data: st.DataObject
) -> None:
    echoes = [f"p{prompt} " for prompt in range(prompts)] if echo else []
    made = reply(n=n, echoes=echoes, logprobs=logprobs, include_usage=True)
    queues = [
        data.draw(choices(index, thoughts=False, calls=False)) for index in range(n * prompts)
    ]
    fold = Fold(n, prompts=prompts)
    chunks = made.opening()
    for event in interleaved(data, queues):
        fold.add(event)
        chunks += made.chunks(event)
    (usage,) = made.closing(fold)
    body = made.body(fold)
    check("CreateCompletionResponse", body)
    empty: dict[str, list[object]] = {
        name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    }
    together: list[dict[str, Any]] = [
        {"text": "", "index": index, "logprobs": None, "finish_reason": None}
        for index in range(n * prompts)
    ]
    if logprobs is not None:
        for choice in together:
            choice["logprobs"] = {name: list(values) for name, values in empty.items()}
    for each in chunks:
        assert each["usage"] is None
        assert isinstance(each["choices"], list)
        (piece,) = each["choices"]
        own = together[piece["index"]]
        assert own["finish_reason"] is None
        own["text"] += piece["text"]
        own["finish_reason"] = piece["finish_reason"]
        for name, values in (piece["logprobs"] or {}).items():
            own["logprobs"][name] += values
    assert {**usage, "choices": together} == body
