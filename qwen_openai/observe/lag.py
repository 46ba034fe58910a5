"""How late the event loop is: the longest that anything has kept it from its work.

A timer of a tenth of a second looks how much later than asked it is called. Knows nothing of
requests.
"""

import asyncio
from collections.abc import Callable

_PERIOD = 0.1
# Seconds. What is told is the worst of this one and the one before it.
_WINDOW = 30.0


class Lag:
    """Watches the loop it is started in."""

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        """``clock`` stands in for the loop's own."""
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._window_ends = 0.0
        self._now = self._before = 0.0

    @property
    def worst(self) -> float:
        """The longest delay of the last half to whole minute, in seconds."""
        return max(self._now, self._before)

    def start(self) -> None:
        """Begin to watch."""
        loop = asyncio.get_running_loop()
        if self._clock is None:
            self._clock = loop.time
        self._due = self._clock() + _PERIOD
        self._window_ends = self._due + _WINDOW
        self._timer = loop.call_later(_PERIOD, self._tick, loop, self._clock)

    def stop(self) -> None:
        """End watching; without `start` it does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        now = clock()
        if now >= self._window_ends:
            self._before, self._now = self._now, 0.0
            self._window_ends = now + _WINDOW
        self._now = max(self._now, now - self._due)
        self._due = now + _PERIOD
        self._timer = loop.call_later(_PERIOD, self._tick, loop, clock)
