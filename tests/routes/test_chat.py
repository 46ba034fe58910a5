"""POST /v1/chat/completions as a route: what a setting, the query and the engine change."""

import asyncio
import json
from typing import Any

import pytest

from qwen_openai.engines.fake import FakeEngine, Script, reply
from tests.live import Answer, Live, call, live

PATH = "/v1/chat/completions"
THOUGHT = "<think>\nHm.\n</think>\n\nIt is 4"
TOOL = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


async def post(server: Live, path: str = PATH, **body: object) -> Answer:
    messages = [{"role": "user", "content": "2+2?"}]
    given = {"model": "fake", "messages": messages, **body}
    return await asyncio.to_thread(call, server.port, "POST", path, given)


async def message(server: Live, **body: object) -> dict[str, Any]:
    answer = await post(server, PATH, **body)
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json()["choices"][0]["message"]
    return made


def deltas(answer: Answer) -> list[dict[str, Any]]:
    events = answer.body.decode().strip().split("\n\n")[:-1]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def thinking(script: Script) -> FakeEngine:
    return FakeEngine(script, thinking="switched")


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("reasoning_content", {"reasoning_content"}),
        ("reasoning", {"reasoning"}),
        ("both", {"reasoning", "reasoning_content"}),
    ],
)
async def test_thoughts_go_out_as_the_operator_says(field: str, names: set[str]) -> None:
    async with live(thinking(reply(THOUGHT)), reasoning_field=field) as server:
        made = await message(server)
        assert made["content"] == "It is 4"
        assert names == made.keys() & {"reasoning", "reasoning_content"}
        assert {made[name].strip() for name in names} == {"Hm."}
        streamed = deltas(await post(server, stream=True))
        for name in names:
            assert "".join(delta.get(name, "") for delta in streamed) == made[name]
        assert "".join(delta.get("content", "") for delta in streamed) == "It is 4"
        usage = (await post(server)).json()["usage"]
        spent = usage["completion_tokens_details"]["reasoning_tokens"]
        assert 0 < spent < usage["completion_tokens"]


async def test_functions_get_function_calls() -> None:
    async with live(FakeEngine(reply(CALL), tools="hermes")) as server:
        older = await message(server, functions=[TOOL])
        assert older["content"] is None
        assert "tool_calls" not in older
        assert older["function_call"]["name"] == "weather"
        assert json.loads(older["function_call"]["arguments"]) == {"city": "Paris"}
        answer = (await post(server, functions=[TOOL])).json()
        assert answer["choices"][0]["finish_reason"] == "function_call"
        newer = await message(server, tools=[{"type": "function", "function": TOOL}])
        assert newer["tool_calls"][0]["function"] == older["function_call"]
        streamed = deltas(await post(server, functions=[TOOL], stream=True))
        pieces = [delta["function_call"] for delta in streamed if "function_call" in delta]
        assert [piece.get("name") for piece in pieces] == ["weather", *[None] * (len(pieces) - 1)]
        assert (
            "".join(piece["arguments"] for piece in pieces)
            == newer["tool_calls"][0]["function"]["arguments"]
        )


async def test_logprobs_of_every_token_streamed_or_not() -> None:
    async with live(FakeEngine(reply("one two three"))) as server:
        plain = (await post(server, logprobs=True, top_logprobs=2)).json()["choices"][0]
        tokens = plain["logprobs"]["content"]
        assert [bytes(token["bytes"]).decode() for token in tokens] == ["one", " two", " three"]
        assert [len(token["top_logprobs"]) for token in tokens] == [2, 2, 2]
        assert plain["logprobs"]["refusal"] is None
        answer = await post(server, logprobs=True, top_logprobs=2, stream=True)
        events = [json.loads(e[6:]) for e in answer.body.decode().strip().split("\n\n")[:-1]]
        streamed = [
            token
            for event in events
            for token in (event["choices"][0]["logprobs"] or {"content": []})["content"]
        ]
        assert streamed == tokens
        assert (await post(server)).json()["choices"][0]["logprobs"] is None


async def test_a_bad_schema_is_refused_before_a_slot_is_taken() -> None:
    engine = FakeEngine()
    async with live(engine) as server:
        schema = {"type": "object", "properties": {"a": {"$ref": "http://x.example/y"}}}
        named = {"name": "x", "schema": schema}
        wanted = {"type": "json_schema", "json_schema": named}
        for stream in (False, True):
            answer = await post(server, response_format=wanted, stream=stream)
            error = answer.json()["error"]
            assert (answer.status, error["param"]) == (400, "response_format")
    assert engine.record.started == 0


async def test_an_engine_that_leaves_the_format_is_not_believed() -> None:
    async with live(FakeEngine(reply("I will not."))) as server:
        wanted = {"type": "json_object"}
        plain = await post(server, response_format=wanted)
        assert (plain.status, plain.json()["error"]["code"]) == (500, "engine_error")
        for n in (1, 2):
            choices = {"choice": ["I do", "I will"]}
            streamed = await post(server, structured_outputs=choices, stream=True, n=n)
            assert b"not." not in streamed.body
            assert b'"error"' in streamed.body
    async with live(FakeEngine(reply('{"a": 1}'))) as server:
        assert (await message(server, response_format=wanted))["content"] == '{"a": 1}'


async def test_what_an_engine_cannot_do_is_refused_by_name() -> None:
    async with live(FakeEngine(refuses=frozenset({"logit_bias"}))) as server:
        answer = await post(server, logit_bias={"1": 1})
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", "logit_bias")


async def test_strictness_by_query_and_by_setting() -> None:
    async with live(FakeEngine()) as server:
        answer = await post(server, user="me")
        assert answer.headers["x-qwen-openai-ignored"] == "user"
        answer = await post(server, f"{PATH}?strict=1", user="me")
        assert (answer.status, answer.json()["error"]["param"]) == (400, "user")
        assert (await post(server, f"{PATH}?strict=1&api-version=2")).status == 200
    async with live(FakeEngine(), strict_parameters=True) as server:
        answer = await post(server, user="me")
        assert (answer.status, answer.json()["error"]["param"]) == (400, "user")


async def test_the_fingerprint_is_in_every_body() -> None:
    async with live(FakeEngine(), always_stream_usage=True) as server:
        made = {(await post(server)).json()["system_fingerprint"]}
        events = (await post(server, stream=True)).body.decode().strip().split("\n\n")[:-1]
        made |= {json.loads(event[6:])["system_fingerprint"] for event in events}
        assert made == {server.gateway.default()[1].fingerprint}


async def test_choices_come_in_step() -> None:
    """Each choice waits for the other's words: neither is streamed before the other begins."""
    words = [asyncio.Event(), asyncio.Event()]

    async with live(FakeEngine(lambda job: _in_turn(job.choice, words), slots=2)) as server:
        answer = await post(server, n=2, stream=True)
    events = [json.loads(e[6:]) for e in answer.body.decode().strip().split("\n\n")[:-1]]
    order = [
        (choice["index"], choice["delta"]["content"])
        for event in events
        for choice in event["choices"]
        if choice["delta"].get("content")
    ]
    assert order == [(0, "a"), (1, "b"), (0, "c")]


def _in_turn(choice: int, words: list[asyncio.Event]) -> Any:  # noqa: ANN401  # a script's steps
    if choice == 0:
        yield "a"
        words[0].set()
        yield words[1]
        yield "c"
    else:
        yield words[0]
        yield "b"
        words[1].set()
