"""What an engine keeps that honours whole jobs: tokens as asked for, and answers that are bound.

Subclass `TokenContract`, and `GrammarContract` where the engine enforces grammars (the fake one
does not), and give them the fixtures of `contract.EngineContract`.
"""

import itertools
import json
import math
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from qwen_openai.core import Event, Grammar, Job, Message, RawPrompt, Sampling, Text, TokenLogprob
from qwen_openai.engines.base import Engine
from qwen_openai.errors import EngineUnavailable, InvalidRequest
from qwen_openai.grammars import build
from qwen_openai.grammars.guard import Guard
from tests.engines.contract import STORY, collect, finish_of, job, started_of, text_of

SHORT = Sampling(temperature=0.0, max_tokens=8)
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome"]},
        "people": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["city", "people"],
    "additionalProperties": False,
}


def wish(text: str = STORY, **sampling: object) -> Job:
    """A job of eight greedy tokens, but for what is said otherwise."""
    values = {"temperature": 0.0, "max_tokens": 8, **sampling}
    return job(text, Sampling(**values))  # type: ignore[arg-type]  # named by the tests


def raw(text: str | tuple[int, ...], sampling: Sampling = SHORT) -> Job:
    return Job("job", "model", (), sampling, prompt=RawPrompt(text))


def bound(text: str, rules: str, *, choice: int = 0, **sampling: object) -> Job:
    """A job that is held to rules."""
    values = {"temperature": 0.0, "max_tokens": 48, "seed": 5, **sampling}
    return Job(
        "job",
        "model",
        (Message("user", text),),
        Sampling(**values),  # type: ignore[arg-type]  # named by the tests
        choice=choice,
        grammar=Grammar(rules, "response_format"),
    )


def texts_of(events: Sequence[Event]) -> list[Text]:
    return [event for event in events if isinstance(event, Text)]


async def id_of(engine: Engine, piece: str) -> int:
    """The id of a piece of text that is one token."""
    (number,) = await engine.tokenize(raw(piece))
    return number


class TokenContract:
    """Tests of `engine` and `unstarted` fixtures, as `EngineContract`'s."""

    async def test_tokenize_tells_what_the_prompt_counts(self, engine: Engine) -> None:
        wanted = wish("Say hello to 世界.", max_tokens=1)
        ids = await engine.tokenize(wanted)
        assert len(ids) == started_of(await collect(engine, wanted)).prompt_tokens

    async def test_detokenize_gives_the_text_back(self, engine: Engine) -> None:
        text = "Hello there, 你好 🦜🦥 and  tail"
        ids = await engine.tokenize(raw(text))
        assert b"".join(await engine.detokenize(ids)) == text.encode()

    @pytest.mark.parametrize("number", [-1, 10**9])
    async def test_an_id_that_is_none_is_refused(self, engine: Engine, number: int) -> None:
        with pytest.raises(InvalidRequest):
            await engine.detokenize([number])

    async def test_before_start_nothing_is_tokenised(self, unstarted: Engine) -> None:
        with pytest.raises(EngineUnavailable):
            await unstarted.tokenize(job())
        await unstarted.aclose()

    async def test_a_raw_prompt_is_taken_as_it_is(self, engine: Engine) -> None:
        ids = await engine.tokenize(raw("The river runs"))
        for prompt in ("The river runs", tuple(ids)):
            started = started_of(await collect(engine, raw(prompt)))
            assert started.prompt_tokens == len(ids)
            assert not started.in_thought

    async def test_a_plain_model_does_not_begin_in_a_thought(self, engine: Engine) -> None:
        assert engine.info().thinking == "never"
        assert not started_of(await collect(engine, wish())).in_thought

    async def test_no_logprobs_unasked(self, engine: Engine) -> None:
        assert not any(event.logprobs for event in texts_of(await collect(engine, wish())))

    @pytest.mark.parametrize("count", [0, 1, 20])
    async def test_logprobs_are_true_to_the_text(self, engine: Engine, count: int) -> None:
        events = await collect(engine, wish(logprobs=count))
        assert text_of(events) == text_of(await collect(engine, wish()))
        for event in texts_of(events):
            assert len(event.logprobs) == event.tokens
            assert b"".join(token.raw for token in event.logprobs) == event.text.encode()
            for token in event.logprobs:
                self._check_logprob(token, count)

    def _check_logprob(self, token: TokenLogprob, count: int) -> None:
        assert token.text == token.raw.decode(errors="replace")
        assert token.logprob <= 0
        values = [other.logprob for other in token.top]
        assert len(values) == count
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1 + 1e-4
        assert not any(other.top for other in token.top)
        if token.top:  # greedy: it is the likeliest itself
            assert token.raw == token.top[0].raw
            assert token.logprob == token.top[0].logprob

    async def test_minus_100_bans(self, engine: Engine) -> None:
        first = texts_of(await collect(engine, wish()))[0].text
        number = await id_of(engine, first)
        events = await collect(engine, wish(logit_bias=((number, -100.0),)))
        assert first not in [event.text for event in texts_of(events)]
        assert text_of(events)

    async def test_plus_100_forces(self, engine: Engine) -> None:
        piece = texts_of(await collect(engine, wish()))[1].text
        number = await id_of(engine, piece)
        events = await collect(engine, wish(logit_bias=((number, 100.0),), max_tokens=3))
        assert [event.text for event in texts_of(events)] == [piece] * 3

    async def test_ignore_eos_runs_to_the_limit(self, engine: Engine) -> None:
        events = await collect(engine, wish("Say hello.", ignore_eos=True, max_tokens=40))
        assert finish_of(events).reason == "length"
        assert finish_of(events).completion_tokens == 40

    async def test_before_min_tokens_nothing_ends_the_answer(self, engine: Engine) -> None:
        plain = finish_of(await collect(engine, wish("Say hello.", max_tokens=60)))
        assert plain.reason == "stop"
        assert plain.completion_tokens is not None
        least = plain.completion_tokens + 5
        events = await collect(engine, wish("Say hello.", max_tokens=120, min_tokens=least))
        finish = finish_of(events)
        assert finish.completion_tokens is not None
        assert finish.completion_tokens >= least
        exact = await collect(engine, wish("Say hello.", max_tokens=least, min_tokens=least))
        assert finish_of(exact).completion_tokens == least

    async def test_a_stop_token_ends_the_answer_and_is_not_sent(self, engine: Engine) -> None:
        pieces = [event.text for event in texts_of(await collect(engine, wish()))]
        stop = await id_of(engine, pieces[3])
        before = pieces.index(pieces[3])
        for least in (0, before):
            events = await collect(engine, wish(stop_token_ids=(stop,), min_tokens=least))
            assert text_of(events) == "".join(pieces[:before])
            assert finish_of(events).reason == "stop"
            assert finish_of(events).completion_tokens == before + 1
        events = await collect(engine, wish(stop_token_ids=(stop,), min_tokens=8))
        assert finish_of(events).completion_tokens == 8

    async def test_a_cut_stream_has_counted_what_it_sent(self, engine: Engine) -> None:
        whole = texts_of(await collect(engine, wish()))
        seen: list[Text] = []
        async with aclosing(engine.generate(wish())) as events:
            async for event in events:
                if isinstance(event, Text):
                    seen.append(event)
                if len(seen) == 3:
                    break
        assert seen == whole[:3]
        assert list(itertools.accumulate(event.tokens for event in seen))[-1] >= 3


