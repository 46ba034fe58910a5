"""Answers that llama.cpp lets stray, carried on by steps: their logic, on a scripted child."""

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from qwen_openai.core import Event, Finish, Started, Text, TokenLogprob
from qwen_openai.engines.llamacpp.answers import Answer
from qwen_openai.engines.llamacpp.chunks import Ask, Translator
from qwen_openai.engines.llamacpp.enforce import Enforcer
from qwen_openai.engines.llamacpp.frames import Frame, Kind
from qwen_openai.engines.llamacpp.requests import Body
from qwen_openai.engines.llamacpp.steps import Held, Kept
from qwen_openai.engines.masks import TokenMasks
from qwen_openai.errors import ApiError, EngineFailed, InvalidRequest
from qwen_openai.grammars.guard import Guard
from qwen_openai.models.describe import describe
from qwen_openai.prompting.bpe import Bpe
from tests.engines.contract import text_of
from tests.engines.test_chunks import chunk, last, probability, progress
from tests.models.tiny_gguf import write_tiny_model

PROMPT = [1, 2, 3]
CALLER = r"start: /exactly \"this\" 🦜 (yes|no)!/"
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Bpe:
    folder = tmp_path_factory.mktemp("vocabulary")
    describe(write_tiny_model(folder / "tiny.gguf"), folder)
    return Bpe(folder / "tokenizer.json")


class Child:
    """Picks, of what a request allows, one of the bytes that it likes; else the lowest id."""

    def __init__(self, bpe: Bpe, wanted: str) -> None:
        self.bodies: list[Body] = []
        self.open: dict[int, Answer] = {}
        self.cancelled: list[int] = []
        self.failing: ApiError | None = None
        self.silent = False
        self._bpe = bpe
        self._wanted = wanted.encode()
        self._held: int | None = None

    def submit(self, body: Body) -> Answer:
        assert not self.open, "the slot has room for one"
        self.bodies.append(body)
        number = len(self.bodies)
        answer = Answer(number, forget=self._forget, cancel=self.cancelled.append)
        self.open[number] = answer
        if self.failing is not None:
            answer.fail(self.failing)
        elif not self.silent:
            for payload in self._chunks(body):
                answer.push(Frame(Kind.CHUNK, number, payload))
            answer.push(Frame(Kind.END, number, b""))
        return answer

    def _forget(self, number: int) -> bool:
        return self.open.pop(number, None) is not None

    def _chunks(self, body: Body) -> Iterator[bytes]:
        token = self._pick(body) if self._held is None else self._held
        raw = self._bpe.piece(token)
        whole = raw.isascii() or raw[-1] < 0xC0
        if body.get("stream") is False:
            self._held = None
            yield chunk("?", (token,), 1, finish_reason="length")
            return
        yield progress(2, 3)
        if whole:
            probabilities = [probability(raw, -0.5, (token, -0.5), id=token)]
            yield chunk("", (token,), 1, probabilities=probabilities)
        else:
            self._held = token
        yield last("length", 1)

    def _pick(self, body: Body) -> int:
        found = re.fullmatch(r"%llguidance \{\}\nstart: <\[([0-9,-]+)\]>\n", str(body["grammar"]))
        assert found
        runs = [run.split("-") for run in found[1].split(",")]
        allowed = [n for low, high in runs for n in range(int(low), int(high) + 1)]
        liked = [n for n in allowed if self._bpe.piece(n) in self._wanted]
        return (liked or allowed)[0]


