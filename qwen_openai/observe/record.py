"""What is noted of one request while it runs, for its log line, the metrics and the ledger.

It is told events and failures and changes nothing. Times are seconds since the request began, by a
monotonic clock; ``at`` alone is Unix time.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

from qwen_openai.core import (
    Admitted,
    Event,
    Finish,
    Reasoning,
    Routed,
    Started,
    Text,
    ToolCallStart,
    Usage,
)
from qwen_openai.errors import ApiError, Overloaded

# ok: answered whole. aborted: the client left. error: it failed on our side or an upstream's,
# perhaps in the middle of a stream. refused: 4xx, and 503 for want of room.
Outcome = Literal["ok", "aborted", "error", "refused"]


@dataclass(slots=True)
class Record:
    """One request. ``route`` is the path of the endpoint, "" where there is none; ``model`` is a
    name that this gateway serves, "" before one is known; ``key`` is the id of the caller's key.
    ``error`` is the code of the failure and ``error_type`` the one that its class always has.
    ``n`` is how many choices each prompt has. ``tried`` are the upstreams that were asked, once for
    each attempt, and ``failed`` those that another attempt came after. ``trace`` is the caller's
    traceparent."""

    request_id: str = ""
    method: str = ""
    route: str = ""
    key: str = ""
    model: str = ""
    streams: bool = False
    n: int = 1
    status: int = 0
    outcome: Outcome = "ok"
    error: str = ""
    error_type: str = ""
    upstream: str = ""
    attempts: int = 0
    tried: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    admitted: bool = False
    queued: float = 0.0
    first_token: float | None = None
    duration: float = 0.0
    usage: Usage | None = None
    reserved_tokens: int = 0
    trace: str = ""
    at: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.perf_counter)
    _generated: int = field(default=0, init=False, repr=False)
    _last: dict[int, str] = field(default_factory=dict, init=False, repr=False)
    _started: dict[int, Started] = field(default_factory=dict, init=False, repr=False)

    def watch(self, event: Event) -> None:
        """Take an event of the answer as it happens."""
        if isinstance(event, Text | Reasoning):
            self._generated += event.tokens
            if self.first_token is None:
                self.first_token = time.perf_counter() - self.begun
        elif isinstance(event, ToolCallStart):
            if self.first_token is None:
                self.first_token = time.perf_counter() - self.begun
        elif not isinstance(event, Finish):
            self._watch_beginning(event)

    def _watch_beginning(self, event: Event) -> None:
        if isinstance(event, Admitted):
            self.admitted = True
            self.queued = max(self.queued, event.waited)
        elif isinstance(event, Routed):
            self.upstream = event.upstream
            self.attempts = max(self.attempts, event.attempt)
            self.tried.append(event.upstream)
            if event.attempt > 1 and event.index in self._last:
                self.failed.append(self._last[event.index])
            self._last[event.index] = event.upstream
        elif isinstance(event, Started):
            self._started.setdefault(event.index // self.n, event)

    def settle(self) -> None:
        """Where nobody has noted the usage, take what was watched: a request that failed, or whose
        client left, before it had an answer."""
        if self.usage is None and self._started:
            started = self._started.values()
            self.usage = Usage(
                prompt_tokens=sum(each.prompt_tokens for each in started),
                completion_tokens=self._generated,
                cached_tokens=sum(each.cached_tokens for each in started),
            )

    def fail(self, error: ApiError) -> None:
        """Take the failure that the client is told of, in a body or in an event of a stream."""
        self.error = error.code or ""
        self.error_type = error.default_code or ""
        refused = error.status < 500 or isinstance(error, Overloaded)
        self.outcome = "refused" if refused else "error"

    def abort(self) -> None:
        """The client has left, whatever was on its way to it."""
        self.error = self.error_type = ""
        self.outcome = "aborted"
