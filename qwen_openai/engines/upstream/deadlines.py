"""How long another server may be silent, and how long an answer may take: one timer for both.

The timer is looked at when it fires, not set anew with every event, so that an event costs a
reading of the clock.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from qwen_openai.engines.upstream.failures import Reporter
from qwen_openai.errors import UpstreamTimeout


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to reach a server, until the first word of a stream, between two, and in all."""

    connect: float
    first_token: float
    token: float
    total: float


class Watchdog:
    """Watches one stream. A server's silence counts only while ``waiting`` says that somebody
    listens: a reader who is slow to take words is no fault of it."""

    __slots__ = (
        "_began",
        "_end",
        "_expire",
        "_handle",
        "_last",
        "_loop",
        "_report",
        "_times",
        "waiting",
    )

    def __init__(self, times: Timeouts, report: Reporter) -> None:
        """The time of the first word and of all runs from now."""
        self._loop = asyncio.get_running_loop()
        self._times = times
        self._report = report
        self._expire: Callable[[UpstreamTimeout], None] | None = None
        self.waiting = False
        self._began = False
        self._last = self._loop.time()
        self._end = self._last + times.total
        self._handle: asyncio.TimerHandle | None = None

    @property
    def left(self) -> float:
        """Seconds until whichever comes first."""
        return self._due() - self._loop.time()

    def start(self, expire: Callable[[UpstreamTimeout], None]) -> None:
        """Begin to look; call ``expire`` with what has happened when time is over."""
        self._expire = expire
        self._arm()

    def _arm(self) -> None:
        self._handle = self._loop.call_at(self._due(), self._look)

    def heard(self) -> None:
        """Words have come, and were taken."""
        self._last = self._loop.time()
        if not self._began:
            self._began = True
            self.stop()
            self._arm()

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def expired(self) -> UpstreamTimeout:
        """Return what has happened, when time is over."""
        times = self._times
        if self._loop.time() >= self._end:
            return self._report.silent("did not finish its answer", times.total)
        if self._began:
            return self._report.silent("did not go on with its answer", times.token)
        return self._report.silent("did not begin its answer", times.first_token)

    def _due(self) -> float:
        limit = self._times.token if self._began else self._times.first_token
        return min(self._last + limit, self._end)

    def _look(self) -> None:
        now = self._loop.time()
        due = self._due() if self.waiting else self._end
        if now >= due:
            self._handle = None
            if self._expire is not None:
                self._expire(self.expired())
        else:
            again = due if self.waiting else min(now + self._times.token, due)
            self._handle = self._loop.call_at(again, self._look)