class Bench:
    """An answer held to a grammar, as the engine has it."""

    def __init__(
        self,
        bpe: Bpe,
        grammar: str = CALLER,
        *,
        wanted: str = "",
        stops: frozenset[int] = frozenset(),
        logprobs: int | None = None,
        **changed: object,
    ) -> None:
        self.ends = frozenset((bpe.control["<|im_end|>"], bpe.control["<|endoftext|>"]))
        ask = Ask(Started(2, 3), self.ends | stops, logprobs, bpe.piece)
        values: dict[str, object] = {
            "ask": ask,
            "body": {"seed": 7, "stream": True, "cache_prompt": False, "logit_bias": [[1, 2.0]]},
            "grammar": grammar,
            "ids": PROMPT,
            "max_tokens": 200,
            "ends": self.ends,
            "stops": stops,
            "param": "response_format",
            "watched": True,
            **changed,
        }
        self.bpe = bpe
        self.child = Child(bpe, wanted)
        held = Held(**values)  # type: ignore[arg-type]  # named by the tests
        self.kept = Kept(held, Guard.of_whole(grammar))
        self.translator = Translator(ask)
        self.made = 0

    def said(self, *payloads: bytes) -> list[Event]:
        """What comes of llama.cpp's own answer."""
        events: list[Event] = []
        for payload in payloads:
            events += self.kept.take(self.translator.feed(payload), self.translator.ids)
        return events

    async def rest(self) -> list[Event]:
        return [event async for event in self.go_on()]

    def go_on(self) -> AsyncGenerator[Event, None]:
        return Enforcer(self.child.submit, self._in_thread).go_on(self.kept, self._masks)

    def _masks(self) -> TokenMasks:
        self.made += 1
        return TokenMasks(self.bpe, 512, self.ends)

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return call()


def spelled(bpe: Bpe, text: str) -> Sequence[int]:
    return bpe.encode(text)


def test_what_keeps_to_the_grammar_is_let_out(bpe: Bpe) -> None:
    bench = Bench(bpe)
    events = bench.said(progress(4, 4), chunk("exactly", (9,), 1), chunk(' "this"', (9,), 3))
    assert events == [Started(2, 3, 4), Text(2, "exactly"), Text(2, ' "this"', 2)]
    assert not bench.kept.left
    assert (bench.kept.tokens, bench.kept.cached_tokens) == (3, 4)
    events = bench.said(chunk(" 🦜 no!", (9,), 4), last("stop", 5, 4))
    assert events == [Text(2, " 🦜 no!"), Finish(2, "stop", 5, 4)]
    assert not bench.kept.left


def test_what_strays_is_not_let_out(bpe: Bpe) -> None:
    bench = Bench(bpe)
    assert bench.said(progress(0, 0), chunk("exactly", (9,), 1), chunk(" that", (9,), 2))[1:] == [
        Text(2, "exactly")
    ]
    assert bench.kept.left


@pytest.mark.parametrize(
    ("reason", "stops", "left"),
    [("stop", (), True), ("length", (), False), ("stop", (9,), False)],
)
def test_an_end_too_early_is_none_unless_it_was_asked_for(
    bpe: Bpe, reason: str, stops: tuple[int, ...], left: bool
) -> None:
    bench = Bench(bpe, stops=frozenset(stops))
    ending = chunk("exactly", (9,), 2) if stops else last(reason, 1)
    events = bench.said(progress(0, 0), chunk("exactly", (8,), 1), ending)
    assert bench.kept.left is left
    assert isinstance(events[-1], Text if left else Finish)


@pytest.mark.parametrize(("wanted", "end"), [("y", "yes!"), ("n", "no!")])
async def test_steps_go_on_where_it_strayed(bpe: Bpe, wanted: str, end: str) -> None:
    bench = Bench(bpe, wanted=wanted)
    first = bench.said(progress(2, 2), chunk("exactly", (9,), 1), chunk(" that", (9,), 2))
    rest = await bench.rest()
    text = text_of(first + rest)
    assert text == f'exactly "this" 🦜 {end}'
    texts = [event for event in rest if isinstance(event, Text)]
    tokens = 1 + sum(event.tokens for event in texts)
    assert rest[-1] == Finish(2, "stop", tokens + 1, 2)
    assert [event.tokens for event in texts if "🦜" in event.text] == [4]
    assert not bench.child.open
    assert not bench.child.cancelled
    assert bench.made == 1


