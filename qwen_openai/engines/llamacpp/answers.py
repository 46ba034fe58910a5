"""One request to the child: its chunks on their way to who asked, and the ways to be rid of it.

Knows frames and no events. The engine pushes what the child sends, and is told what to forget.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from qwen_openai.engines.llamacpp.frames import Frame, Kind
from qwen_openai.errors import ApiError, EngineFailed


class Answer:
    """``ended`` is true once nothing needs to be stopped any more: set it with the last chunk."""

    __slots__ = ("_cancel", "_failure", "_forget", "_frames", "_over", "_waiter", "ended", "number")

    def __init__(
        self, number: int, *, forget: Callable[[int], bool], cancel: Callable[[int], None]
    ) -> None:
        """``forget`` says whether the answer was known until now; ``cancel`` has the child stop."""
        self.number = number
        self.ended = False
        self._forget = forget
        self._cancel = cancel
        self._over = False
        self._frames: deque[Frame] = deque()
        self._failure: ApiError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def push(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._wake()

    def fail(self, error: ApiError) -> None:
        """End the answer; frames that came before are still handed out."""
        self._failure = error
        self._wake()

    async def chunk(self) -> bytes:
        """Return the next chunk, waiting for it. Raises what `fail` was given, and EngineFailed
        when the request is over without a last chunk."""
        frame = await self._next()
        if frame.kind is Kind.CHUNK:
            return frame.payload
        reason = frame.payload.decode(errors="replace") or "it ended early"
        raise EngineFailed(f"The engine could not answer this request: {reason}. Send it again.")

    def leave(self) -> None:
        """Forget the answer, and have the child stop making it unless it has stopped itself."""
        if self._forget(self.number) and not self.ended:
            self._cancel(self.number)

    async def end(self) -> None:
        """As `leave`, and wait until the child has its hands free. Raises what `fail` was given."""
        if not self.ended:
            self._cancel(self.number)
        while not self._over:
            await self._next()
        self._forget(self.number)

    async def _next(self) -> Frame:
        while not self._frames:
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frame = self._frames.popleft()
        if frame.kind is Kind.END:
            self._over = self.ended = True
        return frame

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
