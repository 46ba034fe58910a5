"""Reverse proxies and pages of other sites, on a live server (rows 45 and 47)."""

from collections.abc import Iterator, Mapping

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen_openai.engines.fake import FakeEngine
from qwen_openai.routes.proxies import TrustedProxies
from qwen_openai.settings.checks import networks
from tests.live import Answer, Live, call, raw, threaded

PAGE = "https://chat.example.org"
KEY = "sk-some-key"
BEARER = {"authorization": f"Bearer {KEY}"}
ASKS = {"access-control-request-method": "POST"}


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    """A server that a page may call, with a key."""
    with threaded(FakeEngine, api_key=KEY, cors_origins=PAGE) as running:
        yield running


@pytest.fixture(scope="module")
def closed() -> Iterator[Live]:
    """A server as it is by default, with a key."""
    with threaded(FakeEngine, api_key=KEY) as running:
        yield running


def _allowed(answer: Answer) -> str | None:
    assert "access-control-allow-credentials" not in answer.headers
    return answer.headers.get("access-control-allow-origin")


def _preflight(port: int, path: str = "/v1/chat/completions", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(port, "OPTIONS", path, headers=named)


@pytest.mark.parametrize("origin", [PAGE, "https://evil.example", "null"])
def test_by_default_no_page_is_answered(closed: Live, origin: str) -> None:
    asked = _preflight(closed.port, origin=origin, access_control_request_method="POST")
    assert (asked.status, _allowed(asked)) == (401, None)
    got = call(closed.port, "GET", "/v1/models", headers={**BEARER, "origin": origin})
    assert (got.status, _allowed(got)) == (200, None)
    assert "vary" not in got.headers


def test_a_named_page_asks_without_a_key_and_is_told(server: Live) -> None:
    answer = _preflight(
        server.port,
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers="authorization,content-type,x-stainless-lang",
    )
    assert (answer.status, _allowed(answer), answer.body) == (204, PAGE, b"")
    assert answer.headers["x-request-id"]
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
    assert "Origin" in answer.headers["vary"]


def test_a_named_page_reads_answers_errors_and_their_headers(server: Live) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    path = "/v1/chat/completions"
    for more, status in ((BEARER, 200), ({}, 401)):
        answer = call(server.port, "POST", path, body, {**more, "origin": PAGE})
        assert (answer.status, _allowed(answer)) == (status, PAGE)
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= set(exposed)
    streamed = call(server.port, "POST", path, {**body, "stream": True}, {**BEARER, "origin": PAGE})
    assert (_allowed(streamed), b"[DONE]" in streamed.body) == (PAGE, True)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{PAGE}.evil.example", f"{PAGE}/", PAGE.upper()]
)
def test_a_foreign_page_is_told_nothing(server: Live, origin: str) -> None:
    asked = _preflight(server.port, origin=origin, access_control_request_method="POST")
    assert (asked.status, _allowed(asked)) == (401, None)
    got = call(server.port, "GET", "/v1/models", headers={**BEARER, "origin": origin})
    assert (got.status, _allowed(got)) == (200, None)


@pytest.mark.parametrize("headers", [{}, {"origin": PAGE}, ASKS])
def test_an_options_that_is_no_preflight_is_a_request(
    server: Live, headers: Mapping[str, str]
) -> None:
    assert call(server.port, "OPTIONS", "/v1/models", headers=headers).status == 401
    assert call(server.port, "OPTIONS", "/v1/models", headers={**BEARER, **headers}).status == 405


def test_a_preflight_for_what_is_not_allowed_is_a_request(server: Live) -> None:
    answer = _preflight(server.port, origin=PAGE, access_control_request_method="DELETE")
    assert answer.status == 401


def test_any_page_means_any_page_and_never_with_credentials() -> None:
    with threaded(FakeEngine, cors_origins="*") as server:
        for origin in (PAGE, "null"):
            got = call(server.port, "GET", "/v1/models", headers={"origin": origin})
            assert _allowed(got) == "*"
            asked = _preflight(server.port, origin=origin, access_control_request_method="GET")
            assert (asked.status, _allowed(asked)) == (204, "*")


