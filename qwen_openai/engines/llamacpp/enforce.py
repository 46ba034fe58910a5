"""Carries on answers that llama.cpp let stray from their grammar, one token at a time.

For each token our own llguidance says which may come, and llama.cpp picks one of them by the job's
sampling. A step finds what came before it in its slot's memory; where another request has taken the
slot meanwhile it is slower, and still right. Knows no jobs; `steps` has what needs no waiting.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol, TypeVar

from qwen_openai.core import Event
from qwen_openai.engines.llamacpp.answers import Answer
from qwen_openai.engines.llamacpp.chunks import Picked, read_step
from qwen_openai.engines.llamacpp.requests import Body, named
from qwen_openai.engines.llamacpp.steps import Kept, Letters, Stepper
from qwen_openai.engines.masks import TokenMasks
from qwen_openai.errors import EngineFailed, InvalidRequest

_T = TypeVar("_T")


class InThread(Protocol):
    """Runs CPU work off the event loop; cancelled, it waits for the end of what has begun."""

    def __call__(self, call: Callable[[], _T]) -> Awaitable[_T]: ...


class Enforcer:
    """One an engine; makes the vocabulary's masks when they are first needed, and keeps them.
    ``count`` is how many answers it was asked to carry on."""

    def __init__(self, submit: Callable[[Body], Answer], in_thread: InThread) -> None:
        self._submit = submit
        self._in_thread = in_thread
        self._making = asyncio.Lock()
        self._masks: TokenMasks | None = None
        self.count = 0

    async def go_on(
        self, kept: Kept, make_masks: Callable[[], TokenMasks]
    ) -> AsyncGenerator[Event, None]:
        """Yield the rest of an answer, its Finish at last.

        Raises InvalidRequest where the grammar is too much for our masks too and nothing of the
        answer has been sent, EngineFailed where something has, and what the child fails with.
        """
        self.count += 1
        letters = Letters(kept)
        try:
            masks = await self._ready_masks(make_masks)
            stepper = await self._in_thread(functools.partial(Stepper, kept, masks))
        except EngineFailed as error:
            raise _last_word(kept, letters, error) from error
        token: int | None = None
        while not letters.is_full:
            try:
                step = await self._in_thread(functools.partial(stepper.next, token))
            except EngineFailed as error:
                raise _last_word(kept, letters, error) from error
            picked = Picked(step, None) if isinstance(step, int) else await self._pick(kept, step)
            token = picked.token
            if letters.is_end(token):
                yield letters.stop()
                return
            for event in letters.add(picked):
                yield event
        yield letters.cut()

    async def _ready_masks(self, make: Callable[[], TokenMasks]) -> TokenMasks:
        async with self._making:
            if self._masks is None:
                self._masks = await self._in_thread(make)
            return self._masks

    async def _pick(self, kept: Kept, body: Body) -> Picked:
        """Have llama.cpp pick a token. Raises EngineFailed."""
        picked = await self._ask(kept, body) or await self._ask(kept, named(body))
        if picked is None:
            raise EngineFailed("The engine ended the answer without a token. Send it again.")
        return picked

    async def _ask(self, kept: Kept, body: Body) -> Picked | None:
        answer = self._submit(body)
        try:
            read: Picked | bool = True
            while read is True:
                read = read_step(await answer.chunk(), kept.held.ask)
            # One token was asked for: it stops of itself.
            answer.ended = True
            await answer.end()
        finally:
            answer.leave()
        return read or None


def _last_word(kept: Kept, letters: Letters, error: EngineFailed) -> EngineFailed | InvalidRequest:
    if letters.tokens and kept.held.watched:
        return error
    return InvalidRequest(
        f"What {kept.held.param} asks for is too complex to hold an answer to it. Ask for "
        "something simpler: shorter patterns, texts and counts.",
        param=kept.held.param,
    )
