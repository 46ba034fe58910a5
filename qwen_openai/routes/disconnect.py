"""Work that ends when its client leaves, whether or not the answer is a stream.

ASGI servers do not cancel a plain handler whose client has gone, and a generator suspended at a
`yield` is closed only by garbage collection. Our own protocol says who leaves (`Leaving`); behind
another server one small task listens. Either way the handler is cancelled.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive, Scope

_T = TypeVar("_T")

LEAVING = "qwen_openai.leaving"
"""Where in a request's scope its `Leaving` is."""


class ClientLeft(Exception):
    """The client closed the connection before it had its answer."""


class Leaving:
    """News of one request's client: `leave` is the server's to call, `watch` the endpoint's.
    ``left`` says that it has left already; ``listen`` makes sure that the server would notice."""

    __slots__ = ("_left", "_listen", "_tell")

    def __init__(self, left: bool, listen: Callable[[], None]) -> None:
        self._left = left
        self._listen = listen
        self._tell: Callable[[], None] | None = None

    def leave(self) -> None:
        """The client has left."""
        self._left = True
        if self._tell is not None:
            self._tell()

    def watch(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when the client leaves, or now if it has."""
        self._tell = tell
        if self._left:
            tell()
        else:
            self._listen()

    def ignore(self) -> None:
        """Tell nobody any more."""
        self._tell = None


async def until_disconnect(scope: Scope, receive: Receive, work: Awaitable[_T]) -> _T:
    """Await ``work`` and return its result; cancel it when the client leaves.

    The request body must have been read. Raises ClientLeft after ``work`` has unwound.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("until_disconnect runs inside a task")
    left = False

    def leave() -> None:
        nonlocal left
        if not left:
            left = True
            task.cancel()

    told: Leaving | None = scope.get(LEAVING)
    leaving = _Listener(receive) if told is None else told
    leaving.watch(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise ClientLeft from None
    finally:
        leaving.ignore()


class _Listener(Leaving):
    """Learns by the messages of ASGI who leaves."""

    __slots__ = ("_receive", "_task")

    def __init__(self, receive: Receive) -> None:
        super().__init__(False, self._start)
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    def ignore(self) -> None:
        super().ignore()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._disconnected())

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.leave()
