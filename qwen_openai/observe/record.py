"""What is noted of one request while it runs, for its log line, the metrics and the ledger.

It is told events and changes nothing. Times are seconds since the request began, by a monotonic
clock; ``at`` alone is Unix time.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

from qwen_openai.core import Admitted, Event, Reasoning, Routed, Text, ToolCallStart, Usage

# ok: answered whole. aborted: the client left. error: it failed on our side or an upstream's,
# perhaps in the middle of a stream. refused: 4xx, and 503 for want of room.
Outcome = Literal["ok", "aborted", "error", "refused"]


@dataclass(slots=True)
class Record:
    """One request. ``route`` is the path of the endpoint, "" where there is none; ``model`` is a
    name that this gateway serves, "" before one is known; ``key`` is the id of the caller's key."""

    request_id: str = ""
    method: str = ""
    route: str = ""
    key: str = ""
    model: str = ""
    streams: bool = False
    status: int = 0
    outcome: Outcome = "ok"
    error: str = ""
    upstream: str = ""
    attempts: int = 0
    queued: float = 0.0
    first_token: float | None = None
    duration: float = 0.0
    usage: Usage | None = None
    reserved_tokens: int = 0
    at: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.perf_counter)

    def watch(self, event: Event) -> None:
        """Take an event of the answer as it happens."""
        if isinstance(event, Text | Reasoning | ToolCallStart):
            if self.first_token is None:
                self.first_token = time.perf_counter() - self.begun
        elif isinstance(event, Admitted):
            self.queued = max(self.queued, event.waited)
        elif isinstance(event, Routed):
            self.upstream = event.upstream
            self.attempts = max(self.attempts, event.attempt)
