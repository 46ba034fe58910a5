"""Bytes that are not what they seem: one answer or a close, never two answers (rows 42 to 46)."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from qwen_openai.engines.fake import FakeEngine
from qwen_openai.http_protocol import MAX_HEADER_FIELDS
from tests.live import Live, call, live, parse_answers, raw, threaded, until
from tests.real import real_engine

_BODY = b'{"model":"fake","messages":[{"role":"user","content":"hi"}]}'


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.real)])
def engine(request: pytest.FixtureRequest) -> Iterator[Live]:
    make = FakeEngine if request.param == "fake" else real_engine
    with threaded(make, allowed_hosts=("127.0.0.1", "gateway.test")) as running:
        yield running


@pytest.fixture(scope="module")
def usual(engine: Live) -> object:
    """The answer of a normal request before anything bad was sent."""
    return _normal(engine)


@pytest.fixture
def server(engine: Live, usual: object) -> Iterator[Live]:
    """The server; after the test it answers as it did before all of them."""
    yield engine
    assert _normal(engine) == usual


def _normal(server: Live) -> object:
    body = {
        "model": server.gateway.model_names[0],
        "messages": [{"role": "user", "content": "Name three colours."}],
        "temperature": 0,
        "max_tokens": 6,
    }
    answer = call(server.port, "POST", "/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    return answer.json()["choices"], answer.json()["usage"]


def _request(*lines: bytes, body: bytes = b"", target: bytes = b"/v1/models") -> bytes:
    method = b"POST" if body else b"GET"
    head = [method + b" " + target + b" HTTP/1.1", b"Host: 127.0.0.1", *lines, b"", b""]
    return b"\r\n".join(head) + body


_CLOSE = b"Connection: close"
_SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

MALFORMED = {
    "length and chunked": _request(
        b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + _SMUGGLED
    ),
    "chunked and length": _request(
        b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + _SMUGGLED
    ),
    "two lengths": _request(b"Content-Length: 5", b"Content-Length: 6", body=b"abcdef" + _SMUGGLED),
    "space before the colon": _request(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "bare line feeds": b"GET /v1/models HTTP/1.1\nHost: 127.0.0.1\n\n",
    "NUL in a header": _request(b"X-A: a\x00b"),
    "folded header": _request(b"X-A: a", b"\tb"),
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    "negative length": _request(b"Content-Length: -1", body=b"x"),
    "unknown coding": _request(b"Transfer-Encoding: gzip", body=b"x"),
    "bad chunk size": _request(b"Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_get_one_answer_and_a_close(server: Live, data: bytes) -> None:
    [answer] = parse_answers(raw(server.port, data))
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"]
    assert answer.json()["error"]["code"] == "invalid_http"
    assert call(server.port, "GET", "/health/live").status == 200


def test_too_many_and_too_large_headers_get_431(server: Live) -> None:
    fields = (b"X-%d: y" % number for number in range(20_000))
    for lines in ([b"X-Large: " + b"x" * 100_000], list(fields)):
        [answer] = parse_answers(raw(server.port, _request(*lines)))
        assert (answer.status, answer.json()["error"]["code"]) == (431, "headers_too_large")
    fitting = [b"X-%d: y" % number for number in range(MAX_HEADER_FIELDS - 2)]
    [answer] = parse_answers(raw(server.port, _request(*fitting, _CLOSE)))
    assert answer.status == 200


def test_a_request_line_without_an_end_is_cut_off(server: Live) -> None:
    [answer] = parse_answers(raw(server.port, b"GET /" + b"a" * 200_000))
    assert answer.status == 431


def test_pipelined_requests_are_answered_in_order(server: Live) -> None:
    data = _request(target=b"/health/live") + _request(_CLOSE, target=b"/v1/nothing")
    assert [answer.status for answer in parse_answers(raw(server.port, data))] == [200, 404]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"gateway.test", 200),
        (b"GATEWAY.test:6006", 200),
        (b"localhost/health/live?", 400),
        (b"evil.test", 400),
        (b"127.0.0.1.evil.test", 400),
        (b"", 400),
    ],
)
def test_only_configured_hosts_are_served(server: Live, host: bytes, status: int) -> None:
    data = b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    [answer] = parse_answers(raw(server.port, data))
    assert answer.status == status
    if status == 400:
        assert answer.json()["error"]["code"] == "unknown_host"


def test_no_host_or_two_hosts_are_refused(server: Live) -> None:
    for lines in (b"", b"Host: 127.0.0.1\r\nHost: evil.test\r\n"):
        data = b"GET /v1/models HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n"
        [answer] = parse_answers(raw(server.port, data))
        assert answer.status == 400


def test_an_absolute_target_is_served_by_its_path(server: Live) -> None:
    data = _request(_CLOSE, target=b"http://127.0.0.1/v1/models")
    [answer] = parse_answers(raw(server.port, data))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"my-id_1", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"a b", False),
        (b"\xc3\xa9", False),
        (b"a;b", False),
    ],
)
def test_the_request_id_of_a_client_is_kept_when_it_is_plain(
    server: Live, given: bytes, kept: bool
) -> None:
    data = _request(b"X-Request-Id: " + given, _CLOSE)
    [answer] = parse_answers(raw(server.port, data))
    assert (answer.headers["x-request-id"] == given.decode("latin-1")) is kept


def test_an_upgrade_that_is_not_offered_is_ignored(server: Live) -> None:
    data = _request(b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        assert b" 200 OK" in connection.recv(65536)


async def _lines(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 10)


async def test_slow_headers_are_cut_off_at_the_deadline() -> None:
    async with live(FakeEngine(), header_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: ")
        [answer] = parse_answers(await _lines(reader))
        assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
        writer.close()


async def test_a_silent_connection_is_closed_at_the_header_deadline() -> None:
    async with live(FakeEngine(), header_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert [answer.status for answer in parse_answers(await _lines(reader))] == [408]
        writer.close()


async def test_a_slow_body_is_cut_off_at_its_deadline() -> None:
    async with live(FakeEngine(), body_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n"
        writer.write(head + b"Content-Type: application/json\r\n\r\n{")
        [answer] = parse_answers(await _lines(reader))
        assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
        writer.close()


@pytest.mark.parametrize("extra", [b"\r\n", b"x"], ids=["a stray line end", "a late body"])
async def test_nothing_but_a_request_keeps_a_connection_alive(extra: bytes) -> None:
    """Bytes after an early answer, or between requests, do not stop the keep-alive timer."""
    async with live(FakeEngine(), keep_alive=0.3, api_key="sk-some-key") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        length = b"Content-Length: 100000\r\n" if extra == b"x" else b""
        method = b"POST" if extra == b"x" else b"GET"
        writer.write(method + b" /v1/models HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n")
        assert b" 401 " in await reader.readuntil(b"}}")
        writer.write(extra)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_body_without_a_length_is_capped_while_it_comes() -> None:
    async with live(FakeEngine(), max_body_bytes=4096) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        writer.write(head + b"Content-Type: application/json\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        [answer] = parse_answers(await _lines(reader))
        assert (answer.status, answer.json()["error"]["code"]) == (413, "payload_too_large")
        writer.close()


async def test_a_length_that_lies_is_refused_before_the_body() -> None:
    async with live(FakeEngine(), max_body_bytes=4096) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n"
        writer.write(head + b"Content-Type: application/json\r\n\r\n")
        first = await asyncio.wait_for(reader.readuntil(b"}}"), 10)
        assert b" 413 " in first
        writer.close()


async def test_a_reader_that_stops_reading_is_dropped_and_its_slot_freed() -> None:
    engine = FakeEngine(lambda job: ["x" * 1000] * 200_000, yield_every=10)
    async with live(engine, write_timeout=0.3, default_max_tokens=200_000) as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            body = _BODY[:-1] + b',"stream":true,"max_tokens":200000}'
            head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            await loop.sock_sendall(
                client, b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + head + body
            )
            await until(lambda: engine.record.started == 1 and engine.record.open == 0)
        assert engine.record.finished == 0
        assert server.gateway.default()[1].service.admission.running == 0
