"""Work that ends when its client leaves, whether or not the answer is a stream.

ASGI servers do not cancel a plain handler whose client has gone, and a generator suspended at a
`yield` is closed only by garbage collection; so one small task listens and cancels the handler.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

_T = TypeVar("_T")


class ClientLeft(Exception):
    """The client closed the connection before it had its answer."""


async def until_disconnect(receive: Receive, work: Awaitable[_T]) -> _T:
    """Await ``work`` and return its result; cancel it when the client leaves.

    The request body must have been read. Raises ClientLeft after ``work`` has unwound.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("until_disconnect runs inside a task")
    left = False
    finished = False

    def on_disconnect(_: "asyncio.Task[None]") -> None:
        nonlocal left
        if not finished:
            left = True
            task.cancel()

    watcher = asyncio.create_task(_disconnected(receive))
    watcher.add_done_callback(on_disconnect)
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise ClientLeft from None
    finally:
        finished = True
        watcher.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
