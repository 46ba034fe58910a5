"""Until when a caller waits, as the request's headers say it.

`x-request-timeout` is a wish for this answer, in seconds from its beginning until its last byte.
`x-stainless-read-timeout` is what OpenAI's clients say of themselves: how long they bear silence.
"""

import math
import time
from dataclasses import dataclass

from starlette.types import Scope

from qwen_openai.errors import InvalidRequest
from qwen_openai.observe.record import Record

_WISH = b"x-request-timeout"
_CLIENT = b"x-stainless-read-timeout"
_LONGEST = 86_400.0


@dataclass(frozen=True, slots=True)
class Patience:
    """``deadline`` is when the whole answer must be there, ``begin_by`` when its first byte must,
    both by time.monotonic(); None is whenever."""

    deadline: float | None = None
    begin_by: float | None = None


_ENDLESS = Patience()


def patience_of(scope: Scope, record: Record) -> Patience:
    """Return until when the caller of this request waits, counted from the request's beginning.

    Raises InvalidRequest for an `x-request-timeout` that is no number of seconds above 0 and up to
    a day. What the client's library says is believed or left, as no human wrote it.
    """
    wishes = [value for name, value in scope["headers"] if name == _WISH]
    said = [value for name, value in scope["headers"] if name == _CLIENT]
    if not wishes and not said:
        return _ENDLESS
    begun = time.monotonic() - (time.perf_counter() - record.begun)
    whole = _seconds(wishes[0]) if len(wishes) == 1 else None
    if wishes and whole is None:
        raise InvalidRequest(
            "The header x-request-timeout is not a number of seconds above 0 and up to "
            f"{_LONGEST:.0f}, such as 30 or 2.5. Mend it, or leave it out.",
            param=_WISH.decode(),
        )
    silence = _seconds(said[0]) if len(said) == 1 else None
    return Patience(
        None if whole is None else begun + whole,
        None if silence is None else begun + silence,
    )


def _seconds(value: bytes) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds <= _LONGEST else None
