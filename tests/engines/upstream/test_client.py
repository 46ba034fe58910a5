"""The client against servers on real sockets: what is sent, what comes back, what goes wrong."""

import asyncio
import gzip
import time
from contextlib import aclosing

import aiohttp
import pytest

from qwen_openai.core import Event, Finish, Started, Text
from qwen_openai.engines.upstream.client import Timeouts, UpstreamClient
from qwen_openai.engines.upstream.failures import Verdict, verdict
from qwen_openai.errors import (
    ApiError,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)
from qwen_openai.gateway.pool.connecting import Connections
from qwen_openai.upstreams import Upstream
from tests.engines.contract import drain
from tests.engines.upstream.scripted import (
    CHUNKED,
    DONE,
    KEY,
    QUICK,
    STREAM,
    Step,
    a_job,
    answered,
    chunk,
    chunked,
    client_of,
    event,
    plain,
    scripted,
    usage_chunk,
    words,
)
from tests.live import make_settings

PLAIN = {
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2},
}


async def test_a_stream_becomes_events() -> None:
    events = await answered(words("Hi", " there"))
    assert isinstance(events[0], Started)
    assert events[1:] == [
        Text(0, "Hi"),
        Text(0, " there"),
        Finish(0, "stop", 2, None, 7),
    ]


async def test_a_plain_answer_becomes_events() -> None:
    events = await answered([plain(PLAIN)], a_job(watched=False))
    assert events == [Started(0, 7), Text(0, "hi", 2), Finish(0, "stop", 2, None, 7)]


async def test_what_is_sent() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with scripted(words("x")) as server, client_of(server.url) as client:
        await drain(client.generate(a_job(trace=trace), "theirs"), [])
    (asked,) = server.asked
    assert asked.line == "POST /v1/chat/completions HTTP/1.1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["x-request-id"] == "job-1"
    assert asked.headers["traceparent"] == trace
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.body["model"] == "theirs"
    assert asked.body["messages"] == [{"role": "user", "content": "Hello"}]


async def test_connections_are_used_again() -> None:
    body = b"".join(words("x")[1:])
    script: list[Step] = [CHUNKED, chunked(body), b"0\r\n\r\n"]
    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(5):
            async with aclosing(client.generate(a_job(), "theirs")) as events:
                assert isinstance([each async for each in events][-1], Finish)
    assert (len(server.asked), server.connections) == (5, 1)


async def test_closing_an_answer_closes_its_connection() -> None:
    script: list[Step] = [*words("x")[:3], asyncio.Event()]
    async with scripted(script) as server, client_of(server.url) as client:
        async with aclosing(client.generate(a_job(), "theirs")) as events:
            async for each in events:
                if isinstance(each, Text):
                    break
        async with asyncio.timeout(1.25):
            await server.closed.wait()


async def test_cancelling_before_the_head_closes_the_connection() -> None:
    script: list[Step] = [asyncio.Event()]
    async with scripted(script) as server, client_of(server.url) as client:
        first = asyncio.ensure_future(anext(client.generate(a_job(), "theirs")))
        while not server.asked:  # noqa: ASYNC110  # the server has no event for it
            await asyncio.sleep(0.005)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        async with asyncio.timeout(1.25):
            await server.closed.wait()


@pytest.mark.parametrize("watched", [True, False])
async def test_nobody_listens(watched: bool) -> None:
    async with client_of("http://127.0.0.1:9") as client:
        with pytest.raises(UpstreamFailed, match="refused the connection") as caught:
            await anext(client.generate(a_job(watched=watched), "theirs"))
    assert verdict(caught.value).elsewhere
    assert verdict(caught.value).blames
    assert "127.0.0.1" not in caught.value.message


async def test_an_unknown_host() -> None:
    async with client_of("http://no-such-host.invalid") as client:
        with pytest.raises(UpstreamFailed):
            await client.look()


async def test_no_tls_where_it_was_said() -> None:
    times = Timeouts(connect=0.2, first_token=1, token=1, total=1)
    async with (
        scripted([b"no\r\n"]) as server,
        client_of(server.url.replace("http", "https"), times) as client,
    ):
        with pytest.raises((UpstreamFailed, UpstreamTimeout)):
            await client.look()


