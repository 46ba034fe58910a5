"""How late the event loop is: the longest that anything has kept it from its work.

A timer of a tenth of a second looks how much later than asked it is called. Knows nothing of
requests.
"""

import asyncio

_PERIOD = 0.1


class Lag:
    """Watches the loop it is started in."""

    def __init__(self, *, window: float = 30.0) -> None:
        """What is told is the worst of the present window and the one before; in seconds."""
        self._window = window
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._window_ends = 0.0
        self._now = self._before = 0.0

    @property
    def worst(self) -> float:
        """The longest delay of late, in seconds."""
        return max(self._now, self._before)

    def start(self) -> None:
        """Begin to watch."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + _PERIOD
        self._window_ends = self._due + self._window
        self._timer = loop.call_later(_PERIOD, self._tick, loop)

    def stop(self) -> None:
        """End watching; without `start` it does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if now >= self._window_ends:
            self._before, self._now = self._now, 0.0
            self._window_ends = now + self._window
        self._now = max(self._now, now - self._due)
        self._due = now + _PERIOD
        self._timer = loop.call_later(_PERIOD, self._tick, loop)
