"""The llama.cpp engine on the real model: the contract, and what sampling and cancelling do."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
import pytest_asyncio

from qwen_openai.core import Event, Message, Sampling, Started, Text
from qwen_openai.engines.base import Engine
from qwen_openai.engines.llamacpp import LlamaCppEngine, LlamaCppOptions, Vocabulary
from qwen_openai.models.store import ModelFiles
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.renderer import PLAIN, Around, Rendered, Tokenised
from qwen_openai.prompting.template import ChatTemplate
from tests.engines.conftest import MakeEngine, Running
from tests.engines.contract import (
    EngineContract,
    collect,
    finish_of,
    job,
    started_of,
    text_of,
    until,
)

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(running: Running) -> AsyncIterator[LlamaCppEngine]:
    async with running() as engine:
        yield engine


class TestContract(EngineContract):
    @pytest.fixture
    def unstarted(self, make_engine: MakeEngine) -> Engine:
        return make_engine()


async def test_it_answers_in_chinese_and_english(engine: LlamaCppEngine) -> None:
    assert "你好" in text_of(await collect(engine, job("你好")))
    answer = text_of(await collect(engine, job("What is the capital of France?")))
    assert "Paris" in answer


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 - 1, -(2**63)])
async def test_a_seed_repeats_alone_with_the_cache_off(engine: LlamaCppEngine, seed: int) -> None:
    wanted = job(sampling=Sampling(temperature=1.0, seed=seed, max_tokens=16))
    first = await collect(engine, wanted)
    assert await collect(engine, wanted) == first


async def test_choices_of_one_seed_differ(engine: LlamaCppEngine) -> None:
    sampling = Sampling(temperature=1.0, seed=11, max_tokens=16)
    texts = {text_of(await collect(engine, job(sampling=sampling, choice=n))) for n in range(3)}
    assert len(texts) == 3


async def test_without_a_seed_answers_differ(engine: LlamaCppEngine) -> None:
    sampling = Sampling(temperature=1.2, max_tokens=16)
    assert len({text_of(await collect(engine, job(sampling=sampling))) for _ in range(3)}) > 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0, top_k=1, max_tokens=8),
        Sampling(temperature=1.0, top_p=1e-9, max_tokens=8),
        Sampling(temperature=1.0, min_p=1.0, max_tokens=8),
        Sampling(temperature=1e-45, max_tokens=8),
        Sampling(temperature=1e-3, max_tokens=8),
    ],
)
async def test_one_candidate_is_greedy(engine: LlamaCppEngine, sampling: Sampling) -> None:
    greedy = Sampling(temperature=0.0, max_tokens=8)
    wanted = text_of(await collect(engine, job(sampling=greedy)))
    assert text_of(await collect(engine, job(sampling=sampling))) == wanted


async def test_temperature_shapes_what_top_p_cuts(engine: LlamaCppEngine) -> None:
    # At temperature 2 the likely half is wide: cut after it, the text is free; before, greedy.
    greedy = text_of(await collect(engine, job(sampling=Sampling(temperature=0.0, max_tokens=12))))
    hot = Sampling(temperature=2.0, top_p=0.5, seed=1, max_tokens=12)
    cool = Sampling(temperature=0.1, top_p=0.5, seed=1, max_tokens=12)
    assert text_of(await collect(engine, job(sampling=hot))) != greedy
    assert text_of(await collect(engine, job(sampling=cool))) == greedy


async def test_penalties_change_the_answer_and_are_said(engine: LlamaCppEngine) -> None:
    plain = await collect(engine, job(sampling=Sampling(temperature=0.0, max_tokens=24)))
    sampling = Sampling(temperature=0.0, frequency_penalty=2.0, max_tokens=24)
    penalised = await collect(engine, job(sampling=sampling))
    assert text_of(penalised) != text_of(plain)
    assert "frequency_penalty counts the prompt's tokens too" in started_of(penalised).changes
    assert started_of(plain).changes == ()


@pytest.mark.parametrize("limit", range(1, 9))
async def test_an_answer_cut_inside_a_code_point_drops_its_bytes(
    engine: LlamaCppEngine, limit: int
) -> None:
    sampling = Sampling(temperature=0.0, max_tokens=limit)
    events = await collect(engine, job("Repeat only this: 🦜🦥🦙🦜🦥🦙🦜🦥🦙", sampling))
    assert "\ufffd" not in text_of(events)
    assert sum(e.tokens for e in events if isinstance(e, Text)) <= limit
    assert finish_of(events).completion_tokens == limit


@pytest.mark.parametrize("seed", range(2))
async def test_emoji_and_cjk_never_break(engine: LlamaCppEngine, seed: int) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.8, top_k=20, seed=seed, max_tokens=48)
    events = await collect(engine, job("用很多 emoji 和罕用汉字写一首诗。", sampling))
    assert "\ufffd" not in text_of(events)
    assert text_of(events).strip()


async def test_a_stop_id_that_the_vocabulary_does_not_know_ends_the_answer(
    running: Running, renderer: Renderer
) -> None:
    limit = Sampling(temperature=0.0, max_tokens=12)
    async with running() as engine:
        plain = [e for e in await collect(engine, job(sampling=limit)) if isinstance(e, Text)]
    # Find the id of a piece that comes later in the answer, and make it a stop.
    piece = plain[4].text
    before = [event.text for event in plain].index(piece)
    stop = next(n for n in range(renderer.vocab_size) if renderer.decode([n]) == piece)
    async with running(stops=(stop,)) as engine:
        events = await collect(engine, job(sampling=limit))
        assert text_of(events) == "".join(event.text for event in plain[:before])
        assert finish_of(events).reason == "stop"
        assert finish_of(events).completion_tokens == before + 1


async def test_the_cache_reuses_a_prompt(running: Running) -> None:
    async with running(slots=1, prompt_cache=True) as engine:
        sampling = Sampling(temperature=0.0, max_tokens=2)
        first = started_of(await collect(engine, job(sampling=sampling)))
        events = await collect(engine, job(sampling=sampling))
        assert first.cached_tokens == 0
        assert started_of(events).cached_tokens == first.prompt_tokens - 1
        assert finish_of(events).cached_tokens == first.prompt_tokens - 1


async def test_the_last_token_of_the_context_is_used(
    engine: LlamaCppEngine, renderer: Renderer
) -> None:
    context = engine.info().context
    spare = context - len(renderer.render((Message("user", "Write a story." + " river" * 9),)))
    events = await collect(engine, job("Write a story." + " river" * (9 + spare - 4)))
    assert started_of(events).prompt_tokens == context - 4
    assert finish_of(events).reason == "length"
    assert finish_of(events).completion_tokens == 4


# Alone, a first text takes one batch and one token, and twice that behind a job that has just left.
# A machine that is slow is slow for both; behind what nobody cancelled it would take 29 batches.
GUARD = 15


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def single(running: Running) -> AsyncIterator[LlamaCppEngine]:
    """One slot, so that a second job must wait for the first one's end."""
    async with running(slots=1, batch_tokens=32) as engine:
        yield engine


