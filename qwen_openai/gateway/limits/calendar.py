"""Days and months of UTC, and what was taken in them.

The clock that people read may be set back or forth; no jump of it makes a day last for ever, and
none of less than a day gives a budget out twice.
"""

import time
from collections.abc import Callable

_DAY = 86_400


class Spent:
    """What was taken in one day or month, by its number."""

    __slots__ = ("period", "tokens")

    def __init__(self, period: int, tokens: int = 0) -> None:
        self.period = period
        self.tokens = tokens


class Calendar:
    """``day`` and ``month`` are the numbers of those that it is now, as of the last `turn`."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """``wall`` tells Unix time."""
        self._wall = wall
        self._begins = self._ends = 0.0
        self.day = 0
        self.month = 0
        self.turn()

    def turn(self) -> None:
        """Look at the clock."""
        now = self._wall()
        # A clock that is set back by less than a day stays in the day that has begun.
        if self._begins - _DAY <= now < self._ends:
            return
        self.day = int(now // _DAY)
        self._begins = float(self.day * _DAY)
        self._ends = self._begins + _DAY
        date = time.gmtime(now)
        self.month = date.tm_year * 12 + date.tm_mon

    def seconds_of_day_left(self) -> float:
        """How long until the next day."""
        return self._ends - self._wall()
