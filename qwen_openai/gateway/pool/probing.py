"""Looking at one upstream again and again: what it serves, and whether it answers at all.

A look is the only thing that a breaker's trial is made of, so a broken upstream is met by one small
request and never by a crowd of real ones.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random

import structlog

from qwen_openai.gateway.pool.replica import Replica, reason_of
from qwen_openai.gateway.pool.seams import Judge, Seen

_log = structlog.get_logger(__name__)

_LEAST_JITTER = 0.75


class Prober:
    """Looks at a replica every ``interval`` seconds, a random part sooner; while its breaker is
    open, when the cool-down is over. A look takes ``limit`` seconds at most."""

    def __init__(
        self,
        replica: Replica,
        judge: Judge,
        noticed: Callable[[], None],
        *,
        interval: float,
        limit: float,
        random: Random,
    ) -> None:
        """``noticed`` is called after a look that showed something else than the one before."""
        self.looked = asyncio.Event()
        self._replica = replica
        self._judge = judge
        self._noticed = noticed
        self._interval = interval
        self._limit = limit
        self._random = random
        self._warned = False
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def configure(self, interval: float, limit: float) -> None:
        """Take other times."""
        self._interval = interval
        self._limit = limit
        self._woken.set()

    def start(self) -> None:
        """Begin, with a first look now."""
        self._task = asyncio.create_task(self._run(), name=f"probe {self._replica.label}")

    def wake(self) -> None:
        """Reckon anew when to look: the breaker has changed."""
        self._woken.set()

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._look()
            self.looked.set()
            await self._rest()

    async def _rest(self) -> None:
        clock = self._replica.breaker.clock
        looked = clock()
        part = self._random.uniform(_LEAST_JITTER, 1.0)
        while True:
            breaker = self._replica.breaker
            if breaker.state == "closed":
                wait = looked + self._interval * part - clock()
            else:
                wait = breaker.wait
            if wait <= 0:
                return
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    async def _look(self) -> None:
        replica = self._replica
        answers = replica.answers
        if replica.breaker.state != "closed" and not replica.breaker.try_one():
            return
        try:
            async with asyncio.timeout(self._limit):
                seen = await replica.client.look()
        except asyncio.CancelledError:
            replica.breaker.give_up()
            raise
        except Exception as error:  # noqa: BLE001  # whatever a client raises, looking goes on
            self._failed(error, proven=replica.answers > answers)
        else:
            self._took(seen)

    def _took(self, seen: Seen) -> None:
        replica = self._replica
        before = replica.seen
        replica.see(seen)
        self._good()
        if before is None or (before.models, before.kind) != (seen.models, seen.kind):
            self._noticed()

    def _failed(self, error: Exception, *, proven: bool) -> None:
        """Take a look that failed; ``proven`` says that answers have begun since it was sent."""
        replica = self._replica
        blames = isinstance(error, TimeoutError) or self._judge(error).blames
        if not blames or proven:
            # It answers: a server need not list its models, and a busy one may be slow to.
            self._good()
            self._told_nothing(error)
            return
        replica.trouble = reason_of(error)
        if self.looked.is_set():
            replica.breaker.trip()
        else:
            # At the start it is only unknown: requests are tried, and tell their callers the truth.
            replica.breaker.failed(replica.breaker.begin())

    def _good(self) -> None:
        self._replica.known = True
        self._replica.breaker.close()

    def _told_nothing(self, error: Exception) -> None:
        replica = self._replica
        if not replica.names and not self._warned:
            self._warned = True
            _log.warning(
                "upstream does not say which models it has; name them in its `models`",
                upstream=replica.label,
                reason=reason_of(error),
            )
