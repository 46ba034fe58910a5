"""What was taken in the last 60 seconds, whenever one looks: a moving window, exact at its edges.

Knows no keys and no clock; times are seconds of one clock that never goes back, told by the caller.
"""

from collections import deque
from collections.abc import Callable, Iterable

SPAN = 60.0
# Neighbours that are nearer than this share a cell, which leaves the window with the later of them:
# on the strict side, and a window never has more than about a thousand cells.
_GRAIN = 1 / 16


class Cell:
    """Requests that came together, and the tokens that they reserved or took."""

    __slots__ = ("_first", "_last", "requests", "tokens")

    def __init__(self, now: float) -> None:
        self._first = now
        self._last = now
        self.requests = 0
        self.tokens = 0

    def takes(self, now: float) -> bool:
        """Whether a request of this moment belongs here."""
        return now - self._first < _GRAIN

    def add(self, now: float, tokens: int) -> None:
        """Put a request in."""
        self._last = now
        self.requests += 1
        self.tokens += tokens

    def is_over(self, now: float) -> bool:
        """Whether it has left the window that ends now."""
        return self._last <= now - SPAN

    def seconds_left(self, now: float) -> float:
        """How long it stays in the window yet."""
        return self._last + SPAN - now


class Minute:
    """The window. ``requests`` and ``tokens`` are what is in it, as of the last `expire`."""

    __slots__ = ("_cells", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self._cells: deque[Cell] = deque()

    def __len__(self) -> int:
        return len(self._cells)

    def expire(self, now: float) -> None:
        """Let what is older than the span go; each cell once, so O(1) for a request."""
        cells = self._cells
        while cells and cells[0].is_over(now):
            gone = cells.popleft()
            self.requests -= gone.requests
            self.tokens -= gone.tokens

    def add(self, now: float, tokens: int) -> Cell:
        """Put a request in, and return its place, for `correct`."""
        cells = self._cells
        if not cells or not cells[-1].takes(now):
            cells.append(Cell(now))
        cell = cells[-1]
        cell.add(now, tokens)
        self.requests += 1
        self.tokens += tokens
        return cell

    def correct(self, cell: Cell, now: float, tokens: int) -> None:
        """Add tokens, or with a minus give some back, at a place where a request was put in."""
        self.expire(now)
        if not cell.is_over(now):
            cell.tokens += tokens
            self.tokens += tokens

    def seconds_until_request(self, now: float, limit: int) -> float:
        """How long until one request more is within ``limit``."""
        return self._seconds_until(now, self.requests + 1 - limit, lambda cell: cell.requests)

    def seconds_until_tokens(self, now: float, tokens: int, limit: int) -> float:
        """How long until so many tokens more are within ``limit``, if none are given back."""
        return self._seconds_until(now, self.tokens + tokens - limit, lambda cell: cell.tokens)

    def seconds_until_empty(self, now: float) -> float:
        """How long until the window is as if nobody had ever come."""
        return self._cells[-1].seconds_left(now) if self._cells else 0.0

    def restore(self, now: float, taken: Iterable[tuple[float, int]]) -> None:
        """Put in what was taken (seconds ago, tokens) before anything else was."""
        for ago, tokens in sorted(taken, reverse=True):
            self.add(now - ago, tokens)

    def _seconds_until(self, now: float, excess: int, part: Callable[[Cell], int]) -> float:
        if excess <= 0:
            return 0.0
        for cell in self._cells:
            excess -= part(cell)
            if excess <= 0:
                return cell.seconds_left(now)
        return SPAN
