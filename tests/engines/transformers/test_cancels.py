"""Readers that leave, at any moment and in any way: nothing of them stays, and others go on.

The real server over a tiny model; what transformers and its cache still know is looked up there.
"""

import asyncio
import gc
import json
import random
import shutil
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio

from qwen_openai.core import Finish, Job, Sampling, Text
from qwen_openai.engines.factory import create_engine
from qwen_openai.engines.transformers.engine import TransformersEngine, TransformersOptions
from qwen_openai.engines.transformers.runner import Runner
from qwen_openai.engines.transformers.startup import Served, Wishes, load_checkpoint
from qwen_openai.engines.transformers.track import Track
from qwen_openai.errors import EngineFailed, EngineUnavailable
from qwen_openai.models.checkpoint import read_checkpoint
from tests.engines.contract import collect, finish_of, job, until
from tests.engines.transformers.small import failing, held, loop_of
from tests.live import Live, live, make_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "yy"]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
# What may be left when all that came has gone: caches of libraries, nothing of a request.
MOST_PYTHON, MOST_RESIDENT = 2 * 2**20, 24 * 2**20


@pytest.fixture(scope="module")
def folder(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with room for what a server is asked."""
    copy = tmp_path_factory.mktemp("roomy") / qwen2_folder.name
    shutil.copytree(qwen2_folder, copy)
    config = json.loads((copy / "config.json").read_bytes())
    config["max_position_embeddings"] = 1024
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    return copy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(folder: Path) -> AsyncIterator[tuple[Live, TransformersEngine]]:
    settings = make_settings(engine="transformers", slots=4, threads=1)
    engine = create_engine(settings, read_checkpoint(folder))
    assert isinstance(engine, TransformersEngine)
    async with live(engine, queue_size=64) as running:
        yield running, engine


@pytest.fixture
def engine(server: tuple[Live, TransformersEngine]) -> TransformersEngine:
    return server[1]


class Gate:
    """Holds the passes of a model until ``opened``."""

    def __init__(self, opened: threading.Event) -> None:
        self._opened = opened

    def __call__(self, _: object) -> None:
        self._opened.wait(60)


def served_by(engine: TransformersEngine) -> Served:
    served = engine._served
    assert served is not None
    return served


def runner_of(engine: TransformersEngine) -> Runner:
    return served_by(engine).runner


async def nothing_held(engine: TransformersEngine) -> None:
    """Wait for the round that sees the last one go, and look what is left of all."""
    runner = runner_of(engine)
    rounds, manager = loop_of(runner).rounds, loop_of(runner)._manager
    await until(lambda: runner.in_flight == 0 and not rounds.active_requests)
    await until(lambda: manager.cancel_queue.empty() and manager.input_queue.empty())
    seen = rounds.round
    await until(lambda: rounds.round > seen)
    assert set(held(loop_of(runner)).values()) == {0}, held(loop_of(runner))


def asked(limit: int, **sampling: object) -> Job:
    values: dict[str, object] = {"temperature": 0.0, "max_tokens": limit, **sampling}
    return job("Tell me of rivers.", Sampling(**values))  # type: ignore[arg-type]  # by the tests


@pytest.mark.parametrize("reads", [0, 1, 2, 5])
async def test_closing_after_some_events_frees_all(engine: TransformersEngine, reads: int) -> None:
    async with aclosing(engine.generate(asked(400))) as events:
        for _ in range(reads):
            await anext(events)
    await nothing_held(engine)


async def test_closing_after_the_last_token_and_before_the_end(engine: TransformersEngine) -> None:
    async with aclosing(engine.generate(asked(3))) as events:
        texts = 0
        async for event in events:
            texts += isinstance(event, Text)
            if texts == 3:
                break
    await nothing_held(engine)


async def test_a_reader_cancelled_at_each_of_its_waits(engine: TransformersEngine) -> None:
    """While the prompt is made, before it is read, and between tokens."""
    for turns in range(25):
        reading = asyncio.create_task(collect(engine, asked(300)))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await nothing_held(engine)


async def test_one_that_waits_for_a_slot_may_leave(engine: TransformersEngine) -> None:
    others = [asyncio.create_task(collect(engine, asked(200))) for _ in range(4)]
    late = asyncio.create_task(collect(engine, asked(50)))
    await until(lambda: runner_of(engine).in_flight == 5)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    for events in await asyncio.gather(*others):
        assert finish_of(events).completion_tokens == 200
    await nothing_held(engine)


async def test_more_than_the_slots_are_all_answered(engine: TransformersEngine) -> None:
    answers = await asyncio.gather(*(collect(engine, asked(5)) for _ in range(15)))
    assert {finish_of(events).completion_tokens for events in answers} == {5}


async def test_an_answer_that_takes_too_long_ends(folder: Path) -> None:
    gate = threading.Event()
    loaded: list[Served] = []

    def load() -> Served:
        served = load_checkpoint(read_checkpoint(folder), Wishes(slots=2, threads=1))
        loaded.append(served)
        return served

    engine = TransformersEngine(load, TransformersOptions("m", answer_timeout=0.2))
    await engine.start()
    try:
        model = loaded[0].runner._model
        assert model is not None
        with failing(model, Gate(gate)):
            with pytest.raises(EngineFailed, match=r"after 0\.2 seconds"):
                await collect(engine, asked(5))
            gate.set()
        await nothing_held(engine)
    finally:
        gate.set()
        await engine.aclose()


async def test_closing_the_engine_tells_all_and_leaves_no_thread(folder: Path) -> None:
    before = set(threading.enumerate())
    settings = make_settings(engine="transformers", slots=2, threads=1)
    engine = create_engine(settings, read_checkpoint(folder))
    await engine.start()
    reading = [asyncio.create_task(collect(engine, asked(900))) for _ in range(5)]
    assert isinstance(engine, TransformersEngine)
    await until(lambda: runner_of(engine).in_flight == 5)
    await engine.aclose()
    for outcome in await asyncio.gather(*reading, return_exceptions=True):
        assert isinstance(outcome, EngineUnavailable)
    left = [t.name for t in threading.enumerate() if t not in before]
    assert not [name for name in left if not name.startswith("asyncio")]


class Crowd:
    """Requests of all kinds, by chance; each ends as its kind says."""

    def __init__(self, server: Live, engine: TransformersEngine, seed: int) -> None:
        self._engine = engine
        self._chance = random.Random(seed)
        self._client = httpx.AsyncClient(base_url=server.base_url, timeout=120)
        self.statuses: list[int] = []
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self._whole,
            self._whole,
            self._streamed,
            self._disconnected,
            self._disconnected,
            self._never_answered,
            self._left,
            self._left,
        ]

    async def come(self, count: int) -> None:
        """Ten at once, until ``count`` have come and gone."""
        gate = asyncio.Semaphore(10)

        async def one(kind: Callable[[], Awaitable[None]]) -> None:
            async with gate:
                await kind()

        await asyncio.gather(*(one(self._chance.choice(self._kinds)) for _ in range(count)))

    async def aclose(self) -> None:
        await self._client.aclose()

    def _body(self, **values: object) -> dict[str, object]:
        chance = self._chance
        body: dict[str, object] = {
            "model": self._engine.info().model,
            "messages": [{"role": "user", "content": chance.choice(("Hi.", "Name a river. " * 4))}],
            "max_tokens": chance.randrange(1, 16),
            **values,
        }
        extra: list[dict[str, object]] = [
            {},
            {"n": 2},
            {"temperature": 0},
            {"seed": 5, "logprobs": True, "top_logprobs": 3},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": SCHEMA, "strict": True},
                }
            },
        ]
        return body | chance.choice(extra)

    async def _whole(self) -> None:
        answer = await self._client.post("/chat/completions", json=self._body())
        self.statuses.append(answer.status_code)

    async def _streamed(self) -> None:
        body = self._body(stream=True)
        async with self._client.stream("POST", "/chat/completions", json=body) as answer:
            lines = [line async for line in answer.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        self.statuses.append(answer.status_code)

    async def _disconnected(self) -> None:
        body = self._body(stream=True, max_tokens=300)
        reads = self._chance.randrange(6)
        async with self._client.stream("POST", "/chat/completions", json=body) as answer:
            async for _ in answer.aiter_lines():
                reads -= 1
                if reads <= 0:
                    break
        self.statuses.append(answer.status_code)

    async def _never_answered(self) -> None:
        body = self._body(max_tokens=300)
        asking = asyncio.create_task(self._client.post("/chat/completions", json=body))
        await asyncio.sleep(self._chance.random() / 20)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async def _left(self) -> None:
        reads = self._chance.randrange(8)
        async with aclosing(self._engine.generate(asked(300))) as events:
            async for event in events:
                assert not isinstance(event, Finish)
                reads -= 1
                if reads <= 0:
                    break


async def test_two_hundred_requests_leave_nothing(
    server: tuple[Live, TransformersEngine],
) -> None:
    live_server, engine = server
    process = psutil.Process()
    crowd = Crowd(live_server, engine, seed=3)
    try:
        # Libraries' caches fill by less and less: 20 MB by the second hundred, 6 by the fifth.
        for _ in range(3):
            await crowd.come(100)
            await nothing_held(engine)
        gc.collect()
        threads, resident = threading.active_count(), process.memory_info().rss
        tracemalloc.start()
        try:
            await crowd.come(100)
            await nothing_held(engine)
            gc.collect()
            python, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    finally:
        await crowd.aclose()
    assert set(crowd.statuses) == {200}
    # Pools grow as they are needed, up to a number; a request that left one would leave a hundred.
    assert threading.active_count() < threads + 10
    assert python < MOST_PYTHON
    assert process.memory_info().rss - resident < MOST_RESIDENT
    # transformers remembers its last step until the next one.
    assert sum(type(each) is Track for each in gc.get_objects()) <= engine.info().slots
    assert len(runner_of(engine)._tracks) == 0
    assert engine.health().ready
