"""The service: admission, then the engine, then the parser chain, as one stream of events.

The only module that knows this order. It runs the jobs of a request, each of one choice, side by
side, and it looks at the first real event before anybody sends headers, so that an early failure
keeps its true HTTP status. No HTTP, no wire shapes.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

from qwen_openai.core import (
    Admitted,
    Event,
    Extra,
    Finish,
    Grammar,
    Job,
    Routed,
    Started,
)
from qwen_openai.engines.base import Engine
from qwen_openai.errors import InvalidRequest
from qwen_openai.gateway.admission import UNCLAIMED, Admission, Claim, Ticket
from qwen_openai.gateway.alarm import Alarm, too_late
from qwen_openai.grammars.guard import Guard
from qwen_openai.parsing.chain import Chain

Watch = Callable[[Event], None]
"""Told every event of a request as it happens, also those before a failure."""

# What comes before an answer's first event, and does not yet prove that there will be one.
_BEFORE = (Admitted, Routed, Extra, Started)

# Events of a fanned-out request that may wait for a slow reader before its choices pause.
_MERGE_BUFFER = 64


class Opened:
    """A stream whose first real event has arrived.

    ``changes`` is everything that adapter and engine altered. Iterate it once; always `aclose` it.
    """

    __slots__ = ("_events", "_seen", "changes")

    def __init__(
        self, changes: tuple[str, ...], seen: list[Event], events: AsyncGenerator[Event, None]
    ) -> None:
        self.changes = changes
        self._seen = seen
        self._events = events

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        for event in self._seen:
            yield event
        async for event in self._events:
            yield event

    async def aclose(self) -> None:
        """Cancel what is left of the work. Twice does no harm."""
        await self._events.aclose()


class ChatService:
    """Runs jobs on one engine, `Admission` in front of it."""

    def __init__(self, engine: Engine, *, queue_size: int) -> None:
        self.engine = engine
        self._slot_seconds = 5.0
        self.admission = Admission(
            engine.info().slots, queue_size, expected_seconds=lambda: self._slot_seconds
        )

    def resize(self) -> None:
        """Take the number of slots that the engine has now, which a pool's may change."""
        self.admission.resize(self.engine.info().slots)

    async def open_all(
        self, jobs: Sequence[Job], claim: Claim = UNCLAIMED, watch: Watch | None = None
    ) -> Opened:
        """Start jobs that are one request, and wait for the first event of any answer.

        Each makes one choice, whatever its ``n``: their ``choice`` are 0, 1, 2 and so on. Raises
        every ApiError that can happen before that event: Overloaded, EngineUnavailable,
        DeadlineExceeded, ContextLengthExceeded, EngineFailed and what upstreams fail with.
        """
        events = self.stream_all(jobs, claim)
        if claim.earliest is not None:
            events = _in_time(events, claim)
        if watch is not None:
            events = _watched(events, watch)
        seen: list[Event] = []
        changes = tuple(dict.fromkeys(change for job in jobs for change in job.changes))
        try:
            async for event in events:
                seen.append(event)
                if not isinstance(event, _BEFORE):
                    break
                if not isinstance(event, Started):
                    continue
                changes += tuple(change for change in event.changes if change not in changes)
        except BaseException:
            await events.aclose()
            raise
        return Opened(changes, seen, events)

    def stream_all(
        self, jobs: Sequence[Job], claim: Claim = UNCLAIMED
    ) -> AsyncGenerator[Event, None]:
        """All events of all jobs. Closing the generator cancels the work.

        Raises here and now Overloaded when the queue is full, and InvalidRequest for more answers
        than ever fit, which no retry could mend.
        """
        room = self.admission.slots + self.admission.queue_size
        if len(jobs) > room:
            n = jobs[0].n
            several = n < len(jobs)
            asked = f"{len(jobs)} answers are asked for" if several else f"n is {n}"
            raise InvalidRequest(
                f"{asked}; this server makes at most {room} answers at once.",
                param="prompt" if several else "n",
            )
        tickets = self.admission.enter(len(jobs), claim)
        grammar = jobs[0].grammar
        guards = None
        if grammar is not None and not self.engine.info().hands_on:
            guards = _Guards(grammar, thinks=jobs[0].thinks)
        streams = [self._choice(*pair, guards) for pair in zip(jobs, tickets, strict=True)]
        return streams[0] if len(streams) == 1 else _merge(streams, tickets)

    async def _choice(
        self, job: Job, ticket: Ticket, guards: "_Guards | None"
    ) -> AsyncGenerator[Event, None]:
        asked = time.monotonic()
        begun = 0.0
        finish: Finish | None = None
        prompt: int | None = None
        seen = 0
        try:
            await ticket.granted()
            begun = time.monotonic()
            yield Admitted(job.choice, begun - asked)
            guard = None if guards is None else await guards.make()
            chain = Chain(job, guard, handed_on=self.engine.info().hands_on)
            async with aclosing(self.engine.generate(job)) as events:
                async for event in events:
                    seen += 1
                    if prompt is None and isinstance(event, Started):
                        prompt = event.prompt_tokens
                    for refined in chain.feed(event):
                        if isinstance(refined, Finish):
                            finish = refined
                            break
                        yield refined
                    if finish is not None:
                        break
        finally:
            # An answer that was cut short has about a token for each event.
            made = (finish and finish.completion_tokens) or seen
            ticket.release(None if prompt is None else prompt + made)
            if begun:
                self._slot_seconds += (time.monotonic() - begun - self._slot_seconds) * 0.2
        # Only now, with the engine's work ended and the slot free: the reader may take its time.
        if finish is not None:
            yield finish


