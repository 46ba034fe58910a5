"""The one queue of the house: bounded, in front of an engine's slots, fair between owners.

It knows slots, tickets, deadlines and whose turn it is, nothing of jobs or HTTP. Single event loop;
every method but `Ticket.granted` is synchronous, so that no other request splits a decision.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from qwen_openai.errors import ApiError, DeadlineExceeded, EngineUnavailable, Overloaded
from qwen_openai.gateway.fairness import FairQueue, Turn


@dataclass(frozen=True, slots=True)
class Claim:
    """On whose behalf a place is asked for. ``owner`` is a key's id; ``tokens`` is what one answer
    is reckoned to take, prompt and answer; ``deadline`` is when, by time.monotonic(), the caller
    will have left, and ``begin_by`` when it will have if nothing has come by then."""

    owner: str = ""
    tokens: int = 1
    deadline: float | None = None
    begin_by: float | None = None

    @property
    def earliest(self) -> float | None:
        """The nearer of the two times."""
        if self.deadline is None or self.begin_by is None:
            return self.begin_by if self.deadline is None else self.deadline
        return min(self.deadline, self.begin_by)


UNCLAIMED = Claim()
_SHARE_OF_NEWEST = 0.1


class Ticket(Turn):
    """A place in the queue that becomes a slot. Release it in a `finally`; twice does no harm."""

    __slots__ = ("_admission", "_deadline", "_granted", "_reckoned", "_refused", "_waiter")

    def __init__(self, admission: "Admission", number: int, claim: Claim, worth: float) -> None:
        super().__init__(number, claim.owner, claim.tokens * worth)
        self._admission = admission
        self._reckoned = claim.tokens
        self._deadline = claim.earliest
        self._granted = False
        self._refused: ApiError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def granted(self) -> None:
        """Wait until the slot is ours. Raises EngineUnavailable when the gateway closes first,
        Overloaded when another owner had the better right to this place, DeadlineExceeded when the
        caller's time was over before its turn."""
        if self._granted:
            return
        if self._refused is not None:
            raise self._refused
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def release(self, used: int | None = None) -> None:
        """Give the slot back, or leave the queue; ``used`` is the tokens that the work has taken,
        where that is known."""
        self._admission._release(self, used)


