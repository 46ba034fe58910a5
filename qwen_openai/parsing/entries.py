"""Log probabilities kept until the text of their tokens is certain.

Sans I/O. Places are bytes of all the text so far: a token may be a part of a character.
"""

from collections import deque
from collections.abc import Sequence

from qwen_openai.core import TokenLogprob

# Bytes of a character that wait for its last one.
_INCOMPLETE = 3


class Entries:
    """Add pieces of text with their tokens' entries; take the entries out as text is let out."""

    __slots__ = ("_end", "_waiting", "length")

    def __init__(self) -> None:
        self.length = 0
        self._end = 0
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def add(self, text: str, entries: Sequence[TokenLogprob]) -> None:
        """Take the next text and its tokens. Where their bytes are not its bytes (a replaced
        character), they belong to the whole of it."""
        self.length += len(text.encode())
        ends: list[int] = []
        for entry in entries:
            self._end += len(entry.raw)
            ends.append(self._end)
        if not 0 <= self._end - self.length <= _INCOMPLETE:
            self._end = self.length
            ends = [self.length] * len(ends)
        self._waiting += zip(ends, entries, strict=True)

    def take(self, place: int) -> tuple[TokenLogprob, ...]:
        """Return the entries of the tokens that end at or before a place."""
        taken: list[TokenLogprob] = []
        while self._waiting and self._waiting[0][0] <= place:
            taken.append(self._waiting.popleft()[1])
        return tuple(taken)

    def take_all(self) -> tuple[TokenLogprob, ...]:
        """Return all that are left."""
        taken = tuple(entry for _, entry in self._waiting)
        self._waiting.clear()
        return taken
