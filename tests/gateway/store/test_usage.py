"""Rows of usage: written, summed, forgotten."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_openai.gateway.store import usage
from qwen_openai.gateway.store.database import connect
from qwen_openai.gateway.store.reading import reading
from qwen_openai.gateway.store.usage import Sums, Which
from qwen_openai.observe.record import Record
from tests.gateway.records import record

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
DAY = 86_400


@pytest.fixture
def base(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path / "gateway.db")
    yield connection
    connection.close()


def count(base: sqlite3.Connection) -> int:
    number: int = base.execute("SELECT COUNT(*) FROM usage").fetchone()[0]
    return number


def test_a_record_is_written_whole(base: sqlite3.Connection) -> None:
    made = record(tokens=(100, 20, 30), at=NOON)
    made.upstream, made.queued = "a", 0.25
    usage.insert(base, [made])
    base.row_factory = sqlite3.Row
    row = dict(base.execute("SELECT * FROM usage").fetchone())
    assert row == {
        "id": 1,
        "at": NOON,
        "request": made.request_id,
        "key": "key_anna",
        "model": "qwen",
        "route": "/v1/chat/completions",
        "upstream": "a",
        "status": 200,
        "outcome": "ok",
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 30,
        "reserved_tokens": 100,
        "queued": 0.25,
        "first_token": 0.1,
        "duration": 0.5,
    }


def test_many_records_are_written_all_or_none(base: sqlite3.Connection) -> None:
    usage.insert(base, [record() for _ in range(1234)])
    assert count(base) == 1234
    bad = record()
    bad.status = "x"  # type: ignore[assignment]  # what a STRICT table refuses
    with pytest.raises(sqlite3.Error):
        usage.insert(base, [*(record() for _ in range(500)), bad])
    assert count(base) == 1234
    assert not base.in_transaction


def test_values_are_bound(base: sqlite3.Connection) -> None:
    evil = "' OR 1=1; DROP TABLE usage; --"
    usage.insert(base, [record(key=evil, model=evil), record()])
    assert [row.requests for row in usage.sums(base, Which(keys=(evil,), model=evil))] == [1]
    assert usage.keys_called(base, evil) == (evil,)
    assert usage.keys_called(base, "' OR 1=1--") == ()
    assert count(base) == 2


@given(
    rows=st.lists(
        st.builds(
            record,
            key=st.sampled_from(["a", "b"]),
            model=st.sampled_from(["x", "y"]),
            at=st.floats(NOON - 3 * DAY, NOON),
            tokens=st.tuples(*[st.integers(0, 10**9)] * 3),
            outcome=st.sampled_from(["ok", "aborted", "error", "refused"]),
            seconds=st.floats(0, 1000),
            first_token=st.none() | st.floats(0, 100),
        ),
        max_size=12,
    ),
    by=st.lists(st.sampled_from(["day", "key", "model"]), unique=True),
    since=st.none() | st.floats(NOON - 3 * DAY, NOON),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_sums_are_those_that_plain_python_makes(
    base: sqlite3.Connection, rows: list[Record], by: list[str], since: float | None
) -> None:
    base.execute("DELETE FROM usage")
    usage.insert(base, rows)
    meant = [row for row in rows if since is None or row.at >= since]
    found = usage.sums(base, Which(since=since), by, quantiles=True)

    def shared(row: Record) -> tuple[str, ...]:
        day = datetime.fromtimestamp(row.at, UTC).date().isoformat()
        return tuple({"day": day, "key": row.key, "model": row.model}[name] for name in by)

    expected = [
        _summed(dict(zip(by, group, strict=True)), list(some))
        for group, some in groupby(sorted(meant, key=shared), key=shared)
    ]
    assert [_rounded(each) for each in found] == [_rounded(each) for each in expected]


def _summed(by: dict[str, str], rows: list[Record]) -> Sums:
    whole = sorted(row.duration for row in rows if row.outcome == "ok")
    firsts = [row.first_token for row in rows if row.first_token is not None]
    tokens = [row.usage for row in rows if row.usage]
    return Sums(
        by,
        requests=len(rows),
        prompt_tokens=sum(each.prompt_tokens for each in tokens),
        cached_tokens=sum(each.cached_tokens for each in tokens),
        completion_tokens=sum(each.completion_tokens for each in tokens),
        errors=sum(row.outcome == "error" for row in rows),
        refused=sum(row.outcome == "refused" for row in rows),
        aborted=sum(row.outcome == "aborted" for row in rows),
        first_token=sum(firsts) / len(firsts) if firsts else None,
        median=whole[(len(whole) - 1) // 2] if whole else None,
        p95=whole[min(len(whole) - 1, int(len(whole) * 0.95))] if whole else None,
    )


def _rounded(sums: Sums) -> tuple[object, ...]:
    mean = None if sums.first_token is None else pytest.approx(sums.first_token)
    counts = (sums.requests, sums.prompt_tokens, sums.cached_tokens, sums.completion_tokens)
    ends = (sums.errors, sums.refused, sums.aborted)
    return (sums.by, *counts, *ends, mean, sums.median, sums.p95)


def test_the_past_that_limits_know(base: sqlite3.Connection) -> None:
    month_begun = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    usage.insert(
        base,
        [
            record(at=NOON - 61),
            record(at=NOON - 59),
            record(at=NOON - 1, reserved=0, outcome="refused"),
            record(at=NOON - 13 * 3600, tokens=(1000, 0, 0)),
            record(at=month_begun, tokens=(7, 0, 0)),
            record(at=month_begun - 1, tokens=(10**6, 0, 0)),
            record(key="key_bert", at=NOON - 2, tokens=(3, 4, 0)),
        ],
    )
    assert usage.last_minute(base, NOON) == [
        ("key_anna", NOON - 59, 15),
        ("key_bert", NOON - 2, 7),
    ]
    used = usage.budgets_used(base, ["key_anna", "key_new"], NOON)
    assert used == {"key_anna": (45, 1052), "key_new": (0, 0)}


def test_the_old_is_forgotten_in_bites(base: sqlite3.Connection) -> None:
    usage.insert(base, [record(at=NOON - each * DAY) for each in range(10)])
    assert usage.forget(base, NOON - 5.5 * DAY, most=3) == 3
    assert base.execute("SELECT MAX(at) FROM usage").fetchone()[0] == NOON
    assert base.execute("SELECT MIN(at) FROM usage").fetchone()[0] == NOON - 6 * DAY
    assert usage.forget(base, NOON - 5.5 * DAY, most=3) == 1
    assert usage.forget(base, NOON - 5.5 * DAY, most=3) == 0
    assert count(base) == 6


def test_a_reader_changes_nothing_and_is_ended_in_time(
    base: sqlite3.Connection, tmp_path: Path
) -> None:
    usage.insert(base, [record() for _ in range(200)])
    path = tmp_path / "gateway.db"
    with reading(path) as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM usage")
        # A writer in the middle of a transaction holds no reader up.
        base.execute("BEGIN IMMEDIATE")
        assert usage.sums(connection, Which())[0].requests == 200
        base.execute("ROLLBACK")
    endless = "SELECT COUNT(*) FROM usage a, usage b, usage c, usage d"
    with (
        reading(path, seconds=0.05) as connection,
        pytest.raises(sqlite3.OperationalError, match="interrupted"),
    ):
        connection.execute(endless).fetchone()
    with pytest.raises(sqlite3.OperationalError), reading(tmp_path / "no.db") as connection:
        connection.execute("SELECT 1")
    assert not (tmp_path / "no.db").exists()