async def _in_time(
    events: AsyncGenerator[Event, None], claim: Claim
) -> AsyncGenerator[Event, None]:
    """The same events. Raises DeadlineExceeded when the claim's time is over before the last one,
    or before the first one of an answer."""
    alarm = Alarm()
    beginning = claim.begin_by is not None
    alarm.set(_seconds_until(claim.earliest))
    try:
        async with aclosing(events):
            alarm.awaiting()
            async for event in events:
                alarm.idle()
                if beginning and not isinstance(event, _BEFORE):
                    beginning = False
                    alarm.set(_seconds_until(claim.deadline))
                yield event
                alarm.awaiting()
    except asyncio.CancelledError:
        if not alarm.over():
            raise
        raise too_late() from None
    finally:
        alarm.stop()


def _seconds_until(moment: float | None) -> float | None:
    return None if moment is None else moment - time.monotonic()


async def _watched(
    events: AsyncGenerator[Event, None], watch: Watch
) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        async for event in events:
            watch(event)
            yield event


class _Guards:
    """The guards of one request, whose jobs all have the same grammar: compiled once, in a thread,
    when the first of them has its slot."""

    __slots__ = ("_first", "_grammar", "_making", "_thinks")

    def __init__(self, grammar: Grammar, *, thinks: bool) -> None:
        self._grammar = grammar
        self._thinks = thinks
        self._making = asyncio.Lock()
        self._first: Guard | None = None

    async def make(self) -> Guard:
        """Return a guard before any text. Raises EngineFailed, and InvalidRequest for a format
        that has the tag of thoughts at its beginning where the model writes thoughts there."""
        async with self._making:
            if self._first is None:
                self._first = await asyncio.to_thread(self._compiled)
        return self._first.fresh()

    def _compiled(self) -> Guard:
        guard = Guard(self._grammar.rules)
        # A format that would take another tag too, such as any text, does not mean this one.
        named = guard.fresh().feed("<think>") and not guard.fresh().feed("<thinq>")
        if self._thinks and named:
            raise InvalidRequest(
                f"{self._grammar.param}: its text may begin with <think>, as this model's thoughts "
                "do, and nobody could tell them apart. Turn thinking off, or leave the tag out.",
                param=self._grammar.param,
            )
        return guard


async def _merge(
    streams: list[AsyncGenerator[Event, None]], tickets: list[Ticket]
) -> AsyncGenerator[Event, None]:
    """Interleave streams as their events come; the first failure ends all of them."""
    queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(_MERGE_BUFFER)
    tasks = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    try:
        open_streams = len(tasks)
        while open_streams:
            item = await queue.get()
            if item is None:
                open_streams -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            # A stream that never ran has not released its own ticket.
            for ticket in tickets:
                ticket.release()


async def _pump(
    stream: AsyncIterator[Event], queue: "asyncio.Queue[Event | BaseException | None]"
) -> None:
    try:
        async with aclosing(stream) as events:  # type: ignore[type-var]
            async for event in events:
                await queue.put(event)
    except Exception as error:  # noqa: BLE001  # handed to the consumer, which raises it
        await queue.put(error)
    else:
        await queue.put(None)
