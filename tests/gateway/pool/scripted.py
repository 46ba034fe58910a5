"""Clients that do as they are told, without sockets, and pools made of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from time import monotonic

from qwen_openai.core import Event, Finish, Job, Message, Started, Text
from qwen_openai.engines.base import Engine
from qwen_openai.gateway.pool import Pool
from qwen_openai.gateway.pool.seams import Connect
from qwen_openai.upstreams import Kind, Upstream
from tests.live import make_settings

Step = Event | Exception | asyncio.Event
Script = Callable[[Job], Iterable[Step]]


@dataclass(frozen=True, slots=True)
class Sight:
    models: Mapping[str, int | None]
    kind: Kind = "vllm"


@dataclass(slots=True)
class ScriptedClient:
    """``sight`` is what a look gives or raises; ``steps`` are what a job gives. ``open`` counts the
    jobs that run, ``asked`` holds (model, job) of all, ``gate`` holds looks back."""

    upstream: Upstream
    sight: Sight | Exception = field(default_factory=lambda: Sight({"qwen2.5": 4096}))
    steps: Script = lambda job: answer("fine")
    kind: Kind = "auto"
    asked: list[tuple[str, Job]] = field(default_factory=list)
    looks: int = 0
    looking: int = 0
    most_looking: int = 0
    open: int = 0
    gate: asyncio.Event | None = None

    async def look(self) -> Sight:
        self.looks += 1
        self.looking += 1
        self.most_looking = max(self.looking, self.most_looking)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.looking -= 1
        if isinstance(self.sight, Exception):
            raise self.sight
        return self.sight

    async def generate(self, job: Job, model: str) -> AsyncGenerator[Event, None]:
        self.asked.append((model, job))
        self.open += 1
        try:
            for step in self.steps(job):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.open -= 1

    async def tokenize(self, job: Job, model: str) -> list[int]:
        for step in self.steps(job):
            if isinstance(step, Exception):
                raise step
        return [len(model)]

    async def detokenize(self, ids: Sequence[int], model: str) -> list[bytes]:
        return [str(id).encode() for id in ids]


def answer(*texts: str) -> list[Step]:
    """What a job that goes well gives."""
    return [Started(0, 3), *(Text(0, text) for text in texts), Finish(0, "stop", len(texts))]


def job(text: str = "Hi", *before: Message, model: str = "qwen2.5") -> Job:
    return Job("1", model, (*before, Message("user", text)))


async def gathered(events: AsyncGenerator[Event, None], into: list[Event]) -> None:
    """As `collect`, and keep what came before a failure."""
    async for event in events:
        into.append(event)


async def collect(events: AsyncGenerator[Event, None]) -> list[Event]:
    return [event async for event in events]


@dataclass(slots=True)
class Net:
    """The clients of a pool by their labels; ``prepare`` says how a new one behaves, ``clock`` is
    the pool's."""

    prepare: Mapping[str, Callable[[ScriptedClient], None]] = field(default_factory=dict)
    clients: dict[str, ScriptedClient] = field(default_factory=dict)
    made: int = 0
    clock: Callable[[], float] = monotonic

    def connect(self, upstream: Upstream) -> ScriptedClient:
        client = ScriptedClient(upstream, kind=upstream.kind)
        self.made += 1
        if upstream.label in self.prepare:
            self.prepare[upstream.label](client)
        self.clients[upstream.label] = client
        return client

    def __getitem__(self, label: str) -> ScriptedClient:
        return self.clients[label]


def upstreams(*labels: str, **values: object) -> list[dict[str, object]]:
    """Settings of upstreams by their names."""
    return [{"url": f"http://{label}.test", "name": label, **values} for label in labels]


class Pooled:
    """A pool that runs on scripts."""

    def __init__(self, pool: Pool, net: Net) -> None:
        self.pool = pool
        self.net = net

    @property
    def model(self) -> Engine:
        return self.pool.models["qwen2.5"]

    def states(self) -> dict[str, str]:
        return {state.name: state.state for state in self.pool.states()}

    def in_flight(self) -> dict[str, int]:
        return {state.name: state.in_flight for state in self.pool.states()}


@asynccontextmanager
async def pooled(
    servers: Sequence[Mapping[str, object]],
    net: Net | None = None,
    **values: float,
) -> AsyncIterator[Pooled]:
    """Run a pool; looks are an hour apart unless a test says otherwise."""
    net = net or Net()
    connect: Connect = net.connect
    settings = make_settings(upstreams=list(servers), **{"probe_interval": 3600.0, **values})
    pool = Pool(settings, connect, clock=net.clock, random=Random(1))
    await pool.start()
    try:
        yield Pooled(pool, net)
    finally:
        await pool.aclose()
