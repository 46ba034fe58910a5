"""What llama.cpp itself lets stray is held all the same, on the real model."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from qwen_openai.core import Event, Job, Sampling, Text, Tool
from qwen_openai.engines.llamacpp import LlamaCppEngine
from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import build
from qwen_openai.grammars.guard import Guard
from tests.engines.conftest import Running
from tests.engines.contract import collect, finish_of, job, started_of, text_of, until
from tests.engines.wishes import bound, texts_of

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

THIS = 'exactly "this" and then "that" and some more words to make it long enough to matter'
# What xllamacpp 2026.10's llguidance gives up on, at its defaults. Where a later one does not, the
# answers must be right too, and only `HARD` must be looked for anew.
HARD: dict[str, dict[str, object]] = {
    "quotes": {"const": THIS},
    "escapes": {"const": 'a\\b\n\t"q" é 🦜 and / then a long tail \\\\ of "words" to go on'},
    "choices": {
        "enum": [
            f'He said "no {fruit}" and then she said "yes, {fruit}, and more of it"'
            for fruit in ("apples", "pears", "plums", "figs")
        ]
    },
}
PLAIN = job("Tell of a river.", Sampling(temperature=0.0, max_tokens=12))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(running: Running) -> AsyncIterator[LlamaCppEngine]:
    async with running() as engine:
        yield engine


def held(schema: dict[str, object], **sampling: object) -> Job:
    values = {"max_tokens": 64, **sampling}
    return bound("Hello!", build.json_schema(schema), **values)  # type: ignore[arg-type]  # sampling


def check(wanted: Job, events: list[Event]) -> str:
    """The answer, which must be all that was asked for."""
    assert wanted.grammar is not None
    guard, text, finish = Guard(wanted.grammar.rules), text_of(events), finish_of(events)
    assert guard.feed(text)
    assert guard.is_complete
    assert finish.reason == "stop"
    # The token that ends it has no text.
    assert finish.completion_tokens == sum(event.tokens for event in texts_of(events)) + 1
    assert finish.cached_tokens == started_of(events).cached_tokens
    return text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", HARD)
async def test_what_llama_gives_up_on_is_kept(
    engine: LlamaCppEngine, name: str, temperature: float
) -> None:
    wanted = held(HARD[name], temperature=temperature)
    before = engine.carried_on
    events = await collect(engine, wanted)
    assert engine.carried_on == before + 1
    answer = json.loads(check(wanted, events))
    assert answer in HARD[name].get("enum", [HARD[name].get("const")])  # type: ignore[operator]
    assert engine.in_flight == 0


async def test_a_seed_repeats(engine: LlamaCppEngine) -> None:
    wanted = held(HARD["choices"], temperature=1.5, seed=11, logprobs=1)
    assert await collect(engine, wanted) == await collect(engine, wanted)


@pytest.mark.parametrize("count", [0, 3])
async def test_logprobs_are_true_to_the_text(engine: LlamaCppEngine, count: int) -> None:
    wanted = held(HARD["escapes"], temperature=1.0, logprobs=count)
    events = await collect(engine, wanted)
    text = check(wanted, events)
    tokens = [token for event in texts_of(events) for token in event.logprobs]
    assert b"".join(token.raw for token in tokens) == text.encode()
    assert all(token.logprob <= 0 and len(token.top) == count for token in tokens)


async def test_a_cut_answer_is_a_beginning_of_a_whole_one(engine: LlamaCppEngine) -> None:
    wanted = held(HARD["quotes"], max_tokens=14)
    events = await collect(engine, wanted)
    assert json.dumps(THIS).startswith(text_of(events))
    assert (finish_of(events).reason, finish_of(events).completion_tokens) == ("length", 14)
    assert sum(event.tokens for event in texts_of(events)) == 14


@pytest.mark.parametrize("count", [1, 10, 14])
async def test_who_leaves_at_any_step_frees_the_slot(engine: LlamaCppEngine, count: int) -> None:
    seen = 0
    async with aclosing(engine.generate(held(HARD["quotes"]))) as events:
        async for event in events:
            seen += isinstance(event, Text)
            if seen == count:
                break
    assert engine.in_flight == 0
    assert text_of(await collect(engine, PLAIN)) == text_of(await collect(engine, PLAIN))


async def test_who_leaves_while_a_step_is_made_frees_the_slot(engine: LlamaCppEngine) -> None:
    seen: list[Event] = []

    async def read() -> None:
        async with aclosing(engine.generate(held(HARD["quotes"]))) as events:
            async for event in events:
                seen.append(event)

    reader = asyncio.create_task(read())
    await until(lambda: len(seen) > 11)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert engine.in_flight == 0


async def test_several_at_once_beside_a_plain_one(running: Running) -> None:
    async with running(slots=3, prompt_cache=True) as engine:
        wanted = [held(HARD["quotes"], temperature=1.0), held(HARD["choices"], temperature=1.0)]
        first, second, plain = await asyncio.gather(
            *(collect(engine, each) for each in (*wanted, PLAIN))
        )
        assert json.loads(check(wanted[0], first)) == THIS
        assert json.loads(check(wanted[1], second)) in HARD["choices"]["enum"]  # type: ignore[operator]
        assert finish_of(plain).completion_tokens == 12
        assert engine.in_flight == 0


async def test_thoughts_of_react_are_within_llamas_own_limits(engine: LlamaCppEngine) -> None:
    tools = [Tool("get_weather", "Weather", {"type": "object", "properties": {"city": {}}})]
    rules = build.calls(tools, "react", required=True, parallel=True)
    before = engine.carried_on
    for temperature in (0.0, 1.0):
        wanted = bound("Weather in Rome?", rules, temperature=temperature, max_tokens=60)
        assert Guard(rules).feed(text_of(await collect(engine, wanted)))
    assert engine.carried_on == before


async def test_a_grammar_that_is_none_is_the_callers_fault(engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await collect(engine, bound("Say hello.", "answer: %%%(("))
    assert caught.value.param == "response_format"