class GrammarContract:
    """For engines that hold answers to grammars; of `engine` fixtures."""

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    @pytest.mark.parametrize("choice", [0, 1])
    async def test_json_keeps_to_its_schema(
        self, engine: Engine, temperature: float, choice: int
    ) -> None:
        rules = build.json_schema(SCHEMA)
        wanted = bound("Tell of a city.", rules, choice=choice, temperature=temperature)
        events = await collect(engine, wanted)
        assert finish_of(events).reason == "stop"
        self._check(rules, events)
        answer = json.loads(text_of(events))
        assert answer["city"] in ("Paris", "Rome")
        assert 1 <= answer["people"] <= 99

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    async def test_text_keeps_to_its_pattern(self, engine: Engine, temperature: float) -> None:
        rules = build.regex("[0-9]{3}-[0-9]{4}")
        wanted = bound("Hello!", rules, temperature=temperature)
        self._check(rules, await collect(engine, wanted))

    async def test_text_is_one_of_the_choices(self, engine: Engine) -> None:
        rules = build.choice(["red wine", "green tea", "水"])
        self._check(rules, await collect(engine, bound("How much is 2 + 2?", rules)))

    async def test_a_ban_does_not_break_a_format(self, engine: Engine) -> None:
        rules = build.regex("7{4}")
        seven = await id_of(engine, "7")
        wanted = bound("Hello!", rules, logit_bias=((seven, -100.0),), ignore_eos=True)
        self._check(rules, await collect(engine, wanted))

    async def test_a_cut_answer_says_length(self, engine: Engine) -> None:
        rules = build.json_schema(SCHEMA)
        events = await collect(engine, bound("Tell of a city.", rules, max_tokens=3))
        assert finish_of(events).reason == "length"
        assert Guard(rules).feed(text_of(events))

    async def test_logprobs_beside_a_format_are_the_models_own(self, engine: Engine) -> None:
        rules = build.choice(["zebra zebra"])
        events = await collect(engine, bound("Say hello.", rules, logprobs=2))
        tokens = [token for event in texts_of(events) for token in event.logprobs]
        assert b"".join(token.raw for token in tokens) == b"zebra zebra"
        # The model would have said something else: the format has not changed its odds.
        assert tokens[0].logprob < tokens[0].top[0].logprob

    def _check(self, rules: str, events: list[Event]) -> None:
        guard = Guard(rules)
        assert guard.feed(text_of(events))
        assert guard.is_complete
        assert finish_of(events).reason == "stop"
