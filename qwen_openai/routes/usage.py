"""GET /v1/usage: what the caller's own key has used; the master key sees all of them, or one.

The sums are made off the loop, within a time limit; what was answered a moment ago is not in them.
"""

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from qwen_openai.errors import InvalidRequest, NotFound
from qwen_openai.gateway.keys import ANYBODY, MASTER, Key, KeyLimits
from qwen_openai.gateway.limits import Limiter
from qwen_openai.gateway.store import usage
from qwen_openai.gateway.store.usage import Sums, Which
from qwen_openai.responses.usage import Numbers, usage_body
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.notes import key_of
from qwen_openai.routes.respond import send_json

_USUAL_DAYS = 30
_MOST_DAYS = 400
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class _Asked:
    """``key`` is whose usage is asked for, by id; None means all. ``days`` counts today."""

    key: str | None
    days: int


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    today: Numbers
    month: Numbers
    spent: tuple[int, int]
    by_day: list[Numbers]


class ReadUsage:
    """GET /v1/usage, with `?days=` and, for the master key, `?key=`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, caller = self._gateway, key_of(scope)
        asked = _asked(QueryParams(scope["query_string"]), caller)
        now = time.time()
        found = await gateway.bookkeeper.ask(lambda connection: _find(connection, asked, now))
        is_own = asked.key == caller.id
        body = usage_body(
            key=None if asked.key is None else {"id": asked.key, "name": found.name or caller.name},
            today=found.today,
            month=found.month,
            days=asked.days,
            by_day=found.by_day,
            limits=_limits(gateway.limiter, caller, found.spent) if is_own else {},
        )
        await send_json(send, body, headers={"cache-control": "no-store"})


def _asked(query: QueryParams, caller: Key) -> _Asked:
    """Raises NotFound for the key of somebody else: whether it exists is not for this caller."""
    text = query.get("days", str(_USUAL_DAYS))
    days = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= days <= _MOST_DAYS:
        raise InvalidRequest(f"days is a whole number from 1 to {_MOST_DAYS}.", param="days")
    key = query.get("key")
    if caller.is_master:
        return _Asked(key, days)
    if key is not None and key != caller.id:
        raise _unknown(key)
    return _Asked(caller.id, days)


def _unknown(key: str) -> NotFound:
    return NotFound(f"There is no key {key[:80]!r} whose usage you may see.")


def _find(connection: sqlite3.Connection, asked: _Asked, now: float) -> _Found:
    """Runs in a thread. Raises NotFound, sqlite3.Error."""
    names = usage.names_of_keys(connection)
    if asked.key not in (None, ANYBODY.id, MASTER.id, *names):
        raise _unknown(str(asked.key))
    keys = None if asked.key is None else (asked.key,)
    day, month = usage.day_begun(now), usage.month_begun(now)
    today = _one(usage.sums(connection, Which(since=day, keys=keys)))
    this_month = _one(usage.sums(connection, Which(since=month, keys=keys)))
    since = day - (asked.days - 1) * _DAY
    by = ("day", "model") if keys else ("day", "key", "model")
    rows = usage.sums(connection, Which(since=since, keys=keys), by)
    return _Found(
        name=names.get(asked.key or "", ""),
        today=_numbers(today),
        month=_numbers(this_month),
        spent=(_tokens(today), _tokens(this_month)),
        by_day=[_numbers(row, names) for row in rows],
    )


def _one(found: list[Sums]) -> Sums:
    return found[0] if found else Sums({})


def _tokens(sums: Sums) -> int:
    return sums.prompt_tokens + sums.completion_tokens


def _numbers(sums: Sums, names: Mapping[str, str] | None = None) -> Numbers:
    shared = dict(sums.by)
    if names is not None and "key" in shared:
        shared["key_name"] = names.get(shared["key"], "")
    return {
        **shared,
        "requests": sums.requests,
        "prompt_tokens": sums.prompt_tokens,
        "cached_tokens": sums.cached_tokens,
        "completion_tokens": sums.completion_tokens,
        "total_tokens": _tokens(sums),
        "errors": sums.errors,
        "refused": sums.refused,
        "aborted": sums.aborted,
    }


def _limits(limiter: Limiter, key: Key, spent: tuple[int, int]) -> dict[str, dict[str, int]]:
    """Return each limit that this key has, with what is left where that can be said."""
    found: dict[str, dict[str, int]] = {}
    told = limiter.headers(key)
    left: dict[str, int | None] = {
        "requests_per_minute": _number(told.get("x-ratelimit-remaining-requests")),
        "tokens_per_minute": _number(told.get("x-ratelimit-remaining-tokens")),
        "tokens_per_day": _left(key.limits.tokens_per_day, spent[0]),
        "tokens_per_month": _left(key.limits.tokens_per_month, spent[1]),
    }
    for name, limit in _given(key.limits).items():
        remaining = left.get(name)
        found[name] = {"limit": limit} | ({} if remaining is None else {"left": remaining})
    return found


def _given(limits: KeyLimits) -> dict[str, int]:
    return {name: value for name, value in asdict(limits).items() if value is not None}


def _left(limit: int | None, spent: int) -> int | None:
    return None if limit is None else max(0, limit - spent)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