async def seconds_to_first_text(engine: LlamaCppEngine) -> float:
    begun = time.monotonic()
    async with aclosing(engine.generate(job("Hi"))) as events:
        async for event in events:
            if isinstance(event, Text):
                break
    return time.monotonic() - begun


async def test_a_stream_left_midway_gives_its_slot_to_the_next(single: LlamaCppEngine) -> None:
    limit = GUARD * await seconds_to_first_text(single)
    events = single.generate(job())
    seen: list[Event] = []
    while sum(isinstance(event, Text) for event in seen) < 3:
        seen.append(await anext(events))
    await events.aclose()
    # Its whole answer is 512 tokens.
    assert await seconds_to_first_text(single) < limit


async def test_a_prefill_left_ends_within_about_a_batch(single: LlamaCppEngine) -> None:
    limit = GUARD * await seconds_to_first_text(single)
    events = single.generate(job("word " * 900))
    assert isinstance(await anext(events), Started)
    await events.aclose()
    # Its whole prompt is 29 batches.
    assert await seconds_to_first_text(single) < limit


class Gated(Renderer):
    """Renders when it is let."""

    def __init__(self, bpe: Bpe, template: ChatTemplate) -> None:
        super().__init__(bpe, template)
        self.begun = threading.Event()
        self.gate = threading.Event()

    def compose(
        self,
        messages: Sequence[Message],
        around: Around = PLAIN,
        *,
        continue_final: bool = False,
        limit: int | None = None,
        known: Tokenised | None = None,
    ) -> Rendered:
        self.begun.set()
        assert self.gate.wait(60)
        return super().compose(
            messages, around, continue_final=continue_final, limit=limit, known=known
        )


async def test_a_job_left_while_its_prompt_is_rendered_holds_on_to_its_thread(
    options: LlamaCppOptions, model: ModelFiles, bpe: Bpe
) -> None:
    gated = Gated(bpe, ChatTemplate(model.description.template))
    engine = LlamaCppEngine(options, lambda: Vocabulary(gated, frozenset(), frozenset()))
    await engine.start()
    try:
        left = asyncio.create_task(collect(engine, job()))
        await asyncio.to_thread(gated.begun.wait, 60)
        left.cancel()
        await asyncio.wait((left,), timeout=0.1)
        assert not left.done()
        gated.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert engine.in_flight == 0
    finally:
        gated.gate.set()
        await engine.aclose()


async def test_a_waiting_job_that_leaves_is_never_begun(single: LlamaCppEngine) -> None:
    limit = GUARD * await seconds_to_first_text(single)
    holder = single.generate(job())
    await anext(holder)
    waiting = asyncio.create_task(anext(single.generate(job("word " * 900))))
    await until(lambda: single.in_flight == 2)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await holder.aclose()
    assert await seconds_to_first_text(single) < limit
