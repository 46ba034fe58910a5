"""One model as an engine, made of the upstreams that serve it.

A job goes to one of them, and to another one if that fails before its first word; from then on a
failure is the caller's to see, since what has been said cannot be said again.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from qwen_openai.core import Event, Extra, Job, Routed, Started
from qwen_openai.engines.base import EngineInfo, Health
from qwen_openai.errors import UpstreamFailed
from qwen_openai.families import DEFAULT_FAMILY, family_of
from qwen_openai.gateway.pool.affinity import Trail, trail_of
from qwen_openai.gateway.pool.replica import Replica
from qwen_openai.gateway.pool.seams import Client
from qwen_openai.gateway.pool.search import Policy, Search, Surroundings, nobody

# What does not prove yet that an attempt comes to anything, and is held back until that is sure.
_BEFORE = (Routed, Extra, Started)

T = TypeVar("T")


class PooledModel:
    """An `Engine`. Starting and closing it is nothing: the pool looks after the upstreams."""

    def __init__(self, name: str, around: Surroundings, policy: Policy) -> None:
        """``name`` is what clients call the model."""
        self.name = name
        self.policy = policy
        self._around = around
        self._replicas: tuple[Replica, ...] = ()
        self._info = self._described()

    def take(self, replicas: Sequence[Replica]) -> None:
        """Be made of these from now on; what runs elsewhere goes on there."""
        self._replicas = tuple(replicas)
        self.refresh()

    def refresh(self) -> None:
        """Reckon `info` anew: something has changed in an upstream."""
        info = self._described()
        if info != self._info:
            self._info = info

    async def start(self) -> None:
        """Nothing."""

    async def aclose(self) -> None:
        """Nothing."""

    def info(self) -> EngineInfo:
        """What the model's upstreams are together. Slots are those of the upstreams that answer, of
        all where none does: then nobody waits in the queue for what is refused at once."""
        return self._info

    def health(self) -> Health:
        """Ready while any upstream may be asked, also one that nobody has asked yet."""
        up = [replica for replica in self._replicas if replica.breaker.state == "closed"]
        if up:
            told = f"{len(up)} of {len(self._replicas)} upstreams of {self.name!r} take requests."
            return Health(True, told)
        return Health(False, nobody(self.name, self._replicas, self._around.clock()).message)

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run a job on one upstream after another until one answers.

        Yields `Routed` before each attempt. Raises what a client raised, EngineUnavailable while no
        upstream answers, Overloaded while those that do are busy.
        """
        search = self._search(self._trail(job))
        while True:
            replica = await search.next()
            with replica.turn() as turn:
                yield Routed(job.choice, replica.label, search.attempt)
                begun = False
                try:
                    async with aclosing(self._asked(replica, job)) as events:
                        held = await _first(events)
                        begun = True
                        turn.began()
                        self._around.affinity.remember(search.trail, replica.label)
                        for event in held:
                            turn.heard(event)
                            yield event
                        async for event in events:
                            turn.heard(event)
                            yield event
                    if turn.whole:
                        return
                    raise UpstreamFailed("The upstream's answer broke off. Try again.")
                except Exception as error:  # whatever a client raises is judged
                    verdict = self._around.judge(error)
                    turn.failed(error, verdict)
                    if begun or not verdict.elsewhere:
                        raise
                    search.failed(replica, error, verdict)

    async def tokenize(self, job: Job) -> list[int]:
        """Ask any upstream. Raises as `generate` does."""
        return await self._anywhere(lambda client, own: client.tokenize(job, own))

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        """Ask any upstream. Raises as `generate` does."""
        return await self._anywhere(lambda client, own: client.detokenize(ids, own))

    async def _anywhere(self, call: Callable[[Client, str], Awaitable[T]]) -> T:
        search = self._search(())
        while True:
            replica = await search.next()
            with replica.turn() as turn:
                try:
                    return await call(replica.client, self._own(replica))
                except Exception as error:  # as above
                    verdict = self._around.judge(error)
                    turn.failed(error, verdict, counts=False)
                    if not verdict.elsewhere:
                        raise
                    search.failed(replica, error, verdict)

    def _search(self, trail: Trail) -> Search:
        return Search(self.name, self._replicas, trail, self.policy, self._around)

    def _trail(self, job: Job) -> Trail:
        return trail_of(job, self.name) if len(self._replicas) > 1 else ()

    def _asked(self, replica: Replica, job: Job) -> AsyncGenerator[Event, None]:
        return replica.client.generate(job, self._own(replica))

    def _own(self, replica: Replica) -> str:
        """What the upstream calls the model; our name where it has just been taken from it."""
        return replica.names.get(self.name, self.name)

    def _described(self) -> EngineInfo:
        replicas = self._replicas
        own = self._own(replicas[0]) if replicas else self.name
        family = family_of(own)
        answering = [each for each in replicas if each.breaker.state == "closed"] or replicas
        told = [each.context(self.name) for each in replicas]
        refused = [self._around.refused_by(each.kind) for each in replicas]
        return EngineInfo(
            engine="upstream",
            model=own,
            device="none",
            context=min((context for context in told if context), default=0),
            slots=sum(each.upstream.max_parallel for each in answering) or 1,
            facts=(("upstreams", ", ".join(each.label for each in replicas)),),
            # What a model can do that no row knows, its server judges; calls have fields there.
            tools=family.tools or ("hermes" if family is DEFAULT_FAMILY else None),
            thinking=family.thinking,
            fills_in=family.fill_in is not None,
            refuses=frozenset[str]().union(*refused),
            hands_on=True,
        )


async def _first(events: AsyncGenerator[Event, None]) -> list[Event]:
    """Return the first real event and all before it. Raises UpstreamFailed where there is none."""
    held: list[Event] = []
    async for event in events:
        held.append(event)
        if not isinstance(event, _BEFORE):
            return held
    raise UpstreamFailed("The upstream's answer has nothing in it. Try again.")
