"""POST /v1/completions over a live server: the official SDK, every body judged by the
specification."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from openai import OpenAI

from qwen_openai.core import RawPrompt
from qwen_openai.engines.fake import FakeEngine
from tests.live import Answer, Live, call, live, threaded
from tests.spec import check
from tests.wire.letters import Letters

PATH = "/v1/completions"


def _letters() -> Letters:
    return Letters("cab", "bad", "aaa")


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(_letters, served_model_name=("m",)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as made:
        yield made


def post(server: Live, **body: object) -> dict[str, Any]:
    answer = call(server.port, "POST", PATH, {"model": "m", **body})
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json()
    check("CreateCompletionResponse", made)
    return made


def refused(server: Live, **body: object) -> tuple[int, str, str]:
    answer = call(server.port, "POST", PATH, {"model": "m", "prompt": "x", **body})
    error = answer.json()["error"]
    return answer.status, error["code"], error["param"]


def chunks_of(answer: Answer) -> list[dict[str, Any]]:
    """The chunks of a stream. OpenAI's own say null where the specification has no null."""
    *events, done = answer.body.decode().strip().split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    for chunk in chunks:
        judged = {key: value for key, value in chunk.items() if value is not None}
        judged["choices"] = [
            {**choice, "finish_reason": choice["finish_reason"] or "stop"}
            for choice in chunk["choices"]
        ]
        check("CreateCompletionResponse", judged)
    return chunks


def collected(chunks: list[dict[str, Any]], *, logprobs: bool) -> dict[str, Any]:
    """The plain answer that chunks make."""
    usage = chunks.pop()
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        assert chunk["usage"] is None
        (piece,) = chunk["choices"]
        empty: dict[str, list[object]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        new = {**piece, "text": "", "logprobs": empty if logprobs else None}
        own = choices.setdefault(piece["index"], new)
        own["text"] += piece["text"]
        own["finish_reason"] = piece["finish_reason"]
        for name, values in (piece["logprobs"] or {}).items():
            own["logprobs"][name] += values
    return {**usage, "choices": [choices[index] for index in sorted(choices)]}


def test_the_sdk_gets_a_whole_answer(client: OpenAI) -> None:
    made = client.completions.create(model="m", prompt="Say", logprobs=2)
    assert made.object == "text_completion"
    assert made.id.startswith("cmpl-")
    assert made.system_fingerprint is not None
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (3, 3)
    (choice,) = made.choices
    assert (choice.text, choice.finish_reason) == ("cab", "stop")
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["c", "a", "b"]
    assert logprobs.token_logprobs == [-9.9, -9.7, -9.8]
    assert logprobs.text_offset == [0, 1, 2]
    # The token itself is there too, where it is not among the likeliest.
    assert logprobs.top_logprobs == [
        {"a": -9.7, "b": -9.8, "c": -9.9},
        {"a": -9.7, "b": -9.8},
        {"a": -9.7, "b": -9.8},
    ]


def test_the_sdk_gets_a_stream(client: OpenAI) -> None:
    stream = client.completions.create(
        model="m", prompt="Say", stream=True, stream_options={"include_usage": True}, n=2
    )
    chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    texts = {0: "", 1: ""}
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {0: "cab", 1: "bad"}
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 3 + 6


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "Say"},
        {"prompt": ["ab", "c"], "n": 2, "logprobs": 1},
        {"prompt": [[97, 98], [99]], "echo": True},
        {"prompt": "Say", "max_tokens": 2, "logprobs": 0},
        {"prompt": "Say", "stop": "b", "include_stop_str_in_output": False},
    ],
)
def test_a_stream_collected_is_the_plain_answer(server: Live, body: dict[str, object]) -> None:
    plain = post(server, **body)
    streamed = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, **body}
    answer = call(server.port, "POST", PATH, streamed)
    made = collected(chunks_of(answer), logprobs="logprobs" in body)
    for each in (plain, made):
        del each["id"], each["created"]
    assert made == plain


