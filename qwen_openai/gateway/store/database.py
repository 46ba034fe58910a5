"""The SQLite file: where it lies, its tables, how it is opened. Knows no rows.

WAL, so that the commands read and write while a server does. Times are Unix seconds, digests are
SHA-256, models and limits are JSON.
"""

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen_openai.errors import StartupError
from qwen_openai.settings import Settings

# Raised with every change of the tables; a file of a newer version is refused.
VERSION = 1
# What SQLite files of ours say they are ("qwen" in ASCII), so that no other program's is written.
APPLICATION = 0x7177656E

_TABLES = (
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        shown TEXT NOT NULL,
        models TEXT NOT NULL,
        limits TEXT NOT NULL,
        created REAL NOT NULL,
        expires REAL,
        revoked REAL
    ) STRICT""",
    "CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked IS NULL",
    # Secrets that a rotation left working for a while.
    """CREATE TABLE retired (
        digest BLOB PRIMARY KEY,
        key TEXT NOT NULL,
        shown TEXT NOT NULL,
        until REAL NOT NULL
    ) STRICT""",
    """CREATE TABLE usage (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        request TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        route TEXT NOT NULL,
        upstream TEXT NOT NULL,
        status INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        reserved_tokens INTEGER NOT NULL,
        queued REAL NOT NULL,
        first_token REAL,
        duration REAL NOT NULL
    ) STRICT""",
    "CREATE INDEX usage_at ON usage (at)",
    "CREATE INDEX usage_key_at ON usage (key, at)",
)

# By SQLite's primary result code: what to do about it. FILE stands for the path.
_FIXES = {
    sqlite3.SQLITE_NOTADB: "Move it away, or give another file with --database.",
    sqlite3.SQLITE_CORRUPT: "Put a backup in its place, or move it away: keys and usage then begin "
    "anew.",
    sqlite3.SQLITE_BUSY: "Another process holds it; try again when that is done.",
    sqlite3.SQLITE_FULL: "Make room on the disk, or give another file with --database.",
}
_OTHER_FIX = "Make it and its folder writable for this user, or give another file with --database."


def default_path() -> Path:
    """Return where the file is unless a setting says otherwise: the user's state folder, which
    unlike a cache is kept (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "qwen-openai" / "gateway.db"


def path_of(settings: Settings) -> Path | None:
    """Return the file that these settings mean; None where they want none. Raises StartupError
    where the user has no folder to keep it in."""
    if settings.keeps_nothing:
        return None
    try:
        return settings.database_file or default_path()
    except RuntimeError as error:
        raise StartupError(
            f"There is no place for the database: {str(error).rstrip('.').lower()}.",
            fix="Give a file with --database.",
        ) from None


def connect(path: Path, *, busy_seconds: float = 5.0, durable: bool = False) -> sqlite3.Connection:
    """Open the file, make it and its tables where they are missing, for its owner's eyes alone.

    ``busy_seconds`` is how long a statement waits for another process. What is committed outlives
    this process in any case; with ``durable`` also a power cut. Raises StartupError where the file
    is none of ours, is damaged, or cannot be written.
    """
    path = path.absolute()  # also keeps a file called ":memory:" a file
    connection = None
    try:
        _make(path)
        connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
        connection.execute("BEGIN")  # one look: another process may be making the tables
        version = _version(connection, path)
        connection.execute("COMMIT")
        _use_wal(connection, path, time.monotonic() + busy_seconds)
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        if version < VERSION:
            _make_tables(connection, path)
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        raise unusable(path, error) from None
    except StartupError:
        if connection is not None:
            connection.close()
        raise
    return connection


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """`connect` for a command: durable, closed at the end, and whatever SQLite has to complain of
    meanwhile is a StartupError too."""
    connection = connect(path, durable=True)
    try:
        yield connection
    except sqlite3.Error as error:
        raise unusable(path, error) from None
    finally:
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing. Takes the write lock at once: to wait for it is possible only before
    anything has been read."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures, a full disk for one, have rolled it back already.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def unusable(path: Path, error: OSError | sqlite3.Error) -> StartupError:
    """Return what to tell an operator of a failure of this file."""
    code = 0
    if isinstance(error, sqlite3.Error):
        # Programming errors of the module itself carry none. The low byte is the primary code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        reason = str(error)
    else:
        reason = error.strerror or type(error).__name__
    return StartupError(
        f"The database {path} cannot be used: {reason}.", fix=_FIXES.get(code, _OTHER_FIX)
    )


def exposed(path: Path) -> str:
    """Return a warning where other users of this machine may read or write the file; "" where they
    may not, or where there is no file yet."""
    if os.name != "posix":
        return ""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    if not mode & 0o066:
        return ""
    may = "change" if mode & 0o022 else "read"
    return (
        f"Other users of this machine may {may} the database {path}, which holds the digests of "
        f"keys and who used what; `chmod 600 {path}` keeps it private."
    )


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Only where there is none: to close a file gives up the locks that this process has on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the tables, 0 for a file without any. Raises StartupError."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION and not (application == 0 and is_empty):
        raise StartupError(
            f"The database {path} belongs to another program.",
            fix="Give another file with --database.",
        )
    if version > VERSION:
        raise StartupError(
            f"The database {path} was made by a newer version of this program.",
            fix="Update this one, or give another file with --database.",
        )
    return version


def _use_wal(connection: sqlite3.Connection, path: Path, until: float) -> None:
    """Turn WAL on where it is not. SQLite does not wait for a lock here, so we do."""
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > until:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StartupError(
            f"The database {path} is on a disk that several processes cannot share.",
            fix="Give a file on a local disk with --database.",
        )


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        # Perhaps another process was faster.
        if _version(connection, path) == VERSION:
            return
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute(f"PRAGMA user_version={VERSION}")
