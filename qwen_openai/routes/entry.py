"""A request's way past the limits: what it may cost is reserved, and settled when it is over.

Around the service, for every endpoint that generates.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Scope

from qwen_openai.core import Job
from qwen_openai.gateway.admission import Claim
from qwen_openai.gateway.estimate import tokens_of
from qwen_openai.observe.record import Record
from qwen_openai.routes.deadline import deadline_of
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.notes import add_headers, key_of, record_of


@dataclass(frozen=True, slots=True)
class Entry:
    """What `ChatService.open_all` is told beside the jobs."""

    claim: Claim
    record: Record


@contextmanager
def entered(gateway: Gateway, scope: Scope, jobs: Sequence[Job]) -> Iterator[Entry]:
    """Reserve what jobs may take, settle on what they took by the record's usage.

    Raises RateLimited, QuotaExceeded, Overloaded before anything has been asked of an engine.
    """
    key, record = key_of(scope), record_of(scope)
    default = gateway.settings.default_max_tokens
    tokens = sum(tokens_of(job, default_max_tokens=default) for job in jobs)
    reservation = gateway.limiter.reserve(key, tokens)
    record.reserved_tokens = tokens
    add_headers(scope, reservation.headers)
    try:
        yield Entry(Claim(key.id, tokens // len(jobs), deadline_of(scope)), record)
    finally:
        reservation.settle(record.usage.total_tokens if record.usage else 0)