def test_several_prompts_are_numbered_and_counted_each(server: Live) -> None:
    made = post(server, prompt=["one", "three"], n=2)
    assert [choice["index"] for choice in made["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in made["choices"]] == ["cab", "bad", "aaa", "cab"]
    assert made["usage"]["prompt_tokens"] == 8
    assert made["usage"]["completion_tokens"] == 12


def test_echo_is_the_prompts_text_however_it_came(server: Live) -> None:
    assert post(server, prompt="Say ", echo=True)["choices"][0]["text"] == "Say cab"
    made = post(server, prompt=[[97, 0x505C], [98]], echo=True)
    assert [choice["text"] for choice in made["choices"]] == ["a停cab", "bbad"]
    assert refused(server, prompt=[0x110000], echo=True) == (400, "invalid_value", "prompt")


class Turns(Letters):
    """Notes whether another may tokenize while it makes text of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.others: Callable[[], bool] = bool
        self.seen: list[bool] = []

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        self.seen.append(self.others())
        return await super().detokenize(ids)


async def test_an_echo_of_token_ids_waits_for_its_turn() -> None:
    engine = Turns()
    async with live(engine, served_model_name=("m",)) as server:
        turns = server.gateway.tokenizing
        engine.others = lambda: not turns.locked()
        while not turns.locked():
            await turns.acquire()
        turns.release()  # One is free, and the echo takes it.
        body = {"model": "m", "prompt": [97], "echo": True, "max_tokens": 1}
        answer = await asyncio.to_thread(call, server.port, "POST", PATH, body)
        assert answer.json()["choices"][0]["text"] == "ao"
        assert not turns.locked()
    assert engine.seen == [False]


def test_the_best_of_several_and_all_are_counted(server: Live) -> None:
    made = post(server, prompt="Say", best_of=3)
    (choice,) = made["choices"]
    assert (choice["text"], choice["logprobs"]) == ("aaa", None)
    assert made["usage"]["completion_tokens"] == 9
    two = post(server, prompt="Say", best_of=3, n=2, logprobs=1)
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert two["choices"][0]["text"] == "aaa"


async def test_what_comes_out_of_the_body_is_what_the_engine_gets() -> None:
    engine = Letters("a")
    async with live(engine, served_model_name=("m",)) as server:
        body = {
            "model": "m",
            "prompt": "def f(",
            "suffix": "return x",
            "temperature": 0,
            "logit_bias": {"5": -100},
            "min_tokens": 2,
            "ignore_eos": True,
            "stop_token_ids": [7],
            "seed": 3,
        }
        answer = await asyncio.to_thread(call, server.port, "POST", PATH, body)
    assert answer.status == 200
    (job,) = engine.jobs
    assert job.prompt == RawPrompt("def f(", "return x")
    sampling = job.sampling
    assert (sampling.max_tokens, sampling.min_tokens, sampling.seed) == (16, 2, 3)
    assert (sampling.logit_bias, sampling.stop_token_ids) == (((5, -100.0),), (7,))
    assert sampling.ignore_eos
    assert sampling.is_greedy
    assert sampling.logprobs is None


def test_what_has_no_effect_is_said_or_refused(server: Live) -> None:
    body = {"model": "m", "prompt": "x", "user": "u", "nonsense": 1}
    answer = call(server.port, "POST", PATH, body)
    assert answer.headers["x-qwen-openai-ignored"] == "user, nonsense"
    for query in ("strict=1", "a=b&strict=true"):
        strict = call(server.port, "POST", f"{PATH}?{query}", body)
        assert (strict.status, strict.json()["error"]["param"]) == (400, "user")
    for query in ("strict=0", "strict=10", "unstrict=1", "strict", "a=%ff"):
        assert call(server.port, "POST", f"{PATH}?{query}", body).status == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": ["a"] * 200}, "prompt"),
        ({"prompt": ["a"] * 5, "n": 2}, "prompt"),
        ({"n": 9}, "n"),
        ({"best_of": 9}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"stream_options": {}}, "stream_options"),
        ({"structured_outputs": {"choice": ["a"]}, "ignore_eos": True}, "ignore_eos"),
    ],
)
def test_what_is_wrong_is_named(server: Live, body: dict[str, object], param: str) -> None:
    assert refused(server, **body) == (400, "invalid_value", param)


@pytest.mark.parametrize("name", ["tools", "messages", "max_completion_tokens", "modalities"])
def test_parameters_of_chat_are_refused(server: Live, name: str) -> None:
    assert refused(server, **{name: ["x"]}) == (400, "unsupported_parameter", name)


def test_models_and_engines_that_cannot() -> None:
    with threaded(lambda: Letters(model="qwen3")) as plain:
        answer = call(plain.port, "POST", PATH, {"model": "qwen3", "prompt": "a", "suffix": "b"})
        assert (answer.status, answer.json()["error"]["param"]) == (400, "suffix")
    poor = frozenset({"logprobs", "logit_bias"})
    with threaded(lambda: Letters(model="m", refuses=poor)) as other:
        for body, param in (
            ({"logprobs": 1}, "logprobs"),
            ({"best_of": 2}, "best_of"),
            ({"logit_bias": {"1": 1}}, "logit_bias"),
        ):
            assert refused(other, **body) == (400, "unsupported_parameter", param)


def test_a_prompt_that_does_not_fit_names_the_prompt() -> None:
    with threaded(lambda: FakeEngine(context=8)) as server:
        body = {"model": "fake", "prompt": "word " * 9}
        error = call(server.port, "POST", PATH, body).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


async def test_prompts_beyond_all_room_are_the_clients_to_mend() -> None:
    async with live(Letters(slots=1), served_model_name=("m",), queue_size=2) as server:
        body = {"model": "m", "prompt": ["a"] * 4}
        answer = await asyncio.to_thread(call, server.port, "POST", PATH, body)
        assert (answer.status, answer.json()["error"]["param"]) == (400, "prompt")
