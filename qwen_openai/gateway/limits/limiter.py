"""The limits of all keys and of the whole: who may come in now, and what is given back later.

Accounts are kept by the ids of keys, which the operator gives out, so strangers grow nothing.
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping

from qwen_openai.errors import ApiError, Overloaded, QuotaExceeded, RateLimited
from qwen_openai.gateway.keys import Key, KeyLimits
from qwen_openai.gateway.limits.account import Account, Hold, Refusal
from qwen_openai.gateway.limits.calendar import Calendar
from qwen_openai.gateway.limits.headers import limit_headers
from qwen_openai.gateway.limits.minute import SPAN

_SHARE_OF_NEWEST = 0.1


class Reservation:
    """What one request has taken; settle it in a `finally`, twice does no harm."""

    __slots__ = ("_holds", "_key", "_limiter", "_since", "tokens")

    def __init__(self, limiter: "Limiter", key: Key, tokens: int, holds: tuple[Hold, ...]) -> None:
        self.tokens = tokens
        self._limiter = limiter
        self._key = key
        self._holds = holds
        self._since = limiter.now()

    def headers(self) -> Mapping[str, str]:
        """OpenAI's `x-ratelimit-*`, of the limits that there are, as they stand now."""
        return self._limiter.headers(self._key)

    def settle(self, tokens: int) -> None:
        """Give back what was reserved and not used, and charge what was used beyond it; ``tokens``
        is what was. The request itself stays counted."""
        holds, self._holds = self._holds, ()
        if not holds:
            return
        now = self._limiter.now()
        for hold in holds:
            hold.settle(now, tokens - self.tokens)
        if self.tokens:
            self._limiter.note_duration(now - self._since)


class Limiter:
    """Counts for all keys. ``total`` bounds all of them together."""

    def __init__(
        self,
        total: KeyLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` is one that never goes back, for minutes; ``wall`` tells Unix time, for days
        and months."""
        self.now = clock
        self._wall = wall
        self._total = total
        self._calendar = Calendar(wall)
        self._all = Account(self._calendar)
        self._accounts: dict[str, Account] = {}
        # Those that may have something in their minute, least lately used first.
        self._fresh: OrderedDict[str, Account] = OrderedDict()
        self._usual = 1.0

    def apply(self, total: KeyLimits) -> None:
        """Take other limits for the whole; what has been counted stays counted."""
        self._total = total

    def reserve(self, key: Key, tokens: int) -> Reservation:
        """Take one request of ``tokens`` tokens, all of it or nothing. One of none has only its
        number limited: in a minute, and at once.

        Raises RateLimited for the key's own limit, QuotaExceeded for its budget of a day or month,
        Overloaded for the limits of the whole server.
        """
        now = self.now()
        self._calendar.turn()
        everybody = self._all
        everybody.turn(now, self._calendar)
        own = self._account(key.id, now)
        refusal = self._refusal(own, key.limits, tokens, now)
        if refusal is not None:
            raise _of_key(refusal)
        refusal = self._refusal(everybody, self._total, tokens, now)
        if refusal is not None:
            raise _of_all(refusal)
        return Reservation(self, key, tokens, (own.take(now, tokens), everybody.take(now, tokens)))

    def headers(self, key: Key) -> Mapping[str, str]:
        """OpenAI's `x-ratelimit-*` as they stand now: of the key's own limits, where it has them,
        else of the whole server's."""
        own, total = key.limits, self._total
        headers: dict[str, str] = {}
        now = self.now()
        for kind in ("requests", "tokens"):
            mine, most = _most(own, kind), _most(total, kind)
            limit = mine if mine is not None else most
            if limit is None:
                continue
            account = self._accounts.get(key.id) if mine is not None else self._all
            if account is None:
                headers.update(limit_headers(kind, limit=limit, used=0, reset=0))
                continue
            minute = account.minute
            minute.expire(now)
            used = minute.requests if kind == "requests" else minute.tokens
            reset = minute.seconds_until_empty(now)
            headers.update(limit_headers(kind, limit=limit, used=used, reset=reset))
        return headers

    def restore(
        self, minute: Iterable[tuple[str, float, int]], budgets: Mapping[str, tuple[int, int]]
    ) -> None:
        """Count what was taken before this process was: call it before any request comes.

        ``minute`` are the admitted requests of the last minute (key id, Unix time, tokens), in any
        order; ``budgets`` says for each key id the tokens of today and of this month, UTC.
        """
        now, wall = self.now(), self._wall()
        self._calendar.turn()
        taken: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for id, at, tokens in minute:
            if wall - at < SPAN:
                taken[id].append((max(wall - at, 0.0), tokens))
        for id, requests in taken.items():
            self._account(id, now).minute.restore(now, requests)
        self._all.minute.restore(now, (each for requests in taken.values() for each in requests))
        for id, spent in budgets.items():
            self._account(id, now).spend(*spent)
            self._all.spend(*spent)

    def note_duration(self, seconds: float) -> None:
        """Learn how long requests run, which is when the next one of several at once ends."""
        self._usual += (seconds - self._usual) * _SHARE_OF_NEWEST

    @property
    def kept(self) -> int:
        """Cells that are kept in memory for all keys; those of idle ones are dropped."""
        return sum(len(account.minute) for account in self._accounts.values())

    def _refusal(
        self, account: Account, limits: KeyLimits, tokens: int, now: float
    ) -> Refusal | None:
        if tokens and (limits.tokens_per_day, limits.tokens_per_month) != (None, None):
            left = self._calendar.seconds_of_day_left()
            refusal = account.refuses_budget(limits, tokens, left)
            if refusal is not None:
                return refusal
        return account.refuses(limits, tokens, now, self._usual)

    def _account(self, id: str, now: float) -> Account:
        account = self._accounts.get(id)
        if account is None:
            account = self._accounts[id] = Account(self._calendar)
        account.turn(now, self._calendar)
        self._fresh[id] = account
        self._fresh.move_to_end(id)
        while True:
            id, oldest = next(iter(self._fresh.items()))
            if oldest.touched > now - SPAN:
                return account
            oldest.minute.expire(now)
            del self._fresh[id]


def _most(limits: KeyLimits, kind: str) -> int | None:
    return limits.requests_per_minute if kind == "requests" else limits.tokens_per_minute


def _of_key(refusal: Refusal) -> ApiError:
    message = f"{refusal.message} This limit is the key's own."
    if refusal.kind == "budget":
        return QuotaExceeded(message, retry_after=refusal.seconds)
    return RateLimited(message, retry_after=refusal.seconds, lasting=refusal.kind == "lasting")


def _of_all(refusal: Refusal) -> ApiError:
    message = f"{refusal.message} This limit is that of all keys together."
    if refusal.kind == "lasting":
        return RateLimited(message, retry_after=refusal.seconds, lasting=True)
    return Overloaded(message, retry_after=refusal.seconds)
