"""Questions to the database: at most two at once, and none that holds a place for ever."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_openai.errors import Overloaded
from qwen_openai.gateway.inquiries import Inquiries
from qwen_openai.gateway.store.database import opened


def one(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT 1").fetchone()[0]
    return found


async def test_a_thread_that_cannot_be_started_keeps_no_place(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    with opened(file):
        pass
    failing = True

    def start(run: Callable[[], None]) -> None:
        if failing:
            raise RuntimeError("can't start new thread")
        threading.Thread(target=run).start()

    inquiries = Inquiries(start)
    for _ in range(3):
        with pytest.raises(Overloaded):
            await inquiries.ask(file, one, 0.1)
    failing = False
    assert await inquiries.ask(file, one, 5.0) == 1
