"""OpenAI's `x-ratelimit-*` headers. Pure.

Source: OpenAI's guide on rate limits, "Rate limits in headers": resets are durations as Go writes
them (`1s`, `6m0s`, `12ms`), until the limit is back in its initial state.
"""

import math
from collections.abc import Iterator
from typing import Literal


def limit_headers(
    kind: Literal["requests", "tokens"], *, limit: int, used: int, reset: float
) -> Iterator[tuple[str, str]]:
    """Names and values for one limit; ``reset`` is in seconds."""
    yield f"x-ratelimit-limit-{kind}", str(limit)
    yield f"x-ratelimit-remaining-{kind}", str(max(limit - used, 0))
    yield f"x-ratelimit-reset-{kind}", duration(reset if used else 0.0)


def duration(seconds: float) -> str:
    """Return a time as Go writes it, rounded up to a millisecond."""
    milliseconds = max(math.ceil(seconds * 1000), 0)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    whole, rest = divmod(milliseconds, 1000)
    minutes, whole = divmod(whole, 60)
    shown = f"{whole}.{rest:03d}".rstrip("0").rstrip(".")
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{shown}s"
    return f"{minutes}m{shown}s" if minutes else f"{shown}s"
