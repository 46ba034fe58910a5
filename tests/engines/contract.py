"""What every engine keeps, as one suite: subclass `EngineContract` and give it an engine.

The same messages go to every engine: one that echoes and one that really answers both satisfy it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from qwen_openai.core import Event, Finish, Job, Message, Sampling, Started, Text
from qwen_openai.engines.base import Engine
from qwen_openai.errors import ApiError, ContextLengthExceeded, EngineUnavailable

GREEDY = Sampling(temperature=0.0)
_WORDS = ("river", "lantern", "mountain", "teacher", "orange", "window", "garden", "silver") * 8
STORY = "Write a long story with all of these words: " + " ".join(_WORDS)


def job(
    text: str = STORY,
    sampling: Sampling = GREEDY,
    *,
    n: int = 1,
    choice: int = 0,
    max_total: int | None = None,
) -> Job:
    """A job with one user message."""
    messages = (Message("user", text),)
    return Job("job", "model", messages, sampling, n=n, choice=choice, max_total=max_total)


async def drain(events: AsyncIterator[Event], into: list[Event]) -> None:
    """Read a stream to its end, keeping what came before an error."""
    async for event in events:
        into.append(event)


async def collect(engine: Engine, wanted: Job) -> list[Event]:
    """All events of a job."""
    async with aclosing(engine.generate(wanted)) as events:
        return [event async for event in events]


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition that another thread or process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def finish_of(events: list[Event]) -> Finish:
    """The last event, which must be the Finish."""
    assert isinstance(events[-1], Finish)
    return events[-1]


def started_of(events: list[Event]) -> Started:
    """The first event, which must be the Started."""
    assert isinstance(events[0], Started)
    return events[0]


class BareContract:
    """What even an engine on random weights keeps. Tests of an `engine` fixture: started, with a
    context of 512 or more, and an `unstarted` fixture: another one, not yet started, closed by its
    tests."""

    async def test_events_come_in_order(self, engine: Engine) -> None:
        events = await collect(engine, job(sampling=Sampling(temperature=0.0, max_tokens=6)))
        assert isinstance(events[0], Started)
        assert all(isinstance(event, Text) for event in events[1:-1])
        assert isinstance(events[-1], Finish)

    async def test_every_event_carries_the_choice(self, engine: Engine) -> None:
        sampling = Sampling(temperature=0.0, max_tokens=4)
        events = await collect(engine, job(sampling=sampling, n=3, choice=2))
        assert {event.index for event in events} == {2}

    @pytest.mark.parametrize("limit", [1, 2, 7])
    async def test_max_tokens_is_exact(self, engine: Engine, limit: int) -> None:
        events = await collect(engine, job(sampling=Sampling(temperature=0.0, max_tokens=limit)))
        assert finish_of(events).reason == "length"
        assert finish_of(events).completion_tokens == limit

    async def test_cancel_before_the_first_event(self, engine: Engine) -> None:
        for _ in range(engine.info().slots + 1):
            await engine.generate(job()).aclose()
        await self._all_slots_work(engine)

    async def test_cancel_while_waiting_for_the_first_event(self, engine: Engine) -> None:
        for _ in range(engine.info().slots + 1):
            first = asyncio.create_task(anext(engine.generate(job())))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await self._all_slots_work(engine)

    async def test_cancel_in_the_middle(self, engine: Engine) -> None:
        for _ in range(engine.info().slots + 1):
            async with aclosing(engine.generate(job())) as events:
                async for event in events:
                    if isinstance(event, Text):
                        break
        await self._all_slots_work(engine)

    async def test_cancel_after_the_end_does_nothing(self, engine: Engine) -> None:
        for _ in range(engine.info().slots + 1):
            events = engine.generate(job(sampling=Sampling(temperature=0.0, max_tokens=2)))
            async for event in events:
                if isinstance(event, Finish):
                    break
            await events.aclose()
            await events.aclose()
        await self._all_slots_work(engine)

    async def test_a_prompt_that_does_not_fit_is_refused_before_any_event(
        self, engine: Engine
    ) -> None:
        context = engine.info().context
        seen: list[Event] = []
        with pytest.raises(ContextLengthExceeded, match=str(context)) as caught:
            await drain(engine.generate(job("word " * (context + 1))), seen)
        assert seen == []
        assert caught.value.param == "messages"
        await self._all_slots_work(engine)

    async def test_an_answer_is_clamped_to_the_room_left_and_says_so(self, engine: Engine) -> None:
        context = engine.info().context
        async with aclosing(
            engine.generate(job(sampling=Sampling(temperature=0.0, max_tokens=context)))
        ) as events:
            started = await anext(events)
        assert isinstance(started, Started)
        room = context - started.prompt_tokens
        assert any(str(room) in change for change in started.changes)

    async def test_max_total_bounds_prompt_and_answer_together(self, engine: Engine) -> None:
        started = started_of(
            await collect(engine, job(sampling=Sampling(temperature=0.0, max_tokens=1)))
        )
        events = await collect(engine, job(max_total=started.prompt_tokens + 5))
        assert finish_of(events).reason == "length"
        assert finish_of(events).completion_tokens == 5

    async def test_health_and_info(self, engine: Engine) -> None:
        assert engine.health().ready
        assert engine.health().detail
        info = engine.info()
        assert info.context >= 512
        assert info.slots >= 1
        assert info.engine
        assert info.model
        assert info.device

    async def test_before_start_nothing_is_taken(self, unstarted: Engine) -> None:
        assert not unstarted.health().ready
        with pytest.raises(EngineUnavailable):
            await anext(unstarted.generate(job()))
        await unstarted.aclose()

    async def test_closing_ends_what_is_in_flight_and_may_be_repeated(
        self, unstarted: Engine
    ) -> None:
        await unstarted.start()
        events = unstarted.generate(job())
        await anext(events)
        await unstarted.aclose()
        await unstarted.aclose()
        async with asyncio.timeout(10):
            with contextlib.suppress(ApiError):
                await drain(events, [])
        assert not unstarted.health().ready
        with pytest.raises(EngineUnavailable):
            await anext(unstarted.generate(job()))

    async def _all_slots_work(self, engine: Engine) -> None:
        sampling = Sampling(temperature=0.0, max_tokens=2)
        async with asyncio.timeout(60):
            answers = await asyncio.gather(
                *(collect(engine, job(sampling=sampling)) for _ in range(engine.info().slots))
            )
        assert [finish_of(events).completion_tokens for events in answers] == [2] * len(answers)


class EngineContract(BareContract):
    """The same, and what takes a model that ends its answers, knows words and writes UTF-8.

    ``cuts`` are lengths of answers that may end inside a character; slow models take fewer."""

    cuts: tuple[int, ...] = (1, 2, 3, 5, 40)

    async def test_usage_adds_up(self, engine: Engine) -> None:
        events = await collect(engine, job("Say hello.", Sampling(temperature=0.0, max_tokens=64)))
        finish, started = finish_of(events), started_of(events)
        seen = sum(event.tokens for event in events if isinstance(event, Text))
        assert finish.reason == "stop"
        assert finish.completion_tokens in (seen, seen + 1)  # with or without a stop token
        assert started.prompt_tokens > 0
        assert 0 <= started.cached_tokens <= started.prompt_tokens

    async def test_jobs_at_once_each_get_their_own_text(self, engine: Engine) -> None:
        words = ("banana", "elephant", "guitar", "volcano")[: engine.info().slots]
        sampling = Sampling(temperature=0.0, max_tokens=24)
        answers = await asyncio.gather(
            *(collect(engine, job(f"Repeat this word: {word}", sampling)) for word in words)
        )
        for word, events in zip(words, answers, strict=True):
            text = text_of(events).lower()
            assert word in text
            assert not any(other in text for other in words if other != word)

    async def test_text_is_whole_code_points(self, engine: Engine) -> None:
        text = "Repeat this exactly: 🦜🦙 你好，世界 héllo 👩‍👩‍👧"
        for limit in self.cuts:
            sampling = Sampling(temperature=0.0, max_tokens=limit)
            for event in await collect(engine, job(text, sampling)):
                if isinstance(event, Text):
                    assert "\ufffd" not in event.text
                    event.text.encode()  # no half of a surrogate pair
