"""Bad input on a live server: the right refusal, and the server is the same afterwards.

Run on the fake engine always, and on the real model, where the normal answer after each case is
compared word for word with the one before all (alone, prompt cache off, so it repeats exactly).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qwen_openai.engines.base import Engine
from qwen_openai.engines.fake import FakeEngine
from tests.live import Live, call, threaded
from tests.real import real_engine
from tests.wire.cases import ALL, CHAT, Case

_CONTEXT = 2048


@contextmanager
def _serving(kind: str) -> Iterator[Live]:
    def make() -> Engine:
        if kind == "real":
            return real_engine(context=_CONTEXT, slots=2, prompt_cache=False)
        return FakeEngine(context=_CONTEXT, slots=2, count_by="characters", tools="hermes")

    with threaded(make) as server:
        yield server


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest) -> Iterator[Live]:
    with _serving(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def usual(server: Live) -> tuple[str, object]:
    """The model's name, and the answer of a normal request before anything bad was sent."""
    name = server.gateway.model_names[0]
    return name, normal(server, name)


def normal(server: Live, model: str) -> object:
    """What a normal request gets."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Name three colours."}],
        "temperature": 0,
        "max_tokens": 6,
    }
    answer = call(server.port, "POST", CHAT, body)
    assert answer.status == 200, answer.body
    return answer.json()["choices"], answer.json()["usage"]


@pytest.mark.parametrize("case", ALL, ids=[case.id for case in ALL])
def test_bad_input(server: Live, usual: tuple[str, object], case: Case, shared: Path) -> None:
    model, before = usual
    body = case.body.replace(b"MODEL", model.encode())
    answer = call(server.port, case.method, case.path, body or None, case.headers)
    assert answer.status in case.status, (answer.status, answer.body[:400])
    assert answer.headers["x-request-id"]
    assert int(answer.headers["openai-processing-ms"]) >= 0
    if answer.status >= 400 and case.method != "HEAD":
        check_error(case, answer.json())
    assert normal(server, model) == before


def check_error(case: Case, body: dict[str, object]) -> None:
    """An error is in its shape, short, and about what the case is about."""
    error = body["error"]
    assert isinstance(error, dict)
    assert set(error) == {"message", "type", "param", "code"}
    if case.path == "/":
        assert body["status"] in case.status
    assert error["message"]
    assert len(json.dumps(error)) < 2000, "the error echoes its input"
    if case.param is not None:
        assert error["param"] == case.param, error
    if case.code is not None:
        assert error["code"] == case.code, error
    assert case.says in str(error["message"])


def test_the_body_cap_is_exact(server: Live, usual: tuple[str, object]) -> None:
    """Row 9: a body of the cap is read, one byte more is refused while it comes in."""
    model, before = usual
    cap = server.gateway.settings.max_body_bytes
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    plain = json.dumps(body).encode()
    fitting = call(server.port, "POST", CHAT, plain + b" " * (cap - len(plain)))
    assert fitting.status == 200
    larger = call(server.port, "POST", CHAT, plain + b" " * (cap - len(plain) + 1))
    assert (larger.status, larger.json()["error"]["code"]) == (413, "payload_too_large")
    assert normal(server, model) == before
