"""The contract on the embedded model's weights, which are answered in one batch of four."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from qwen_openai.core import Finish, Job, Message, Sampling
from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint
from tests.engines.contract import EngineContract, collect, finish_of, started_of, text_of
from tests.engines.wishes import GrammarContract, TokenContract
from tests.live import make_settings
from tests.models.qwen1.real_fixture import real_native, real_qwen1

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


def _engine() -> Engine:
    settings = make_settings(engine="transformers", context=1024, slots=4)
    return create_engine(settings, read_checkpoint(real_native()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    engine = _engine()
    await engine.start()
    yield engine
    await engine.aclose()


class TestContract(EngineContract):
    cuts = (3, 24)

    @pytest.fixture
    def unstarted(self) -> Engine:
        return _engine()


@pytest.mark.soak
class TestWishes(TokenContract, GrammarContract):
    """Over HTTP, `tests/wire/test_real_transformers.py` asks for all of it in one batch."""

    @pytest.fixture
    def unstarted(self) -> Engine:
        return _engine()


@asynccontextmanager
async def _of_qwen1(name: str) -> AsyncIterator[Engine]:
    """An engine on the same weights in the Qwen-1 layout, converted while they are loaded."""
    engine = create_engine(make_settings(engine=name, context=512), read_checkpoint(real_qwen1()))
    await engine.start()
    yield engine
    await engine.aclose()


async def _said(engine: Engine, wanted: Job) -> tuple[str, int, Finish]:
    """All of an answer but what the cache held of its prompt, which is each engine's own."""
    events = await collect(engine, wanted)
    return text_of(events), started_of(events).prompt_tokens, finish_of(events)


async def test_a_qwen1_answers_as_qwen_chat_does() -> None:
    """Greedy with the penalty that Qwen-1 has by default, and by chance."""
    greedy = Sampling(temperature=0.0, repetition_penalty=1.1, max_tokens=12)
    seeded = Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.1, seed=5, max_tokens=8)
    messages = (
        Message("user", "What is the capital of France?"),
        Message("assistant", "Paris."),
        Message("user", "And of Italy?"),
    )
    jobs = [
        Job("job", "model", messages[:1], greedy),
        Job("job", "model", messages, greedy),
        Job("job", "model", messages, seeded),
    ]
    async with _of_qwen1("transformers") as batching:
        answers = [await _said(batching, job) for job in jobs]
        assert batching.info().family == "qwen1"
    async with _of_qwen1("qwen_chat") as alone:
        assert [await _said(alone, job) for job in jobs] == answers
