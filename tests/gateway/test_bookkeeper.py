"""The bookkeeper: a second behind at most, and unmoved by whatever the database does (row 62)."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from qwen_openai.errors import NotFound, Overloaded, StartupError
from qwen_openai.gateway.bookkeeper import THREAD_NAME, Bookkeeper
from qwen_openai.gateway.keys import KeyLimits, KeyRing
from qwen_openai.gateway.ledger import Ledger
from qwen_openai.gateway.limits import Limiter
from qwen_openai.gateway.store import database, keys, usage
from qwen_openai.gateway.store.book import Connect
from qwen_openai.gateway.store.usage import Which
from tests.gateway.records import make_key, record
from tests.live import make_settings, until


class House:
    """A bookkeeper with what it serves."""

    def __init__(self, connect: Connect = database.connect, **values: object) -> None:
        self.ring = KeyRing()
        self.ledger = Ledger(most=50)
        self.limiter = Limiter(KeyLimits())
        self.books = Bookkeeper(
            make_settings(**values), self.ring, self.ledger, self.limiter, connect=connect
        )

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.ledger.add(record())


@asynccontextmanager
async def keeping(connect: Connect = database.connect, **values: object) -> AsyncIterator[House]:
    house = House(connect, **values)
    await house.books.start()
    try:
        yield house
    finally:
        await house.books.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gateway.db"


def rows(path: Path) -> int:
    """Rows as another process sees them."""
    connection = sqlite3.connect(path)
    count: int = connection.execute("SELECT COUNT(*) FROM usage").fetchone()[0]
    connection.close()
    return count


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def content_of(path: Path) -> bytes:
    return path.read_bytes()


class Tunable(sqlite3.Connection):
    """Is told something before every transaction."""

    first: str

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement.startswith("BEGIN"):
            super().execute(self.first)
        return super().execute(statement, *values)  # type: ignore[arg-type]  # as it is called here


class Slow(sqlite3.Connection):
    """Writes only while its gate is open."""

    gate: threading.Event

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement.startswith("INSERT"):
            self.gate.wait(20)
        return super().execute(statement, *values)  # type: ignore[arg-type]  # as it is called here


def slow(gate: threading.Event) -> Connect:
    def connect(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
        database.connect(path, busy_seconds=busy_seconds).close()
        made = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, factory=Slow)
        made.gate = gate
        return made

    return connect


async def test_what_is_added_is_on_disk_soon_and_at_the_end(path: Path) -> None:
    async with keeping(database=path) as house:
        house.add(3)
        await until(lambda: house.books.written == 3)
        assert rows(path) == 3
        house.add(2)
    assert rows(path) == 5
    assert not any(thread.name == THREAD_NAME for thread in threading.enumerate())
    assert not path.with_name("gateway.db-wal").exists()


async def test_without_a_database_there_is_no_thread_and_no_file(tmp_path: Path) -> None:
    async with keeping(database="off") as house:
        house.add()
        assert len(house.ledger) == 0
        assert not any(thread.name == THREAD_NAME for thread in threading.enumerate())
        assert house.books.trouble == ""
        with pytest.raises(NotFound):
            await house.books.ask(lambda connection: None)
    assert not os.listdir(tmp_path)


async def test_keys_come_and_go_while_it_runs(path: Path) -> None:
    async with keeping(database=path) as house:
        asked_before = house.ring.asks
        secret, id = make_key(path)
        await until(lambda: house.ring.find(secret.encode()) is not None)
        with database.opened(path) as connection:
            keys.revoke(connection, id, now=time.time())
        revoked = time.monotonic()
        await until(lambda: house.ring.find(secret.encode()) is None)
        assert time.monotonic() - revoked < 5  # a second is promised
        assert (asked_before, house.ring.asks) == (False, True)
        assert house.books.failures == 0


async def test_limits_are_told_what_was_used_before(path: Path) -> None:
    budget = KeyLimits(tokens_per_day=1000, requests_per_minute=5)
    async with keeping(database=path):
        secret, id = make_key(path, limits=budget)
    base = database.connect(path)
    usage.insert(base, [record(key=id, tokens=(300, 100, 0)) for _ in range(2)])
    base.close()
    async with keeping(database=path) as house:
        key = house.ring.find(secret.encode())
        assert key is not None
        told = house.limiter.headers(key)
        assert told["x-ratelimit-remaining-requests"] == "3"
        for _ in range(2):
            house.limiter.reserve(key, 10).settle(0)


async def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    content = b"no database at all, but long enough to be read as one" * 100
    path = written(tmp_path / "gateway.db", content)
    house = House(database=path)
    with pytest.raises(StartupError) as caught:
        await house.books.start()
    assert str(path) in caught.value.message
    assert "--database" in caught.value.fix
    await house.books.aclose()
    assert content_of(path) == content


async def test_a_folder_that_was_named_and_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError):
        await House(database=tmp_path / "file" / "gateway.db").books.start()


async def test_without_a_home_the_server_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with capture_logs() as lines:
        async with keeping(database=None) as house:
            house.add()
            assert len(house.ledger) == 0
            assert "no usage is kept" in house.books.trouble
            assert str(tmp_path) not in house.books.trouble
    assert [line["event"] for line in lines] == ["no database"]


async def test_a_locked_database_is_waited_for_and_keys_still_come(path: Path) -> None:
    async with keeping(database=path) as house:
        secret, _ = make_key(path)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with capture_logs() as lines:
            other.execute("BEGIN IMMEDIATE")
            house.add(80)
            await until(lambda: house.books.failures >= 2)
            assert "locked" in house.books.trouble
            assert house.ring.find(secret.encode()) is not None
            assert house.ledger.dropped == 30
            other.execute("ROLLBACK")
            other.close()
            await until(lambda: house.books.trouble == "")
        assert house.books.written == 50
        assert house.books.dropped == 30
        assert rows(path) == 50
        # However often it failed.
        assert [line["log_level"] for line in lines] == ["error"]


async def test_a_database_that_may_not_be_written_mends_without_a_restart(path: Path) -> None:
    broken = threading.Event()
    broken.set()

    def connect(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
        made = database.connect(path, busy_seconds=busy_seconds)
        if broken.is_set():
            made.execute("PRAGMA query_only=ON")
        return made

    async with keeping(connect, database=path) as house:
        house.add(5)
        await until(lambda: "readonly" in house.books.trouble)
        secret, _ = make_key(path)
        await until(lambda: house.ring.find(secret.encode()) is not None)
        broken.clear()
        await until(lambda: house.books.trouble == "")
        assert rows(path) == house.books.written == 5


async def test_a_full_disk_keeps_the_keys_coming_and_mends_without_a_restart(path: Path) -> None:
    connections: list[Tunable] = []

    def connect(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
        database.connect(path, busy_seconds=busy_seconds).close()
        made = sqlite3.connect(path, isolation_level=None, factory=Tunable)
        made.first = "PRAGMA max_page_count=1"  # SQLite's own way to a full disk
        connections.append(made)
        return made

    async with keeping(connect, database=path) as house:
        for _ in range(40):
            house.add(50)
            if "full" in house.books.trouble:
                break
            await until(lambda: len(house.ledger) == 0 or "full" in house.books.trouble)
        secret, _ = make_key(path)
        await until(lambda: house.ring.find(secret.encode()) is not None)
        assert "full" in house.books.trouble
        for each in connections:
            each.first = "PRAGMA max_page_count=1000000"
        await until(lambda: house.books.trouble == "")
        assert rows(path) == house.books.written
        assert len(connections) == 1


async def test_a_deleted_file_is_made_anew_and_opens_no_door(path: Path) -> None:
    async with keeping(database=path) as house:
        secret, _ = make_key(path)
        house.add()
        await until(lambda: house.ring.asks and house.books.written == 1)
        for each in path.parent.iterdir():
            each.unlink()
        await until(lambda: path.exists())
        await until(lambda: "lost its keys" in house.books.trouble)
        house.add(2)
        await until(lambda: house.books.written == 3)
        assert rows(path) == 2
        # Whoever could come in still can, and nobody else.
        assert house.ring.asks
        assert house.ring.find(secret.encode()) is not None
        other, _ = make_key(path, "bert")
        await until(lambda: house.ring.find(other.encode()) is not None)
        assert house.ring.find(secret.encode()) is None
        assert house.books.trouble == ""


async def test_a_file_that_is_replaced_is_read_instead(path: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    secret, _ = make_key(backup)
    async with keeping(database=path) as house:
        backup.replace(path)
        await until(lambda: house.ring.find(secret.encode()) is not None)
        house.add()
        await until(lambda: house.books.written == 1)
        assert rows(path) == 1


async def test_a_damaged_file_keeps_known_keys_and_serves_again_when_mended(path: Path) -> None:
    async with keeping(database=path) as house:
        secret, _ = make_key(path)
        await until(lambda: house.ring.asks)
        whole = path.parent / "whole.db"
        copy = sqlite3.connect(path)
        copy.execute(f"VACUUM INTO '{whole}'")
        copy.close()
        path.with_name("damaged").write_bytes(b"\x00 nonsense " * 3000)
        path.with_name("damaged").replace(path)
        house.add()
        await until(lambda: "not a database" in house.books.trouble)
        assert str(path) not in house.books.trouble
        assert house.ring.find(secret.encode()) is not None
        assert house.ring.find(b"sk-other") is None
        whole.replace(path)
        await until(lambda: house.books.trouble == "")
        assert house.books.written == 1
        assert house.ring.find(secret.encode()) is not None


async def test_a_file_that_is_overwritten_in_place_costs_no_key_and_no_request(path: Path) -> None:
    async with keeping(database=path) as house:
        secret, _ = make_key(path)
        await until(lambda: house.ring.asks)
        written(path, b"\x00 nonsense " * 3000)
        written(path.with_name("gateway.db-wal"), b"")
        house.add()
        await until(lambda: house.books.failures >= 2)
        assert house.books.trouble
        assert house.ring.find(secret.encode()) is not None
        assert [thread.name for thread in threading.enumerate()].count(THREAD_NAME) == 1
        house.ledger.take(9)  # so that nothing is left to try


async def test_a_slow_database_holds_up_nobody(path: Path) -> None:
    gate = threading.Event()
    async with keeping(slow(gate), database=path) as house:
        house.add(30)
        await until(lambda: len(house.ledger) == 0)  # in the hands of the thread, that waits
        began = time.perf_counter()
        house.add(60)
        assert time.perf_counter() - began < 0.05
        assert len(house.ledger) == 50
        gate.set()
        await until(lambda: house.books.written == 80)
    assert rows(path) == 80


async def test_a_close_ends_in_time_whatever_the_database_does(path: Path) -> None:
    gate = threading.Event()
    with capture_logs() as lines:
        async with keeping(slow(gate), database=path) as house:
            house.add(1)
            await until(lambda: len(house.ledger) == 0)
            house.add(7)
            began = time.monotonic()
        assert time.monotonic() - began < 10  # two seconds are promised
    gate.set()
    assert ("usage is lost", 8) in [(line["event"], line.get("records")) for line in lines]


async def test_the_old_is_forgotten(path: Path) -> None:
    base = database.connect(path)
    now = time.time()
    usage.insert(base, [record(at=now - 3 * 86_400) for _ in range(700)])
    usage.insert(base, [record(at=now) for _ in range(3)])
    base.close()
    async with keeping(database=path, usage_days=2):
        await until(lambda: rows(path) == 3)


async def test_questions_are_answered_beside_a_writer(path: Path) -> None:
    async with keeping(database=path) as house:
        house.add(4)
        await until(lambda: house.books.written == 4)
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        found = await house.books.ask(lambda connection: usage.sums(connection, Which()))
        lock.close()
        assert found[0].requests == 4


async def test_questions_that_take_too_long_are_given_up(path: Path) -> None:
    def endless(connection: sqlite3.Connection) -> None:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT COUNT(*) FROM n"
        ).fetchone()

    stuck = threading.Event()

    def hang(_: sqlite3.Connection) -> None:
        stuck.wait(30)

    def nothing(_: sqlite3.Connection) -> None:
        return None

    async with keeping(database=path) as house:
        with pytest.raises(Overloaded):
            await house.books.ask(endless, seconds=0.1)
        hanging = [asyncio.ensure_future(house.books.ask(hang, seconds=0.1)) for _ in range(2)]
        assert all(
            isinstance(each, Overloaded)
            for each in await asyncio.gather(*hanging, return_exceptions=True)
        )
        # Both places are taken by what hangs, and the next one does not wait for ever.
        with pytest.raises(Overloaded):
            await house.books.ask(nothing, seconds=0.1)
        stuck.set()
        await house.books.ask(nothing, seconds=5)
