"""Questions to the database that change nothing, beside the thread that writes.

A connection of its own for each: readers of a WAL neither wait for writers nor hold them up.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# SQLite's instructions between two looks at the clock: some milliseconds.
_LOOK_EVERY = 100_000


@contextmanager
def reading(path: Path, *, seconds: float | None = None) -> Iterator[sqlite3.Connection]:
    """Open the file to read it; it must exist. After so many seconds statements are interrupted.

    Raises sqlite3.Error, here and from statements.
    """
    until = time.monotonic() + (seconds or 0)
    waits = min(seconds or 5.0, 5.0)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=waits, isolation_level=None)
    try:
        if seconds is not None:
            connection.set_progress_handler(lambda: time.monotonic() > until, _LOOK_EVERY)
        yield connection
    finally:
        connection.close()
