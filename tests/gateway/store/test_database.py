"""The file: made for its owner alone, shared by processes, refused where it is not ours."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qwen_openai.errors import StartupError
from qwen_openai.gateway.store.database import (
    APPLICATION,
    VERSION,
    connect,
    default_path,
    exposed,
    opened,
    path_of,
    transaction,
)
from qwen_openai.settings import load

# One of many processes that begin at once: makes the file, and adds one row.
_OTHER = """
import sys
from pathlib import Path
from qwen_openai.gateway.store import database, keys
sys.stdin.read(1)
with database.opened(Path(sys.argv[1])) as connection:
    keys.insert(connection, sys.argv[2], now=1.0)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gateway.db"


def _tables(path: Path) -> set[str]:
    with opened(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}


def test_the_file_is_made_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as connection, transaction(connection):
            connection.execute("DELETE FROM keys")
            files = sorted(path.parent.iterdir())
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in files] == ["gateway.db", "gateway.db-shm", "gateway.db-wal"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert {"keys", "retired", "usage"} <= _tables(path)


def test_it_keeps_what_it_had(path: Path) -> None:
    with opened(path) as connection:
        connection.execute("INSERT INTO retired VALUES (x'00', 'key', 'shown', 1.0)")
    with opened(path) as connection:
        assert connection.execute("SELECT count(*) FROM retired").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION,)


def test_processes_that_begin_at_once_share_one_file(path: Path) -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(path), f"key {number}"], stdin=subprocess.PIPE
        )
        for number in range(4)
    ]
    for other in others:
        assert other.stdin is not None
        other.stdin.write(b".")
        other.stdin.close()
    assert [other.wait(60) for other in others] == [0] * 4
    with opened(path) as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (4,)


def test_threads_that_begin_at_once_share_one_file(path: Path) -> None:
    for round in range(10):
        file = path.with_name(f"{round}.db")
        failures: list[StartupError] = []
        start = threading.Barrier(4)

        def begin(
            file: Path = file,
            start: threading.Barrier = start,
            failures: list[StartupError] = failures,
        ) -> None:
            start.wait()
            try:
                connect(file).close()
            except StartupError as error:
                failures.append(error)

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def _write(path: Path, first: str, text: str = "shown") -> None:
    with opened(path) as connection:
        connection.execute(first)
        with transaction(connection):
            connection.execute("INSERT INTO retired VALUES (x'00', 'key', ?, 1.0)", (text,))


def test_a_writer_waits_for_another_one(path: Path) -> None:
    holder = connect(path)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StartupError, match="locked") as caught:
        _write(path, "PRAGMA busy_timeout=20")
    assert caught.value.fix.startswith("Another process holds it")
    holder.execute("COMMIT")
    holder.close()
    _tables(path)


def test_readers_do_not_wait(path: Path) -> None:
    holder = connect(path)
    holder.execute("BEGIN IMMEDIATE")
    connection = connect(path, busy_seconds=0.02)
    assert connection.execute("SELECT count(*) FROM keys").fetchone() == (0,)
    connection.close()
    holder.close()


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    with opened(path) as connection:
        row = "INSERT INTO retired VALUES (x'00', 'key', 'shown', 1.0)"
        with pytest.raises(sqlite3.IntegrityError), transaction(connection):
            connection.executemany(row, [(), ()])
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM retired").fetchone() == (0,)


def _refused(path: Path) -> StartupError:
    with pytest.raises(StartupError) as caught:
        connect(path, busy_seconds=0.1)
    assert str(path) in caught.value.message
    return caught.value


def test_a_newer_file_is_refused_and_untouched(path: Path) -> None:
    with opened(path) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    before = path.read_bytes()
    error = _refused(path)
    assert "newer version" in error.message
    assert "Update" in error.fix
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "made_by",
    [
        "CREATE TABLE bookmarks (url TEXT)",
        "PRAGMA application_id=252006673",  # Fossil's
    ],
)
def test_another_programs_file_is_refused_and_untouched(path: Path, made_by: str) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute(made_by)
    other.close()
    before = path.read_bytes()
    assert "another program" in _refused(path).message
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("dear diary " * 100, encoding="utf-8")
    error = _refused(path)
    assert "not a database" in error.message
    assert error.fix.startswith("Move it away")


def test_damage_that_is_found_later_is_told_too(path: Path) -> None:
    with opened(path) as connection:
        for number in range(500):
            row = (os.urandom(32), "k" * 100, "shown", float(number))
            connection.execute("INSERT INTO retired VALUES (?, ?, ?, ?)", row)
    content = bytearray(path.read_bytes())
    assert len(content) > 16 * 4096
    content[8 * 4096 :] = os.urandom(len(content) - 8 * 4096)
    path.write_bytes(content)
    with pytest.raises(StartupError, match="malformed") as caught, opened(path) as connection:
        connection.execute("SELECT count(*) FROM retired WHERE shown < until").fetchall()
    assert "backup" in caught.value.fix


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    assert "cannot be used" in _refused(path).message


def test_a_file_in_place_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("", encoding="utf-8")
    error = _refused(tmp_path / "state" / "gateway.db")
    assert "cannot be used" in error.message
    assert "writable" in error.fix


def test_a_folder_where_nothing_can_be_made_is_refused() -> None:
    error = _refused(Path("/proc/qwen-openai/gateway.db"))
    assert "cannot be used: No such file" in error.message


def test_a_full_disk_is_told_as_such(path: Path) -> None:
    with opened(path) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    with pytest.raises(StartupError, match="full") as caught:
        _write(path, f"PRAGMA max_page_count={pages}", "long" * 100_000)
    assert "Make room" in caught.value.fix


def test_no_name_makes_it_a_database_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    connect(Path(":memory:")).close()
    assert (tmp_path / ":memory:").stat().st_size > 0


@pytest.mark.parametrize(
    ("mode", "told"),
    [(0o600, ""), (0o400, ""), (0o644, "read"), (0o640, "read"), (0o666, "change")],
)
def test_a_file_that_others_may_use_is_warned_about(path: Path, mode: int, told: str) -> None:
    assert exposed(path) == ""
    connect(path).close()
    path.chmod(mode)
    sentence = exposed(path)
    assert (f"may {told} the database" in sentence) is bool(told)
    assert (f"chmod 600 {path}" in sentence) is bool(told)


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "qwen-openai" / "gateway.db"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local" / "state" / "qwen-openai" / "gateway.db"
    assert path_of(load({}, environ={}).settings) == default_path()
    assert path_of(load({"database": "~/my.db"}, environ={}).settings) == tmp_path / "my.db"
    assert path_of(load({"database": "off"}, environ={}).settings) is None
