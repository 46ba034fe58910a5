"""Real sockets: gateways with scripted engines, and one in front of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import openai
import pytest
from starlette.types import ASGIApp

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Script, Step, echo
from tests.live import Live, call, live, make_settings, until

MODEL = "qwen2.5"


@dataclass(frozen=True, slots=True)
class House:
    """The engines behind, by the names of their upstreams, and the gateway in front."""

    engines: dict[str, FakeEngine]
    servers: dict[str, Live]
    front: Live
    client: openai.AsyncOpenAI

    def started(self) -> dict[str, int]:
        return {name: engine.record.started for name, engine in self.engines.items()}

    def states(self) -> dict[str, str]:
        return {state.name: state.state for state in self.front.gateway.pool.states()}


@asynccontextmanager
async def house(script: Script = echo, **values: float) -> AsyncIterator[House]:
    """Two servers and the gateway in front of them."""
    engines = {name: FakeEngine(slots=64) for name in ("a", "b")}
    for engine in engines.values():
        engine.script = script
    async with (
        live(engines["a"], served_model_name=MODEL) as a,
        live(engines["b"], served_model_name=MODEL) as b,
    ):
        servers = {"a": a, "b": b}
        told = [{"url": server.url, "name": label} for label, server in servers.items()]
        async with (
            live(None, wrap=as_it_is, upstreams=told, **values) as front,
            openai.AsyncOpenAI(base_url=front.base_url, api_key="x", max_retries=0) as client,
        ):
            yield House(engines, servers, front, client)


def as_it_is(app: ASGIApp) -> ASGIApp:
    return app


async def ask(house: House, text: str = "Hi there") -> str:
    done = await house.client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": text}]
    )
    return done.choices[0].message.content or ""


async def test_answers_come_through_whole_and_as_streams() -> None:
    async with house() as it:
        assert [model.id async for model in it.client.models.list()] == [MODEL]
        assert await ask(it) == "Hi there"
        stream = await it.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "one two three"}], stream=True
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(parts) == "one two three"
        assert len([part for part in parts if part]) == 3


async def test_work_is_spread() -> None:
    gate = asyncio.Event()

    def script(_: Job) -> list[Step]:
        return [gate, "x"]

    async with house(script) as it:
        asked = [asyncio.create_task(ask(it, f"{number}")) for number in range(10)]
        await until(lambda: sum(it.started().values()) == 10)
        assert set(it.started().values()) == {5}
        assert [state.in_flight for state in it.front.gateway.pool.states()] == [5, 5]
        gate.set()
        await asyncio.gather(*asked)
        await until(lambda: all(s.in_flight == 0 for s in it.front.gateway.pool.states()))


async def test_conversations_stay_where_they_are() -> None:
    async with house() as it:
        homes: Counter[str] = Counter()
        for number in range(12):
            before = it.started()
            for turn in range(3):
                said = [
                    {"role": role, "content": f"{number} {place}"}
                    for place in range(turn + 1)
                    for role in ("user", "assistant")
                ][:-1]
                body = {"model": MODEL, "messages": said}
                port = it.front.port
                await asyncio.to_thread(call, port, "POST", "/v1/chat/completions", body)
            [home] = [name for name, n in it.started().items() if n != before[name]]
            assert it.started()[home] == before[home] + 3
            homes[home] += 1
        assert len(homes) == 2


async def test_one_that_breaks_is_replaced_and_taken_back() -> None:
    async with house(probe_interval=0.2, breaker_failures=1) as it:
        it.engines["a"].set_health(False)
        for number in range(6):
            assert await ask(it, f"still {number}") == f"still {number}"
        assert it.started()["b"] == 6
        it.engines["a"].set_health(True)
        await until(lambda: it.states() == {"a": "up", "b": "up"})

        async def reaches_a() -> None:
            while it.started()["a"] == 0:
                await asyncio.gather(*(ask(it, f"again {n}") for n in range(4)))

        await asyncio.wait_for(reaches_a(), 10)


async def test_none_left_says_when_to_come_back_and_comes_back() -> None:
    async with house(probe_interval=0.2, breaker_failures=1, upstream_attempts=2) as it:
        for engine in it.engines.values():
            engine.set_health(False)
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as failed:
                await ask(it)
            assert failed.value.status_code == 503
            assert 1 <= int(failed.value.response.headers["retry-after"]) <= 120
        for engine in it.engines.values():
            engine.set_health(True)

        async def answered() -> None:
            while True:
                try:
                    await ask(it)
                except openai.APIStatusError:
                    await asyncio.sleep(0.02)
                else:
                    return

        await asyncio.wait_for(answered(), 10)


async def test_a_client_that_leaves_frees_the_upstream() -> None:
    gate = asyncio.Event()
    async with house(lambda _: ["x", gate]) as it:
        stream = await it.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        await anext(aiter(stream))
        await until(lambda: sum(engine.record.open for engine in it.engines.values()) == 1)
        await stream.close()
        await until(lambda: all(engine.record.open == 0 for engine in it.engines.values()))
        assert all(state.in_flight == 0 for state in it.front.gateway.pool.states())


async def test_upstreams_change_while_streams_run() -> None:
    gate = asyncio.Event()

    def script(job: Job) -> list[Step]:
        return ["x", gate, "y"] if job.messages[-1].content == "wait" else ["z"]

    async with house(script) as it:
        stream = await it.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "wait"}], stream=True
        )
        chunks = aiter(stream)
        await anext(chunks)
        await until(lambda: any(engine.record.open for engine in it.engines.values()))
        [home] = [name for name, engine in it.engines.items() if engine.record.open]
        other = "b" if home == "a" else "a"
        left = [{"url": it.servers[other].url, "name": other}]
        await it.front.gateway.apply(make_settings(upstreams=left))
        assert it.states() == {other: "up"}
        before = it.started()
        for number in range(3):
            assert await ask(it, f"{number}") == "z"
        assert it.started()[home] == before[home]
        gate.set()
        text = [chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]
        assert "".join(text).endswith("y")


async def test_tokens_are_asked_of_an_upstream() -> None:
    async with house() as it:
        body = {"model": MODEL, "prompt": "one two"}
        answer = await asyncio.to_thread(call, it.front.port, "POST", "/tokenize", body)
        assert answer.status == 200
        assert answer.json()["count"] == 2
