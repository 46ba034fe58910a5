"""All upstreams of the settings, and an engine for each model that they have together."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

import structlog

from qwen_openai.engines.base import Engine, Health
from qwen_openai.gateway.pool.affinity import Affinity
from qwen_openai.gateway.pool.breaker import Breaker
from qwen_openai.gateway.pool.model import PooledModel
from qwen_openai.gateway.pool.probing import Prober
from qwen_openai.gateway.pool.replica import Replica
from qwen_openai.gateway.pool.seams import Client, Connect
from qwen_openai.gateway.pool.search import Policy, Surroundings
from qwen_openai.settings import Settings
from qwen_openai.upstreams import Upstream

if TYPE_CHECKING:
    from qwen_openai.gateway.pool.connecting import Connections

_log = structlog.get_logger(__name__)

# Seconds that start and apply wait for the first look at an upstream.
_FIRST_LOOKS = 2.0
_STATES: Mapping[str, Literal["up", "open", "probing"]] = {
    "closed": "up",
    "open": "open",
    "half-open": "probing",
}


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """One upstream as it is now, by its label, with the names that clients use for its models;
    ``place`` is its host and port, for the operator's eyes.
    unknown: nobody has looked yet; open: left alone for a while; probing: being tried again."""

    name: str
    models: tuple[str, ...]
    state: Literal["unknown", "up", "open", "probing"]
    in_flight: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class _Member:
    """A replica and who looks after it."""

    replica: Replica
    prober: Prober


class Pool:
    """Owns the upstreams, their connections and the looking after them.

    ``models`` are the engines by the names that clients use; the engine of a name that stays is
    the same object for as long as it stays.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Connect | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        """``connect`` makes the client of an upstream; None: one that speaks HTTP."""
        self.models: Mapping[str, Engine] = {}
        self._settings = settings
        self._connect = connect
        self._clock = clock
        # Chance that spreads load and looks; nobody gains by guessing it.
        self._random = random or Random()  # noqa: S311
        self._members: dict[str, _Member] = {}
        self._served: dict[str, PooledModel] = {}
        self._around: Surroundings | None = None
        self._connections: Connections | None = None
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Look for the upstreams; one that does not answer yet is looked for again later."""
        await self.apply(self._settings)

    async def apply(self, settings: Settings) -> None:
        """Take changed upstreams: those that stay keep their connections and their state, those
        that go finish what they do."""
        async with self._changing:
            before, self._settings = self._settings, settings
            renewed = _timeouts(before) != _timeouts(settings)
            wanted = labelled(settings.upstreams)
            added: dict[str, _Member] = {}
            try:
                for label, upstream in wanted.items():
                    member = self._members.get(label)
                    if member is None or _moved(member.replica.upstream, upstream):
                        added[label] = self._joined(label, upstream, member)
                # Until they have been looked at, what was there goes on.
                await _looked_at(list(added.values()))
            except BaseException:
                self._settings = before
                await _left([*added.values()])
                raise
            old, self._members = self._members, {}
            for label, upstream in wanted.items():
                if label in added:
                    self._members[label] = added[label]
                else:
                    self._members[label] = member = old.pop(label)
                    self._change(member, upstream, renewed=renewed)
            self._serve()
            await _left([*old.values()])

    async def aclose(self) -> None:
        """Stop looking and close all connections."""
        async with self._changing:
            members, self._members = self._members, {}
            await _left([*members.values()])
            if self._connections is not None:
                connections, self._connections = self._connections, None
                await connections.aclose()

    def health(self) -> Health:
        """Whether any upstream would take a job."""
        healths = [model.health() for model in self._served.values()]
        if healths:
            return next((each for each in healths if each.ready), healths[0])
        if not self._settings.upstreams:
            return Health(False, "There are no upstreams.")
        return Health(False, "No upstream has answered yet. They are looked for all the time.")

    def states(self) -> Sequence[UpstreamState]:
        """Return every upstream as it is now, in the order of the settings."""
        return [
            UpstreamState(
                name=replica.label,
                models=tuple(replica.names),
                state=_state(replica),
                in_flight=replica.in_flight,
                place=replica.upstream.place,
            )
            for replica in (member.replica for member in self._members.values())
        ]

    def _joined(self, label: str, upstream: Upstream, before: _Member | None) -> _Member:
        """Begin to look after an upstream; ``before`` had its label. If it is the same server, what
        that showed is true until it shows something else."""
        settings = self._settings
        breaker = Breaker(
            settings.breaker_failures,
            settings.probe_interval,
            clock=self._clock,
            random=self._random,
        )
        replica = Replica(upstream, label, self._client(upstream), breaker, settings)
        shown = None if before is None else before.replica
        if shown is not None and shown.seen and shown.upstream.url == upstream.url:
            replica.see(shown.seen)
        prober = Prober(
            replica,
            self._surroundings().judge,
            self._serve,
            interval=settings.probe_interval,
            limit=settings.connect_timeout,
            random=self._random,
        )

        up = True

        def changed() -> None:
            nonlocal up
            if up and breaker.state == "open":
                up = False
                _log.warning("upstream is down", upstream=label, reason=replica.trouble)
            elif not up and breaker.state == "closed":
                up = True
                _log.info("upstream is back", upstream=label)
            prober.wake()
            self._refresh(replica)

        breaker.changed = changed
        prober.start()
        return _Member(replica, prober)

    def _change(self, member: _Member, upstream: Upstream, *, renewed: bool) -> None:
        """Go on with an upstream of which something else is said now."""
        replica, settings = member.replica, self._settings
        replica.configure(upstream, settings)
        member.prober.configure(settings.probe_interval, settings.connect_timeout)
        if renewed:
            kind = replica.kind
            replica.client = self._client(upstream)
            replica.client.kind = kind

    def _client(self, upstream: Upstream) -> Client:
        if self._connect is not None:
            return self._connect(upstream)
        if self._connections is None:
            from qwen_openai.gateway.pool.connecting import Connections

            self._connections = Connections()
        return self._connections.client(upstream, self._settings)

    def _surroundings(self) -> Surroundings:
        if self._around is None:
            # Not at the top: they bring aiohttp, which a gateway without upstreams need not load.
            from qwen_openai.engines.upstream.failures import verdict
            from qwen_openai.engines.upstream.kinds import refuses

            self._around = Surroundings(
                affinity=Affinity(),
                judge=verdict,
                refused_by=refuses,
                clock=self._clock,
                random=self._random,
            )
        return self._around

    def _serve(self) -> None:
        """Make the engines that the upstreams are now."""
        by_name: dict[str, list[Replica]] = {}
        for member in self._members.values():
            for name in member.replica.names:
                by_name.setdefault(name, []).append(member.replica)
        policy = Policy(self._settings.upstream_attempts, self._settings.affinity_gap)
        served: dict[str, PooledModel] = {}
        for name, replicas in by_name.items():
            model = self._served.pop(name, None)
            if model is None:
                model = PooledModel(name, self._surroundings(), policy)
            model.policy = policy
            model.take(replicas)
            served[name] = model
        for model in self._served.values():
            model.take(())
        self._served = served
        self.models = dict(served)

    def _refresh(self, replica: Replica) -> None:
        for name in replica.names:
            if name in self._served:
                self._served[name].refresh()


def labelled(upstreams: Sequence[Upstream]) -> dict[str, Upstream]:
    """Return upstreams by their labels; those that share one are told apart by a number."""
    found: dict[str, Upstream] = {}
    for upstream in upstreams:
        label, number = upstream.label, 2
        while label in found:
            label, number = f"{upstream.label}-{number}", number + 1
        found[label] = upstream
    return found


def _moved(before: Upstream, now: Upstream) -> bool:
    """Whether it is another server, or another way in, so that nothing known of it holds."""
    return (before.url, before.kind, before.key()) != (now.url, now.kind, now.key())


def _timeouts(settings: Settings) -> tuple[float, ...]:
    return (
        settings.connect_timeout,
        settings.first_token_timeout,
        settings.token_timeout,
        settings.total_timeout,
    )


async def _looked_at(members: Sequence[_Member]) -> None:
    """Wait a little for the first look at each."""
    looks = [asyncio.ensure_future(member.prober.looked.wait()) for member in members]
    try:
        if looks:
            await asyncio.wait(looks, timeout=_FIRST_LOOKS)
    finally:
        for look in looks:
            look.cancel()


async def _left(members: Sequence[_Member]) -> None:
    """Look after these no more."""
    await asyncio.gather(*(member.prober.aclose() for member in members))


def _state(replica: Replica) -> Literal["unknown", "up", "open", "probing"]:
    if replica.breaker.state == "closed" and not replica.known:
        return "unknown"
    return _STATES[replica.breaker.state]
