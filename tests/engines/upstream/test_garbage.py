"""Whatever bytes an upstream sends: callers get an answer or an error that says what it is."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engines.upstream.scripted import (
    DONE,
    STREAM,
    Asked,
    Step,
    chunk,
    event,
    plain,
    scripted,
    usage_chunk,
)
from tests.live import Answer, Live, threaded

MODEL = "Qwen3-8B"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


class Upstream:
    """A scripted server in a thread of its own; ``steps`` are what it answers from now on."""

    def __init__(self) -> None:
        self.url = ""
        self.steps: list[Step] = []

    def answer(self, asked: Asked) -> list[Step]:
        if asked.line.startswith("GET"):
            return [plain({"data": [{"id": MODEL, "owned_by": "vllm"}]})]
        return self.steps


@contextmanager
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with scripted(made.answer) as server:
            made.url = server.url
            over = asyncio.Event()
            ready.set_result((asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, over = ready.result(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


Pair = tuple[Upstream, Live]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """An upstream that says what it is told, and a gateway before it that never leaves it alone."""
    with (
        upstream() as server,
        threaded(
            lambda: None,
            upstreams=[{"url": server.url, "models": [MODEL], "kind": "vllm"}],
            breaker_failures=10_000,
            upstream_attempts=1,
            first_token_timeout=5,
            token_timeout=5,
            probe_interval=3600,
        ) as gate,
    ):
        yield server, gate


def ask(port: int, path: str, *, stream: bool) -> Answer:
    body: dict[str, Any] = {"model": MODEL, "stream": stream}
    if path.endswith("chat/completions"):
        body |= {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS, "logprobs": True}
        if stream:
            body["stream_options"] = {"include_usage": True}
    elif path.endswith("responses"):
        body["input"] = "hi"
    else:
        body |= {"prompt": "hi", "logprobs": 1}
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        kind = response.headers["content-type"]
        return Answer(response.status, {"content-type": kind}, response.read())
    finally:
        connection.close()


def check(path: str, answer: Answer) -> None:
    """It is whole, or says that it is not; and never that something of ours broke."""
    assert b"internal_error" not in answer.body, answer.body
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.status == 200
        last = answer.body.decode().strip().split("\n\n")[-1]
        if path.endswith("responses"):
            kind = last.partition("\n")[0].removeprefix("event: ")
            assert kind in ("response.completed", "response.incomplete", "error", "response.failed")
        else:
            assert last == "data: [DONE]"
    elif answer.status != 200:
        assert answer.status in (400, 413, 502, 503, 504), answer.body
        assert answer.json()["error"]["message"]
    else:
        json.loads(answer.body)


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=6)
    | st.sampled_from(("stop", "tool_calls", "f", "{", "<tool_call>", "\ud83d", "<think>"))
    | st.sampled_from((200, 300, 600)).map(deep),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    *("index", "delta", "message", "text", "content", "reasoning_content", "name"),
                    *("tool_calls", "function", "arguments", "id", "logprobs", "finish_reason"),
                    *("token", "tokens", "logprob", "token_logprobs", "top_logprobs", "bytes"),
                    *("usage", "refusal", "odd", "choices", "error", "code", "status", "output"),
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
MEMBERS = ("index", "finish_reason", "logprobs", "text", "delta", "message", "stop_reason", "odd")
DELTAS = ("content", "reasoning_content", "tool_calls", "function_call", "refusal", "audio", "role")


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """A chunk of an answer in which something may be what it should not be."""
    made: dict[str, Any] = chunk({"content": draw(st.sampled_from(("x", "", "é", "<think>")))})
    choice = made["choices"][0]
    choice["message"], choice["text"] = choice["delta"], "x"
    where = draw(st.sampled_from(("body", "choice", "delta", "usage", "nothing")))
    if where == "body":
        made[draw(st.sampled_from((*made, "usage", "error", "odd", "status", "output")))] = draw(
            VALUES
        )
    elif where == "choice":
        choice[draw(st.sampled_from(MEMBERS))] = draw(VALUES)
    elif where == "delta":
        choice["delta"][draw(st.sampled_from(DELTAS))] = draw(VALUES)
    elif where == "usage":
        made["usage"] = draw(VALUES)
    return json.dumps(made).encode()


PIECES = st.one_of(
    chunks().map(lambda data: b"data: " + data + b"\n\n"),
    st.binary(max_size=24),
    st.sampled_from(
        (
            DONE,
            event(chunk(reason="stop")),
            event(chunk(reason="tool_calls")),
            event(usage_chunk(7, 1)),
            b"event: error\n",
            b": ping\n\n",
            b"\n\n",
            b"\xff\xfe\n\n",
        )
    ),
)
PATHS = st.sampled_from(("/v1/chat/completions", "/v1/completions", "/v1/responses"))
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@MANY
@given(PATHS, st.lists(PIECES, max_size=6), st.booleans())
def test_streams(pair: Pair, path: str, pieces: list[bytes], cut: bool) -> None:
    server, gate = pair
    good = event(chunk({"content": "Hi"}, text="Hi"))
    server.steps = [STREAM, good, *pieces, *([None] if cut else [])]
    check(path, ask(gate.port, path, stream=True))


@MANY
@given(PATHS, chunks() | st.binary(max_size=40), st.sampled_from(("200 OK", "400 Bad", "500 Oh")))
def test_plain_answers(pair: Pair, path: str, body: bytes, status: str) -> None:
    server, gate = pair
    server.steps = [
        plain(body.replace(b'"finish_reason": null', b'"finish_reason": "stop"'), status)
    ]
    check(path, ask(gate.port, path, stream=False))
