"""Keeping the event loop free: CPU work that grows with a request's size goes to a thread."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Parsing costs about 10 µs for each KiB; below this size a thread's hand-over costs more.
_INLINE_BYTES = 16 * 1024


async def off_loop(size: int, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run ``work`` here when ``size`` (bytes of input) is small, else in a worker thread."""
    if size <= _INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