async def test_a_step_is_the_jobs_own_request_for_one_token(bpe: Bpe) -> None:
    bench = Bench(bpe, "start: /(ab|ba|cc)+/", max_tokens=4)
    bench.said(progress(0, 0), chunk("abba", tuple(spelled(bpe, "abba")), 1), chunk("!", (9,), 2))
    await bench.rest()
    before = PROMPT + list(spelled(bpe, "abba"))
    first, *others = bench.child.bodies
    assert first["prompt"][: len(before)] == before  # type: ignore[index]  # a list of ids
    assert (first["n_predict"], first["cache_prompt"]) == (1, True)
    assert first["logit_bias"] == [[1, 2.0]]
    seeds = [body["seed"] for body in (first, *others)]
    assert len(set(seeds)) == len(seeds)
    assert 7 not in seeds


async def test_the_limit_counts_both(bpe: Bpe) -> None:
    bench = Bench(bpe, "start: /(ab|ba|cc){30}/", max_tokens=6)
    bench.said(progress(0, 0), chunk("ab", (9,), 2), chunk("!", (9,), 3))
    rest = await bench.rest()
    assert rest[-1] == Finish(2, "length", 6, 0)
    assert sum(event.tokens for event in rest if isinstance(event, Text)) == 4


async def test_what_has_no_choice_is_not_asked_for_but_for_its_odds(bpe: Bpe) -> None:
    bench = Bench(bpe, 'start: "\\n"')
    bench.said(progress(0, 0), last("stop", 1))
    rest = await bench.rest()
    assert (text_of(rest), bench.child.bodies) == ("\n", [])
    bench = Bench(bpe, 'start: "\\n"', logprobs=1)
    bench.said(progress(0, 0), last("stop", 1))
    rest = await bench.rest()
    odds = TokenLogprob("\n", b"\n", -0.5)
    assert rest[0] == Text(2, "\n", 1, (TokenLogprob("\n", b"\n", -0.5, (odds,)),))
    assert len(bench.child.bodies) == 1


async def test_the_tokens_of_a_character_share_the_last_ones_odds(bpe: Bpe) -> None:
    bench = Bench(bpe, 'start: "🦜"', logprobs=0)
    bench.said(progress(0, 0), last("stop", 1))
    (text, finish) = await bench.rest()
    assert text == Text(2, "🦜", 4, (TokenLogprob("🦜", "🦜".encode(), -0.5),))
    assert finish == Finish(2, "stop", 5, 0)


async def test_a_stop_of_the_callers_ends_it(bpe: Bpe) -> None:
    (stop,) = spelled(bpe, "b")
    bench = Bench(bpe, "start: /ab+/", stops=frozenset((stop,)))
    bench.said(progress(0, 0), last("stop", 1))
    rest = await bench.rest()
    assert (text_of(rest), rest[-1]) == ("a", Finish(2, "stop", 2, 0))


@pytest.mark.parametrize(
    ("said", "watched", "error"),
    [("", True, InvalidRequest), ("abb", True, EngineFailed), ("abb", False, InvalidRequest)],
)
async def test_what_is_too_much_for_masks_too(
    bpe: Bpe, said: str, watched: bool, error: type[ApiError]
) -> None:
    bench = Bench(bpe, "start: /(ab|ba|bb)+/", watched=watched)
    bench.said(progress(0, 0), *([chunk(said, (9,), 1)] if said else []), chunk("!", (9,), 2))
    bench.kept.held = replace(bench.kept.held, grammar="start: %%%((")
    with pytest.raises(error) as caught:
        await bench.rest()
    assert caught.value.param == (None if error is EngineFailed else "response_format")
    assert not bench.child.open


async def test_a_child_that_fails_fails_the_answer(bpe: Bpe) -> None:
    bench = Bench(bpe)
    bench.said(progress(0, 0), last("stop", 1))
    bench.child.failing = EngineFailed("The engine process died.")
    with pytest.raises(EngineFailed, match="died"):
        await bench.rest()
    assert not bench.child.open


async def test_who_leaves_within_a_step_stops_it(bpe: Bpe) -> None:
    bench = Bench(bpe, logprobs=0)
    bench.said(progress(0, 0), last("stop", 1))
    events = bench.go_on()
    await anext(events)
    await events.aclose()
    assert not bench.child.open
