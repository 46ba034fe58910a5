"""Secrets planted in everything that a request brings and an upstream says, looked for in all that
the program puts out; and logs that nobody takes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, ClassVar

import pytest

from tests.live import call

_MARK = "canary"
_MASTER = "sk-canary-master-0123456789"
_UPSTREAM_KEY = "sk-canary-upstream-0123456789"
_CHAT = "/v1/chat/completions"


class Echoing(BaseHTTPRequestHandler):
    """A server behind the gateway that tells every secret it hears, in every way of failing."""

    protocol_version = "HTTP/1.1"
    ways: ClassVar[list[int]] = [401, 400, 500, 429, 503, 418]

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = f"{self.headers['authorization']} {self.path} {body}"
        wanted = int(body.get("seed") or 0)
        error = {"message": told, "type": told, "code": told, "param": None}
        if wanted == 1:
            self._send(b"data: {garbage " + told.encode() + b"\n\n", 200, "text/event-stream")
        elif wanted == 2:
            self._send(told.encode(), 200, "text/html")
        else:
            self._answer(wanted or 401, {"error": error})

    def _answer(self, status: int, body: object) -> None:
        self._send(json.dumps(body).encode(), status, "application/json")

    def _send(self, content: bytes, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-secret", str(self.headers["authorization"]))
        self.end_headers()
        self.wfile.write(content)

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401  # its signature
        """Say nothing."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echoing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def served(
    folder: Path, config: str, *, out: IO[bytes] | int, err: IO[bytes] | int
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The program itself, with its port."""
    file = folder / "gateway.toml"
    file.write_text(config, encoding="utf-8")
    port = _free_port()
    command = [sys.executable, "-m", "qwen_openai", "serve", "--config", str(file)]
    environment = {name: value for name, value in os.environ.items() if "QWEN" not in name}
    environment |= {"QWEN_OPENAI_API_KEY": _MASTER, "XDG_STATE_HOME": str(folder)}
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=out, stderr=err, env=environment
    )
    try:
        _await_ready(process, port)
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "the program has ended"
        with suppress(OSError):
            if call(port, "GET", "/health/ready").status == 200:
                return
        time.sleep(0.05)
    pytest.fail("the program did not become ready")


def _config(folder: Path, upstream: int) -> str:
    return f"""
        engine = "upstream"
        log_level = "debug"
        database = "{folder / "gateway.db"}"
        upstream_attempts = 1
        breaker_failures = 100000
        [[upstreams]]
        url = "http://127.0.0.1:{upstream}/v1"
        name = "echo"
        api_key = "{_UPSTREAM_KEY}"
        models = ["m"]
    """


def _requests() -> Iterator[tuple[str, str, object, Mapping[str, str]]]:
    good = {"authorization": f"Bearer {_MASTER}"}
    message = {"role": "user", "content": "canary-prompt"}
    tool = {
        "type": "function",
        "function": {"name": "f", "description": "canary-tool", "parameters": {"type": "object"}},
    }
    asked = {"id": "c1", "type": "function"}
    called = {**asked, "function": {"name": "f", "arguments": '{"x": "canary-argument"}'}}
    turns = [
        message,
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "canary-result"},
    ]
    for way in (*Echoing.ways, 1, 2):
        for stream in (False, True):
            body = {"model": "m", "messages": turns, "tools": [tool], "seed": way, "stream": stream}
            yield "POST", _CHAT, body, good
        yield "POST", "/v1/completions", {"model": "m", "prompt": "canary-p", "seed": way}, good
    body = {"model": "m", "messages": [message]}
    yield "POST", _CHAT, body, {"authorization": "Bearer sk-canary-wrong-0123456789"}
    yield "POST", _CHAT, body, {"authorization": "Basic Y2FuYXJ5OmNhbmFyeQ=="}
    yield "POST", f"{_CHAT}?api_key=sk-canary-query-0123456789", body, {}
    yield "POST", f"{_CHAT}?note=canary-query", body, good
    yield "POST", _CHAT, body, {**good, "x-canary": "canary-header", "cookie": "canary=1"}
    yield "POST", _CHAT, {**body, "user": "canary-user", "metadata": {"a": "canary-meta"}}, good
    yield "POST", _CHAT, {"model": "m", "messages": "canary-shape"}, good
    yield "POST", _CHAT, b'{"canary-json": ', good
    yield "POST", "/", {"prompt": "canary-legacy", "history": []}, good
    yield "POST", "/v1/responses", {"model": "m", "input": "canary-input"}, good
    yield "POST", "/tokenize", {"model": "m", "prompt": "canary-tokens"}, good


def test_no_canary_is_put_out(tmp_path: Path, upstream: int) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    answers = []
    with (
        out.open("wb") as out_file,
        err.open("wb") as err_file,
        served(tmp_path, _config(tmp_path, upstream), out=out_file, err=err_file) as (_, port),
    ):
        for method, path, body, headers in _requests():
            answer = call(port, method, path, body, headers)
            answers.append(answer)
            told = answer.body + str(dict(answer.headers)).encode()
            # What an upstream says of a bad request is passed on, and may quote it: to its sender.
            assert b"sk-canary" not in told, (path, answer)
            assert f":{upstream}".encode() not in told, (path, answer)
        # A master key may read them; nobody else may be told of one.
        scrape = _scrape(port)
        assert _MARK not in scrape
        assert "qwen_openai_requests_total" in scrape
    assert {401, 502} <= {answer.status for answer in answers}
    assert not {500} & {answer.status for answer in answers}
    for file in (out, err, *tmp_path.glob("gateway.db*")):
        assert _MARK.encode() not in file.read_bytes(), file
    lines = err.read_bytes().splitlines()
    requests = [json.loads(line) for line in lines if b'"event":"request"' in line]
    assert len(requests) >= len(answers)
    for line in lines:
        assert len(line) <= (1024 if b'"outcome":"ok"' in line else 10_240)


def _scrape(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {_MASTER}"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200
    return text


@pytest.mark.parametrize("where", ["full", "closed"])
def test_logs_that_nobody_takes_stop_nothing(tmp_path: Path, upstream: int, where: str) -> None:
    if where == "full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    reading, writing = os.pipe()
    target = os.open("/dev/full", os.O_WRONLY) if where == "full" else writing
    good = {"authorization": f"Bearer {_MASTER}"}
    try:
        # The panel goes to stdout before the pipe breaks: `serve | head -1`.
        out = subprocess.DEVNULL if where == "full" else target
        with served(tmp_path, _config(tmp_path, upstream), out=out, err=target) as (process, port):
            if where == "closed":
                os.close(reading)
            for _ in range(50):
                assert call(port, "GET", "/v1/models", None, good).status == 200
                body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
                assert call(port, "POST", _CHAT, body, good).status == 502
            assert process.poll() is None
            assert "qwen_openai_requests_total" in _scrape(port)
        assert process.returncode == 0
    finally:
        for end in {reading, writing, target}:
            with suppress(OSError):
                os.close(end)
