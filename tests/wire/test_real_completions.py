"""Completions and tokens on the real model."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.live import Live, call, threaded
from tests.real import MODEL, real_engine

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(real_engine) as running:
        yield running


def post(server: Live, path: str, **body: object) -> dict[str, Any]:
    answer = call(server.port, "POST", path, {"model": MODEL, **body})
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json()
    return made


def test_a_text_goes_on(server: Live) -> None:
    made = post(
        server, "/v1/completions", prompt="The capital of France is", max_tokens=1, temperature=0
    )
    assert made["choices"][0]["text"] == " Paris"
    ids = post(server, "/tokenize", prompt="The capital of France is")["tokens"]
    again = post(server, "/v1/completions", prompt=ids, max_tokens=1, echo=True, temperature=0)
    assert again["choices"][0]["text"] == "The capital of France is Paris"
    assert made["usage"]["prompt_tokens"] == again["usage"]["prompt_tokens"] == len(ids)


def test_a_gap_is_filled(server: Live) -> None:
    made = post(
        server,
        "/v1/completions",
        prompt="def add(a, b):\n    return ",
        suffix="\n\nprint(add(1, 2))\n",
        temperature=0,
    )
    (choice,) = made["choices"]
    assert (choice["text"].strip(), choice["finish_reason"]) == ("a + b", "stop")


def test_logprobs_are_the_tokens_own(server: Live) -> None:
    made = post(
        server, "/v1/completions", prompt="1, 2, 3,", max_tokens=4, logprobs=2, temperature=0
    )
    (choice,) = made["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["text_offset"] == [0, 1, 2, 3]
    assert all(2 <= len(top) <= 3 for top in logprobs["top_logprobs"])
    assert all(logprob <= 0 for logprob in logprobs["token_logprobs"])


def test_a_choice_is_enforced(server: Live) -> None:
    wanted = {"choice": ["grün", "gelb"]}
    made = post(server, "/v1/completions", prompt="The sky is ", structured_outputs=wanted)
    assert made["choices"][0]["text"] in wanted["choice"]


def test_tokens_come_back_as_their_text(server: Live) -> None:
    text = "Hello 停止 😀 <|im_end|>"
    ids = post(server, "/tokenize", prompt=text)["tokens"]
    assert post(server, "/detokenize", tokens=ids)["prompt"] == text
    messages = [{"role": "user", "content": text}]
    whole = post(server, "/tokenize", messages=messages)
    assert whole["count"] > len(ids)
    count = post(server, "/v1/chat/completions/input_tokens", messages=messages)["input_tokens"]
    chat = post(server, "/v1/chat/completions", messages=messages, max_tokens=1, temperature=0)
    assert count == whole["count"] == chat["usage"]["prompt_tokens"]
