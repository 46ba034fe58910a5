"""Everything that a request may ask for, on the real model's weights, in one batch.

All requests of `REQUESTS` are sent at once to the engine `transformers`, as the users of one card
would; each test looks at one of the answers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jsonschema_rs
import pytest
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint
from tests.live import Live, call, make_settings, threaded
from tests.models.qwen1.real_fixture import real_native
from tests.real import MODEL
from tests.spec import check

pytestmark = pytest.mark.real

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
# More than two pages of the cache.
LONG = "Sum these numbers: " + ", ".join(map(str, range(100, 140)))


def chat(content: str, **body: object) -> tuple[str, dict[str, object]]:
    messages = [{"role": "user", "content": content}]
    return CHAT, {"messages": messages, "temperature": 0, "max_tokens": 12, **body}


def tools(content: str, choice: object, **body: object) -> tuple[str, dict[str, object]]:
    wanted = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 40, **body}
    return chat(content, **wanted)


def held(content: str, **rules: object) -> tuple[str, dict[str, object]]:
    return chat(content, structured_outputs=rules, temperature=1, seed=3, max_tokens=32)


def text(prompt: str, **body: object) -> tuple[str, dict[str, object]]:
    return TEXT, {"prompt": prompt, "temperature": 0, "max_tokens": 12, **body}


STREAM = {"stream": True, "stream_options": {"include_usage": True}}
HELLO = "Say hello."
SEEDED: dict[str, object] = {"temperature": 1.3, "top_p": 0.95, "seed": 7, "max_tokens": 8}
PLACE = "What is the weather in Paris?"
REQUESTS: dict[str, tuple[str, dict[str, object]]] = {
    "plain": chat(HELLO),
    "streamed": chat(HELLO, **STREAM),
    "long": chat(LONG, max_tokens=2),
    "auto": tools(PLACE, "auto"),
    "required": tools("Hello!", "required"),
    "named": tools(PLACE, {"type": "function", "function": {"name": "get_weather"}}),
    "named, streamed": tools(
        PLACE, {"type": "function", "function": {"name": "get_weather"}}, **STREAM
    ),
    "one call": tools("Weather in Paris and Rome?", "required", parallel_tool_calls=False),
    "schema": chat(
        "Make up a person.",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "person", "strict": True, "schema": SCHEMA},
        },
        max_tokens=48,
    ),
    "object": chat(
        "A person as JSON, with nothing but a name.",
        response_format={"type": "json_object"},
        max_tokens=48,
    ),
    "regex": held("When?", regex="[0-9]{4}-[0-9]{2}"),
    "choice": held("Which?", choice=["grün", "gelb"]),
    "grammar": held("How?", grammar='start: "so" (" and so")* "."'),
    "logprobs": chat(HELLO, logprobs=True, top_logprobs=3, **STREAM),
    "choices": chat("Tell a story.", n=2, seed=5, temperature=1, max_tokens=8, **STREAM),
    "stop": chat("Count from 1 to 9, with commas.", stop=["4"], max_tokens=24),
    "long enough": chat(HELLO, min_tokens=14, max_tokens=16),
    "no end": chat(HELLO, ignore_eos=True, max_tokens=16),
    "seeded": chat("Tell a joke.", **SEEDED),
    "seeded again": chat("Tell a joke.", **SEEDED),
    "echo": text("The capital of France is", echo=True, max_tokens=1),
    "text": text("1, 2, 3,", max_tokens=4, logprobs=2),
    "gap": text("def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))\n"),
    "response": ("/v1/responses", {"input": HELLO, "temperature": 0, "max_output_tokens": 16}),
    "tokens": ("/tokenize", {"prompt": "Hello 停止 😀"}),
}


def _engine() -> Engine:
    settings = make_settings(engine="transformers", context=1024, slots=8)
    # By its name it is known for a model that fills in text.
    return create_engine(settings, replace(read_checkpoint(real_native()), name=MODEL))


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(_engine, queue_size=len(REQUESTS), served_model_name=("m",)) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Answers:
    """What came for each of `REQUESTS`."""

    bodies: Mapping[str, bytes]

    def whole(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.bodies[name])
        return made

    def choice(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = self.whole(name)["choices"][0]
        return made

    def content(self, name: str) -> str:
        return str(self.choice(name)["message"]["content"])

    def chunks(self, name: str) -> list[dict[str, Any]]:
        events = self.bodies[name].decode().strip().split("\n\n")
        assert events.pop() == "data: [DONE]"
        return [json.loads(event.removeprefix("data: ")) for event in events]


def post(server: Live, path: str, body: Mapping[str, object]) -> bytes:
    # A part of the requests waits until the others have been answered.
    answer = call(server.port, "POST", path, {"model": "m", **body}, timeout=600)
    assert answer.status == 200, answer.body
    return answer.body


@pytest.fixture(scope="module")
def answers(server: Live) -> Answers:
    def ask(name: str) -> bytes:
        return post(server, *REQUESTS[name])

    with ThreadPoolExecutor(len(REQUESTS)) as threads:
        return Answers(dict(zip(REQUESTS, threads.map(ask, REQUESTS), strict=True)))


def deltas(chunks: Sequence[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [choice["delta"] for choice in choices if choice["index"] == index]


def joined(chunks: Sequence[dict[str, Any]], index: int = 0) -> str:
    return "".join(delta.get("content") or "" for delta in deltas(chunks, index))


def test_a_stream_is_the_plain_answer(answers: Answers, server: Live) -> None:
    plain, chunks = answers.whole("plain"), answers.chunks("streamed")
    assert joined(chunks) == answers.content("plain")
    assert plain["choices"][0]["finish_reason"] == "stop"
    counts = ("prompt_tokens", "completion_tokens")
    assert [chunks[-1]["usage"][name] for name in counts] == [plain["usage"][n] for n in counts]
    with (
        OpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
        client.chat.completions.stream(
            model="m", messages=[{"role": "user", "content": HELLO}], temperature=0
        ) as stream,
    ):
        final = stream.get_final_completion()
    assert final.choices[0].message.content == answers.content("plain")


@pytest.mark.parametrize("name", ["auto", "required", "named", "one call"])
def test_tools_are_called(answers: Answers, name: str) -> None:
    choice = answers.choice(name)
    # As OpenAI has it: who names the function knows that it is called.
    assert choice["finish_reason"] == ("stop" if name == "named" else "tool_calls")
    made = choice["message"]["tool_calls"]
    if name != "required":
        arguments = json.loads(made[0]["function"]["arguments"])
        assert made[0]["function"]["name"] == "get_weather"
        assert "Paris" in arguments["city"]
    if name != "auto":
        assert len(made) == 1


def test_a_call_streams(answers: Answers) -> None:
    parts = [delta["tool_calls"][0] for delta in deltas(answers.chunks("named, streamed"))[1:-1]]
    (plain,) = answers.choice("named")["message"]["tool_calls"]
    assert parts[0]["function"]["name"] == "get_weather"
    streamed = "".join(part["function"]["arguments"] for part in parts)
    assert streamed == plain["function"]["arguments"]


def test_formats_are_kept(answers: Answers) -> None:
    jsonschema_rs.validator_for(SCHEMA).validate(json.loads(answers.content("schema")))
    assert isinstance(json.loads(answers.content("object")), dict)
    year, _, month = answers.content("regex").partition("-")
    assert (len(year), len(month), (year + month).isdecimal()) == (4, 2, True)
    assert answers.content("choice") in ("grün", "gelb")
    said = answers.content("grammar")
    assert said == "so" + " and so" * ((len(said) - 3) // 7) + "."


def test_logprobs_stream(answers: Answers) -> None:
    chunks = answers.chunks("logprobs")
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    tokens = [t for choice in choices for t in (choice["logprobs"] or {}).get("content") or ()]
    assert "".join(token["token"] for token in tokens) == joined(chunks)
    assert joined(chunks) == answers.content("plain")
    for token in tokens:
        assert len(token["top_logprobs"]) == 3
        # Greedy: the likeliest.
        assert token["top_logprobs"][0]["logprob"] == token["logprob"] <= 0


def test_choices_stream_in_step(answers: Answers) -> None:
    chunks = answers.chunks("choices")
    assert joined(chunks, 0) != joined(chunks, 1)
    order = [choice["index"] for chunk in chunks for choice in chunk["choices"]]
    # Neither waits for the end of the other.
    assert order.index(1) < len(deltas(chunks, 0)) // 2
    assert chunks[-1]["usage"]["completion_tokens"] == 16


def test_answers_end_as_asked(answers: Answers) -> None:
    stopped = answers.choice("stop")
    assert stopped["finish_reason"] == "stop"
    assert "3" in answers.content("stop")
    assert "4" not in answers.content("stop")
    assert answers.whole("long enough")["usage"]["completion_tokens"] >= 14
    assert answers.choice("no end")["finish_reason"] == "length"
    assert answers.whole("no end")["usage"]["completion_tokens"] == 16


def test_tokens_are_stopped_at_and_banned(answers: Answers, server: Live) -> None:
    said = answers.content("plain")
    ids = json.loads(post(server, "/tokenize", {"prompt": said}))["tokens"]
    path, body = REQUESTS["plain"]
    stopped = json.loads(post(server, path, {**body, "stop_token_ids": ids[1:2]}))
    first = json.loads(post(server, "/detokenize", {"tokens": ids[:1]}))["prompt"]
    assert stopped["choices"][0]["message"]["content"] == first
    assert stopped["choices"][0]["finish_reason"] == "stop"
    banned = json.loads(post(server, path, {**body, "logit_bias": {str(ids[0]): -100}}))
    assert not banned["choices"][0]["message"]["content"].startswith(first)


def test_a_seed_repeats(answers: Answers, server: Live) -> None:
    """Beside each other, in whatever company, and alone."""
    path, body = REQUESTS["seeded"]
    alone = json.loads(post(server, path, body))
    assert answers.content("seeded") == answers.content("seeded again")
    assert alone["choices"][0]["message"]["content"] == answers.content("seeded")
    assert alone["system_fingerprint"] == answers.whole("seeded")["system_fingerprint"]


def test_what_is_known_of_a_prompt_is_counted(answers: Answers, server: Live) -> None:
    usage = answers.whole("long")["usage"]
    again = json.loads(post(server, *REQUESTS["long"]))
    assert again["choices"] == answers.whole("long")["choices"]
    details = again["usage"].pop("prompt_tokens_details")
    assert 64 <= details["cached_tokens"] < usage["prompt_tokens"]
    assert again["usage"]["total_tokens"] == usage["total_tokens"]


def test_texts_go_on(answers: Answers) -> None:
    assert answers.choice("echo")["text"] == "The capital of France is Paris"
    counted = answers.choice("text")
    assert "".join(counted["logprobs"]["tokens"]) == counted["text"]
    filled = answers.choice("gap")
    assert (filled["text"].strip(), filled["finish_reason"]) == ("a + b", "stop")


def test_responses_and_tokens(answers: Answers, server: Live) -> None:
    made = answers.whole("response")
    check("Response", made)
    assert made["output"][0]["content"][0]["text"] == answers.content("plain")
    ids = answers.whole("tokens")["tokens"]
    assert json.loads(post(server, "/detokenize", {"tokens": ids}))["prompt"] == "Hello 停止 😀"


async def test_langchain_gets_the_same(answers: Answers, server: Live) -> None:
    async with DefaultAsyncHttpxClient() as client:
        with DefaultHttpxClient() as blocking:
            model = ChatOpenAI(
                base_url=server.base_url,
                api_key="x",
                model="m",
                temperature=0,
                http_async_client=client,
                http_client=blocking,
            )
            assert (await model.ainvoke(HELLO)).content == answers.content("plain")
