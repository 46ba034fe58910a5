"""One timer for one request: it ends the work that is being waited for when the time is over.

The work is awaited in steps, by whatever task asks for the next one; only that wait is cut short.
A reader who is slow between two steps learns of it at the next. Knows no events.
"""

import asyncio

from qwen_openai.errors import DeadlineExceeded


class Alarm:
    """Call `awaiting` before each step and `idle` after it; `stop` at the end. The CancelledError
    of a wait that was cut short belongs to `over`."""

    __slots__ = ("_cancelled", "_handle", "_others", "_rang", "_task")

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelled: asyncio.Task[object] | None = None
        self._others = 0
        self._rang = False

    def set(self, seconds: float | None) -> None:
        """Ring so many seconds from now, and at no other time; None is never."""
        self.stop()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(max(seconds, 0), self._ring)

    def stop(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def awaiting(self) -> None:
        """A step is about to be awaited. Raises DeadlineExceeded where it has rung."""
        if self._rang:
            raise too_late()
        self._task = asyncio.current_task()

    def idle(self) -> None:
        """The step is there."""
        self._task = None

    def over(self) -> bool:
        """Whether the CancelledError of a step is this alarm's; if so it is taken back."""
        task, self._cancelled = self._cancelled, None
        # Who else has cancelled the task, a client that left or the server's end, goes first.
        return task is not None and task.uncancel() <= self._others

    def _ring(self) -> None:
        self._rang = True
        if self._task is not None:
            self._cancelled = self._task
            self._others = self._task.cancelling()
            self._task.cancel()


def too_late() -> DeadlineExceeded:
    """What a caller hears whose time was over before the answer was whole."""
    return DeadlineExceeded(
        "The time that this request was given is over. Give it more (x-request-timeout, or the "
        "client's own timeout), ask for a shorter answer (max_tokens), or send it again later."
    )
