"""What a job may ask of an answer, on models that know nothing: random weights keep to it all."""

import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_openai import QwenChat
from qwen_openai.core import Event, Grammar, Job, RawPrompt, Sampling, Text, TokenLogprob, Tool
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine
from qwen_openai.grammars import build
from qwen_openai.grammars.guard import Guard
from tests.engines.contract import collect, finish_of, job, text_of

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["C", "F", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["city", "days", "unit", "tags"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
CALLED = r"\nAction: get_weather\nAction Input: \{[^\n]*(Paris|Łódź)[^\n]*\}\nObservation:$"
WEATHER = Tool(
    "get_weather",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Łódź"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    strict=True,
)


@asynccontextmanager
async def serving(model: QwenChat) -> AsyncIterator[QwenChatEngine]:
    engine = QwenChatEngine.of(model, name="m")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


def held(rules: str, sampling: Sampling, text: str = "hello") -> Job:
    return replace(job(text, sampling), grammar=Grammar(rules, "response_format"))


def is_weather(text: str) -> bool:
    value = json.loads(text)
    return (
        value.keys() == {"city", "days", "unit", "tags"}
        and len(value["city"]) <= 6
        and 1 <= value["days"] <= 14
        and value["unit"] in ("C", "F", None)
        and all(isinstance(tag, bool) for tag in value["tags"])
    )


MATCHES: dict[str, tuple[str, Callable[[str], object]]] = {
    "regex": (
        build.regex("[a-f]{4}-(你|好)?[0-9]{2}"),
        re.compile("[a-f]{4}-[你好]?[0-9]{2}").fullmatch,
    ),
    "choice": (
        build.choice(["yes", "no", "Grüße <tool_call>"]),
        ("yes", "no", "Grüße <tool_call>").__contains__,
    ),
    "schema": (build.json_schema(SCHEMA), is_weather),
    "call": (
        build.calls([WEATHER], "hermes", required=True, parallel=False),
        lambda text: text.startswith("<tool_call>") and text.endswith("</tool_call>"),
    ),
}


@pytest.mark.parametrize("name", MATCHES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_an_answer_always_matches_its_grammar(
    qwen2: QwenChat, name: str, temperature: float
) -> None:
    rules, matches = MATCHES[name]
    async with serving(qwen2) as engine:
        for seed in range(4):
            sampling = Sampling(temperature=temperature, seed=seed, max_tokens=250)
            events = await collect(engine, held(rules, sampling))
            text = text_of(events)
            guard = Guard(rules)
            assert guard.feed(text)
            if finish_of(events).reason == "stop":
                assert guard.is_complete
                assert matches(text)
            else:
                assert name == "schema"  # a string of escapes, cut


async def test_a_required_call_of_the_first_generation(qwen1: QwenChat) -> None:
    rules = build.calls([WEATHER], "react", required=True, parallel=False)
    wanted = replace(
        held(rules, Sampling(temperature=1.0, max_tokens=700)),
        tools=(WEATHER,),
        tool_syntax="react",
    )
    ended = 0
    async with serving(qwen1) as engine:
        for seed in range(2):
            sampling = replace(wanted.sampling, seed=seed)
            events = await collect(engine, replace(wanted, sampling=sampling))
            guard = Guard(rules)
            assert guard.feed(text_of(events))
            if finish_of(events).reason == "stop":
                ended += 1
                assert guard.is_complete
                assert re.search(CALLED, text_of(events))
    assert ended


async def test_the_same_seed_gives_the_same_answer(qwen2: QwenChat) -> None:
    asked = Sampling(temperature=1.5, seed=7, max_tokens=30, logit_bias=((5, 3.0),), logprobs=2)
    rules = build.regex("[a-z ]{20,}")
    async with serving(qwen2) as engine:
        for wanted in (job("hello", asked), held(rules, asked)):
            first, again = [await collect(engine, wanted) for _ in range(2)]
            assert first == again
            other = await collect(engine, replace(wanted, sampling=replace(asked, seed=8)))
            assert text_of(other) != text_of(first)


async def test_what_is_not_asked_for_changes_nothing(qwen2: QwenChat) -> None:
    plain = Sampling(temperature=1.0, seed=3, max_tokens=40)
    async with serving(qwen2) as engine:
        expected = await collect(engine, job("hello", plain))
        told = await collect(engine, job("hello", replace(plain, logprobs=5)))
        zero = await collect(engine, job("hello", replace(plain, logit_bias=((1, 0.0),))))
    assert [_bare(event) for event in told] == expected == zero


def _bare(event: Event) -> Event:
    return replace(event, logprobs=()) if isinstance(event, Text) else event


def logprobs_of(events: list[Event]) -> list[TokenLogprob]:
    return [each for event in events if isinstance(event, Text) for each in event.logprobs]


@pytest.mark.parametrize("count", [0, 3])
async def test_each_token_of_the_text_has_its_logprob_and_its_bytes(
    qwen2: QwenChat, count: int
) -> None:
    """Broken characters of a random model included; the token that ends an answer has none."""
    async with serving(qwen2) as engine:
        for seed in range(4):
            sampling = Sampling(temperature=1.3, seed=seed, max_tokens=40, logprobs=count)
            events = await collect(engine, job("hello", sampling))
            told, finish = logprobs_of(events), finish_of(events)
            raw = b"".join(each.raw for each in told)
            assert raw.decode("utf-8", "replace") == text_of(events)
            assert finish.completion_tokens == len(told) + (finish.reason == "stop")
            for event in events:
                if isinstance(event, Text):
                    assert len(event.logprobs) <= event.tokens == 1
            for each in told:
                assert each.text == each.raw.decode("utf-8", "replace")
                assert each.logprob <= 0
                assert len(each.top) == count
                assert all(not other.top for other in each.top)
                likely = [other.logprob for other in each.top]
                assert likely == sorted(likely, reverse=True)


async def test_a_character_of_several_tokens_has_an_entry_for_each(qwen2: QwenChat) -> None:
    sampling = Sampling(temperature=0.0, max_tokens=20, logprobs=1)
    async with serving(qwen2) as engine:
        events = await collect(engine, held(build.choice(["🦙"]), sampling))
    assert text_of(events) == "🦙"
    told = logprobs_of(events)
    assert b"".join(each.raw for each in told) == "🦙".encode()
    assert len(told) == 4
    assert [event.text for event in events if isinstance(event, Text)] == ["", "", "", "🦙", ""]
    assert finish_of(events).completion_tokens == 5


async def test_bias_bans_and_forces(qwen2: QwenChat) -> None:
    plain = Sampling(temperature=0.0, max_tokens=12)
    (a,) = qwen2.renderer.raw(RawPrompt("a"))
    async with serving(qwen2) as engine:
        forced = replace(plain, logit_bias=((a, 100.0),))
        assert text_of(await collect(engine, job("hello", forced))) == "a" * 12
        before = await collect(engine, job("hello", replace(plain, logprobs=0)))
        used = {each.raw for each in logprobs_of(before)}
        ids = [n for n in range(256) if qwen2.renderer.pieces([n])[0] in used]
        banned = replace(plain, logit_bias=tuple((n, -100.0) for n in ids), logprobs=0)
        after = await collect(engine, job("hello", banned))
        gone = {qwen2.renderer.pieces([n])[0] for n in ids}
        assert not gone & {each.raw for each in logprobs_of(after)}


async def test_stop_token_ids_end_an_answer_without_their_text(qwen2: QwenChat) -> None:
    plain = Sampling(temperature=0.0, max_tokens=12, logprobs=0)
    async with serving(qwen2) as engine:
        whole = logprobs_of(await collect(engine, job("hello", plain)))
        ids = {qwen2.renderer.pieces([n])[0]: n for n in range(256)}
        raw = next(each.raw for each in whole[3:] if each.raw in ids)
        place = [each.raw for each in whole].index(raw)
        stopped = replace(plain, stop_token_ids=(ids[raw],))
        events = await collect(engine, job("hello", stopped))
        assert [each.raw for each in logprobs_of(events)] == [each.raw for each in whole[:place]]
        assert finish_of(events).reason == "stop"
        assert finish_of(events).completion_tokens == place + 1
        later = replace(stopped, min_tokens=12)
        events = await collect(engine, job("hello", later))
        assert raw not in [each.raw for each in logprobs_of(events)]
        assert finish_of(events).completion_tokens == 12


def ends_of(model: QwenChat) -> tuple[int, ...]:
    ids = (model.renderer.token_id(token) for token in ("<|im_end|>", "<|endoftext|>"))
    return tuple(number for number in ids if number is not None)


async def test_what_would_end_an_answer_waits_for_min_tokens(qwen2: QwenChat) -> None:
    """The bias would end it at once."""
    eager = Sampling(
        temperature=0.0, max_tokens=12, logit_bias=tuple((n, 100.0) for n in ends_of(qwen2))
    )
    async with serving(qwen2) as engine:
        for least, tokens, reason in ((0, 1, "stop"), (5, 6, "stop"), (12, 12, "length")):
            sampling = replace(eager, min_tokens=least)
            finish = finish_of(await collect(engine, job("hello", sampling)))
            assert (finish.completion_tokens, finish.reason) == (tokens, reason)


async def test_with_ignore_eos_only_what_the_caller_names_ends_it(qwen2: QwenChat) -> None:
    eager = Sampling(
        temperature=0.0,
        max_tokens=12,
        ignore_eos=True,
        logit_bias=tuple((n, 100.0) for n in ends_of(qwen2)),
    )
    async with serving(qwen2) as engine:
        finish = finish_of(await collect(engine, job("hello", eager)))
        assert (finish.completion_tokens, finish.reason) == (12, "length")
        named = replace(eager, stop_token_ids=ends_of(qwen2))
        finish = finish_of(await collect(engine, job("hello", named)))
        assert (finish.completion_tokens, finish.reason) == (1, "stop")


async def test_a_grammar_comes_before_ignore_eos_and_min_tokens(qwen2: QwenChat) -> None:
    """No adapter lets both through; an answer that must end ends all the same."""
    sampling = Sampling(temperature=0.0, max_tokens=20, ignore_eos=True, min_tokens=20)
    async with serving(qwen2) as engine:
        events = await collect(engine, held(build.choice(["yes"]), sampling))
    assert (text_of(events), finish_of(events).reason) == ("yes", "stop")


async def test_thoughts_come_before_what_a_grammar_holds(
    qwen2_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "thinker"
    shutil.copytree(qwen2_folder, folder)
    file = folder / "tokenizer_config.json"
    template = json.loads(file.read_bytes())["chat_template"]
    opened = template.replace(
        "<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n' }}"
    )
    assert opened != template
    file.write_text(json.dumps({"chat_template": opened}), "utf-8")
    model = QwenChat.from_pretrained(folder)
    close = model.renderer.token_id("</think>")
    assert close is not None
    sampling = Sampling(temperature=0.0, max_tokens=12, logit_bias=((close, 100.0),))
    async with serving(model) as engine:
        assert engine.info().thinking == "always"
        wanted = replace(held(build.choice(["yes"]), sampling), thinks=True)
        events = await collect(engine, wanted)
    assert getattr(events[0], "in_thought", None) is True
    assert re.fullmatch(r"</think>\n*yes", text_of(events))
    assert finish_of(events).reason == "stop"
