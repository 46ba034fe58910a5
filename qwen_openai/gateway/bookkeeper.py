"""The one thread that writes to the database: what the ledger holds goes in, the keys come out.

The event loop never waits for it: `start` and `aclose` apart, nothing here is called by requests.
What the database does wrong while the server runs costs no request anything: keys stay as they were
read last, the ledger holds what it can, and the thread tries again.
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import structlog

from qwen_openai.errors import StartupError
from qwen_openai.gateway.inquiries import Inquiries
from qwen_openai.gateway.keys import KeyRing
from qwen_openai.gateway.ledger import Ledger
from qwen_openai.gateway.limits import Limiter
from qwen_openai.gateway.store import database
from qwen_openai.gateway.store.book import Book, Connect, Keys, Standing
from qwen_openai.settings import Settings

THREAD_NAME = "bookkeeper"

_T = TypeVar("_T")

# Seconds. Twice the first, and a transaction, fit well into the second that is promised.
_EVERY = 0.25
_MOST_BACK_OFF = 1.0
_BUSY_AT_START = 5.0
_TO_FINISH = 1.5
_TO_CLOSE = 2.0
_BETWEEN_LINES = 60.0
# Sentences remembered as said; SQLite has no more.
_TROUBLES = 32
# Records of one transaction: more would keep other processes from their turn.
_BATCH = 2_000
# With these the connection is as good as before.
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)

_FIX = "Move it away, or give another file with --database."


class Bookkeeper:
    """Keeps ring and ledger in step with the database, at most a second behind.

    ``written`` and ``failures`` count records and rounds that failed, ``dropped`` the records that
    found no room meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        ledger: Ledger,
        limiter: Limiter,
        *,
        connect: Connect = database.connect,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``connect`` opens the file, ``clock`` tells Unix time."""
        self.written = 0
        self.failures = 0
        self.path: Path | None = None
        self._settings = settings
        self._keys = keys
        self._ledger = ledger
        self._limiter = limiter
        self._connect = connect
        self._clock = clock
        self._log = structlog.get_logger("qwen_openai.bookkeeper")
        self._inquiries = Inquiries()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._in_hand = 0
        self._trouble = ""
        self._lost_keys = ""
        self._spoken: dict[str, float] = {}
        self._back_off = 0.0
        self._again = 0.0
        self._had_keys = False
        if settings.keeps_nothing:
            ledger.close()

    @property
    def trouble(self) -> str:
        """One sentence on why usage is not being written just now; "" where it is. It names no
        place in the file system: whoever asks for the server's health sees it."""
        return self._trouble or self._lost_keys

    @property
    def dropped(self) -> int:
        """Records lost for want of room."""
        return self._ledger.dropped

    async def start(self) -> None:
        """Open the database, fill the ring, and tell the limiter what the last minute, day and
        month have used.

        Raises StartupError for a file that was asked for, or is there, and cannot be used. Where
        the usual place cannot be made the server goes on without one, and says so.
        """
        path = None
        try:
            path = database.path_of(self._settings)
            if path is None:
                return
            standing = await self._begin(path)
        except StartupError as error:
            if _is_meant(self._settings, path):
                raise
            self._ledger.close()
            self._trouble = (
                "There is no database: no usage is kept, and no key but the master's is known."
            )
            self._log.warning("no database", error=error.message, fix=error.fix)
            return
        self.path = path
        self._limiter.restore(standing.minute, standing.budgets)

    async def aclose(self) -> None:
        """Write what is left, then stop; in two seconds, whatever the database does."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._ending = True
        self._ledger.due.set()
        await asyncio.to_thread(thread.join, _TO_CLOSE)
        lost = len(self._ledger) + self._in_hand
        if lost:
            self._log.warning("usage is lost", records=lost, error=self._trouble)

    async def ask(self, question: Callable[[sqlite3.Connection], _T], seconds: float = 5.0) -> _T:
        """Put a question to the database, off the loop and off the writer's thread.

        Raises NotFound where there is no database, Overloaded when it does not answer in time.
        """
        return await self._inquiries.ask(self.path, question, seconds)

    async def _begin(self, path: Path) -> Standing:
        opened: Future[Standing] = Future()
        opened.set_running_or_notify_cancel()
        book = Book(path, self._settings.usage_days, connect=self._connect, clock=self._clock)
        self._thread = threading.Thread(
            target=self._run, args=(book, opened), name=THREAD_NAME, daemon=True
        )
        self._thread.start()
        return await asyncio.wrap_future(opened)

    # What follows runs in the thread.

    def _run(self, book: Book, opened: "Future[Standing]") -> None:
        try:
            book.open(busy_seconds=_BUSY_AT_START)
            keys = book.changed_keys() or ()
            self._take_keys(keys)
            standing = book.standing(keys)
        except Exception as error:  # noqa: BLE001  # the thread's edge: `start` raises it
            book.close()
            opened.set_exception(_startup_error(book.path, error))
            return
        opened.set_result(standing)
        due = self._ledger.due
        while not self._ending:
            due.wait(_EVERY)
            due.clear()
            self._round(book)
        self._finish(book)

    def _finish(self, book: Book) -> None:
        until = time.monotonic() + _TO_FINISH
        while len(self._ledger) and time.monotonic() < until:
            self._again = 0.0
            self._round(book)
            if self._trouble:
                time.sleep(0.05)
        book.close()

    def _round(self, book: Book) -> None:
        if not book.is_open and time.monotonic() < self._again:
            return
        try:
            if book.is_open:
                book.check_file()
            else:
                book.open()
            # Keys come first: they can be read while nothing can be written.
            keys = book.changed_keys()
            if keys is not None:
                self._take_keys(keys)
            self._write(book)
            book.forget_old()
        except Exception as error:  # noqa: BLE001  # the thread's edge: without it no key is ever revoked
            self._failed(book, error)
        else:
            self._well()

    def _take_keys(self, keys: Keys) -> None:
        """Hand keys to the ring. Keys are revoked but never deleted, so a file that has none any
        more is another file; taking it at its word would open the door to everybody."""
        if keys or not self._had_keys:
            self._had_keys = bool(keys)
            self._lost_keys = ""
            self._keys.replace(keys)
            return
        self._lost_keys = (
            "The database has lost its keys; those that were read before go on until a restart."
        )
        self._speak(self._lost_keys)

    def _write(self, book: Book) -> None:
        while records := self._ledger.take(_BATCH):
            self._in_hand = len(records)
            try:
                book.write(records)
            except BaseException:
                self._ledger.put_back(records)
                raise
            finally:
                self._in_hand = 0
            self.written += len(records)

    def _failed(self, book: Book, error: Exception) -> None:
        self.failures += 1
        reason = _reason(error, book.path)
        self._trouble = f"Usage is not being written down just now: {reason}."
        if getattr(error, "sqlite_errorcode", None) not in _PASSING:
            book.close()
            self._back_off = min(self._back_off * 2 or _EVERY, _MOST_BACK_OFF)
            self._again = time.monotonic() + self._back_off
        self._speak(self._trouble, error=type(error).__name__)

    def _well(self) -> None:
        self._back_off = 0.0
        if self._trouble:
            self._log.info("usage is being written down again", dropped=self.dropped)
            self._trouble = ""

    def _speak(self, trouble: str, **more: object) -> None:
        """Log one line for each trouble, at most one a minute."""
        now = time.monotonic()
        if now - self._spoken.get(trouble, -_BETWEEN_LINES) < _BETWEEN_LINES:
            return
        if len(self._spoken) >= _TROUBLES:
            self._spoken.clear()
        self._spoken[trouble] = now
        waiting, dropped = len(self._ledger), self.dropped
        self._log.error(trouble, waiting=waiting, dropped=dropped, **more)


def _is_meant(settings: Settings, path: Path | None) -> bool:
    """Whether somebody counts on the file: it was asked for, or is there."""
    return settings.database is not None or (path is not None and os.path.lexists(path))


def _reason(error: Exception, path: Path) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    # Errors of opening are sentences, and quote the path.
    text = text.replace(str(path.absolute()), "file").strip().rstrip(".")
    return text[:1].lower() + text[1:]


def _startup_error(path: Path, error: Exception) -> StartupError:
    if isinstance(error, OSError | sqlite3.Error):
        return database.unusable(path, error)
    if isinstance(error, StartupError):
        return error
    return StartupError(f"The database {path} cannot be used: {error}.", fix=_FIX)
