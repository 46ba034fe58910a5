"""Threads for prompts: what runs, what is dropped, and that nobody leaves work behind."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest

from qwen_openai.engines.llamacpp.workers import Workers


class Gate:
    """A call that lasts until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.ended = False
        self._error = error

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(60)
        self.ended = True
        if self._error is not None:
            raise self._error
        return threading.current_thread().name

    async def until_begun(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.to_thread(self.begun.wait)


@contextlib.asynccontextmanager
async def workers(count: int = 1) -> AsyncIterator[Workers]:
    made = Workers(count, "prompts")
    try:
        yield made
    finally:
        made.close()


async def turns(count: int = 20) -> None:
    """Let the loop go round, so that whatever could happen has happened."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_returns_and_raises_what_the_call_does() -> None:
    async with workers() as threads:
        gate = Gate()
        gate.open.set()
        assert (await threads.run(gate)).startswith("prompts")
        failing = Gate(ValueError("no"))
        failing.open.set()
        with pytest.raises(ValueError, match="no"):
            await threads.run(failing)


@pytest.mark.parametrize("error", [None, ValueError("nobody is told")])
@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_caller_who_leaves_stays_until_his_thread_is_free(
    error: Exception | None, cancels: int
) -> None:
    async with workers() as threads:
        gate = Gate(error)
        caller = asyncio.create_task(threads.run(gate))
        await gate.until_begun()
        for _ in range(cancels):
            caller.cancel()
            await turns()
            assert not caller.done()
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert gate.ended


async def test_a_call_not_begun_is_dropped_at_once() -> None:
    async with workers() as threads:
        gate, waiting = Gate(), Gate()
        holder = asyncio.create_task(threads.run(gate))
        await gate.until_begun()
        caller = asyncio.create_task(threads.run(waiting))
        await turns()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        gate.open.set()
        await holder
        assert not waiting.begun.is_set()


async def test_what_was_taken_is_run_after_closing_and_nothing_else() -> None:
    async with workers() as threads:
        gate = Gate()
        caller = asyncio.create_task(threads.run(gate))
        await gate.until_begun()
        threads.close()
        gate.open.set()
        assert await caller
        with pytest.raises(RuntimeError):
            await threads.run(gate)