class _Seen:
    """The application, with a note of each client and scheme that reached it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.clients: list[tuple[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clients.append((scope["client"][0], scope["scheme"]))
        await self._app(scope, receive, send)


def _seen_by(proxies: str, *headers: tuple[str, str]) -> tuple[str, str]:
    """Whom a live server takes for the client of a request with these headers."""
    seen: list[_Seen] = []

    def wrap(app: ASGIApp) -> ASGIApp:
        seen.append(_Seen(app))
        return TrustedProxies(seen[0], networks(tuple(filter(None, proxies.split(",")))))

    with threaded(FakeEngine, wrap) as server:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        request = f"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n"
        assert b" 200 " in raw(server.port, request.encode("latin-1"))
    return seen[0].clients[0]


_FOR, _PROTO = "X-Forwarded-For", "X-Forwarded-Proto"
_HERE = "127.0.0.1"


@pytest.mark.parametrize(
    ("proxies", "headers", "client"),
    [
        # Nobody is believed who is not named.
        ("", [(_FOR, "6.6.6.6")], (_HERE, "http")),
        ("10.0.0.0/8", [(_FOR, "6.6.6.6"), (_PROTO, "https")], (_HERE, "http")),
        ("127.0.0.1", [], (_HERE, "http")),
        ("127.0.0.1", [(_FOR, "6.6.6.6"), (_PROTO, "https")], ("6.6.6.6", "https")),
        ("127.0.0.0/8", [(_FOR, "2001:db8::1")], ("2001:db8::1", "http")),
        # What the client wrote itself stands in front, and is passed over.
        ("127.0.0.1", [(_FOR, "1.1.1.1, 6.6.6.6")], ("6.6.6.6", "http")),
        ("127.0.0.1", [(_FOR, "1.1.1.1"), (_FOR, "6.6.6.6")], ("6.6.6.6", "http")),
        # Two proxies of ours.
        ("127.0.0.1,10.0.0.0/8", [(_FOR, "1.1.1.1, 6.6.6.6, 10.0.0.9")], ("6.6.6.6", "http")),
        ("127.0.0.1,10.0.0.0/8", [(_FOR, "10.0.0.1, 10.0.0.9")], ("10.0.0.1", "http")),
        ("127.0.0.1", [(_FOR, "6.6.6.6:4711")], ("6.6.6.6", "http")),
        ("127.0.0.1", [(_FOR, "[2001:db8::1]:4711")], ("2001:db8::1", "http")),
        # What is no address tells nothing.
        ("127.0.0.1", [(_FOR, "unknown")], (_HERE, "http")),
        ("127.0.0.1", [(_FOR, "6.6.6.6, ;drop"), (_PROTO, "gopher")], (_HERE, "http")),
        ("127.0.0.1", [(_FOR, "")], (_HERE, "http")),
        ("127.0.0.1", [(_PROTO, "https, http")], (_HERE, "http")),
    ],
)
def test_whom_the_server_takes_for_the_client(
    proxies: str, headers: list[tuple[str, str]], client: tuple[str, str]
) -> None:
    assert _seen_by(proxies, *headers) == client


def test_the_settings_put_the_proxies_in_place() -> None:
    """Forged headers change nothing that is answered, whoever sends them."""
    for proxies in ("", _HERE):
        with threaded(FakeEngine, trusted_proxies=proxies, api_key=KEY) as server:
            forged = {_FOR: "10.0.0.1", _PROTO: "https", "x-forwarded-host": "evil"}
            assert call(server.port, "GET", "/v1/models", headers=forged).status == 401
            good = call(server.port, "GET", "/v1/models", headers={**forged, **BEARER})
            assert good.status == 200


async def test_an_ipv4_peer_of_a_socket_for_both_is_known() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope.get("client"))

    async def receive() -> Message:
        raise AssertionError("nobody reads the body")

    async def send(message: Message) -> None:
        raise AssertionError("nobody answers")

    proxies = TrustedProxies(app, networks(("10.0.0.0/8",)))
    headers = [(b"x-forwarded-for", b"6.6.6.6")]
    for client in (("::ffff:10.0.0.1", 1), ("::1", 1), None):
        scope = {"type": "http", "client": client, "headers": headers}
        await proxies(scope, receive, send)
    assert seen == [("6.6.6.6", 0), ("::1", 1), None]
