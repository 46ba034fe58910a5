"""POST /tokenize, /detokenize and the counting of a chat's tokens, over a live server."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from openai import OpenAI

from qwen_openai.core import Job
from tests.live import Live, call, threaded
from tests.wire.letters import Letters

COUNT = "/v1/chat/completions/input_tokens"
COUNT_ITEMS = "/v1/responses/input_tokens"
HI = [{"role": "user", "content": "hi停"}]
IDS = [104, 105, 0x505C]


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(Letters, served_model_name=("m",)) as running:
        yield running


def post(server: Live, path: str, body: object) -> dict[str, Any]:
    answer = call(server.port, "POST", path, body)
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json()
    return made


def refused(server: Live, path: str, body: object) -> tuple[int, str]:
    answer = call(server.port, "POST", path, body)
    return answer.status, answer.json()["error"]["param"]


@pytest.mark.parametrize("named", [{}, {"model": "m"}, {"model": None}])
def test_a_text_to_tokens_and_back(server: Live, named: dict[str, object]) -> None:
    made = post(server, "/tokenize", {**named, "prompt": "hi停", "add_special_tokens": False})
    assert made == {"count": 3, "max_model_len": 8192, "tokens": IDS, "token_strs": None}
    assert post(server, "/detokenize", {**named, "tokens": IDS}) == {"prompt": "hi停"}


def test_nothing_is_no_tokens(server: Live) -> None:
    assert post(server, "/tokenize", {"prompt": ""})["tokens"] == []
    assert post(server, "/detokenize", {"tokens": []}) == {"prompt": ""}


@pytest.mark.parametrize("content", [{"prompt": "hi停"}, {"model": "m", "messages": HI}])
def test_the_tokens_texts(server: Live, content: dict[str, object]) -> None:
    made = post(server, "/tokenize", {**content, "return_token_strs": True})
    assert made["token_strs"] == ["h", "i", "停"]


def test_a_conversation_is_counted_as_it_would_run(server: Live) -> None:
    assert post(server, "/tokenize", {"messages": HI})["tokens"] == IDS
    body = {"model": "m", "messages": HI, "temperature": 0, "max_tokens": 5, "stream": True}
    made = post(server, COUNT, body)
    assert made == {"object": "chat.completion.input_tokens", "input_tokens": 3}


def test_items_are_counted_as_they_would_run(server: Live) -> None:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        made = client.responses.input_tokens.count(model="m", input="hi停", instructions="be")
    assert (made.object, made.input_tokens) == ("response.input_tokens", 5)
    body = {"input": [{"role": "user", "content": "hi停"}], "max_output_tokens": 5, "stream": True}
    told = {"object": "response.input_tokens", "input_tokens": 3}
    for named in ({}, {"model": "m"}, {"model": None}):
        assert post(server, COUNT_ITEMS, {**body, **named}) == told


def test_what_has_no_effect_is_said_or_refused(server: Live) -> None:
    for path, body in (
        ("/tokenize", {"prompt": "a", "x": 1}),
        ("/tokenize", {"messages": HI, "x": 1}),
        ("/detokenize", {"tokens": [97], "x": 1}),
        (COUNT, {"model": "m", "messages": HI, "x": 1}),
        (COUNT_ITEMS, {"input": "hi", "x": 1}),
    ):
        assert call(server.port, "POST", path, body).headers["x-qwen-openai-ignored"] == "x"
        assert refused(server, f"{path}?strict=1", body) == (400, "x")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HI}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a" * (2**20 + 1)}, "prompt"),
        ("/tokenize", {"prompt": "a", "return_token_strs": 1}, "return_token_strs"),
        ("/tokenize", {"messages": HI, "return_token_strs": 1}, "return_token_strs"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "x"}]}, "messages[0].role"),
        ("/tokenize", {"prompt": "a", "api_key": "x"}, "api_key"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": None}, "tokens"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
        ("/detokenize", {"tokens": [1, "a"]}, "tokens[1]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [True]}, "tokens[0]"),
        ("/detokenize", {"tokens": [0x110000]}, "tokens"),
        ("/detokenize", {"tokens": [1] * (2**18 + 1)}, "tokens"),
        (COUNT, {"model": "m"}, "messages"),
        (COUNT_ITEMS, {"model": "m"}, "input"),
        (COUNT_ITEMS, {"input": "a", "previous_response_id": "r"}, "previous_response_id"),
    ],
)
def test_what_is_wrong_is_named(server: Live, path: str, body: object, param: str) -> None:
    assert refused(server, path, body) == (400, param)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"model": "other", "prompt": "a"}),
        ("/tokenize", {"model": 1, "prompt": "a"}),
        ("/detokenize", {"model": "other", "tokens": []}),
        (COUNT, {"model": "other", "messages": HI}),
        (COUNT, {"messages": HI}),
        (COUNT_ITEMS, {"model": "other", "input": "hi"}),
    ],
)
def test_other_models_are_not_here(server: Live, path: str, body: object) -> None:
    assert refused(server, path, body) == (404, "model")


class Noted(list[Any]):
    """A list that notes which threads go through it."""

    def __init__(self, values: Sequence[object], threads: set[str]) -> None:
        super().__init__(values)
        self._threads = threads

    def __iter__(self) -> Iterator[Any]:
        self._threads.add(threading.current_thread().name)
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401  # as a list does
        self._threads.add(threading.current_thread().name)
        return super().__getitem__(place)


class Watched(Letters):
    """Notes which threads go through what it hands out."""

    def __init__(self, threads: set[str]) -> None:
        super().__init__()
        self._threads = threads

    async def tokenize(self, job: Job) -> list[int]:
        return Noted(await super().tokenize(job), self._threads)

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        return Noted(await super().detokenize(list(range(len(ids)))), self._threads)


def test_long_answers_are_made_beside_the_loop() -> None:
    """The texts of two million tokens held the loop for a second."""
    threads: set[str] = set()
    with threaded(lambda: Watched(threads), served_model_name=("m",)) as running:
        made = post(running, "/tokenize", {"prompt": "ab" * 10_000, "return_token_strs": True})
        assert made["tokens"] == list(b"ab" * 10_000)
        assert len(made["token_strs"]) == 20_000
        assert len(post(running, "/detokenize", {"tokens": [97] * 10_000})["prompt"]) == 10_000
    assert threads
    assert "live-server" not in threads
