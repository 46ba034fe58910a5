"""One upstream as the pool holds it: its client, its breaker, what it does now, what it showed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qwen_openai.core import Event, Finish
from qwen_openai.gateway.pool.breaker import Breaker
from qwen_openai.gateway.pool.seams import Client, Seen, Verdict
from qwen_openai.settings import Settings
from qwen_openai.upstreams import Kind, Upstream

# What a server that is merely busy asks for is no reason to keep everybody away from it.
_SHORT_PAUSE = 1.0
_MOST_DOUBLINGS = 14


class Turn:
    """One job at a replica, from its beginning to its end. ``whole``: its last event has come."""

    __slots__ = ("_mark", "_replica", "whole")

    def __init__(self, replica: "Replica") -> None:
        self.whole = False
        self._replica = replica
        self._mark = replica.breaker.begin()

    def began(self) -> None:
        """The first word has come."""
        self._replica.answers += 1
        self._replica.known = True
        self._replica.breaker.began(self._mark)

    def heard(self, event: Event) -> None:
        """Take an event before it is given away: who has the last one asks for nothing more."""
        if type(event) is Finish:
            self.whole = True
            self._replica.breaker.succeeded(self._mark)

    def failed(self, error: Exception, verdict: Verdict, *, counts: bool = True) -> None:
        """It broke. It ``counts`` where it was an answer: a server that is odd about less is whole
        for all else."""
        if verdict.blames and counts:
            self._replica.trouble = reason_of(error)
            self._replica.breaker.failed(self._mark)
        if verdict.pause is not None and verdict.pause > _SHORT_PAUSE:
            self._replica.rest(verdict.pause)


class Replica:
    """An upstream that may serve several models. ``answers`` counts those that have begun;
    ``names`` are those that clients use for its models, each with its own name of it."""

    def __init__(
        self, upstream: Upstream, label: str, client: Client, breaker: Breaker, settings: Settings
    ) -> None:
        self.label = label
        self.client = client
        self.breaker = breaker
        self.in_flight = 0
        self.answers = 0
        self.seen: Seen | None = None
        # Whether it has ever been heard of, by a look or an answer.
        self.known = False
        # What went wrong last, for the log.
        self.trouble = ""
        self.names: Mapping[str, str] = {}
        self._rests_until = 0.0
        # Requests that were sent while its breaker was tentative, and run still; since when there
        # have been any without a failure, and the breaker's mark of then.
        self._tried = 0
        self._tried_since = 0.0
        self._tried_mark = -1
        self.configure(upstream, settings)

    def configure(self, upstream: Upstream, settings: Settings) -> None:
        """Take what may change while it works."""
        self.upstream = upstream
        self.weight = upstream.weight
        self._longest_rest = settings.probe_interval
        self._name()
        self.breaker.configure(settings.breaker_failures, settings.probe_interval)

    @property
    def kind(self) -> Kind:
        """What it is, as far as is known."""
        return self.client.kind

    def context(self, name: str) -> int | None:
        """Return the context of a model by the name that clients use, if it was told."""
        own = self.names.get(name)
        return None if self.seen is None or own is None else self.seen.models.get(own)

    def takes(self, now: float) -> bool:
        """Whether a job may be sent to it now."""
        return (
            self.breaker.state == "closed"
            and self.in_flight < self.upstream.max_parallel
            and self._rests_until <= now
            and not (self.breaker.tentative and self._tried >= self._trials(now))
        )

    def _trials(self, now: float) -> int:
        """Return how many requests may try at once whether it is back: one, and twice as many after
        each second without a failure. A whole answer shows nothing before its end, and must not
        keep all others out for so long."""
        if self._tried_mark != self.breaker.begin():
            # Those that hang from before it was last left alone say nothing of now.
            return self._tried + 1
        seconds = min(max(now - self._tried_since, 0.0), _MOST_DOUBLINGS)
        return int(2 ** int(seconds))

    def rest(self, seconds: float) -> None:
        """Leave it alone, as it asked: not for longer than it takes to look at it again, since one
        answer too many says little of the next minutes."""
        until = self.breaker.clock() + min(seconds, self._longest_rest)
        self._rests_until = max(self._rests_until, until)

    def free_in(self, now: float) -> float:
        """Return the seconds until it may take a job, where that is known; 1 where it is full."""
        if self.breaker.state != "closed":
            return self.breaker.wait
        return self._rests_until - now if self._rests_until > now else 1.0

    def see(self, seen: Seen) -> None:
        """Take what a look has shown."""
        self.seen = seen
        self._name()
        self.known = True
        if self.upstream.kind == "auto":
            self.client.kind = seen.kind

    def _name(self) -> None:
        if self.upstream.models:
            self.names = self.upstream.models
        elif self.seen is not None:
            # What another server says is put into headers and logs: nothing odd.
            told = (name for name in self.seen.models if name and name.isprintable())
            self.names = {name: name for name in told}

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Count a job for as long as it takes, however it ends."""
        tentative = self.breaker.tentative
        self.in_flight += 1
        if tentative:
            mark = self.breaker.begin()
            if not self._tried or self._tried_mark != mark:
                self._tried_since, self._tried_mark = self.breaker.clock(), mark
            self._tried += 1
        try:
            yield Turn(self)
        finally:
            self.in_flight -= 1
            self._tried -= tentative


def reason_of(error: Exception) -> str:
    """Return what to say of a failure in the log."""
    return str(error) or type(error).__name__
