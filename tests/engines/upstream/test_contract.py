"""The contract of engines, kept by a client of this very server with the fake engine behind it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

import aiohttp
import pytest

from qwen_openai.core import Event, Job, Sampling
from qwen_openai.engines.base import Engine, EngineInfo, Health
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.engines.upstream.client import UpstreamClient
from qwen_openai.errors import EngineFailed, EngineUnavailable
from qwen_openai.upstreams import Upstream
from tests.engines.contract import EngineContract, collect, finish_of, job, started_of
from tests.engines.upstream.scripted import QUICK
from tests.engines.wishes import TokenContract, raw, wish
from tests.live import live


class OneUpstream:
    """An engine that is one client of one server, which it starts. Without `watched` it asks for
    whole answers."""

    def __init__(self, *, watched: bool = True) -> None:
        self.fake = FakeEngine(slots=4)
        self._watched = watched
        self._owned = AsyncExitStack()
        self._client: UpstreamClient | None = None

    async def start(self) -> None:
        server = await self._owned.enter_async_context(live(self.fake, served_model_name=("m",)))
        session = aiohttp.ClientSession(auto_decompress=False)
        await self._owned.enter_async_context(session)
        upstream = Upstream.model_validate({"url": server.url})
        self._client = UpstreamClient(upstream, session, QUICK)
        self._client.kind = (await self._client.look()).kind

    def _ready(self) -> UpstreamClient:
        if self._client is None:
            raise EngineUnavailable("There is no upstream.")
        return self._client

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        client = self._ready()
        async with aclosing(client.generate(replace(job, watched=self._watched), "m")) as events:
            async for event in events:
                yield event
                if self._client is None:
                    raise EngineFailed("The upstream is gone.")

    async def tokenize(self, job: Job) -> list[int]:
        return await self._ready().tokenize(job, "m")

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        return await self._ready().detokenize(ids, "m")

    async def aclose(self) -> None:
        self._client = None
        await self._owned.aclose()

    def health(self) -> Health:
        return Health(self._client is not None, "as it is")

    def info(self) -> EngineInfo:
        context = self.fake.info().context
        return EngineInfo("upstream", "m", "elsewhere", context, 4, hands_on=True)


class TestPlain(EngineContract):
    """Whole answers: all counts are known from the beginning."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        engine = OneUpstream(watched=False)
        await engine.start()
        yield engine
        await engine.aclose()
        assert engine.fake.record.open == 0

    @pytest.fixture
    def unstarted(self) -> Engine:
        return OneUpstream(watched=False)


class TestStream(EngineContract, TokenContract):
    """Streams: what the prompt took is told at the end, and reckoned before."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        engine = OneUpstream()
        await engine.start()
        yield engine
        await engine.aclose()
        assert engine.fake.record.open == 0

    @pytest.fixture
    def unstarted(self) -> Engine:
        return OneUpstream()

    async def test_tokenize_tells_what_the_prompt_counts(self, engine: Engine) -> None:
        wanted = wish("Say hello to 世界.", max_tokens=1)
        finish = finish_of(await collect(engine, wanted))
        assert finish.prompt_tokens == len(await engine.tokenize(wanted))

    async def test_a_raw_prompt_is_taken_as_it_is(self, engine: Engine) -> None:
        ids = await engine.tokenize(raw("The river runs"))
        for prompt in ("The river runs", tuple(ids)):
            events = await collect(engine, raw(prompt))
            assert finish_of(events).prompt_tokens == len(ids)
            assert not started_of(events).in_thought

    async def test_an_answer_is_clamped_to_the_room_left_and_says_so(self, engine: Engine) -> None:
        context = engine.info().context
        wanted = job(sampling=Sampling(temperature=0.0, max_tokens=context))
        events = await collect(engine, wanted)
        room = context - (finish_of(events).prompt_tokens or 0)
        assert any(str(room) in change for change in started_of(events).changes)

    async def test_max_total_bounds_prompt_and_answer_together(self, engine: Engine) -> None:
        prompt = len(await engine.tokenize(job()))
        finish = finish_of(await collect(engine, job(max_total=prompt + 5)))
        assert (finish.reason, finish.completion_tokens) == ("length", 5)