@pytest.mark.parametrize(
    ("status", "kind", "code", "elsewhere", "blames"),
    [
        ("400 Bad", InvalidRequest, 400, False, False),
        ("422 Bad", InvalidRequest, 400, False, False),
        ("413 Long", ApiError, 413, False, False),
        ("401 No", UpstreamFailed, 502, True, True),
        ("403 No", UpstreamFailed, 502, True, True),
        ("404 None", UpstreamFailed, 502, True, False),
        ("429 Busy", Overloaded, 503, True, False),
        ("500 Oh", UpstreamFailed, 502, True, True),
        ("502 Oh", UpstreamFailed, 502, True, True),
        ("503 Oh", EngineUnavailable, 503, True, True),
        ("302 Found", UpstreamFailed, 502, True, True),
        ("204 None", UpstreamFailed, 502, True, True),
    ],
)
@pytest.mark.parametrize("watched", [True, False])
async def test_a_status(
    status: str, kind: type[ApiError], code: int, elsewhere: bool, blames: bool, watched: bool
) -> None:
    body = {"error": {"message": f"bad key {KEY}", "param": "top_k", "code": "wrong"}}
    headers = "retry-after: 3600\r\nlocation: http://127.0.0.1:1/\r\n"
    with pytest.raises(kind) as caught:
        await answered([plain(body, status, headers)], a_job(watched=watched))
    error = caught.value
    assert error.status == code
    judged = verdict(error)
    assert (judged.elsewhere, judged.blames) == (elsewhere, blames)
    assert KEY not in error.message
    assert float(error.headers().get("retry-after", 0)) <= 120
    if isinstance(error, InvalidRequest):
        assert (error.param, error.code) == ("top_k", "wrong")
    if isinstance(error, UpstreamBusy | EngineUnavailable):
        assert judged.pause == 120


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "the request exceeds the available context size, try increasing it",
        "Requested token count exceeds the model's maximum context length of 4096 tokens",
    ],
)
async def test_a_prompt_that_is_too_long(message: str) -> None:
    for body in ({"error": {"message": message}}, {"object": "error", "message": message}):
        with pytest.raises(ContextLengthExceeded, match="context"):
            await answered([plain(body, "400 Bad")])


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize(
    "steps",
    [
        [None],
        [b"HTTP/1.1 200 OK\r\ncontent-type: text/eve", None],
        [b"garbage\r\n\r\n"],
        [plain(b"<html>proxy</html>", headers="content-type: text/html\r\n")],
        [plain(b"{nonsense")],
        [plain(b"[]")],
        [plain(b"{}")],
        [plain({"choices": []})],
        [plain({"choices": None})],
        [plain({"choices": [7]})],
        [plain({"choices": [{"index": 0, "message": {"content": 7}, "finish_reason": "stop"}]})],
        [plain({"choices": [{"index": 0, "message": {"content": "x"}}]})],
        [plain({"error": {"message": "broken"}})],
        [plain({"error": "broken"})],
        [plain({"detail": "broken"})],
        [plain(gzip.compress(b"{}"), headers="content-encoding: gzip\r\n")],
        [plain(PLAIN)[:-9], None],
    ],
)
async def test_what_is_no_answer(steps: list[Step], watched: bool) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await answered(steps, a_job(watched=watched))
    assert verdict(caught.value).elsewhere
    assert verdict(caught.value).blames


@pytest.mark.parametrize(
    "ending",
    [
        [],
        [None],
        [DONE],
        [event(chunk(reason="stop"))],
        [event(chunk(reason="stop")), None],
        [event(chunk(reason="abort")), DONE],
        [event({"error": {"message": f"at http://10.0.0.7:8000/x with {KEY}"}})],
        [b"event: error\n" + event({"message": "worker died", "code": 500})],
        [b"data: nonsense\n\n"],
        [b"data: 7\n\n"],
        [b"data: {}\n\n"],
        [event({"choices": [{"index": 0, "delta": {"content": 7}}]})],
        [b"data: " + b"x" * (11 * 2**20)],
        [event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})),
         event(chunk(reason="tool_calls")), DONE],
    ],
)  # fmt: skip
async def test_an_answer_that_breaks_off(ending: list[Step]) -> None:
    seen: list[Event] = []
    async with scripted([*words("Hi")[:3], *ending]) as server, client_of(server.url) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await drain(client.generate(a_job(), "theirs"), seen)
    assert seen[1] == Text(0, "Hi")
    assert not any(isinstance(each, Finish) for each in seen)
    for secret in (KEY, "10.0.0.7", "8000"):
        assert secret not in caught.value.message


async def test_an_error_event_about_the_request_is_the_callers() -> None:
    error = {"error": {"message": "bad logit_bias", "code": 400, "param": "logit_bias"}}
    with pytest.raises(InvalidRequest, match="bad logit_bias"):
        await answered([STREAM, event(error)])


SHORT = Timeouts(connect=1, first_token=0.1, token=0.1, total=0.3)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([asyncio.Event], "begin"),
        ([STREAM, asyncio.Event], "begin"),
        ([STREAM, event(chunk({"role": "assistant"})), b": ping\n\n", asyncio.Event], "begin"),
        ([*words("Hi")[:3], asyncio.Event], "go on"),
        ([*words("Hi")[:3], *[b": ping\n\n", 0.04] * 20], "go on"),
        ([STREAM, *[event(chunk({"content": "x"})), 0.02] * 60], "finish"),
    ],
)
async def test_silence(steps: list[object], said: str) -> None:
    made = [asyncio.Event() if each is asyncio.Event else each for each in steps]
    begun = time.monotonic()
    with pytest.raises(UpstreamTimeout, match=said) as caught:
        await answered(made, timeouts=SHORT)  # type: ignore[arg-type]  # as above
    assert time.monotonic() - begun < 1.5
    assert verdict(caught.value).elsewhere
    assert verdict(caught.value).blames


