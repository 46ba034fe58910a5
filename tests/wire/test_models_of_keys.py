"""Which models a key may use, on every route that names one or means the usual one."""

import time
from pathlib import Path

import pytest

from qwen_openai.engines.fake import FakeEngine
from qwen_openai.gateway.store import keys
from qwen_openai.gateway.store.database import connect
from tests.live import call, threaded


def _naming(model: str) -> list[tuple[str, str, object]]:
    """A request to every route that names a model."""
    messages = [{"role": "user", "content": "hi"}]
    return [
        ("POST", "/v1/chat/completions", {"model": model, "messages": messages}),
        ("POST", "/v1/chat/completions/input_tokens", {"model": model, "messages": messages}),
        ("POST", "/v1/responses", {"model": model, "input": "hi"}),
        ("POST", "/v1/responses/input_tokens", {"model": model, "input": "hi"}),
        ("POST", "/v1/completions", {"model": model, "prompt": "hi"}),
        ("POST", "/tokenize", {"model": model, "prompt": "hi"}),
        ("POST", "/tokenize", {"model": model, "messages": messages}),
        ("POST", "/detokenize", {"model": model, "tokens": []}),
        ("GET", f"/v1/models/{model}", None),
        ("GET", f"/v1/capabilities?model={model}", None),
    ]


# Those whose callers may leave the model out.
NAMELESS: list[tuple[str, str, object]] = [
    ("POST", "/", {"prompt": "hi"}),
    ("POST", "/tokenize", {"prompt": "hi"}),
    ("POST", "/detokenize", {"tokens": []}),
    ("POST", "/v1/responses/input_tokens", {"input": "hi"}),
    ("GET", "/v1/capabilities", None),
]


@pytest.mark.parametrize("own", ["fake", "alias", "elsewhere"])
def test_a_key_uses_its_models_by_their_names_on_every_route(tmp_path: Path, own: str) -> None:
    """An alias is a name of its own: neither opens the other."""
    file = tmp_path / "gateway.db"
    store = connect(file)
    secret, _ = keys.insert(store, "one", models=[own], now=time.time())
    store.close()
    headers = {"authorization": f"Bearer {secret}"}
    aliases = {"alias": "fake"}
    with threaded(FakeEngine, database=str(file), aliases=aliases) as server:
        for model in ("fake", "alias"):
            for method, path, body in _naming(model):
                answer = call(server.port, method, path, body, headers)
                assert answer.status == (200 if model == own else 404), (path, answer.body)
                assert (
                    answer.status == 200
                    or f"Available: {own!r}" in str(answer.json())
                    or (own == "elsewhere" and "Available: none" in str(answer.json()))
                )
        for method, path, body in NAMELESS:
            answer = call(server.port, method, path, body, headers)
            assert answer.status == (404 if own == "elsewhere" else 200), (path, answer.body)
        listed = call(server.port, "GET", "/v1/models", headers=headers).json()["data"]
        assert [each["id"] for each in listed] == ([] if own == "elsewhere" else [own])
