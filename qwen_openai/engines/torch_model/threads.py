"""Threads in which a model loads and computes, and which may never end.

They are daemons of one name: who ends the process finds them by it, and does not wait for them.
Knows nothing of what they do.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

THREAD_NAME = "qwen-openai-model"

_T = TypeVar("_T")


async def in_thread(call: Callable[[], _T]) -> _T:
    """Return what ``call`` returns, or raise what it raises; it runs in a thread of its own. Where
    the waiting is cancelled it runs on, and nobody hears of its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: Callable[[], None]) -> None:
        if not done.done():
            result()

    def main() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001  # whatever it is belongs to who waits
            _tell(loop, settle, partial(done.set_exception, error))
        else:
            _tell(loop, settle, partial(done.set_result, value))

    threading.Thread(target=main, name=THREAD_NAME, daemon=True).start()
    return await done


def still_running() -> bool:
    """Whether such a thread has not come to its end."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


def _tell(
    loop: asyncio.AbstractEventLoop,
    settle: Callable[[Callable[[], None]], None],
    result: Callable[[], None],
) -> None:
    # Nothing is left to wait for, though the thread has not ended.
    threading.current_thread().name += " (done)"
    # A loop that has closed meanwhile has nobody waiting.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle, result)
