"""The contract on the embedded weights in the Qwen-1 layout, converted while they are loaded."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint
from tests.engines.contract import EngineContract
from tests.live import make_settings
from tests.models.qwen1.real_fixture import real_qwen1

_SETTINGS = make_settings(engine="qwen_chat", context=1024)

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    engine = create_engine(_SETTINGS, read_checkpoint(real_qwen1()))
    await engine.start()
    yield engine
    await engine.aclose()


class TestContract(EngineContract):
    cuts = (3, 24)

    @pytest.fixture
    def unstarted(self) -> Engine:
        return create_engine(_SETTINGS, read_checkpoint(real_qwen1()))
