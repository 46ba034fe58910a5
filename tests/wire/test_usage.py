"""Usage on live servers: every request gets its row, everybody sees their own, and whatever happens
to the database is no request's affair (rows 48, 61 and 62)."""

import http.client
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qwen_openai.engines.fake import FakeEngine
from qwen_openai.gateway.keys import KeyLimits
from tests.cli.program import environment, run
from tests.cli.test_serve import panel_of, port_of, serving
from tests.gateway.records import make_key
from tests.live import Answer, Live, call, threaded

CHAT = "/v1/chat/completions"
MASTER = {"authorization": "Bearer sk-master"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@contextmanager
def served(path: Path) -> Iterator[Live]:
    with threaded(FakeEngine, database=path, api_key="sk-master") as server:
        yield server


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def body(**more: object) -> dict[str, object]:
    return {"model": "fake", "messages": [{"role": "user", "content": "one two three"}], **more}


def ask(port: int, secret: str = "sk-master", **more: object) -> Answer:
    return call(port, "POST", CHAT, body(**more), bearer(secret))


def rows(path: Path, columns: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    found = connection.execute(f"SELECT {columns} FROM usage ORDER BY at").fetchall()
    connection.close()
    return found


def wait_for_rows(path: Path, count: int) -> None:
    end = time.monotonic() + 10
    while len(rows(path, "id")) < count:
        assert time.monotonic() < end, f"{len(rows(path, 'id'))} rows of {count}"
        time.sleep(0.02)


def wait_for_status(port: int, secret: str, status: int) -> float:
    """Return how many seconds it took."""
    began = time.monotonic()
    while call(port, "GET", "/v1/models", headers=bearer(secret)).status != status:
        assert time.monotonic() < began + 10
        time.sleep(0.02)
    return time.monotonic() - began


def test_every_request_gets_its_row(path: Path) -> None:
    secret, id = make_key(path, limits=KeyLimits(tokens_per_day=100_000))
    with served(path) as server:
        whole = ask(server.port, secret).json()["usage"]
        ask(server.port, secret, stream=True)
        ask(server.port, secret, max_tokens=0)
        assert ask(server.port, secret, max_tokens=99_999_999).status == 429
        call(server.port, "GET", "/v1/models", headers=bearer(secret))
        assert call(server.port, "POST", CHAT, body(), bearer("sk-wrong")).status == 401
        wait_for_rows(path, 4)
        found = rows(path, "key, model, status, outcome, prompt_tokens, completion_tokens")
    used = (whole["prompt_tokens"], whole["completion_tokens"])
    assert used[0] > 0
    assert used[1] > 0
    assert found == [
        (id, "fake", 200, "ok", *used),
        (id, "fake", 200, "ok", *used),
        (id, found[2][1], 400, "refused", 0, 0),
        (id, "fake", 429, "refused", 0, 0),
    ]
    assert all(first is not None for (first,) in rows(path, "first_token")[:2])


def test_a_stream_that_its_reader_left_is_counted_as_far_as_it_went(path: Path) -> None:
    def endless() -> FakeEngine:
        def script(_: object) -> Iterator[str | float]:
            while True:
                yield "word "
                yield 0.001

        return FakeEngine(script, context=10**6, default_max_tokens=10**5)

    with threaded(endless, database=path) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        sent = {"content-type": "application/json"}
        text = b'{"model":"fake","stream":true,"messages":[{"role":"user","content":"a b c"}]}'
        client.request("POST", CHAT, text, sent)
        response = client.getresponse()
        seen = response.read(2000).count(b'"content":"word')
        response.close()
        client.close()
        wait_for_rows(path, 1)
    [(outcome, status, prompt, completion)] = rows(
        path, "outcome, status, prompt_tokens, completion_tokens"
    )
    assert outcome == "aborted"
    assert status in (200, 499)
    assert prompt == 3
    assert isinstance(completion, int)
    assert completion >= seen > 0


def test_a_key_sees_its_own_usage_and_the_master_key_all(path: Path) -> None:
    limits = KeyLimits(requests_per_minute=10, tokens_per_day=50_000)
    anna, anna_id = make_key(path, "anna", limits)
    bert, bert_id = make_key(path, "bert")

    def usage(secret: str, query: str = "") -> Answer:
        return call(server.port, "GET", f"/v1/usage{query}", headers=bearer(secret))

    with served(path) as server:
        spent = ask(server.port, anna).json()["usage"]["total_tokens"]
        for _ in range(2):
            ask(server.port, bert)
        wait_for_rows(path, 3)
        own = usage(anna).json()
        assert own["key"] == {"id": anna_id, "name": "anna"}
        assert own["today"]["requests"] == own["month"]["requests"] == 1
        assert own["today"]["total_tokens"] == spent
        assert [(row["model"], row["requests"]) for row in own["by_day"]] == [("fake", 1)]
        assert own["limits"] == {
            "requests_per_minute": {"limit": 10, "left": 9},
            "tokens_per_day": {"limit": 50_000, "left": 50_000 - spent},
        }
        assert usage(bert, f"?key={bert_id}&days=1").json()["today"]["requests"] == 2
        everybody = usage("sk-master").json()
        assert everybody["key"] is None
        assert everybody["today"]["requests"] == 3
        named = {(row["key"], row["key_name"]) for row in everybody["by_day"]}
        assert named == {(anna_id, "anna"), (bert_id, "bert")}
        assert usage("sk-master", f"?key={anna_id}").json()["today"]["requests"] == 1
        # Somebody else's key and one that is not there look alike.
        for secret, other in ((anna, bert_id), (anna, "key_none"), ("sk-master", "key_none")):
            refused = usage(secret, f"?key={other}")
            assert refused.status == 404
            assert refused.json()["error"]["message"].replace(other, "X") == (
                "There is no key 'X' whose usage you may see."
            )
        for days in ("0", "401", "-1", "1.5", "x", "9" * 5000, "%C2%B2"):
            assert usage(anna, f"?days={days}").status == 400
        assert call(server.port, "GET", "/v1/usage").status == 401
        assert call(server.port, "POST", "/v1/usage", {}, bearer(anna)).status == 405


def test_without_a_database_there_is_no_usage() -> None:
    with threaded(FakeEngine) as server:
        assert call(server.port, "GET", "/v1/usage").status == 404


def test_a_revoked_key_stops_within_a_second(path: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, QWEN_OPENAI_DATABASE=str(path))
    with served(path) as server:
        made = run("keys", "create", "anna", env=env)
        secret = made.stdout.strip()
        assert made.returncode == 0, made.stderr
        wait_for_status(server.port, secret, 200)
        revoked = run("keys", "revoke", "anna", env=env)
        assert revoked.returncode == 0, revoked.stderr
        assert wait_for_status(server.port, secret, 401) < 5  # a second is promised


def test_a_killed_server_has_written_all_but_the_last_second(path: Path, tmp_path: Path) -> None:
    answered: list[tuple[str, float]] = []
    stop = threading.Event()

    def load(port: int) -> None:
        while not stop.is_set():
            try:
                answer = call(port, "POST", CHAT, body())
            except (OSError, http.client.HTTPException):
                return
            answered.append((answer.headers["x-request-id"], time.monotonic()))

    env = environment(tmp_path, QWEN_OPENAI_DATABASE=str(path))
    with serving(env=env) as process:
        port = port_of(panel_of(process))
        threads = [threading.Thread(target=load, args=(port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 10
        while time.monotonic() < end and (
            len(answered) < 50 or answered[-1][1] - answered[0][1] < 2.5
        ):
            time.sleep(0.02)
        killed = time.monotonic()
        process.kill()
        process.wait(30)
        stop.set()
        for thread in threads:
            thread.join(30)
    kept = {request for (request,) in rows_after_a_kill(path)}
    due = [request for request, at in answered if at < killed - 1]
    assert len(due) >= 20
    assert [request for request in due if request not in kept] == []
    with serving(env=env) as process:
        port = port_of(panel_of(process))
        assert call(port, "POST", CHAT, body()).status == 200
        today = call(port, "GET", "/v1/usage").json()["today"]
        assert today["requests"] >= len(due)


def rows_after_a_kill(path: Path) -> list[tuple[str]]:
    """As a command reads them, after it has looked whether the file is whole."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found: list[tuple[str]] = connection.execute("SELECT request FROM usage").fetchall()
    connection.close()
    return found


def ready(server: Live) -> str:
    answer = call(server.port, "GET", "/health/ready")
    assert answer.status == 200
    detail: str = answer.json()["detail"]
    return detail


def median_of(server: Live, secret: str, count: int) -> float:
    """Seconds of a request, each of which is answered."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        assert ask(server.port, secret).status == 200
        took.append(time.perf_counter() - began)
    return sorted(took)[count // 2]


@pytest.mark.parametrize("fault", ["locked", "deleted", "damaged", "replaced by a folder"])
def test_whatever_the_database_does_requests_are_served(path: Path, fault: str) -> None:
    secret, _ = make_key(path)
    with served(path) as server:
        wait_for_status(server.port, secret, 200)
        before = median_of(server, secret, 40)
        end = breaking(path, fault)
        try:
            during = median_of(server, secret, 40)
            wait_until_told(server, "degraded: ")
            assert str(path) not in ready(server)
            assert ask(server.port, secret).status == 200
            assert ask(server.port, "sk-wrong").status == 401
            assert call(server.port, "GET", "/v1/usage", headers=MASTER).status in (200, 503)
        finally:
            end()
        if fault != "deleted":
            wait_until_told(server, "ready")
        written = server.gateway.bookkeeper.written
        assert ask(server.port, secret).status == 200
        limit = time.monotonic() + 10
        while server.gateway.bookkeeper.written == written:
            assert time.monotonic() < limit
            time.sleep(0.02)
        assert server.gateway.bookkeeper.dropped == 0
    assert during < 5 * before + 0.005


def wait_until_told(server: Live, beginning: str) -> None:
    limit = time.monotonic() + 10
    while not ready(server).startswith(beginning):
        assert time.monotonic() < limit, ready(server)
        time.sleep(0.05)


def breaking(path: Path, fault: str) -> Callable[[], object]:
    """Do it, and return what mends it."""
    if fault == "locked":
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        return other.close
    copy = path.with_name("copy.db")
    base = sqlite3.connect(path)
    base.execute("VACUUM INTO ?", (str(copy),))
    base.close()
    if fault == "damaged":
        path.with_name("bad").write_bytes(b"\xff nonsense " * 2000)
        path.with_name("bad").replace(path)
        return lambda: copy.replace(path)
    for each in list(path.parent.glob("gateway.db*")):
        each.unlink()
    if fault == "deleted":
        return lambda: None
    path.mkdir()

    def mend() -> None:
        path.rmdir()
        copy.replace(path)

    return mend
