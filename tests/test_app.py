"""The application as a whole: documentation page, health, model names, the tutorial's route."""

import asyncio
from collections.abc import Iterator
from datetime import datetime

import pytest
import requests

from qwen_openai.app import create_app
from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step
from qwen_openai.errors import EngineFailed
from qwen_openai.gateway.keys import Key, digest_of
from tests.live import Live, call, live, make_settings, threaded


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(lambda: FakeEngine(context=64), served_model_name=("a/b", "c")) as running:
        yield running


def test_docs_and_schema(server: Live) -> None:
    assert call(server.port, "GET", "/docs").status == 200
    schema = call(server.port, "GET", "/openapi.json").json()
    assert set(schema["paths"]) == {
        "/",
        "/v1/capabilities",
        "/v1/chat/completions",
        "/v1/chat/completions/input_tokens",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/tokenize",
        "/detokenize",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/usage",
        "/metrics",
        "/health/live",
        "/health/ready",
    }
    request = schema["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "temperature", "stream"} <= set(request)


def test_docs_can_be_turned_off() -> None:
    with threaded(FakeEngine, docs=False) as server:
        assert call(server.port, "GET", "/docs").status == 404
        assert call(server.port, "GET", "/openapi.json").status == 404


def test_the_schema_says_that_a_key_is_needed(server: Live) -> None:
    assert "security" not in call(server.port, "GET", "/openapi.json").json()
    with threaded(FakeEngine, api_key="sk-some-key") as keyed:
        headers = {"authorization": "Bearer sk-some-key"}
        schema = call(keyed.port, "GET", "/openapi.json", headers=headers).json()
    assert schema["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_the_schema_asks_for_a_key_from_the_first_one_on() -> None:
    app = create_app(make_settings(engine="upstream"))
    assert "security" not in app.openapi()
    app.state.gateway.keys.replace([(digest_of(b"secret"), Key(id="key_1", name="first"))])
    assert app.openapi()["security"] == [{"key": []}]
    assert "securitySchemes" in app.openapi()["components"]


def test_models_with_slashes(server: Live) -> None:
    assert call(server.port, "GET", "/v1/models/a/b").json()["id"] == "a/b"
    assert call(server.port, "GET", "/v1/models/a%2Fb").json()["id"] == "a/b"


def test_the_tutorials_callers_work_unchanged(server: Live) -> None:
    """What its page shows: JSON in `data`, a header, and the history sent back as it came."""
    url = f"{server.url}/"
    headers = {"Content-Type": "application/json"}
    first = requests.post(
        url, headers=headers, data='{"prompt": "你好", "history": []}', timeout=10
    )
    body = first.json()
    assert first.status_code == 200
    assert body["response"] == "你好"
    assert body["history"] == [["你好", "你好"]]
    assert body["status"] == 200
    datetime.strptime(body["time"], "%Y-%m-%d %H:%M:%S")
    second = requests.post(url, json={"prompt": "a", "history": body["history"]}, timeout=10).json()
    assert second["history"] == [["你好", "你好"], ["a", "a"]]


def test_curl_without_a_type_works_and_a_page_does_not(server: Live) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert call(server.port, "POST", "/", b'{"prompt": "hi"}', form).status == 200
    page = {**form, "origin": "http://evil.example"}
    assert call(server.port, "POST", "/", b'{"prompt": "hi"}', page).status == 415
    chat = b'{"model": "c", "messages": [{"role": "user", "content": "hi"}]}'
    path = "/v1/chat/completions"
    assert call(server.port, "POST", path, chat, form).status == 415
    assert call(server.port, "POST", path, chat, {"content-type": ""}).status == 200
    for header in ("origin", "sec-fetch-site"):
        untyped = {"content-type": "", header: "cross-site"}
        assert call(server.port, "POST", path, chat, untyped).status == 415


def test_oldest_pairs_are_dropped_on_the_tutorials_route_alone(server: Live) -> None:
    history = [[f"q{i} " * 5, f"a{i} " * 5] for i in range(10)]
    answer = call(server.port, "POST", "/", {"prompt": "hi", "history": history})
    assert answer.status == 200
    assert "history" in answer.headers["x-qwen-openai-changed"]
    assert answer.json()["history"] == [*history, ["hi", "hi"]]
    alone = call(server.port, "POST", "/", {"prompt": "word " * 100})
    assert (alone.status, alone.json()["status"]) == (400, 400)
    assert alone.json()["error"]["param"] == "prompt"
    long = [{"role": "user", "content": "word " * 100}]
    refused = call(server.port, "POST", "/v1/chat/completions", {"model": "c", "messages": long})
    assert refused.json()["error"]["code"] == "context_length_exceeded"


async def test_readiness_follows_the_engine() -> None:
    engine = FakeEngine()
    async with live(engine) as server:
        ready = await asyncio.to_thread(call, server.port, "GET", "/health/ready")
        assert ready.status == 200
        engine.set_health(False, "restarting")
        broken = await asyncio.to_thread(call, server.port, "GET", "/health/ready")
        assert broken.status == 503
        assert "restarting" in broken.json()["error"]["message"]
        assert int(broken.headers["retry-after"]) >= 1
        live_still = await asyncio.to_thread(call, server.port, "GET", "/health/live")
        assert live_still.status == 200


def _explode(job: Job) -> list[Step]:
    text = job.messages[-1].content
    return [ValueError(text) if "bug" in text else EngineFailed("The engine died.")]


@pytest.mark.parametrize("n", [1, 2])
async def test_a_bug_of_ours_in_a_stream_is_an_error_event(n: int) -> None:
    def script(job: Job) -> list[Step]:
        return ["a", ValueError("secret")]

    async with live(FakeEngine(script)) as server:
        body = {"model": "fake", "stream": True, "n": n}
        messages = [{"role": "user", "content": "hi"}]
        path = "/v1/chat/completions"
        answer = await asyncio.to_thread(
            call, server.port, "POST", path, {**body, "messages": messages}
        )
    events = answer.body.decode().strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert '"code":"internal_error"' in events[-2]
    assert "secret" not in answer.body.decode()


async def test_a_bug_of_ours_is_a_500_that_tells_nothing() -> None:
    secret = "bug with a secret prompt"
    async with live(FakeEngine(_explode)) as server:
        body = {"model": "fake", "messages": [{"role": "user", "content": secret}]}
        answer = await asyncio.to_thread(call, server.port, "POST", "/v1/chat/completions", body)
        assert answer.status == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert secret not in answer.body.decode()
        legacy = await asyncio.to_thread(call, server.port, "POST", "/", {"prompt": secret})
        assert (legacy.status, legacy.json()["status"]) == (500, 500)
