"""When an upstream is left alone, and when it is looked at again.

closed: it gets requests. open: it gets nothing until a cool-down is over. half-open: one trial is
under way, a probe's, and decides. Knows no upstream, no clock but the one it is given, no tasks.
"""

from collections.abc import Callable
from random import Random
from typing import Literal

BreakerState = Literal["closed", "open", "half-open"]

_FIRST_COOL_DOWN = 1.0
# A cool-down is this part of its length at least, so that many gateways do not come back together.
_LEAST_JITTER = 0.5


class Breaker:
    """Opens after ``failures`` in a row and stays so for 1, 2, 4... seconds, ``longest`` at most,
    each cut by a random part.

    Work that began before the last change says nothing of what is now: `begin` gives a mark, and
    what comes with an old mark is not counted. One trial's success closes; the first failure after
    it opens again, and the cool-downs go on growing until real work has succeeded. While it is
    ``tentative``, one request at a time is enough.
    """

    def __init__(
        self,
        failures: int,
        longest: float,
        *,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        """Times are seconds. ``changed``, an attribute, is called after every change of `state`."""
        self._failures = failures
        self._longest = longest
        self.clock = clock
        self._random = random
        self.changed: Callable[[], None] = _nothing
        self._state: BreakerState = "closed"
        self._in_a_row = 0
        self._openings = 0
        self._until = 0.0
        self._mark = 0
        # Whether it was real work that failed last, so that a look alone proves little.
        self.tentative = False

    def configure(self, failures: int, longest: float) -> None:
        """Take other bounds; a cool-down that runs keeps its end if that is sooner."""
        self._failures = failures
        self._longest = longest
        self._until = min(self._until, self.clock() + longest)

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def wait(self) -> float:
        """Seconds until a trial may be made; 0 where it may now, or needs none."""
        return 0.0 if self._state == "closed" else max(self._until - self.clock(), 0.0)

    def begin(self) -> int:
        """Return the mark of work that begins now."""
        return self._mark

    def succeeded(self, mark: int) -> None:
        """Count work that went well to its end."""
        if mark == self._mark:
            self._in_a_row = 0
            self._openings = 0

    def failed(self, mark: int) -> None:
        """Count work that the upstream is to blame for."""
        if mark != self._mark or self._state != "closed":
            return
        self._in_a_row += 1
        if self._in_a_row >= self._failures:
            self.tentative = True
            self.trip()

    def began(self, mark: int) -> None:
        """Note that work shows a first result: requests may come as they like again."""
        if mark == self._mark and self._state == "closed":
            self.tentative = False

    def trip(self) -> None:
        """Open, whatever was before."""
        length = min(_FIRST_COOL_DOWN * 2 ** min(self._openings, 16), self._longest)
        self._until = self.clock() + length * self._random.uniform(_LEAST_JITTER, 1.0)
        self._openings += 1
        self._turn("open")

    def try_one(self) -> bool:
        """Take the one trial, after the cool-down; False where there is none to take. `close`,
        `trip` or `give_up` ends it."""
        if self._state != "open" or self.clock() < self._until:
            return False
        self._turn("half-open")
        return True

    def give_up(self) -> None:
        """End a trial that showed nothing."""
        if self._state == "half-open":
            self._turn("open")

    def close(self) -> None:
        """Let requests through: a trial went well."""
        if self._state != "closed":
            self._in_a_row = self._failures - 1
            self._turn("closed")

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._mark += 1
        self.changed()


def _nothing() -> None:
    pass
