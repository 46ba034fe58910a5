"""The queue: slots, order, bounds, leaving, closing."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import DeadlineExceeded, EngineUnavailable, Overloaded
from qwen_openai.gateway.admission import Admission, Claim, Ticket


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


class Clock:
    """Told by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def outcome(ticket: Ticket) -> object:
    """What waiting comes to, at once."""
    try:
        await asyncio.wait_for(ticket.granted(), 1)
    except (Overloaded, DeadlineExceeded) as error:
        return type(error)
    return "granted"


async def test_a_calm_owner_is_next_and_pushes_the_floods_newest_out() -> None:
    admission = Admission(slots=1, queue_size=4, expected_seconds=lambda: 2)
    [running] = admission.enter(claim=Claim("flood", 10))
    flood = [admission.enter(claim=Claim("flood", 10))[0] for _ in range(4)]
    newest = asyncio.create_task(flood[-1].granted())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        admission.enter(claim=Claim("flood", 10))
    [calm] = admission.enter(claim=Claim("calm", 10))
    with pytest.raises(Overloaded) as pushed:
        await newest
    assert "fewer waiting" in pushed.value.message
    assert pushed.value.headers()["retry-after"] == "8"
    flood[-1].release()
    assert admission.waiting == 4
    running.release()
    assert await outcome(calm) == "granted"
    calm.release()
    assert await outcome(flood[0]) == "granted"


async def test_who_was_pushed_out_before_waiting_learns_of_it_then() -> None:
    admission = Admission(slots=1, queue_size=2)
    [_] = admission.enter(claim=Claim("flood"))
    flood = admission.enter(2, Claim("flood"))
    admission.enter(claim=Claim("calm"))
    assert await outcome(flood[1]) is Overloaded


async def test_more_slots_are_given_to_who_waits_and_fewer_are_taken_from_nobody() -> None:
    admission = Admission(slots=1, queue_size=4)
    tickets = [admission.enter()[0] for _ in range(4)]
    admission.resize(3)
    assert (admission.running, admission.waiting) == (3, 1)
    assert await outcome(tickets[2]) == "granted"
    admission.resize(1)
    assert (admission.running, admission.waiting) == (3, 1)
    tickets.append(admission.enter()[0])
    tickets[0].release()
    tickets[1].release()
    assert (admission.running, admission.waiting) == (1, 2)
    tickets[2].release()
    assert await outcome(tickets[3]) == "granted"


async def test_no_slots_at_all_is_a_queue_and_no_failure() -> None:
    admission = Admission(slots=0, queue_size=1)
    [ticket] = admission.enter()
    with pytest.raises(Overloaded):
        admission.enter()
    admission.resize(1)
    assert await outcome(ticket) == "granted"


async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    clock = Clock()
    admission = Admission(slots=2, queue_size=9, expected_seconds=lambda: 4, clock=clock)
    admission.enter(2, Claim(deadline=clock.now + 0.1))
    admission.enter(1, Claim(deadline=clock.now + 2.5))
    with pytest.raises(Overloaded) as refused:
        admission.enter(1, Claim(deadline=clock.now + 2.5))
    assert "about 4.0 s" in refused.value.message
    assert refused.value.headers()["retry-after"] == "2"
    # A calm owner does not wait for all who are there.
    admission.enter(4)
    admission.enter(1, Claim("calm", deadline=clock.now + 4.5))
    with pytest.raises(DeadlineExceeded):
        admission.enter(1, Claim(begin_by=clock.now))
    assert (admission.running, admission.waiting) == (2, 6)


async def test_whose_time_is_over_loses_its_turn() -> None:
    clock = Clock()
    admission = Admission(slots=1, queue_size=3, expected_seconds=lambda: 1, clock=clock)
    [running] = admission.enter()
    [late] = admission.enter(1, Claim(deadline=clock.now + 10, begin_by=clock.now + 5))
    [last] = admission.enter()
    clock.now += 5
    running.release(1)
    assert await outcome(late) is DeadlineExceeded
    assert await outcome(last) == "granted"
    late.release()
    last.release(1)
    assert (admission.running, admission.waiting) == (0, 0)


@given(
    slots=st.integers(1, 3),
    queue=st.integers(0, 4),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(-6, 3)), max_size=40),
)
def test_bounds_hold_with_many_owners(slots: int, queue: int, steps: list[tuple[str, int]]) -> None:
    """As above, but who is pushed out is gone, and a place that is free is never empty."""

    async def run() -> None:
        admission = Admission(slots, queue)
        held: list[Ticket] = []
        for owner, step in steps:
            if step > 0:
                try:
                    held.extend(admission.enter(step, Claim(owner, 5)))
                except Overloaded:
                    assert admission.running + admission.waiting + step > slots + queue
            elif held:
                held.pop(-step % len(held)).release(-step)
            held = [ticket for ticket in held if ticket._refused is None]
            assert admission.waiting <= queue
            assert admission.running + admission.waiting == len(held)
            assert admission.running == min(slots, len(held))

    asyncio.run(run())
