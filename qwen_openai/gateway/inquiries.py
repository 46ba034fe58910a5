"""Questions of requests to the database, answered in threads of their own, in time or not at all.

A database that is stuck keeps at most so many threads and no request: neither the event loop nor
the pool of threads that everything else shares waits for it.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from qwen_openai.errors import NotFound, Overloaded
from qwen_openai.gateway.store.reading import reading

_T = TypeVar("_T")

_AT_ONCE = 2
# A statement that was interrupted says so well before this is over.
_GRACE = 0.5


def _in_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="inquiry", daemon=True).start()


class Inquiries:
    """Runs at most two questions at once."""

    def __init__(self, start: Callable[[Callable[[], None]], None] = _in_thread) -> None:
        """``start`` runs what it is given in a thread; RuntimeError where there can be none."""
        self._start = start
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def ask(
        self, path: Path | None, question: Callable[[sqlite3.Connection], _T], seconds: float
    ) -> _T:
        """Return what a question finds in the database, within so many seconds.

        Raises NotFound where there is none, Overloaded where it is busy, stuck or broken.
        """
        if path is None:
            raise NotFound("This server keeps no usage: it has no database.")
        try:
            async with asyncio.timeout(seconds + _GRACE):
                return await self._answered(path, question, seconds)
        except (TimeoutError, sqlite3.Error, OSError):
            raise Overloaded(
                "The database of usage does not answer in time. Ask for fewer days, or later.",
                retry_after=5,
            ) from None

    async def _answered(
        self, path: Path, question: Callable[[sqlite3.Connection], _T], seconds: float
    ) -> _T:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        found: Future[_T] = Future()
        found.set_running_or_notify_cancel()

        def run() -> None:
            try:
                with reading(path, seconds=seconds) as connection:
                    answer = question(connection)
            except BaseException as error:  # noqa: BLE001  # handed to the asker, who raises it
                found.set_exception(error)
            else:
                found.set_result(answer)
            finally:
                # The loop may be closed by now. The thread that hangs keeps its place.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._free.release)

        try:
            self._start(run)
        except RuntimeError as error:  # the machine has no thread left
            self._free.release()
            raise OSError(str(error)) from None
        return await asyncio.wrap_future(found)
