"""A cache too small for all answers at once: they take turns, and none is another for it."""

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from qwen_openai.engines.transformers.runner import Runner, Shape
from tests.engines.contract import until
from tests.engines.transformers.small import (
    PAGE,
    held,
    loop_of,
    read,
    running,
    small_model,
    track,
)

PAGES = 12
TIGHT = Shape(slots=6, pages=PAGES, page_size=PAGE, batch_tokens=40)


@pytest.fixture(scope="module")
def model(qwen2_folder: Path) -> PreTrainedModel:
    return small_model(qwen2_folder)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An answer of ``count`` tokens, of which its reader takes ``reads``."""

    prompt: list[int]
    count: int
    reads: int
    sampling: dict[str, object]


async def take(runner: Runner, wanted: Wanted, model: PreTrainedModel) -> list[int]:
    one = track(model, wanted.prompt, wanted.count, **wanted.sampling)
    if wanted.reads == wanted.count:
        return await read(runner, one)
    try:
        runner.submit(one)
        return [(await one.next()).token for _ in range(wanted.reads)]
    finally:
        runner.leave(one)


def some(seed: int, vocabulary: int) -> list[Wanted]:
    """Answers that together need several times the cache, some with a common beginning."""
    chance = random.Random(seed)
    head = [chance.randrange(vocabulary) for _ in range(2 * PAGE)]
    found = []
    for _ in range(8):
        own = [chance.randrange(vocabulary) for _ in range(chance.randrange(1, 20))]
        prompt = (head if chance.random() < 0.6 else []) + own
        count = chance.randrange(20, PAGES * PAGE - len(prompt) + 1)
        reads = chance.randrange(count) if chance.random() < 0.3 else count
        seeded = {"temperature": 1.0, "seed": seed} if chance.random() < 0.4 else {}
        found.append(Wanted(prompt, count, reads, dict(seeded)))
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_answers_that_take_turns_are_those_made_alone(
    model: PreTrainedModel, seed: int
) -> None:
    wanted = some(seed, model.config.vocab_size)
    async with running(model, TIGHT) as runner:
        alone = [await take(runner, one, model) for one in wanted]
        together = await asyncio.gather(*(take(runner, one, model) for one in wanted))
        rounds = loop_of(runner).rounds
        await until(lambda: not rounds.active_requests and runner.in_flight == 0)
        seen = rounds.round
        await until(lambda: rounds.round > seen)
        assert set(held(loop_of(runner)).values()) == {0}
        assert runner._deaths == 0
    assert together == alone


async def test_those_put_off_go_on_when_the_others_leave(model: PreTrainedModel) -> None:
    """transformers lets nobody in after it has put answers off, until one is complete: here all
    that could be complete leave."""
    async with running(model, TIGHT) as runner:
        rounds = loop_of(runner).rounds
        alone = await read(runner, track(model, [9, 1, 2], 90))
        first = track(model, [3, 1, 2], 90)
        runner.submit(first)
        await first.next()
        # The latest is put off first.
        late = asyncio.create_task(read(runner, track(model, [9, 1, 2], 90)))
        await until(lambda: rounds.block_new_requests)
        runner.leave(first)
        assert await late == alone


async def test_an_answer_may_fill_the_whole_cache(model: PreTrainedModel) -> None:
    prompt = [number % 50 for number in range(PAGES * PAGE - 6)]
    async with running(model, TIGHT) as runner:
        assert len(await read(runner, track(model, prompt, 6))) == 6
        assert runner._deaths == 0


async def test_prompts_that_begin_alike_share_pages(model: PreTrainedModel) -> None:
    head = [number % 50 for number in range(4 * PAGE)]
    async with running(model, TIGHT) as runner:
        first, second = track(model, [*head, 1], 3), track(model, [*head, 2], 3)
        await read(runner, first)
        await read(runner, second)
    assert (first.cached_tokens, second.cached_tokens) == (0, len(head))


async def test_more_answers_than_slots_take_turns(model: PreTrainedModel) -> None:
    shape = Shape(slots=2, pages=64, page_size=PAGE, batch_tokens=34)
    async with running(model, shape) as runner:
        prompts = [[number, 4, 5] for number in range(12)]
        alone = [await read(runner, track(model, prompt, 6)) for prompt in prompts]
        together = await asyncio.gather(
            *(read(runner, track(model, prompt, 6)) for prompt in prompts)
        )
    assert together == alone


async def test_a_reader_that_takes_its_time_holds_nobody_up(model: PreTrainedModel) -> None:
    async with running(model) as runner:
        slow = track(model, [1, 2, 3], 40)
        runner.submit(slow)
        assert len(await read(runner, track(model, [4, 5], 80))) == 80
        await until(lambda: slow.is_complete)
        assert len(slow._news) == 40
        assert slow.tokens == [(await slow.next()).token for _ in range(40)]
        runner.leave(slow)
