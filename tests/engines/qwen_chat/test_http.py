"""The engine behind the real server, on a scripted model: failures, leaving, POST /."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable

import aiohttp
import openai
import pytest
import torch
from openai import AsyncOpenAI

from qwen_openai.core import Sampling
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine, QwenChatOptions
from tests.engines.qwen_chat.scripted import Scripted, Step
from tests.live import Live, live, until

_OPTIONS = QwenChatOptions("qwen-7b-chat", default_max_tokens=10**6)


def _script(query: str) -> Iterable[Step]:
    if "memory" in query:
        return ["a", torch.OutOfMemoryError("CUDA out of memory.")]
    if "bug" in query:
        return [None, ValueError("odd")]
    return [None, *query.split()]


@pytest.fixture
def model() -> Scripted:
    return Scripted(_script, context_length=10**6)


@pytest.fixture
async def server(model: Scripted) -> AsyncIterator[Live]:
    async with live(QwenChatEngine(lambda: model, _OPTIONS)) as running:
        yield running


@pytest.fixture
async def client(server: Live) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as made:
        yield made


async def ask(client: AsyncOpenAI, text: str) -> str | None:
    answer = await client.chat.completions.create(
        model="qwen-7b-chat", messages=[{"role": "user", "content": text}]
    )
    return answer.choices[0].message.content


@pytest.mark.parametrize(
    ("text", "message"), [("memory", "out of memory"), ("bug", "the server's log has the details")]
)
async def test_a_failure_is_one_500_and_the_next_request_works(
    client: AsyncOpenAI, text: str, message: str
) -> None:
    with pytest.raises(openai.InternalServerError, match=message) as caught:
        await ask(client, text)
    assert caught.value.status_code == 500
    assert caught.value.code == "engine_error"
    assert await ask(client, "fine now") == "fine now "


async def test_eight_clients_at_once(client: AsyncOpenAI, model: Scripted) -> None:
    answers = await asyncio.gather(*(ask(client, f"word{n}") for n in range(8)))
    assert answers == [f"word{n} " for n in range(8)]
    assert model.peak == 1


async def test_choices_come_one_after_the_other(client: AsyncOpenAI, model: Scripted) -> None:
    answer = await client.chat.completions.create(
        model="qwen-7b-chat", messages=[{"role": "user", "content": "hi"}], n=3, seed=7
    )
    assert [choice.message.content for choice in answer.choices] == ["hi "] * 3
    assert sorted(sampling.seed or 0 for sampling in model.samplings) == [7, 8, 9]
    assert model.peak == 1


async def test_a_client_that_leaves_frees_the_slot(
    server: Live, client: AsyncOpenAI, model: Scripted
) -> None:
    model.script = lambda _: itertools.repeat("word")
    stream = await client.chat.completions.create(
        model="qwen-7b-chat", messages=[{"role": "user", "content": "q"}], stream=True
    )
    await anext(aiter(stream))
    await stream.close()
    admission = server.gateway.default()[1].service.admission
    await until(lambda: admission.running == 0)
    assert (model.open, model.closed) == (0, 1)
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/health/ready") as got:
        assert got.status == 200


async def test_post_slash_is_the_tutorials(server: Live, model: Scripted) -> None:
    async with aiohttp.ClientSession() as session:
        body: dict[str, object] = {"prompt": "c d", "history": [["a", "b"]]}
        async with session.post(server.url, json=body) as response:
            answer = await response.json()
        assert answer["response"] == "c d "
        assert answer["history"] == [["a", "b"], ["c d", "c d "]]
        assert answer["status"] == 200
        body = {"prompt": "c d", "max_length": 5, "top_p": 0.5, "temperature": 1.5}
        async with session.post(server.url, json=body) as response:
            assert (await response.json())["response"] == "c "
    assert model.prompts == ["<turn> a <turn> b <turn> c d <turn>", "<turn> c d <turn>"]
    assert model.samplings == [
        Sampling(temperature=0.95, top_p=0.7, repetition_penalty=1.1, max_tokens=2048),
        Sampling(temperature=1.5, top_p=0.5, repetition_penalty=1.1),
    ]
