"""One job's way from upstream to upstream: who is asked next, and what is raised when none is left.

Nothing is awaited but the short pause before an upstream is asked a second time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from qwen_openai.errors import (
    ApiError,
    EngineUnavailable,
    Overloaded,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from qwen_openai.gateway.pool.affinity import Affinity, Trail
from qwen_openai.gateway.pool.choosing import choose
from qwen_openai.gateway.pool.replica import Replica
from qwen_openai.gateway.pool.seams import Judge, Verdict
from qwen_openai.upstreams import Kind

# Seconds, doubled each time, before an upstream that has failed is asked again.
_FIRST_PAUSE = 0.1
# An upstream that asks for more quiet than this is not waited for.
_MOST_PATIENCE = 1.0
# From the most telling failure to the least: when to come back, then that nothing was heard, then
# that something broke.
_TELLING = (Unavailable, UpstreamTimeout, UpstreamFailed, ApiError)


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard a job is tried: attempts before its first word, and how many jobs above its share an
    upstream may have and still keep its conversations."""

    attempts: int
    gap: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all models of a pool share."""

    affinity: Affinity
    judge: Judge
    refused_by: Callable[[Kind], frozenset[str]]
    clock: Callable[[], float]
    random: Random


class Search:
    """``attempt`` is that of the upstream which `next` gave last, counted from 1; ``trail`` is what
    the job's prompt is known by."""

    __slots__ = ("_around", "_failures", "_model", "_policy", "_replicas", "attempt", "trail")

    def __init__(
        self,
        model: str,
        replicas: Sequence[Replica],
        trail: Trail,
        policy: Policy,
        around: Surroundings,
    ) -> None:
        self.attempt = 0
        self._model = model
        self._replicas = replicas
        self.trail = trail
        self._policy = policy
        self._around = around
        self._failures: list[tuple[Replica, Exception, Verdict]] = []

    async def next(self) -> Replica:
        """Return who is to be asked now: whoever was not, then whoever was.

        Raises the most telling failure when all attempts are spent or no other would help, and
        what `nobody` says where nobody could be asked at all.
        """
        if self.attempt >= self._policy.attempts:
            raise self._telling()
        replica = self._pick({failed for failed, _, _ in self._failures})
        if replica is None and self._failures:
            await self._pause()
            replica = self._pick(set())
            if replica is None:
                raise self._telling()
        if replica is None:
            raise nobody(self._model, self._replicas, self._around.clock())
        self.attempt += 1
        return replica

    def failed(self, replica: Replica, error: Exception, verdict: Verdict) -> None:
        """Note that an attempt came to nothing, and that another one may be made."""
        self._failures.append((replica, error, verdict))

    def _pick(self, tried: set[Replica]) -> Replica | None:
        now = self._around.clock()
        free = [each for each in self._replicas if each not in tried and each.takes(now)]
        if not free:
            return None
        label = self._around.affinity.find(self.trail)
        preferred = next((each for each in free if each.label == label), None)
        return choose(free, preferred, self._policy.gap, self._around.random)

    async def _pause(self) -> None:
        """Wait before one of them is asked again; raise where that would not help."""
        heals = [verdict for _, error, verdict in self._failures if _heals(error, verdict)]
        asked = [verdict.pause or 0.0 for verdict in heals]
        if not asked or min(asked) > _MOST_PATIENCE:
            raise self._telling()
        doubled = _FIRST_PAUSE * 2 ** (self.attempt - 1)
        await asyncio.sleep(max(min(asked), doubled * self._around.random.uniform(0.5, 1.0)))

    def _telling(self) -> Exception:
        errors = [error for _, error, _ in self._failures]
        busy = [error for error in errors if isinstance(error, Unavailable)]
        if busy:
            return min(busy, key=lambda error: error.retry_after)
        kinds = (next((e for e in errors if isinstance(e, kind)), None) for kind in _TELLING)
        return next((error for error in kinds if error is not None), errors[-1])


def nobody(model: str, replicas: Sequence[Replica], now: float) -> Unavailable:
    """Return why no upstream of a model can be asked now, and when one may be."""
    if not replicas:
        return EngineUnavailable(f"No upstream serves {model!r} just now. Try again soon.")
    wait = min(replica.free_in(now) for replica in replicas)
    closed = [replica for replica in replicas if replica.breaker.state == "closed"]
    if closed:
        return Overloaded(
            f"The upstreams of {model!r} are at capacity. "
            "Send the request again after the time in the Retry-After header.",
            retry_after=wait,
        )
    which = "The upstream" if len(replicas) == 1 else f"None of the {len(replicas)} upstreams"
    state = "does not answer" if len(replicas) == 1 else "answers"
    return EngineUnavailable(
        f"{which} of {model!r} {state} just now. It is looked for all the time; "
        "send the request again after the time in the Retry-After header.",
        retry_after=wait,
    )


def _heals(error: Exception, verdict: Verdict) -> bool:
    """Whether the same upstream may do in a moment what it did not do now. Silence has taken long
    enough already, and a model that is not there will not be there then."""
    busy = isinstance(error, Unavailable)
    return busy or (verdict.blames and not isinstance(error, UpstreamTimeout))
