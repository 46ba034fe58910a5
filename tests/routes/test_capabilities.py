"""GET /v1/capabilities over HTTP: what it tells is true of the server that tells it."""

import json
from dataclasses import replace

from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.fake import FakeEngine
from tests.live import call, threaded


class Poor(FakeEngine):
    """An engine that cannot honour every parameter."""

    def info(self) -> EngineInfo:
        return replace(super().info(), tools=None, refuses=frozenset(("min_tokens",)))


def test_what_is_told_is_true() -> None:
    with threaded(Poor) as server:
        answer = call(server.port, "GET", "/v1/capabilities")
        assert answer.status == 200
        told = answer.json()
        assert told["model"] == server.gateway.model_names[0]
        for endpoint in ("POST /v1/chat/completions", "GET /v1/models/{model}", "GET /health/live"):
            assert endpoint in told["endpoints"]
        for endpoint in told["endpoints"]:
            method, _, path = endpoint.partition(" ")
            found = call(server.port, method, path)
            assert found.status != 405
            assert b"There is nothing at" not in found.body
        assert not any("docs" in endpoint for endpoint in told["endpoints"])
        refused = {row["name"] for row in told["parameters"] if row["support"] == "refused"}
        assert {"min_tokens", "tools", "audio"} <= refused
        tools = [{"type": "function", "function": {"name": "f"}}]
        for name, value in {"min_tokens": 5, "tools": tools, "audio": {"voice": "alloy"}}.items():
            body = {"model": told["model"], "messages": [{"role": "user", "content": "hi"}]}
            answer = call(server.port, "POST", "/v1/chat/completions", {**body, name: value})
            assert answer.status == 400, name
            assert json.loads(answer.body)["error"]["param"] == name
        for path, prompt in (("/v1/completions", "prompt"), ("/v1/responses", "input")):
            assert f"POST {path}" in told["endpoints"]
            rows = told["parameters_by_endpoint"][path]
            for row in rows:
                if row["support"] == "refused":
                    body = {"model": told["model"], prompt: "hi", row["name"]: {"odd": 1}}
                    assert call(server.port, "POST", path, body).status == 400, (path, row)
