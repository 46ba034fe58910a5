"""Who comes in, on a live server with a master key and keys in a database (rows 38 to 43, 48)."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from qwen_openai.app import create_app
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.gateway.store import keys
from qwen_openai.gateway.store.database import connect
from qwen_openai.routes.auth import KeyCheck
from tests.live import Answer, Live, call, live, make_settings, parse_answers, raw, threaded

MASTER = "sk-master-0123456789"
# All that answers without a key. Whoever adds to this list must know why.
OPEN = {"/health/live", "/health/ready"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# A second is promised.
SOON = 5.0


@dataclass(frozen=True, slots=True)
class Door:
    """A server, and secrets by what is true of them."""

    live: Live
    engine: FakeEngine
    file: Path
    secrets: Mapping[str, str]

    def get(self, path: str, secret: str | None, method: str = "GET") -> Answer:
        """Ask with one of the secrets, or with the one given."""
        return ask(self.live, path, self.secrets.get(secret or "", secret), method)


def ask(server: Live, path: str, secret: str | None, method: str = "GET") -> Answer:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    return call(server.port, method, path, headers=headers)


def until_status(server: Live, path: str, secret: str | None, status: int) -> None:
    end = time.monotonic() + SOON
    while (answer := ask(server, path, secret)).status != status:
        assert time.monotonic() < end, answer.body
        time.sleep(0.02)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    file = tmp_path_factory.mktemp("door") / "gateway.db"
    now = time.time()
    store = connect(file)
    secrets = {"master": MASTER, "wrong": "sk-qwen-wrong", "sql": "' OR 1=1--"}
    secrets["good"], _ = keys.insert(store, "good", now=now)
    secrets["other model"], _ = keys.insert(store, "other", models=["elsewhere"], now=now)
    secrets["expired"], _ = keys.insert(store, "expired", expires=now - 1, now=now - 2)
    secrets["revoked"], gone = keys.insert(store, "revoked", now=now)
    keys.revoke(store, gone.id, now=now)
    secrets["rotated"], turned = keys.insert(store, "rotated", now=now)
    secrets["graced"], _ = keys.rotate(store, turned.id, now=now)
    secrets["new"], _ = keys.rotate(store, turned.id, now=now, grace=3600)
    store.close()
    engine = FakeEngine()
    with threaded(lambda: engine, api_key=MASTER, database=str(file)) as server:
        yield Door(server, engine, file, secrets)


BAD = ["wrong", "sql", "expired", "revoked", "rotated"]
GOOD = ["master", "good", "graced", "new"]


def _paths() -> list[str]:
    routes = create_app(make_settings(api_key=MASTER), FakeEngine()).routes
    assert all(isinstance(route, Route) for route in routes), "a mount hides its routes"
    paths = [route.path for route in routes if isinstance(route, Route)]
    return [re.sub(r"{[^}]*}", "fake", path) for path in paths]


@pytest.mark.parametrize("path", _paths())
def test_no_route_answers_without_a_key(door: Door, path: str) -> None:
    for method in METHODS:
        for secret in (None, "wrong"):
            status = door.get(path, secret, method).status
            if path in OPEN:
                assert status == (200 if method == "GET" else 405), (method, path)
            else:
                assert status == 401, (method, path)


def test_the_walk_sees_all_that_there_is() -> None:
    assert {"/", "/v1/chat/completions", "/v1/models/fake", "/metrics", "/docs"} <= {*_paths()}
    assert {*_paths()} >= OPEN


@pytest.mark.parametrize("secret", GOOD)
def test_a_good_key_opens(door: Door, secret: str) -> None:
    assert door.get("/v1/models", secret).status == 200


def test_all_bad_keys_are_refused_alike(door: Door) -> None:
    answers = [door.get("/v1/models", secret) for secret in BAD]
    assert {answer.status for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({answer.body for answer in answers}) == 1
    error = answers[0].json()["error"]
    assert error["code"] == "invalid_api_key"
    assert "qwen-openai keys create" in error["message"]


def test_a_miss_reaches_no_engine_and_no_disk(door: Door) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    path = "/v1/chat/completions"
    rows = _usage(door)
    started = door.engine.record.started
    for number in range(50):
        headers = {"authorization": f"Bearer sk-qwen-{number}"}
        assert call(door.live.port, "POST", path, body, headers).status == 401
    assert door.engine.record.started == started
    headers = {"authorization": f"Bearer {door.secrets['good']}"}
    assert call(door.live.port, "POST", path, body, headers).status == 200
    end = time.monotonic() + SOON
    while not (new := _usage(door)[len(rows) :]):
        assert time.monotonic() < end
        time.sleep(0.02)
    # Written after them, and alone.
    assert [status for _, status in new if status == 401] == []
    assert all(key for key, _ in new)


def _usage(door: Door) -> list[tuple[str, int]]:
    connection = sqlite3.connect(door.file)
    try:
        return connection.execute("SELECT key, status FROM usage ORDER BY id").fetchall()
    finally:
        connection.close()


RAW = {
    "two headers": b"Authorization: Bearer %s\r\nAuthorization: Bearer %s\r\n",
    "two keys": b"Authorization: Bearer %s, Bearer %s\r\n",
    "lower-case scheme": b"Authorization: bearer %s\r\n",
    "upper-case scheme": b"Authorization: BEARER %s\r\n",
    "tab": b"Authorization: Bearer\t%s\r\n",
    "no scheme": b"Authorization: %s\r\n",
    "other scheme": b"Authorization: Token %s\r\n",
    "scheme twice": b"Authorization: Bearer Bearer %s\r\n",
    "quoted": b'Authorization: Bearer "%s"\r\n',
    "with a NUL in UTF-8": b"Authorization: Bearer %s\xc0\x80\r\n",
    "not ASCII": b"Authorization: Bearer %s\xff\r\n",
    "proxy": b"Proxy-Authorization: Bearer %s\r\n",
    "cookie": b"Cookie: api_key=%s\r\n",
    "x-api-key": b"X-Api-Key: %s\r\n",
    "api-key": b"Api-Key: %s\r\n",
    "nothing": b"X: %s\r\n",
}


@pytest.mark.parametrize("form", RAW.values(), ids=RAW.keys())
def test_a_good_key_in_a_wrong_form_opens_nothing(door: Door, form: bytes) -> None:
    secret = door.secrets["good"].encode()
    headers = form.replace(b"%s", secret)
    data = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n"
    [answer] = parse_answers(raw(door.live.port, data))
    assert answer.status == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert secret not in answer.body


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
def test_a_key_in_another_header_is_told_where_it_belongs(door: Door, header: str) -> None:
    answer = call(door.live.port, "GET", "/v1/models", headers={header: door.secrets["good"]})
    assert answer.status == 401
    assert f"A key in the {header} header is not accepted" in answer.json()["error"]["message"]
    headers = {header: "wrong", "authorization": f"Bearer {MASTER}"}
    assert call(door.live.port, "GET", "/v1/models", headers=headers).status == 200


@pytest.mark.parametrize("name", ["key", "api_key", "apikey", "api-key", "API_KEY"])
def test_a_key_in_the_url_is_told_where_it_belongs(door: Door, name: str) -> None:
    answer = door.get(f"/v1/models?a=b&{name}={door.secrets['good']}", None)
    message = answer.json()["error"]["message"]
    assert answer.status == 401
    assert "A key in the URL is not accepted" in message
    assert "Authorization header" in message


TARGETS = [
    b"http://evil/v1/models",
    b"http://localhost/health/live?/v1/models/../../v1/models#x",
    b"//v1/models",
    b"//health/live",
    b"/v1/models/",
    b"/V1/models",
    b"/health/live/",
    b"/HEALTH/LIVE",
    b"/health/../v1/models",
    b"/health/live/../../v1/models",
    b"/health/live/%2e%2e/%2e%2e/v1/models",
    b"/health/live%2f..%2f..%2fv1/models",
    b"/health/live%00/v1/models",
    b"/health/live;x",
    b"/v1/models;/health/live",
    b"/v1/models%3f/health/live",
    b"/v1/models?x=/health/live",
    b"/v1/models#/health/live",
    b"/metrics/",
    b"//metrics",
    b"/METRICS",
    b"*",
    b"health/live",
    b"",
]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE"])
@pytest.mark.parametrize("target", TARGETS)
def test_no_target_gets_past(door: Door, method: bytes, target: bytes) -> None:
    data = b"%s %s HTTP/1.1\r\nHost: localhost/health/live?\r\nConnection: close\r\n\r\n"
    answers = raw(door.live.port, data % (method, target))
    status = int(answers.split(b" ", 2)[1])
    if target.startswith(b"http://localhost/health/live"):
        assert status == (200 if method == b"GET" else 405)  # it is what it says it is
    else:
        assert status in (400, 401), answers
    assert b'"data"' not in answers


def test_a_preflight_gets_nothing(door: Door) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = call(door.live.port, "OPTIONS", "/v1/chat/completions", headers=headers)
    assert answer.status == 401
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_model_that_is_not_for_a_key_looks_like_none(door: Door) -> None:
    unknown = door.get("/v1/models/nonsense", "other model")
    forbidden = door.get("/v1/models/fake", "other model")
    assert (unknown.status, forbidden.status) == (404, 404)
    assert unknown.body.replace(b"nonsense", b"fake") == forbidden.body
    assert door.get("/v1/models", "other model").json()["data"] == []
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {door.secrets['other model']}"}
    answer = call(door.live.port, "POST", "/v1/chat/completions", body, headers)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/", "/health/live", "/v1/models"])
async def test_a_web_socket_is_closed_before_it_opens(path: str) -> None:
    """Our own server knows none; another one that runs the application may."""
    app = create_app(make_settings(), FakeEngine())
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it got past the check")

    scope: Scope = {"type": "websocket", "path": path, "headers": [], "query_string": b""}
    await KeyCheck(never, app.state.gateway)(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]


@pytest.mark.parametrize("path", ["/admin", "/admin/keys", "/v1/keys", "/v1/organization/usage"])
def test_there_is_nothing_to_administer(door: Door, path: str) -> None:
    assert door.get(path, None).status == 401
    assert door.get(path, "good").status == 404
    assert door.get(path, "master").status == 404


def test_the_metrics_are_the_masters(door: Door) -> None:
    assert door.get("/metrics", "master").status == 200
    answer = door.get("/metrics", "good")
    assert (answer.status, answer.json()["error"]["code"]) == (403, "permission_denied")
    assert door.get("/metrics", "revoked").status == 401


@pytest.mark.parametrize(
    ("metrics", "nobody", "user", "master"), [("open", 200, 200, 200), ("off", 401, 404, 404)]
)
def test_the_metrics_may_be_open_or_off(
    door: Door, metrics: str, nobody: int, user: int, master: int
) -> None:
    file = str(door.file)
    with threaded(FakeEngine, api_key=MASTER, database=file, metrics=metrics) as server:
        secrets = (None, door.secrets["good"], MASTER)
        statuses = [ask(server, "/metrics", secret).status for secret in secrets]
        assert statuses == [nobody, user, master]
        assert ask(server, "/metrics/", None).status == 401
        assert ask(server, "/metrics", None, "POST").status in (401, 405)
        assert ask(server, "/v1/models", None).status == 401


def test_the_sdk_calls_it_what_it_is(door: Door) -> None:
    for secret in (door.secrets["revoked"], "x" * 5000):
        with (
            openai.OpenAI(base_url=door.live.base_url, api_key=secret) as client,
            pytest.raises(openai.AuthenticationError) as caught,
        ):
            client.models.list()
        assert caught.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=door.live.base_url, api_key=door.secrets["good"]) as client:
        assert [model.id for model in client.models.list()] == ["fake"]


def test_a_revoked_key_stops_and_a_new_one_opens_while_the_server_runs(door: Door) -> None:
    store = connect(door.file)
    secret, key = keys.insert(store, "for a while", now=time.time())
    until_status(door.live, "/v1/models", secret, 200)
    after, _ = keys.rotate(store, key.id, now=time.time())
    until_status(door.live, "/v1/models", secret, 401)
    until_status(door.live, "/v1/models", after, 200)
    keys.revoke(store, key.id, now=time.time())
    until_status(door.live, "/v1/models", after, 401)
    store.close()


def test_a_key_works_and_ends_without_anybody_writing(door: Door) -> None:
    store = connect(door.file)
    secret, _ = keys.insert(store, "brief", expires=time.time() + 1.5, now=time.time())
    store.close()
    until_status(door.live, "/v1/models", secret, 200)
    until_status(door.live, "/v1/models", secret, 401)


def test_an_open_server_asks_from_the_first_key_on(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    with threaded(FakeEngine, database=str(file)) as server:
        assert ask(server, "/v1/models", None).status == 200
        store = connect(file)
        secret, key = keys.insert(store, "first", now=time.time())
        until_status(server, "/v1/models", None, 401)
        assert ask(server, "/v1/models", secret).status == 200
        keys.revoke(store, key.id, now=time.time())
        until_status(server, "/v1/models", secret, 401)
        store.execute("DELETE FROM keys")
        store.close()
        time.sleep(0.6)  # two looks of the bookkeeper: what must not happen has no event
        assert ask(server, "/v1/models", None).status == 401


async def test_beyond_loopback_a_server_without_any_key_lets_nobody_in() -> None:
    """`serve` refuses to start like that; the application does not rely on it."""
    async with live(FakeEngine(), host="0.0.0.0") as server:
        answer = await asyncio.to_thread(ask, server, "/v1/models", None)
        assert answer.status == 401
        assert (await asyncio.to_thread(ask, server, "/health/live", None)).status == 200
