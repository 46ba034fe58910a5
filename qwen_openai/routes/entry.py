"""A request's way past the limits: what it may cost is reserved, and settled when it is over.

`entered` is for every endpoint that generates, `counted` for those that only count tokens.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from starlette.types import Scope

from qwen_openai.core import Job
from qwen_openai.errors import DeadlineExceeded, UpstreamTimeout
from qwen_openai.gateway.admission import Claim
from qwen_openai.gateway.estimate import prompt_tokens_of, tokens_of
from qwen_openai.observe.record import Record
from qwen_openai.routes.deadline import patience_of
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.notes import add_headers, key_of, record_of


@dataclass(frozen=True, slots=True)
class Entry:
    """What `ChatService.open_all` is told beside the jobs."""

    claim: Claim
    record: Record


@contextmanager
def counted(gateway: Gateway, scope: Scope) -> Iterator[None]:
    """Count a request that generates nothing: by its number, and as one at once, with no tokens.

    Raises RateLimited and Overloaded before anything has been asked of an engine.
    """
    key = key_of(scope)
    add_headers(scope, lambda: gateway.limiter.headers(key))
    reservation = gateway.limiter.reserve(key, 0)
    try:
        yield
    finally:
        reservation.settle(0)


@contextmanager
def entered(gateway: Gateway, scope: Scope, jobs: Sequence[Job]) -> Iterator[Entry]:
    """Reserve what jobs may take, settle on what they took by the record's usage.

    Raises InvalidRequest for a deadline that is none, and RateLimited, QuotaExceeded, Overloaded
    before anything has been asked of an engine.
    """
    key, record = key_of(scope), record_of(scope)
    patience = patience_of(scope, record)
    tokens = tokens_of(jobs, default_max_tokens=gateway.settings.default_max_tokens)
    add_headers(scope, lambda: gateway.limiter.headers(key))
    reservation = gateway.limiter.reserve(key, tokens)
    record.reserved_tokens = tokens
    # Comments that go out early are a first byte too.
    pinged = record.streams and gateway.settings.ping_early
    begin_by = None if pinged else patience.begin_by
    claim = Claim(key.id, tokens // len(jobs), patience.deadline, begin_by)
    if not record.streams:
        # The first byte of a plain answer comes when all of it is there.
        claim = replace(claim, deadline=claim.earliest, begin_by=None)
    cut_short = False
    try:
        yield Entry(claim, record)
    except (asyncio.CancelledError, DeadlineExceeded) as error:
        cut_short = not isinstance(error, UpstreamTimeout)
        raise
    finally:
        used = record.usage.total_tokens if record.usage is not None else 0
        if not used and cut_short and record.admitted:
            # The engine had the prompt, and had no time to say what it made of it.
            used = prompt_tokens_of(jobs)
        reservation.settle(used)
