"""The rows of the ledger: written in batches, summed by day, key and model, forgotten in bites.

Only SQL; whose thread a connection belongs to, and what happens when it fails, is its owner's
affair. Days and months are UTC's, times are Unix seconds.
"""

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from qwen_openai.gateway.store.database import transaction
from qwen_openai.observe.record import Record

Value = str | int | float | None

_COLUMNS = (
    "at, request, key, model, route, upstream, status, outcome, prompt_tokens, completion_tokens, "
    "cached_tokens, reserved_tokens, queued, first_token, duration"
)
_ROW = f"({', '.join('?' * len(_COLUMNS.split(',')))})"
# Rows in one statement. A connection lets go of the interpreter's lock for each statement, and
# under load waits its turn to have it back; a statement for each row would fall behind.
_TOGETHER = 100

_DAY_SECONDS = 86_400
# What sums can be made by, and how a row says it. These are the only texts that go into a
# statement; values are bound.
GROUPS: Mapping[str, str] = {
    "day": f"CAST(at AS INTEGER) / {_DAY_SECONDS}",
    "key": "key",
    "model": "model",
    "upstream": "upstream",
    "route": "route",
}
_SUMS = (
    "COUNT(*), SUM(prompt_tokens), SUM(cached_tokens), SUM(completion_tokens), "
    "SUM(outcome = 'error'), SUM(outcome = 'refused'), SUM(outcome = 'aborted'), AVG(first_token)"
)
_QUANTILES = "quantiles(duration) FILTER (WHERE outcome = 'ok')"


@dataclass(frozen=True, slots=True)
class Which:
    """Which rows are meant. ``since`` is in, ``until`` is not; ``keys`` None means all of them."""

    since: float | None = None
    until: float | None = None
    keys: tuple[str, ...] | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """What some requests came to. ``by`` is what they have in common, days as 2026-11-23.

    ``errors`` are those that failed on our side or an upstream's, ``refused`` those of the caller
    (4xx) or for want of room, ``aborted`` those whose client left. Seconds; ``first_token`` is a
    mean, ``median`` and ``p95`` are the durations of requests that were answered whole.
    """

    by: Mapping[str, str]
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    errors: int = 0
    refused: int = 0
    aborted: int = 0
    first_token: float | None = None
    median: float | None = None
    p95: float | None = None


