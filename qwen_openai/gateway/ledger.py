"""Where finished requests go to be written down, without making anybody wait.

The request path calls `Ledger.add`, which never blocks and never fails; `bookkeeper` empties it in
its thread. What a stuck disk cannot take is dropped, oldest first, and counted.
"""

import threading
from collections import deque
from collections.abc import Sequence

from qwen_openai.observe.record import Record

# About 700 bytes each: some seconds of the fastest traffic, minutes of the usual.
_MOST_HELD = 20_000
# So many are worth a transaction of their own before its time.
_MANY = 500


class Ledger:
    """Records on their way to the disk. One thread adds, another one takes."""

    def __init__(self, most: int = _MOST_HELD, many: int = _MANY) -> None:
        """``most`` are held at most; at ``many`` the writer is woken."""
        self._held: deque[Record] = deque()
        self._most = most
        self._many = many
        # One count for each thread: `+=` of two threads on one number loses some.
        self._dropped_adding = 0
        self._dropped_putting_back = 0
        self.due = threading.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def dropped(self) -> int:
        """Records that nobody will ever see, since the start."""
        return self._dropped_adding + self._dropped_putting_back

    def close(self) -> None:
        """Hold nothing from now on: nobody writes. What is dropped so counts for nothing."""
        self._most = 0
        self._held.clear()

    def add(self, record: Record) -> None:
        """Take a finished request, which nobody changes any more.

        One that was answered and names no model is no usage: a list of models, somebody's sums.
        """
        if not self._most or (not record.model and record.outcome == "ok"):
            return
        held = self._held
        held.append(record)
        if len(held) == self._many:
            self.due.set()
        elif len(held) > self._most and self._pop() is not None:
            self._dropped_adding += 1

    def take(self, most: int) -> list[Record]:
        """Return the oldest records, at most so many, for the caller to write down."""
        taken = []
        for _ in range(min(most, len(self._held))):
            record = self._pop()
            if record is None:
                break
            taken.append(record)
        return taken

    def put_back(self, records: Sequence[Record]) -> None:
        """Return what was taken and could not be written; the oldest go where there is no room."""
        kept = records[max(0, len(records) - max(0, self._most - len(self._held))) :]
        self._dropped_putting_back += len(records) - len(kept)
        self._held.extendleft(reversed(kept))

    def _pop(self) -> Record | None:
        try:
            return self._held.popleft()
        except IndexError:  # the other thread was faster
            return None
