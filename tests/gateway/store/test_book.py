"""The open database of a server, by a clock that somebody sets."""

from pathlib import Path

from qwen_openai.gateway.store import usage
from qwen_openai.gateway.store.book import Book
from qwen_openai.gateway.store.database import connect
from tests.gateway.records import record

DAY = 86_400.0
NOW = 1_800_000_000.0


def test_the_old_is_looked_for_again_after_the_clock_was_set_back(tmp_path: Path) -> None:
    moment = NOW + 3650 * DAY
    book = Book(tmp_path / "gateway.db", 1, connect=connect, clock=lambda: moment)
    book.open()
    book.forget_old()  # there is nothing: the next look has time
    moment = NOW
    book.write([record(at=NOW - 2 * DAY), record(at=NOW)])
    book.forget_old()
    store = connect(tmp_path / "gateway.db")
    [sums] = usage.sums(store, usage.Which())
    assert sums.requests == 1
    store.close()
    book.close()
