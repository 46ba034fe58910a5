"""Threads that may never end: what they return, and who can see that they have not."""

import asyncio
import threading

import pytest

from qwen_openai.engines.torch_model.threads import THREAD_NAME, in_thread, still_running
from tests.engines.contract import until


async def test_what_a_call_returns_or_raises_comes_back() -> None:
    seen: list[threading.Thread] = []

    def call() -> int:
        seen.append(threading.current_thread())
        assert seen[0].name == THREAD_NAME
        return 5

    assert await in_thread(call) == 5
    assert seen[0].daemon
    assert not still_running()

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await in_thread(fail)
    assert not still_running()


async def test_a_call_that_nobody_waits_for_runs_on() -> None:
    gate = threading.Event()
    waiting = asyncio.create_task(in_thread(gate.wait))
    await until(still_running)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert still_running()
    thread = next(each for each in threading.enumerate() if each.name == THREAD_NAME)
    gate.set()
    await asyncio.to_thread(thread.join)
    assert not still_running()


def test_a_loop_that_has_closed_hears_nothing() -> None:
    gate = threading.Event()

    async def leave() -> threading.Thread:
        waiting = asyncio.create_task(in_thread(gate.wait))
        await until(still_running)
        waiting.cancel()
        return next(each for each in threading.enumerate() if each.name == THREAD_NAME)

    thread = asyncio.run(leave())
    gate.set()
    thread.join()
    assert not still_running()