async def test_a_plain_answer_that_never_comes() -> None:
    with pytest.raises(UpstreamTimeout):
        await answered([asyncio.Event()], a_job(watched=False), SHORT)


async def test_a_slow_reader_is_not_the_servers_silence() -> None:
    times = Timeouts(connect=1, first_token=0.1, token=0.1, total=10)
    async with scripted(words("a", "b")) as server, client_of(server.url, times) as client:
        seen = []
        async with aclosing(client.generate(a_job(), "theirs")) as events:
            async for each in events:
                seen.append(each)
                if each == Text(0, "a"):
                    await asyncio.sleep(0.3)
    assert isinstance(seen[-1], Finish)


async def test_a_server_that_does_not_stream() -> None:
    assert (await answered([plain(PLAIN)]))[1:] == [Text(0, "hi", 2), Finish(0, "stop", 2, None, 7)]


@pytest.mark.parametrize(
    ("model", "seen", "kind"),
    [
        ({"id": "a", "owned_by": "vllm", "max_model_len": 4096}, 4096, "vllm"),
        ({"id": "a", "owned_by": "sglang", "max_model_len": 4096}, 4096, "sglang"),
        ({"id": "a", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192}}, 8192, "llamacpp"),
        ({"id": "a", "owned_by": "openai"}, None, "openai"),
        ({"id": "a"}, None, "openai"),
    ],
)
async def test_a_look(model: dict[str, object], seen: int | None, kind: str) -> None:
    async with scripted([plain({"data": [model]})]) as server, client_of(server.url) as client:
        looked = await client.look()
    assert server.asked[0].line == "GET /v1/models HTTP/1.1"
    assert (dict(looked.models), looked.kind) == ({"a": seen}, kind)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": 7}', b"<html>"])
async def test_a_look_at_nonsense(body: bytes) -> None:
    async with scripted([plain(body)]) as server, client_of(server.url) as client:
        with pytest.raises(UpstreamFailed):
            await client.look()


async def test_nothing_is_left_behind() -> None:
    before = len(asyncio.all_tasks())
    for steps in (words("x"), [*words("x")[:3], None], [STREAM, DONE]):
        async with scripted(steps) as server, client_of(server.url) as client:
            try:
                async with aclosing(client.generate(a_job(), "theirs")) as events:
                    _ = [each async for each in events]
            except UpstreamFailed:
                pass
            connector = client._session.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            assert not connector._acquired
    assert len(asyncio.all_tasks()) <= before + 1
    assert usage_chunk(1, 1)["choices"] == []


@pytest.mark.parametrize("size", [100 * 2**10, 6 * 2**20])
async def test_a_refusal_that_repeats_a_long_request_is_the_callers(size: int) -> None:
    body = {"error": {"message": "bad top_k: " + "x" * size, "param": "top_k"}}
    with pytest.raises(InvalidRequest) as caught:
        await answered([plain(body, "400 Bad")])
    assert verdict(caught.value) == Verdict(elsewhere=False, blames=False)
    assert len(caught.value.message) <= 500


@pytest.mark.parametrize("told", ["a; 改了", "x" * 5000, "temperature: 2 became 1"])
async def test_what_an_upstream_says_it_changed_fits_a_header(told: str) -> None:
    head = f"content-type: text/event-stream\r\nx-qwen-openai-changed: {told}\r\n\r\n"
    script = [b"HTTP/1.1 200 OK\r\n" + head.encode(), *words("x")[1:]]
    (started, *_) = await answered(script)
    assert isinstance(started, Started)
    header = "; ".join(started.changes)
    assert header.isascii()
    assert header.isprintable()
    assert len(header) <= 1000
    assert (header == told) == told.startswith("temp")


async def test_a_key_with_a_line_end_is_sent_without() -> None:
    async with scripted(words("x")) as server:
        upstream = Upstream.model_validate({"url": server.url, "api_key": "abc\n"})
        async with aiohttp.ClientSession() as session:
            client = UpstreamClient(upstream, session, QUICK)
            async with aclosing(client.generate(a_job(), "theirs")) as events:
                assert isinstance([each async for each in events][-1], Finish)
    assert server.asked[0].headers["authorization"] == "Bearer abc"


async def test_a_key_that_no_header_can_hold_is_a_failure() -> None:
    async with scripted(words("x")) as server, aiohttp.ClientSession() as session:
        upstream = Upstream.model_validate({"url": server.url, "api_key": "a\nb"})
        client = UpstreamClient(upstream, session, QUICK)
        with pytest.raises(UpstreamFailed, match="could not be asked"):
            await client.look()


async def test_no_cookie_travels_and_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    connections = Connections()
    try:
        script: list[Step] = [plain(PLAIN, headers="set-cookie: a=b; path=/\r\n")]
        async with scripted(script) as server:
            upstream = Upstream.model_validate({"url": server.url, "name": "east"})
            client = connections.client(upstream, make_settings())
            for _ in range(2):
                async with aclosing(client.generate(a_job(watched=False), "theirs")) as events:
                    assert [each async for each in events]
        assert [asked.headers.get("cookie") for asked in server.asked] == [None, None]
    finally:
        await connections.aclose()
