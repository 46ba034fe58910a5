"""The one key: deny by default, decided from the path, the same for every way of being wrong."""

from collections.abc import Iterator

import pytest
from starlette.routing import BaseRoute, Route

from qwen_openai.app import create_app
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.routes.auth import OPEN_PATHS
from tests.live import Live, call, make_settings, parse_answers, raw, threaded

KEY = "sk-test-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(FakeEngine, api_key=KEY) as running:
        yield running


def _routes() -> list[BaseRoute]:
    return list(create_app(make_settings(api_key=KEY), FakeEngine()).routes)


@pytest.mark.parametrize("route", _routes(), ids=[str(getattr(r, "path", r)) for r in _routes()])
def test_every_route_but_health_asks_for_the_key(server: Live, route: BaseRoute) -> None:
    assert isinstance(route, Route)
    path = route.path.replace("{model:path}", "fake")
    for method in sorted(route.methods or {"GET"}):
        answer = call(server.port, method, path, b"{}" if method == "POST" else None)
        expected = 200 if path in OPEN_PATHS else 401
        assert answer.status == expected, (method, path)


def test_the_right_key_opens(server: Live) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    assert call(server.port, "GET", "/v1/models", headers=headers).status == 200
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    assert call(server.port, "POST", "/v1/chat/completions", body, headers).status == 200


WRONG = {
    "wrong": f"Bearer {KEY}x",
    "shorter": f"Bearer {KEY[:-1]}",
    "empty": "Bearer ",
    "no scheme": KEY,
    "lower-case scheme": f"bearer {KEY}",
    "basic": "Basic dXNlcjpwYXNz",
    "two spaces": f"Bearer  {KEY}",
    "long": "Bearer " + "x" * 60_000,
    "not ASCII": "Bearer \xff\xfe",
    "SQL": "Bearer ' OR 1=1--",
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_any_other_key_is_refused(server: Live, value: str) -> None:
    answer = call(server.port, "GET", "/v1/models", headers={"authorization": value})
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (401, "invalid_api_key")
    assert KEY not in error["message"]
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_of_a_megabyte_is_refused(server: Live) -> None:
    data = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"x" * 2**20
    [answer] = parse_answers(raw(server.port, data + b"\r\n\r\n"))
    assert answer.status in (401, 431)


def test_two_authorization_headers_are_refused(server: Live) -> None:
    line = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
    data = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + line * 2 + b"Connection: close\r\n\r\n"
    [answer] = parse_answers(raw(server.port, data))
    assert answer.status == 401


def test_a_key_in_another_header_is_none(server: Live) -> None:
    for name in ("x-api-key", "api-key"):
        answer = call(server.port, "GET", "/v1/models", headers={name: KEY})
        assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("query", ["api_key", "key"])
def test_a_key_in_the_query_is_told_where_it_belongs(server: Live, query: str) -> None:
    answer = call(server.port, "GET", f"/v1/models?{query}={KEY}")
    assert answer.status == 401
    assert "Authorization header" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models",
        "/v1/models/",
        "/V1/models",
        "/health/../v1/models",
        "/health/live/../../v1/models",
        "/%68ealth/live/x",
        "/health/live;x",
        "/health",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_spelling_of_a_path_gets_round_the_key(server: Live, path: str) -> None:
    assert call(server.port, "GET", path).status == 401


@pytest.mark.parametrize("host", [b"localhost/health/live?", b"x/health/live#", b"health"])
def test_the_host_header_does_not_decide(server: Live, host: bytes) -> None:
    data = b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    [answer] = parse_answers(raw(server.port, data))
    assert answer.status in (400, 401)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE"])
def test_other_methods_need_the_key_too(server: Live, method: str) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = call(server.port, method, "/v1/models", headers=headers)
    assert answer.status == 401
    assert "access-control-allow-origin" not in answer.headers


def test_the_tutorials_route_refuses_in_its_own_shape(server: Live) -> None:
    answer = call(server.port, "POST", "/", {"prompt": "hi"})
    assert (answer.status, answer.json()["status"]) == (401, 401)
    assert answer.json()["error"]["code"] == "invalid_api_key"
