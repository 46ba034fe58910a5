"""A request's one timer: what it cuts short, and whose a cancellation is."""

import asyncio

import pytest

from qwen_openai.errors import DeadlineExceeded
from qwen_openai.gateway.alarm import Alarm


async def step(alarm: Alarm, wait: asyncio.Event) -> str:
    """One step of work, as a generator of events would await it."""
    alarm.awaiting()
    try:
        await wait.wait()
    except asyncio.CancelledError:
        return "rang" if alarm.over() else "cancelled"
    alarm.idle()
    return "done"


async def test_a_wait_is_cut_short_and_the_task_goes_on() -> None:
    alarm = Alarm()
    alarm.set(0.01)
    assert await step(alarm, asyncio.Event()) == "rang"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_who_was_slow_between_two_steps_hears_of_it_at_the_next() -> None:
    alarm = Alarm()
    alarm.set(0)
    done = asyncio.Event()
    done.set()
    assert await step(alarm, done) == "done"
    await asyncio.sleep(0.02)
    with pytest.raises(DeadlineExceeded, match="x-request-timeout"):
        alarm.awaiting()


async def test_one_that_was_stopped_or_set_to_never_does_not_ring() -> None:
    alarm = Alarm()
    alarm.set(0)
    alarm.set(None)
    await asyncio.sleep(0.01)
    alarm.awaiting()
    alarm.set(0)
    alarm.stop()
    alarm.stop()
    await asyncio.sleep(0.01)
    alarm.awaiting()


async def test_the_cancellation_of_another_goes_first() -> None:
    alarm = Alarm()
    work = asyncio.create_task(step(alarm, asyncio.Event()))
    await asyncio.sleep(0)
    work.cancel()
    alarm.set(0)
    assert await work == "cancelled"


async def test_both_at_once_is_the_others() -> None:
    alarm = Alarm()
    work = asyncio.create_task(step(alarm, asyncio.Event()))
    await asyncio.sleep(0)
    # What waits in this very turn of the loop: the alarm's own call, then the other's.
    alarm._ring()
    work.cancel()
    assert await work == "cancelled"
    alarm.stop()
