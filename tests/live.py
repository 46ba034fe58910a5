"""Live servers for tests: the real server on a real socket, in this loop or in a thread."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from qwen_openai.app import create_app
from qwen_openai.engines.base import Engine
from qwen_openai.routes.gateway import Gateway
from qwen_openai.server import Server, bind
from qwen_openai.settings import Settings
from tests.spec import check


def make_settings(**values: object) -> Settings:
    """Settings for a test: a free port, nothing from the environment."""
    return Settings.model_validate({"port": 0, "database": "off", **values})


_CHAT = "CreateChatCompletion"
_SCHEMAS = {
    "/v1/chat/completions": f"{_CHAT}Response",
    "/v1/completions": "CreateCompletionResponse",
    "/v1/models": "ListModelsResponse",
}


@dataclass(frozen=True, slots=True)
class Live:
    """A server that runs. ``gateway`` and ``server`` belong to its loop."""

    port: int
    server: Server
    gateway: Gateway

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an openai client takes."""
        return f"{self.url}/v1"


def _as_it_is(app: ASGIApp) -> ASGIApp:
    return app


@asynccontextmanager
async def live(
    engine: Engine | None, /, wrap: Callable[[ASGIApp], ASGIApp] = _as_it_is, **values: object
) -> AsyncIterator[Live]:
    """Serve an engine in the test's own loop, so that the test may hold its gates. ``wrap`` may put
    something around the application."""
    settings = make_settings(**values)
    if engine is not None:
        await engine.start()
    app = create_app(settings, engine)
    server = Server(settings, wrap(app), app.state.gateway)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.serve_on(bind(settings), ready.set_result))
    try:
        yield Live(await ready, server, app.state.gateway)
    finally:
        server.stop()
        server.stop()
        await serving
        if engine is not None:
            await engine.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition of another task or process; ten seconds without it are a failure."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is watched has no event to wait for
            await asyncio.sleep(0.002)


@contextmanager
def threaded(
    make_engine: Callable[[], Engine | None],
    wrap: Callable[[ASGIApp], ASGIApp] = _as_it_is,
    **values: object,
) -> Iterator[Live]:
    """Serve an engine in a thread of its own, for blocking clients and raw sockets."""
    started: threading.Event = threading.Event()
    finish: list[Callable[[], None]] = []
    running: list[Live] = []
    failure: list[BaseException] = []

    async def run() -> None:
        async with live(make_engine(), wrap, **values) as server:
            done = asyncio.Event()
            loop = asyncio.get_running_loop()

            def end() -> None:
                loop.call_soon_threadsafe(done.set)

            finish.append(end)
            running.append(server)
            started.set()
            await done.wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            started.set()

    thread = threading.Thread(target=main, name="live-server")
    thread.start()
    try:
        started.wait(120)
        if failure:
            raise RuntimeError("the live server did not start") from failure[0]
        yield running[0]
    finally:
        for end in finish:
            end()
        thread.join(30)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  # whatever the body holds
        return json.loads(self.body)


def call(
    port: int,
    method: str,
    path: str,
    body: bytes | object | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Answer:
    """One request on its own connection; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    sent = {"content-type": "application/json"} if content is not None else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, content, {**sent, **(headers or {})})
        response = connection.getresponse()
        read = response.read()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, read)
        _check_shape(method, path.partition("?")[0], answer)
        return answer
    finally:
        connection.close()


def _check_shape(method: str, path: str, answer: Answer) -> None:
    """Whatever a test looks at, the body is what the specification says, and has an id."""
    assert answer.headers["x-request-id"]
    if method == "HEAD" or not answer.body:
        return
    if answer.headers["content-type"].startswith("text/event-stream"):
        for event in answer.body.decode().strip().split("\n\n"):
            data = event.removeprefix("data: ")
            if '"error"' in data[:9]:
                check("ErrorResponse", json.loads(data))
            elif data != "[DONE]" and path == "/v1/chat/completions":
                check(f"{_CHAT}StreamResponse", json.loads(data))
    elif answer.status >= 400:
        assert (path == "/") == ("status" in answer.json())
        check("ErrorResponse", {"error": answer.json()["error"]})
    elif path in _SCHEMAS:
        check(_SCHEMAS[path], answer.json())


def raw(port: int, data: bytes, *, timeout: float = 20) -> bytes:
    """Send bytes, and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(data)
        received = bytearray()
        while True:
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            received += part
    return bytes(received)


def parse_answers(data: bytes) -> list[Answer]:
    """All HTTP/1.1 responses in a byte string; each must have a length or be the last one."""
    answers = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", len(rest)))
        answers.append(Answer(int(lines[0].split()[1]), headers, rest[:length]))
        data = rest[length:]
    return answers
