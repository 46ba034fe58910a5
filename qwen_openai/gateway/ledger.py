"""Where finished requests go to be written down, without making anybody wait.

The request path calls `Ledger.add`, which never blocks and never fails; `bookkeeper` empties it in
its thread. What a stuck disk cannot take is dropped, oldest first, and counted.
"""

from collections import deque

from qwen_openai.observe.record import Record

# About 400 bytes each: some seconds of the fastest traffic, minutes of the usual.
_MOST_HELD = 20_000


class Ledger:
    """Records on their way to the disk."""

    def __init__(self, most: int = _MOST_HELD) -> None:
        self._held: deque[Record] = deque()
        self._most = most
        self.dropped = 0

    def add(self, record: Record) -> None:
        """Take a finished request."""
        if len(self._held) >= self._most:
            self._held.popleft()
            self.dropped += 1
        self._held.append(record)

    def __len__(self) -> int:
        return len(self._held)
