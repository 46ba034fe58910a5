"""Upstreams that answer in shapes that no server should send (rows 57 and 59): a typed failure or a
right answer, never a failure of our own, and nothing is followed or repeated.
"""

import json
from collections.abc import Iterator

import pytest

from tests.upstream.client import Call, Heard, chat, heard
from tests.upstream.deltas import whole
from tests.upstream.fronted import fronted
from tests.upstream.process import Mock, mocks

_DEEP = "[" * 20_000 + "]" * 20_000
_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


@pytest.fixture(scope="module")
def started() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


@pytest.fixture
def pair(started: list[Mock]) -> Iterator[list[Mock]]:
    """Two mocks that behave and have counted nothing."""
    for mock in started:
        mock.control("", clear=True, answer=None)
    yield started
    for mock in started:
        mock.control("", answer=None)


def _plain(message: object, **more: object) -> str:
    choice = {"index": 0, "finish_reason": "stop", "message": message, **more}
    return json.dumps({"id": "x", "model": "m", "choices": [choice], "usage": _USAGE})


_MESSAGE = {"role": "assistant", "content": "ok"}
# Bodies that are no answer.
_NO_ANSWERS = [
    "",
    "null",
    "[]",
    '"a string"',
    "{}",
    '{"choices": null}',
    '{"choices": []}',
    '{"choices": {}}',
    '{"choices": [null]}',
    '{"choices": [[]]}',
    '{"choices": [{}]}',
    '{"error": {"message": "in a 200"}}',
    '{"error": "a string in a 200"}',
    '{"choices": [{"index": 0, "message": {"content": "half',
    _DEEP,
    _plain(None),
    _plain([]),
    _plain({"role": "assistant", "content": 42}),
    _plain({"role": "assistant", "content": {"a": 1}}),
    _plain({**_MESSAGE, "tool_calls": [None]}),
    _plain({**_MESSAGE, "tool_calls": [{"function": None}]}),
    _plain({**_MESSAGE, "tool_calls": [{"id": 7, "function": {"name": 1, "arguments": {}}}]}),
]
_CHOICE = {"index": 0, "finish_reason": "stop", "message": _MESSAGE}
_BESIDE: list[dict[str, object]] = [
    {"usage": []},
    {"usage": "many"},
    {"usage": {"prompt_tokens": -5, "completion_tokens": "x"}},
    {"usage": {"prompt_tokens": 1e308, "completion_tokens": 2**70}},
    {"usage": {"prompt_tokens": None, "prompt_tokens_details": []}},
    {"id": 42, "created": "now", "model": None, "object": []},
    {"error": None},
]
# Answers that are odd, and all the same what was asked for, or not.
_ODD = [
    _plain({**_MESSAGE, "tool_calls": {}}),
    '{"choices": [{"index": 0, "finish_reason": "stop"}]}',
    _plain(_MESSAGE, finish_reason=None),
    _plain(_MESSAGE, finish_reason="abort"),
    _plain(_MESSAGE, finish_reason=["stop"]),
    _plain(_MESSAGE, index=7),
    _plain(_MESSAGE, index="0"),
    _plain(_MESSAGE, index=-1),
    _plain(_MESSAGE, index=None),
    _plain(_MESSAGE, logprobs=[]),
    _plain(_MESSAGE, logprobs={"content": [None]}),
    _plain(_MESSAGE, logprobs={"content": [{"token": 1}]}),
    _plain({**_MESSAGE, "content": "\ud800"}),
    _plain({**_MESSAGE, "role": "user"}),
    _plain({**_MESSAGE, "refusal": 3, "audio": {}, "function_call": "x"}),
    _plain({**_MESSAGE, "index": 1, "choices": [], "error": {}, "__class__": "x"}),
    *(json.dumps({"choices": [_CHOICE], **more}) for more in _BESIDE),
]


def _typed(answer: Heard) -> None:
    """A right answer, or a failure that says what it is; of ours never."""
    assert answer.status in (200, 502), answer
    assert not answer.torn
    if answer.error is not None:
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert answer.error["code"] != "internal_error", answer.error
    else:
        assert answer.status == 200
        assert answer.finish in ("stop", "length", "tool_calls", "content_filter", "function_call")


@pytest.mark.parametrize("stream", [False, True])
async def test_bodies_that_are_no_answer(pair: list[Mock], stream: bool) -> None:
    """Row 57: 502, whatever they are; a stream of one of them as data likewise."""
    async with fronted(pair, breaker_failures=1_000_000, upstream_attempts=1) as server:
        for body in _NO_ANSWERS:
            for mock in pair:
                mock.control(answer=f"data: {body}\n\n" if stream else body)
            answer = await heard(server.port, "hi", stream=stream)
            _typed(answer)
            assert answer.error is not None, body[:200]


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_that_are_odd(pair: list[Mock], stream: bool) -> None:
    """Rows 57 and 59: wrong types and unknown values are a failure of the upstream, or left out."""
    async with fronted(pair, breaker_failures=1_000_000, upstream_attempts=1) as server:
        for body in _ODD:
            event = body.replace('"message"', '"delta"')
            for mock in pair:
                mock.control(answer=f"data: {event}\n\ndata: [DONE]\n\n" if stream else body)
            _typed(await heard(server.port, "hi", stream=stream))


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 418, 451, 599])
@pytest.mark.parametrize("stream", [False, True])
async def test_statuses_that_nobody_expects(pair: list[Mock], status: int, stream: bool) -> None:
    """Rows 56 and 57: never a 500, and a redirect is not followed: it would carry prompt and key
    to wherever it points."""
    aside, there = pair
    target = f"http://127.0.0.1:{there.port}/v1/chat/completions"
    aside.control(f"status={status},location={target}")
    there.control(clear=True)
    async with fronted(pair[:1], breaker_failures=1_000_000, upstream_attempts=1) as server:
        answer = await heard(server.port, "hi", stream=stream, max_tokens=3)
        assert answer.error is not None or answer.text == whole("hi", 3)
        assert answer.status in (200, 400, 404, 502, 503), answer
        assert there.report()["requests"] == 0


async def test_what_the_client_sends_is_not_the_upstreams_business(pair: list[Mock]) -> None:
    """Rows 8 and 12: the client's own key, cookies and routing stay here."""
    pair[0].control(keep=True, clear=True)
    async with fronted(pair[:1]) as server:
        headers = {"Authorization": "Bearer sk-client", "Cookie": "a=b", "X-Api-Key": "sk-other"}
        await (await Call.post(server.port, chat("hi"), headers=headers)).rest()
    [seen] = pair[0].report()["seen"]
    assert "sk-client" not in json.dumps(seen)
    assert "sk-other" not in json.dumps(seen)
    assert "cookie" not in seen["headers"]
