"""The mock itself: what it says, how it breaks, what it counts, over real sockets."""

import contextlib
import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.upstream.bodies import ARGUMENTS
from tests.upstream.deltas import counted, whole
from tests.upstream.process import Mock, ask, mocks


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocks("a", arguments=("--model", "m", "--model", "other")) as [made]:
        yield made


def body(text: str, **more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def received(mock: Mock, text: str, **more: object) -> bytes:
    """What comes of a stream, as much of it as comes."""
    connection = http.client.HTTPConnection("127.0.0.1", mock.port, timeout=20)
    with contextlib.closing(connection):
        asked = json.dumps(body(text, stream=True, **more))
        connection.request("POST", "/v1/chat/completions", asked)
        try:
            return connection.getresponse().read()
        except http.client.IncompleteRead as broken:
            return broken.partial


def text_of(data: bytes) -> str:
    """The text in the events of a stream."""
    lines = [line.removeprefix("data:").strip() for line in data.decode().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    choices = [choice for event in events for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_it_lists_answers_and_tokenizes(mock: Mock) -> None:
    listed = ask(mock.port, "GET", "/v1/models")[1]
    assert [row["id"] for row in listed["data"]] == ["m", "other"]
    status, answer = ask(mock.port, "POST", "/v1/chat/completions", body("hi there", max_tokens=5))
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == whole("hi there", 5)
    assert answer["usage"]["prompt_tokens"] == 2
    asked = {"model": "m", "prompt": "hi", "max_tokens": 2}
    assert ask(mock.port, "POST", "/v1/completions", asked)[1]["choices"][0]["text"] == whole(
        "hi", 2
    )
    assert ask(mock.port, "POST", "/tokenize", {"prompt": "a b c"})[1]["tokens"] == [0, 1, 2]


@pytest.mark.parametrize(
    "how", ["", "framing=crlf", "framing=bytes", "framing=hundred", "framing=packed"]
)
def test_its_streams_are_whole_however_they_are_cut(mock: Mock, how: str) -> None:
    text = f"hi mock:wide,deltas=9,{how}"
    data = received(mock, text)
    assert counted(text, text_of(data), wide=True) == 9
    assert data.strip().endswith(b"data: [DONE]")
    assert data.count(b'"finish_reason":"stop"') == 1


def test_its_gzip_is_gzip(mock: Mock) -> None:
    text = "mock:gzip,deltas=4"
    assert counted(text, text_of(gzip.decompress(received(mock, text)))) == 4


@pytest.mark.parametrize("ending", ["end", "cut", "reset", "error", "named", "nonjson", "html"])
def test_it_breaks_where_it_was_told(mock: Mock, ending: str) -> None:
    with contextlib.suppress(ConnectionResetError):
        data = received(mock, f"mock:at=2,deltas=5,ending={ending},framing=packed")
        assert (b"[DONE]" in data) is (ending in ("nonjson", "html"))


def test_its_refusals_have_what_they_should(mock: Mock) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", mock.port, timeout=20)
    with contextlib.closing(connection):
        asked = json.dumps(body("mock:status=429,retry_after=3600,leak"))
        connection.request(
            "POST", "/v1/chat/completions", asked, {"authorization": "Bearer sk-secret"}
        )
        response = connection.getresponse()
        assert (response.status, response.getheader("retry-after")) == (429, "3600")
        assert b"sk-secret" in response.read()
    assert ask(mock.port, "POST", "/v1/chat/completions", body("mock:html")) == (
        200,
        b"<html><body><h1>It works!</h1></body></html>",
    )


def test_it_calls_the_first_tool(mock: Mock) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    answer = ask(mock.port, "POST", "/v1/chat/completions", body("?", tools=tools))[1]
    call = answer["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "weather", "arguments": ARGUMENTS}
    assert b"tool_calls" in received(mock, "?", tools=tools)


def test_it_counts_who_left_and_when(mock: Mock) -> None:
    mock.control(clear=True)
    asked = json.dumps(body("gone mock:hang=token", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(asked)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", mock.port)) as connection:
        connection.sendall(head.encode() + asked)
        connection.recv(4096)
        assert mock.report()["open"] == 1
    left_at = time.monotonic()
    while not (report := mock.report())["left"]:
        assert time.monotonic() - left_at < 10
    [[tag, at]] = report["left"]
    assert tag == "gone mock:hang=token"
    assert abs(at - left_at) < 5
    assert (report["open"], report["requests"], report["finished"]) == (0, 1, 0)


def test_control_sets_what_others_get_and_a_kill_is_survived(mock: Mock) -> None:
    mock.control("status=500")
    assert ask(mock.port, "POST", "/v1/chat/completions", body("hi"))[0] == 500
    assert ask(mock.port, "POST", "/v1/chat/completions", body("mock:status=200"))[0] == 200
    port = mock.port
    mock.kill()
    with pytest.raises(OSError, match="refused"):
        ask(port, "GET", "/v1/models")
    assert mock.start().port == port
    assert ask(port, "POST", "/v1/chat/completions", body("hi"))[0] == 200
