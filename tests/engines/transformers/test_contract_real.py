"""The contract on the embedded model's weights, which are answered in one batch of four."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint
from tests.engines.contract import EngineContract
from tests.engines.wishes import GrammarContract, TokenContract
from tests.live import make_settings
from tests.models.qwen1.real_fixture import real_native

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


class TestContract(EngineContract, TokenContract, GrammarContract):
    cuts = (3, 24)

    @pytest.fixture
    def unstarted(self) -> Engine:
        return _engine()
