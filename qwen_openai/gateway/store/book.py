"""The open database as a server uses it: the ledger written, the keys read when they have changed.

Synchronous; belongs to one thread, that which opened it. It raises what SQLite raises, and knows
nothing of waiting or trying again.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from qwen_openai.gateway.keys import Key
from qwen_openai.gateway.store import database, usage
from qwen_openai.gateway.store.keys import load_keys
from qwen_openai.observe.record import Record

Keys = Sequence[tuple[bytes, Key]]

# Rows deleted at once, and seconds until the next look for such where there were none.
_BITE = 500
_LOOK_FOR_OLD = 60.0
_DAY = 86_400
# Milliseconds that a statement waits for another process, once the server runs.
_BUSY = 200


class Connect(Protocol):
    """How a file is opened: as `database.connect` does."""

    def __call__(self, path: Path, *, busy_seconds: float) -> sqlite3.Connection: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What a server has to know of the time before it started: requests of the last minute (key,
    Unix time, tokens), and tokens of today and of this month of keys with a budget."""

    minute: Sequence[tuple[str, float, int]] = ()
    budgets: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class Moved(OSError):
    """There is another file in the place of the one that is open, or none."""

    def __init__(self) -> None:
        super().__init__("the database file was deleted or replaced")
        self.strerror = "the database file was deleted or replaced"


class Book:
    """One connection to the file, and what has been seen through it."""

    def __init__(
        self,
        path: Path,
        usage_days: int,
        *,
        connect: Connect = database.connect,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._usage_days = usage_days
        self._connect = connect
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._wal: tuple[int, int] | None = None
        self._version = -1
        self._look_again = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def open(self, *, busy_seconds: float = _BUSY / 1000) -> None:
        """Connect. Raises StartupError and sqlite3.Error."""
        self.close()
        connection = self._connect(self.path, busy_seconds=busy_seconds)
        try:
            connection.execute(f"PRAGMA busy_timeout={_BUSY}")
            self._file = _identity(self.path)
            self._wal = _identity(_beside(self.path, "-wal"))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._version = -1
        self._look_again = 0.0

    def close(self) -> None:
        """Leave the file. Never fails."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:  # a broken file cannot be left in good order
                return

    def check_file(self) -> None:
        """Raise Moved where the path leads to another file than the one that is open: SQLite would
        go on with the old one, which nobody will see again."""
        if _identity(self.path) != self._file:
            self.close()
            self._remove_stale_wal()
            raise Moved
        self._wal = _identity(_beside(self.path, "-wal"))

    def _remove_stale_wal(self) -> None:
        """SQLite leaves the log of a file that has moved where it is, and would put what it holds
        into the file that has come in its place (https://sqlite.org/howtocorrupt.html, 1.4)."""
        wal = _beside(self.path, "-wal")
        if self._wal is not None and _identity(wal) == self._wal:
            wal.unlink(missing_ok=True)
            _beside(self.path, "-shm").unlink(missing_ok=True)

    def standing(self, keys: Keys) -> Standing:
        """Return what was used of the limits and of these keys' budgets until now."""
        now = self._clock()
        limited = [
            key.id
            for _, key in keys
            if (key.limits.tokens_per_day, key.limits.tokens_per_month) != (None, None)
        ]
        minute = usage.last_minute(self._open, now)
        return Standing(minute, usage.budgets_used(self._open, limited, now))

    def changed_keys(self) -> Keys | None:
        """Return all keys, or None where nobody else has written since the last call."""
        version = self._open.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return None
        keys = load_keys(self._open)
        self._version = version
        return keys

    def write(self, records: Sequence[Record]) -> None:
        """Write records down, all or none."""
        usage.insert(self._open, records)

    def forget_old(self) -> None:
        """Delete some of what is older than it is to be kept; a bite at a time, so that neither
        the keys nor the ledger wait."""
        now = self._clock()
        # A clock that was set back does not put it off for as long.
        if self._look_again - _LOOK_FOR_OLD <= now < self._look_again:
            return
        if usage.forget(self._open, now - self._usage_days * _DAY, _BITE) < _BITE:
            self._look_again = now + _LOOK_FOR_OLD

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the database is not open")
        return self._connection


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
