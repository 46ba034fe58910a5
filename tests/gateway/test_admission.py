"""The queue: slots, order, bounds, leaving, closing."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import EngineUnavailable, Overloaded
from qwen_openai.gateway.admission import Admission, Ticket


async def test_slots_are_given_in_the_order_of_arrival() -> None:
    admission = Admission(slots=1, queue_size=3)
    tickets = [admission.enter()[0] for _ in range(4)]
    order: list[int] = []

    async def take(number: int) -> None:
        await tickets[number].granted()
        order.append(number)
        tickets[number].release()

    await asyncio.gather(*(take(number) for number in (3, 1, 2, 0)))
    assert order == [0, 1, 2, 3]
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    admission = Admission(slots=2, queue_size=1, expected_seconds=lambda: 30)
    for _ in range(3):
        admission.enter()
    with pytest.raises(Overloaded) as refused:
        admission.enter()
    assert refused.value.headers() == {"retry-after": "30", "retry-after-ms": "30000"}
    assert "2 of 2 slots" in refused.value.message


async def test_several_places_are_taken_all_or_none() -> None:
    admission = Admission(slots=2, queue_size=1)
    admission.enter()
    with pytest.raises(Overloaded):
        admission.enter(3)
    assert (admission.running, admission.waiting) == (1, 0)
    admission.enter(2)
    assert (admission.running, admission.waiting) == (2, 1)


async def test_who_leaves_the_queue_frees_its_place_and_is_never_served() -> None:
    admission = Admission(slots=1, queue_size=2)
    [first], [second], [third] = admission.enter(), admission.enter(), admission.enter()
    second.release()
    second.release()
    assert admission.waiting == 1
    first.release()
    await asyncio.wait_for(third.granted(), 1)
    assert admission.running == 1


async def test_a_waiter_that_is_cancelled_as_it_is_granted_leaks_nothing() -> None:
    admission = Admission(slots=1, queue_size=2)
    [first], [second] = admission.enter(), admission.enter()

    async def wait() -> None:
        try:
            await second.granted()
        finally:
            second.release()

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0)
    first.release()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert (admission.running, admission.waiting) == (0, 0)


async def test_closing_fails_who_waits_and_refuses_who_comes() -> None:
    admission = Admission(slots=1, queue_size=2)
    [running], [waiting] = admission.enter(), admission.enter()
    blocked = asyncio.create_task(waiting.granted())
    await asyncio.sleep(0)
    admission.close("Shutting down.")
    with pytest.raises(EngineUnavailable, match="Shutting down"):
        await blocked
    with pytest.raises(EngineUnavailable):
        admission.enter()
    assert admission.running == 1
    running.release()
    assert admission.running == 0


async def test_who_joined_but_did_not_wait_yet_learns_of_the_closing_too() -> None:
    admission = Admission(slots=1, queue_size=2)
    [_], [waiting] = admission.enter(), admission.enter()
    admission.close("Shutting down.")
    with pytest.raises(EngineUnavailable, match="Shutting down"):
        await asyncio.wait_for(waiting.granted(), 1)


@given(
    slots=st.integers(1, 3),
    queue=st.integers(0, 4),
    steps=st.lists(st.integers(-6, 3), max_size=40),
)
def test_bounds_hold_whatever_comes(slots: int, queue: int, steps: list[int]) -> None:
    """Positive steps enter so many tickets, others release an old one."""

    async def run() -> None:
        admission = Admission(slots, queue)
        held: list[Ticket] = []
        for step in steps:
            if step > 0:
                try:
                    held.extend(admission.enter(step))
                except Overloaded:
                    assert admission.running + admission.waiting + step > slots + queue
            elif held:
                held.pop(-step % len(held)).release()
            assert admission.running <= slots
            assert admission.waiting <= queue
            assert admission.running + admission.waiting == len(held)
            assert admission.running == min(slots, len(held))

    asyncio.run(run())
