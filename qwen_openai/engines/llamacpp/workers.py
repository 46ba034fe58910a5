"""Threads for rendering prompts, and what keeps a caller from leaving his work behind in them.

A thread cannot be stopped. If a caller could leave before it is done, sending and leaving in turns
would pile up work that no limit counts. It knows nothing of jobs; the engine gives it calls.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Workers:
    """``count`` threads, begun when first used."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, call: Callable[[], _T]) -> _T:
        """Run ``call`` in a thread; return or raise what it does.

        When cancelled, drops a call that has not begun, and waits for the end of one that has:
        once this is over, no thread works for the caller. Raises RuntimeError after `close`.
        """
        work = self._executor.submit(call)
        done = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if not work.cancel():
                await _settle(done)
            raise

    def close(self) -> None:
        """Take no more calls; those taken are still run."""
        self._executor.shutdown(wait=False)


async def _settle(done: "asyncio.Future[_T]") -> None:
    """Wait until ``done`` has ended in whatever way, however often the caller is cancelled."""
    while not done.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((done,))
    if not done.cancelled():
        done.exception()  # seen: nobody is left to be told