class Admission:
    """Lets at most ``slots`` tickets hold a slot and at most ``queue_size`` wait."""

    def __init__(
        self,
        slots: int,
        queue_size: int,
        *,
        expected_seconds: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``expected_seconds`` estimates how long a slot stays taken; it feeds Retry-After and says
        which deadlines cannot be met. ``clock`` is the one that deadlines are told by."""
        self.queue_size = queue_size
        self._slots = slots
        self._expected_seconds = expected_seconds or (lambda: 5.0)
        self._clock = clock
        self._running: set[int] = set()
        self._queue: FairQueue[Ticket] = FairQueue()
        self._next = 0
        self._closed: str | None = None
        # Tokens of late, used and reckoned. An answer takes a small part of what it may, and who
        # has one running would else seem to have had much more than who has had some that are over.
        self._used = self._told = 1.0

    @property
    def slots(self) -> int:
        """Slots that there are."""
        return self._slots

    @property
    def running(self) -> int:
        """Slots taken now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Tickets in the queue now."""
        return len(self._queue)

    def resize(self, slots: int) -> None:
        """Have so many slots: more of them are given to who waits, fewer are taken from nobody."""
        if slots != self._slots:
            self._slots = slots
            self._grant_waiting()

    def enter(self, count: int = 1, claim: Claim = UNCLAIMED) -> list[Ticket]:
        """Take ``count`` places, all or none, each for the claim's tokens. In a full queue they are
        those of the newest tickets of the owner who has most waiting, if this one has fewer.

        Raises Overloaded when there is no room, or a wait longer than the claim's deadline is to be
        expected; DeadlineExceeded when that has passed; EngineUnavailable after `close`.
        """
        if self._closed is not None:
            raise EngineUnavailable(self._closed, retry_after=5)
        free = max(self._slots - len(self._running), 0) if not self._queue else 0
        if claim.earliest is not None:
            self._check_time(claim, claim.earliest, count > free)
        need = count - free - (self.queue_size - len(self._queue))
        if need > 0:
            self._make_room(claim.owner, count, need)
        return [self._enter_one(claim) for _ in range(count)]

    def retry_after(self) -> float:
        """Seconds until the present queue will have got its slots, estimated."""
        return self._expected_wait(len(self._queue))

    def close(self, reason: str) -> None:
        """Refuse what comes and fail what waits, with this sentence; slots in use stay in use."""
        self._closed = reason
        while self._queue:
            self._refuse(self._queue.pop(), EngineUnavailable(reason, retry_after=5))

    def _expected_wait(self, ahead: int) -> float:
        return self._expected_seconds() * (ahead + 1) / max(self._slots, 1)

    def _check_time(self, claim: Claim, deadline: float, must_wait: bool) -> None:
        left = deadline - self._clock()
        if left <= 0:
            raise _too_late()
        if not must_wait:
            return
        wait = self._expected_wait(self._queue.ahead_of(claim.owner))
        if wait > left:
            raise Overloaded(
                f"A wait of about {wait:.1f} s is to be expected before this request has its turn, "
                f"and {left:.1f} s of its time are left. Send it again after the time in the "
                "Retry-After header, or give it more time.",
                retry_after=wait - left,
            )

    def _make_room(self, owner: str, count: int, need: int) -> None:
        out = self._queue.displaced_by(owner, count, need) if need <= len(self._queue) else []
        if not out:
            raise Overloaded(
                f"The server is at capacity: {len(self._running)} of {self._slots} slots are taken "
                f"and {len(self._queue)} of {self.queue_size} places in the queue. "
                "Send the request again after the time in the Retry-After header.",
                retry_after=self.retry_after(),
            )
        for ticket in out:
            self._queue.remove(ticket)
            gone = Overloaded(
                "The server is at capacity, and this request gave its place in the queue to one "
                "of a key that has fewer waiting. Send it again after the time in the Retry-After "
                "header.",
                retry_after=self.retry_after(),
            )
            self._refuse(ticket, gone)

    def _enter_one(self, claim: Claim) -> Ticket:
        ticket = Ticket(self, self._next, claim, self._used / self._told)
        self._next += 1
        if not self._queue and len(self._running) < self._slots:
            self._queue.begin(ticket)
            self._grant(ticket)
        else:
            self._queue.add(ticket)
        return ticket

    def _grant(self, ticket: Ticket) -> None:
        ticket._granted = True
        self._running.add(ticket.number)
        if ticket._waiter is not None and not ticket._waiter.done():
            ticket._waiter.set_result(None)

    def _grant_waiting(self) -> None:
        while self._queue and len(self._running) < self._slots:
            ticket = self._queue.pop()
            if ticket._deadline is not None and ticket._deadline <= self._clock():
                self._queue.correct(ticket, 0)
                self._refuse(ticket, _too_late())
            else:
                self._grant(ticket)

    def _refuse(self, ticket: Ticket, error: ApiError) -> None:
        ticket._refused = error
        if ticket._waiter is not None and not ticket._waiter.done():
            ticket._waiter.set_exception(error)

    def _release(self, ticket: Ticket, used: int | None) -> None:
        if ticket.number not in self._running:
            self._queue.remove(ticket)
            return
        self._running.discard(ticket.number)
        if used is not None:
            self._queue.correct(ticket, used)
            self._used += (used - self._used) * _SHARE_OF_NEWEST
            self._told += (ticket._reckoned - self._told) * _SHARE_OF_NEWEST
        self._grant_waiting()
        if not self._running and not self._queue:
            self._queue.forget()


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The time that this request was given was over before its turn came. Give it more time "
        "(x-request-timeout, or the client's own timeout), or send it again later."
    )
