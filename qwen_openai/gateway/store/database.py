"""The SQLite file: where it lies, its tables, how it is opened. Knows no rows.

WAL, so that the commands read and write while a server does. Times are Unix seconds, digests are
SHA-256, limits are JSON.
"""

import os
import sqlite3
from pathlib import Path

from qwen_openai.errors import StartupError

# Raised with every change of the tables; a file of a newer version is refused.
VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    shown TEXT NOT NULL,
    models TEXT NOT NULL,
    limits TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL,
    revoked REAL
) STRICT;
CREATE TABLE IF NOT EXISTS usage (
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
) STRICT;
CREATE INDEX IF NOT EXISTS usage_at ON usage (at);
CREATE INDEX IF NOT EXISTS usage_key_at ON usage (key, at);
"""


def default_path() -> Path:
    """Return where the file is unless a setting says otherwise: the user's state folder, which
    unlike a cache is kept (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "qwen-openai" / "gateway.db"


def connect(path: Path, *, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open the file, make it and its tables where they are missing, for its owner's eyes alone.

    ``busy_seconds`` is how long a statement waits for another process. Raises StartupError where
    the file is none of ours, is damaged, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            connection.close()
            raise StartupError(
                f"The database {path} was made by a newer version of this program.",
                fix="Update this one, or give another file with --database.",
            )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        if version < VERSION:
            connection.executescript(f"BEGIN;{_TABLES}PRAGMA user_version={VERSION};COMMIT;")
    except (OSError, sqlite3.Error) as error:
        raise StartupError(
            f"The database {path} cannot be used: {error}.",
            fix="Make it writable, move it away, or give another file with --database.",
        ) from None
    return connection
