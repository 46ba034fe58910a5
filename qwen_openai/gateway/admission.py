"""The one queue of the house: bounded, in front of an engine's slots.

It knows slots, tickets and whose turn it is, nothing of jobs or HTTP. Single event loop; every
method but `Ticket.granted` is synchronous, so that no other request splits a decision.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from qwen_openai.errors import EngineUnavailable, Overloaded


@dataclass(frozen=True, slots=True)
class Claim:
    """On whose behalf a place is asked for. ``owner`` is a key's id; ``tokens`` is what one answer
    is reckoned to take, prompt and answer; ``deadline`` is when, by time.monotonic(), the caller
    will have left."""

    owner: str = ""
    tokens: int = 1
    deadline: float | None = None


UNCLAIMED = Claim()


class Ticket:
    """A place in the queue that becomes a slot. Release it in a `finally`; twice does no harm."""

    __slots__ = ("_admission", "_granted", "_number", "_refused", "_waiter")

    def __init__(self, admission: "Admission", number: int) -> None:
        self._admission = admission
        self._number = number
        self._granted = False
        self._refused: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def granted(self) -> None:
        """Wait until the slot is ours. Raises EngineUnavailable when the gateway closes first."""
        if self._granted:
            return
        if self._refused is not None:
            raise EngineUnavailable(self._refused, retry_after=5)
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def release(self) -> None:
        """Give the slot back, or leave the queue."""
        self._admission._release(self)


class Admission:
    """Lets at most ``slots`` tickets hold a slot and at most ``queue_size`` wait, oldest first."""

    def __init__(
        self, slots: int, queue_size: int, *, expected_seconds: Callable[[], float] | None = None
    ) -> None:
        """``expected_seconds`` estimates how long a slot stays taken; it feeds Retry-After."""
        self.slots = slots
        self.queue_size = queue_size
        self._expected_seconds = expected_seconds or (lambda: 5.0)
        self._running: set[int] = set()
        self._waiting: OrderedDict[int, Ticket] = OrderedDict()
        self._next = 0
        self._closed: str | None = None

    @property
    def running(self) -> int:
        """Slots taken now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Tickets in the queue now."""
        return len(self._waiting)

    def enter(self, count: int = 1, claim: Claim = UNCLAIMED) -> list[Ticket]:
        """Take ``count`` places, all or none, each for the claim's tokens.

        Raises Overloaded when the queue cannot hold them, EngineUnavailable after `close`.
        """
        if self._closed is not None:
            raise EngineUnavailable(self._closed, retry_after=5)
        free = self.slots - len(self._running) if not self._waiting else 0
        if count - free > self.queue_size - len(self._waiting):
            raise Overloaded(
                f"The server is at capacity: {len(self._running)} of {self.slots} slots are taken "
                f"and {len(self._waiting)} of {self.queue_size} places in the queue. "
                "Send the request again after the time in the Retry-After header.",
                retry_after=self.retry_after(),
            )
        return [self._enter_one() for _ in range(count)]

    def retry_after(self) -> float:
        """Seconds until the present queue will have got its slots, estimated."""
        return self._expected_seconds() * (len(self._waiting) + 1) / self.slots

    def close(self, reason: str) -> None:
        """Refuse what comes and fail what waits, with this sentence; slots in use stay in use."""
        self._closed = reason
        while self._waiting:
            _, ticket = self._waiting.popitem(last=False)
            ticket._refused = reason
            if ticket._waiter is not None and not ticket._waiter.done():
                ticket._waiter.set_exception(EngineUnavailable(reason, retry_after=5))

    def _enter_one(self) -> Ticket:
        ticket = Ticket(self, self._next)
        self._next += 1
        if not self._waiting and len(self._running) < self.slots:
            self._grant(ticket)
        else:
            self._waiting[ticket._number] = ticket
        return ticket

    def _grant(self, ticket: Ticket) -> None:
        ticket._granted = True
        self._running.add(ticket._number)
        if ticket._waiter is not None and not ticket._waiter.done():
            ticket._waiter.set_result(None)

    def _release(self, ticket: Ticket) -> None:
        number = ticket._number
        if number in self._running:
            self._running.discard(number)
            while self._waiting and len(self._running) < self.slots:
                _, following = self._waiting.popitem(last=False)
                self._grant(following)
        else:
            self._waiting.pop(number, None)