def insert(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Write records down, all or none. Raises sqlite3.Error."""
    with transaction(connection):
        for start in range(0, len(records), _TOGETHER):
            some = records[start : start + _TOGETHER]
            rows = ", ".join([_ROW] * len(some))
            values = [value for record in some for value in _values(record)]
            connection.execute(f"INSERT INTO usage ({_COLUMNS}) VALUES {rows}", values)  # noqa: S608


def forget(connection: sqlite3.Connection, before: float, most: int) -> int:
    """Delete the oldest rows of the time before, at most so many; return how many those were."""
    return connection.execute(
        "DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE at < ? ORDER BY at LIMIT ?)",
        (before, most),
    ).rowcount


def last_minute(connection: sqlite3.Connection, now: float) -> list[tuple[str, float, int]]:
    """Return key, time and tokens of the requests that limits admitted in the last minute."""
    return connection.execute(
        "SELECT key, at, prompt_tokens + completion_tokens FROM usage "
        "WHERE at > ? AND reserved_tokens > 0 ORDER BY at",
        (now - 60,),
    ).fetchall()


def budgets_used(
    connection: sqlite3.Connection, keys: Iterable[str], now: float
) -> dict[str, tuple[int, int]]:
    """Return the tokens of today and of this month for each of these keys."""
    day, month = day_begun(now), month_begun(now)
    statement = (
        "SELECT TOTAL((prompt_tokens + completion_tokens) * (at >= ?)), "
        "TOTAL(prompt_tokens + completion_tokens) FROM usage WHERE key = ? AND at >= ?"
    )
    used = {}
    for key in keys:
        today, this_month = connection.execute(statement, (day, key, month)).fetchone()
        used[key] = (int(today), int(this_month))
    return used


def sums(
    connection: sqlite3.Connection,
    which: Which,
    by: Sequence[str] = (),
    *,
    quantiles: bool = False,
) -> list[Sums]:
    """Add rows up by some of GROUPS, in the order of those; without any, to one sum or none.

    ``quantiles`` takes a call of Python for each row. Raises sqlite3.Error.
    """
    groups = [GROUPS[name] for name in by]
    if quantiles:
        connection.create_aggregate("quantiles", 1, _Quantiles)  # type: ignore[arg-type]  # the stub's step returns an int, SQLite takes none
    order = f"GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
    where, values = _where(which)
    columns = ", ".join([*groups, _SUMS, _QUANTILES if quantiles else "NULL"])
    rows = connection.execute(f"SELECT {columns} FROM usage {where} {order}", values)  # noqa: S608
    return [found for row in rows if (found := _sums(by, row)).requests]


def names_of_keys(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what each key is called."""
    return dict(connection.execute("SELECT id, name FROM keys"))


def keys_called(connection: sqlite3.Connection, text: str) -> tuple[str, ...]:
    """Return the keys that have this id or this name, also such as only the ledger knows."""
    found = connection.execute(
        "SELECT id FROM keys WHERE id = ?1 OR name = ?1 "
        "UNION SELECT key FROM (SELECT key FROM usage WHERE key = ?1 LIMIT 1)",
        (text,),
    )
    return tuple(row[0] for row in found)


def day_begun(now: float) -> float:
    """Return when the day of this time began."""
    return now // _DAY_SECONDS * _DAY_SECONDS


def month_begun(now: float) -> float:
    """Return when the month of this time began."""
    today = datetime.fromtimestamp(now, UTC)
    return datetime(today.year, today.month, 1, tzinfo=UTC).timestamp()


def _values(record: Record) -> Iterator[Value]:
    usage = record.usage
    yield record.at
    yield record.request_id
    yield record.key
    yield record.model
    yield record.route
    yield record.upstream
    yield record.status
    yield record.outcome
    yield usage.prompt_tokens if usage else 0
    yield usage.completion_tokens if usage else 0
    yield usage.cached_tokens if usage else 0
    yield record.reserved_tokens
    yield record.queued
    yield record.first_token
    yield record.duration


def _where(which: Which) -> tuple[str, list[Value]]:
    conditions: list[str] = []
    values: list[Value] = []
    if which.keys is not None:
        conditions.append(f"key IN ({', '.join('?' * len(which.keys))})")
        values += which.keys
    for column, value in (("at >=", which.since), ("at <", which.until), ("model =", which.model)):
        if value is not None:
            conditions.append(f"{column} ?")
            values.append(value)
    return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), values


def _sums(by: Sequence[str], row: Sequence[Value]) -> Sums:
    shared = {name: _shown(name, value) for name, value in zip(by, row, strict=False)}
    requests, prompt, cached, completion, errors, refused, aborted = (
        int(count or 0) for count in row[len(by) : len(by) + 7]
    )
    first_token, quantiles = row[-2:]
    median, p95 = _seconds(quantiles)
    return Sums(
        by=shared,
        requests=requests,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        errors=errors,
        refused=refused,
        aborted=aborted,
        first_token=None if first_token is None else float(first_token),
        median=median,
        p95=p95,
    )


def _shown(group: str, value: Value) -> str:
    if group != "day":
        return str(value)
    return datetime.fromtimestamp(int(value or 0) * _DAY_SECONDS, UTC).date().isoformat()


def _seconds(quantiles: Value) -> tuple[float | None, float | None]:
    if quantiles is None:
        return None, None
    median, p95 = str(quantiles).split()
    return float(median), float(p95)


class _Quantiles:
    """SQLite's aggregate of median and 95th percentile: the nearest ranks, as text."""

    def __init__(self) -> None:
        self._all = array("d")

    def step(self, value: float) -> None:
        self._all.append(value)

    def finalize(self) -> str | None:
        if not self._all:
            return None
        ordered = sorted(self._all)
        last = len(ordered) - 1
        return f"{ordered[last // 2]!r} {ordered[min(last, int(len(ordered) * 0.95))]!r}"
